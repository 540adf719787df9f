//! What is kept of a record until it can be judged: small, and without its text.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 64 bits of a cryptographic hash.
pub type Digest = u64;
/// 128 bits of one, where many different things must not meet.
pub type Name = u128;

/// A record of the source topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub partition: i32,
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

/// Gathers parts into one digest; no two lists of parts give the same bytes.
#[derive(Default)]
pub struct Ink(Vec<u8>);

impl Ink {
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0
            .extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub fn number(mut self, number: i64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub fn maybe(mut self, bytes: Option<&[u8]>) -> Self {
        self.0.push(u8::from(bytes.is_some()));
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self,
        }
    }

    pub fn digest(&self) -> Digest {
        let hash = blake3::hash(&self.0);
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"))
    }
}

pub fn name(text: &[u8]) -> Name {
    let hash = blake3::hash(text);
    u128::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"))
}

/// Bytes as a whole, in one number.
pub fn bytes(key: Option<&[u8]>, value: Option<&[u8]>) -> Digest {
    Ink::default().maybe(key).maybe(value).digest()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    Settlement,
    Exclusion,
    Letter,
}

/// Something about one source record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlaceFact {
    pub offset: i64,
    pub what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum What {
    Source(Expected),
    /// An earlier payment with the same id inside the window; `None` when it may be gone.
    Repeat {
        first: Option<i64>,
        is_same: bool,
    },
    Outcome(Outcome),
    /// On its way, at this partition and offset of the bases.
    Base {
        at: Place,
        content: Digest,
    },
    Row(Table, Digest),
}

/// What must become of a source record, duplicates aside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Expected {
    pub kind: Kind,
    /// Of an exclusion or a dead letter; empty for a payment that settles unless it is a repeat.
    pub reason: String,
    pub is_payment: bool,
    pub is_judged: bool,
    /// What settlements and bases say of the payment.
    pub settlement: Digest,
    /// What exclusions say of it.
    pub exclusion: Digest,
    /// Key and value as they are.
    pub bytes: Digest,
    /// Row of the log of payments.
    pub row: Digest,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    pub kind: Kind,
    pub reason: String,
    /// Partition and offset of the topic that it stands in.
    pub at: Place,
    /// Of a letter the bytes, of the others what they say of the payment.
    pub content: Digest,
    pub first: Option<Place>,
    /// Not all bytes of the letter are there: what was kept is judged where the source is read.
    pub is_cut: bool,
    /// The row it must have.
    pub row: Digest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Table {
    PaymentLog,
    Settlement,
    Exclusion,
    DeadLetter,
}

/// Something about one rule key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyFact {
    pub key: Name,
    pub what: OfKey,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum OfKey {
    Settled {
        at: Place,
        amount: i64,
        place: Place,
        timestamp: i64,
        /// Of a settlement by rule: its id, and the id with both dates.
        rule: Option<(Digest, Digest)>,
    },
    Total(Total),
    Rule {
        at: Place,
        id: Digest,
        whole: Digest,
        timestamp: i64,
        row: Digest,
    },
    /// The rule was taken away.
    NoRule {
        at: Place,
    },
    /// A base of a key of which a payment was refused.
    Base {
        at: Place,
        amount: i64,
        place: Place,
    },
    /// A payment that was refused because the total would leave 64 bits.
    Refused {
        place: Place,
    },
    RuleRow {
        name: String,
        row: Digest,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Teller {
    Statistics,
    Changelog,
    Row,
}

/// What someone says the total of a key is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Total {
    pub teller: Teller,
    pub at: Place,
    pub name: String,
    pub amount: i64,
    pub count: u64,
}

/// A payment that could be the first of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sighting {
    pub partition: i32,
    pub id: Name,
    pub offset: i64,
    pub timestamp: i64,
    pub value: Digest,
}
