//! Bytes to domain and back: the public JSON formats and the internal records.

pub mod payment;
pub mod stored;
pub mod wire;
