//! The whole service on a real Kafka and a real PostgreSQL: driven and faulted from outside, and proved from the raw
//! input by code that shares nothing with it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kills;
mod line;
mod outcomes;
mod turn;
