//! What settle must do with each payment, written from the contract alone: no line of the service is used here, so
//! that a mistake there cannot hide itself in the proof.

pub mod calendar;
pub mod duplicates;
pub mod json;
pub mod outgoing;
pub mod partition;
pub mod payment;

/// A record as a topic holds it.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl Record<'_> {
    pub fn place(&self) -> Place {
        Place {
            partition: self.partition,
            offset: self.offset,
        }
    }

    /// The value of a header that stands once.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut found = self.headers.iter().filter(|(key, _)| *key == name);
        let value = found.next()?.1;
        if found.next().is_some() { None } else { value }
    }
}

/// A partition and an offset of the source topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub partition: i32,
    pub offset: i64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

/// When the payments of one rule key are paid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub id: String,
    pub payout_date: String,
    pub confirm_date: String,
}

/// What the operator configured and the outcomes depend on.
#[derive(Debug, Clone)]
pub struct Contract {
    pub source_topic: String,
    pub window_ms: i64,
    /// Exact names, or prefixes that end in `*`.
    pub excluded_merchants: Vec<String>,
    pub test_merchants: Vec<String>,
    pub default_payout_days: i64,
    /// Others than the rule service publish rules too.
    pub has_foreign_rules: bool,
}

impl Default for Contract {
    fn default() -> Self {
        Self {
            source_topic: "payments".to_owned(),
            window_ms: 7 * 24 * 3_600_000,
            excluded_merchants: Vec::new(),
            test_merchants: Vec::new(),
            default_payout_days: 2,
            has_foreign_rules: false,
        }
    }
}
