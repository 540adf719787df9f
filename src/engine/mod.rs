//! The worker loop: partitions in, transactions out.

pub mod status;
