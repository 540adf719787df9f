//! Payments as a real day brings them, and the wrong ones with them, made from a seed.

pub mod day;
pub mod form;
pub mod poison;
pub mod send;

use crate::model::Record;

/// A message for the source topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub partition: i32,
    /// What it is meant to become: `SETTLED`, or the reason it is not.
    pub intent: &'static str,
}

impl Message {
    /// The record it becomes, wherever it lands.
    pub fn record(&self) -> Record<'_> {
        Record {
            partition: self.partition,
            offset: 0,
            timestamp: 0,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: Vec::new(),
        }
    }
}

/// Merchants to configure as `exclude.merchants` for the days made here.
pub const EXCLUDED_MERCHANTS: [&str; 2] = ["internal-*", "partner-0007"];

/// Merchants to configure as `exclude.test_merchants` for the days made here.
pub const TEST_MERCHANTS: [&str; 2] = ["test-shop-1", "test-shop-2"];
