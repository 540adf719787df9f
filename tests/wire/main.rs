//! What a network can do to a single request, done on purpose between the service and a real Kafka: late, twice, never,
//! or without its answer. Proved from the raw input by code that shares nothing with the service.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

// For what mends the client library (build.rs), of which this test makes clients too.
use settle as _;

mod answers;
mod brokers;
mod join;
mod late;
mod one;
mod requests;
mod run;
#[path = "../pipeline/turn.rs"]
mod turn;
