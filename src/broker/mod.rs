//! Everything that speaks to Kafka; the only place that names its client library.

pub mod admin;
