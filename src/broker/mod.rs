//! The only place that names rdkafka.

pub mod member;
