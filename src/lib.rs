//! settle.

pub mod broker;
pub mod sink;
