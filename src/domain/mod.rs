//! Pure values and decisions: what a payment is, what becomes of it, and what it adds up to.
//! No clock, no I/O, no bytes of a wire format.

pub mod classify;
pub mod partition;
pub mod payment;
pub mod rule;
pub mod settlement;
pub mod totals;
