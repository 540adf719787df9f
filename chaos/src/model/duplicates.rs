//! The memory of one source partition: which payments were the *first* of their id.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// A payment that was no duplicate when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    pub offset: i64,
    pub timestamp: i64,
    pub value: u64,
}

impl First {
    pub fn reason(&self, value: u64) -> &'static str {
        if self.value == value {
            "DUPLICATE"
        } else {
            "DUPLICATE_CONFLICT"
        }
    }
}

/// What the contract allows for a payment whose id came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeat {
    /// The id is new.
    New,
    /// A repeat of one of these, and nothing else.
    Of(Vec<First>),
    /// Outside the window: a repeat of one of these, or a new first.
    OfOrNew(Vec<First>),
}

/// One source partition. Ids and values are remembered by their hashes, to hold millions.
#[derive(Debug, Default)]
pub struct Partition {
    firsts: BTreeMap<u64, First>,
    /// The firsts before the newest of the few ids that have several.
    earlier: BTreeMap<u64, Vec<First>>,
}

impl Partition {
    pub fn look(&self, id: &str, timestamp: i64, window_ms: i64) -> Repeat {
        let id = fingerprint(id.as_bytes());
        let Some(newest) = self.firsts.get(&id) else {
            return Repeat::New;
        };
        let mut all = self.earlier.get(&id).cloned().unwrap_or_default();
        all.push(*newest);
        let near: Vec<First> = all
            .iter()
            .filter(|first| first.timestamp.abs_diff(timestamp) <= window_ms.unsigned_abs())
            .copied()
            .collect();
        if near.is_empty() {
            Repeat::OfOrNew(all)
        } else {
            Repeat::Of(near)
        }
    }

    pub fn remember(&mut self, id: &str, first: First) {
        let id = fingerprint(id.as_bytes());
        if let Some(before) = self.firsts.insert(id, first) {
            self.earlier.entry(id).or_default().push(before);
        }
    }
}

pub fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_is_bound_inside_the_window_and_free_outside() {
        let mut partition = Partition::default();
        assert_eq!(partition.look("a", 0, 10), Repeat::New);
        let first = First {
            offset: 3,
            timestamp: 100,
            value: 1,
        };
        partition.remember("a", first);
        assert_eq!(partition.look("a", 110, 10), Repeat::Of(vec![first]));
        assert_eq!(partition.look("a", 90, 10), Repeat::Of(vec![first]));
        assert_eq!(partition.look("a", 111, 10), Repeat::OfOrNew(vec![first]));
        let second = First {
            offset: 9,
            timestamp: 111,
            value: 2,
        };
        partition.remember("a", second);
        assert_eq!(
            partition.look("a", 105, 10),
            Repeat::Of(vec![first, second])
        );
        assert_eq!(partition.look("b", 105, 10), Repeat::New);
        assert_eq!(
            (first.reason(1), first.reason(2)),
            ("DUPLICATE", "DUPLICATE_CONFLICT")
        );
    }
}
