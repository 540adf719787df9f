//! Committed topics into PostgreSQL, once.

mod jsonb;
