//! What the outcomes depend on besides the records, and which of them are looked at.

use std::time::Duration;

use crate::config::Config;

/// Longest life of a transaction where the configuration names none.
const TRANSACTION_MILLIS: i64 = 10_000;
/// By how much the clocks of those who publish rules and of the instances may differ.
const CLOCKS_APART_MILLIS: i64 = 60_000;

/// The operator's configuration, as far as it decides outcomes. What was recorded under another
/// configuration is judged by this one all the same: limit the scope after a change.
#[derive(Debug, Clone)]
pub struct Terms {
    pub source_topic: String,
    pub window_millis: i64,
    /// Exact numbers, or beginnings that end in `*`.
    pub merchants: Vec<String>,
    pub test_merchants: Vec<String>,
    pub default_payout_days: i64,
    /// A rule whose timestamp is later than its settlement's by more than this was committed later.
    pub rule_lead_millis: i64,
    pub partitions: Counts,
}

/// Partition counts of the topics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub source: i32,
    pub keyed: i32,
    pub exclusions: i32,
    pub letters: i32,
}

impl Terms {
    pub fn new(config: &Config, partitions: Counts) -> Self {
        let mut properties = config.kafka.properties.iter();
        let transaction = properties
            .find(|(name, _)| *name == "transaction.timeout.ms")
            .and_then(|(_, text)| text.parse().ok());
        Self {
            source_topic: config.topics.source.clone(),
            window_millis: millis(config.dedup.window),
            merchants: config.exclude.merchants.clone(),
            test_merchants: config.exclude.test_merchants.clone(),
            default_payout_days: i64::from(config.rules.default_payout_days),
            rule_lead_millis: transaction.unwrap_or(TRANSACTION_MILLIS) + CLOCKS_APART_MILLIS,
            partitions,
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Which source records are judged; all topics are read whole nevertheless.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only payments of this day, and its keys.
    pub day: Option<String>,
    /// Only payments of this merchant, and its keys.
    pub merchant: Option<String>,
    /// Only this partition of the source.
    pub partition: Option<i32>,
    pub from_offset: Option<i64>,
    /// The first offset that is no longer judged.
    pub to_offset: Option<i64>,
}

impl Scope {
    pub fn has_partition(&self, partition: i32) -> bool {
        self.partition.is_none_or(|only| only == partition)
    }

    pub fn has_place(&self, partition: i32, offset: i64) -> bool {
        self.has_partition(partition)
            && self.from_offset.is_none_or(|from| offset >= from)
            && self.to_offset.is_none_or(|to| offset < to)
    }

    /// A message without merchant or day is judged only when neither limits.
    pub fn has_payment(&self, payment: Option<(&str, &str)>) -> bool {
        let Some((merchant, day)) = payment else {
            return self.day.is_none() && self.merchant.is_none();
        };
        self.merchant.as_deref().is_none_or(|only| only == merchant)
            && self.day.as_deref().is_none_or(|only| only == day)
    }
}
