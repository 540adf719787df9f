//! Committed topics into PostgreSQL, once.

pub mod batch;
pub mod connection;
mod jsonb;
pub mod rows;
mod schema;
mod statements;
pub mod writer;
