//! The sink against a real PostgreSQL and a real Kafka.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod database;
mod feed;
mod proxy;
mod server;
mod topics;
