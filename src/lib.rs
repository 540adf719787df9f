//! settle: payments in, settlements out, exactly once.

pub mod app;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod domain;
pub mod engine;
pub mod exit;
pub mod http;
pub mod metrics;
pub mod rules;
pub mod state;
pub mod telemetry;
pub mod topics;
