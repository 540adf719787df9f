//! Committed topics into PostgreSQL, once.

mod batch;
mod jsonb;
mod rows;
