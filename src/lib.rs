//! settle: payments in, settlements out, exactly once.

pub mod broker;
pub mod clock;
pub mod codec;
pub mod domain;
pub mod engine;
pub mod sink;
pub mod state;
