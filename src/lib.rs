//! settle.

pub mod app;
pub mod broker;
pub mod cli;
pub mod config;
pub mod exit;
pub mod telemetry;
pub mod topics;
