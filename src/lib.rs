//! settle: payments in, settlements out, exactly once.

pub mod domain;
