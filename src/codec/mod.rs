//! Bytes to domain and back: the public JSON formats and the internal records.

mod object;
pub mod payment;
pub mod rule;
pub mod stored;
pub mod wire;
