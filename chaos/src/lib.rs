//! Real parts for tests and for the demo: Apache Kafka, PostgreSQL, the rule service and `settle` processes, all on
//! loopback, on free ports, in a directory that goes away with its owner.
//!
//! This crate never links `settle`: what it knows of the service it knows from the contract, so that its proof is
//! independent of the code it judges.
//!
//! Everything started here stops when its handle is dropped, and when this process dies: children carry a parent
//! death signal. Children have their own process group, so Ctrl-C on a terminal reaches their owner only.

pub mod bench;
pub mod browser;
pub mod checkers;
pub mod cluster;
pub mod demo;
pub mod interrupt;
pub mod line;
pub mod model;
pub mod oracle;
pub mod pipeline;
pub mod proxy;
pub mod report;
pub mod tail;
pub mod topics_reader;
pub mod workload;
