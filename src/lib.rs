//! settle.
pub mod config;
pub mod exit;
