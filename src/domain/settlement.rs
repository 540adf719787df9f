//! Bases and settlements: a payment on its way, and its final record.

use jiff::ToSpan;
use jiff::civil::Date;

use crate::domain::payment::{Channel, Source};
use crate::domain::rule::Rule;

/// A payment that passed ingest. Its rule key travels as the key of its record and holds
/// merchant, day, action and method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base<'a> {
    pub payment_id: &'a str,
    pub channel: Channel,
    pub payment_type: Channel,
    /// Minor units.
    pub amount: i64,
    /// `paymentDate` as received.
    pub date: &'a str,
    pub source: Source,
    /// Timestamp of the source record, milliseconds since the epoch.
    pub received_at: i64,
    /// Value of the source record, for a dead letter at a later step; at most
    /// [`Base::ORIGINAL_BYTES_MAX`] of it.
    pub original: &'a [u8],
    /// Length of the value of the source record, in bytes.
    pub original_length: u64,
}

impl Base<'_> {
    /// How much of a payment's bytes its base carries, so that the base itself never exceeds what
    /// a topic takes by default (1 MiB).
    pub const ORIGINAL_BYTES_MAX: usize = 900 * 1024;
}

/// What the dates of a settlement rest on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// The rule in force.
    Rule(Rule),
    /// The rule service answered that there is no rule.
    Default { date: Date },
}

impl Basis {
    /// Default dates: the day of the payments plus `days`.
    pub fn default_of(day: Date, days: u32) -> Self {
        let date = day.saturating_add(i64::from(days).days());
        Self::Default { date }
    }

    pub fn payout_date(&self) -> Date {
        match self {
            Self::Rule(rule) => rule.payout_date,
            Self::Default { date } => *date,
        }
    }

    pub fn confirm_date(&self) -> Date {
        match self {
            Self::Rule(rule) => rule.confirm_date,
            Self::Default { date } => *date,
        }
    }

    pub fn rule_id(&self) -> Option<&str> {
        match self {
            Self::Rule(rule) => Some(&rule.rule_id),
            Self::Default { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_dates_are_the_day_plus_the_configured_days() {
        let basis = Basis::default_of(jiff::civil::date(2024, 2, 28), 2);
        assert_eq!(basis.payout_date(), jiff::civil::date(2024, 3, 1));
        assert_eq!(basis.confirm_date(), basis.payout_date());
        assert_eq!(basis.rule_id(), None);
    }
}
