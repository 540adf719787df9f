//! settle.
pub mod broker;
pub mod config;
pub mod exit;
pub mod telemetry;
pub mod topics;
