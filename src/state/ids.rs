//! Payment ids in memory, and the window inside which one may not come again.

#[expect(
    clippy::disallowed_types,
    reason = "looked up by id; sorted before it is iterated"
)]
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use crate::state::run::Seen;

/// The duplicate window, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    length: i64,
}

impl Window {
    pub fn new(length: Duration) -> Self {
        Self {
            length: i64::try_from(length.as_millis()).unwrap_or(i64::MAX / 8),
        }
    }

    /// How far out of order a record may come and still be recognised: the window itself, but at
    /// least an hour and at most a day.
    pub fn slack(self) -> i64 {
        const HOUR: i64 = 3_600_000;
        self.length.clamp(HOUR, 24 * HOUR)
    }

    /// How long an entry is kept.
    pub fn kept(self) -> i64 {
        self.length.saturating_add(self.slack())
    }

    pub fn length(self) -> i64 {
        self.length
    }

    pub(super) fn holds(self, a: i64, b: i64) -> bool {
        a.abs_diff(b) <= self.length.unsigned_abs()
    }
}

/// Ids are hashes already.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, id: u128) {
        self.0 = u64::try_from(id >> 64).expect("64 bits are left");
    }
}

/// Entries by id; an id has more than one when it was settled again past the window.
#[expect(
    clippy::disallowed_types,
    reason = "looked up by id; sorted before it is iterated"
)]
#[derive(Default, Clone)]
pub struct Ids {
    newest: HashMap<u128, Seen, BuildHasherDefault<IdHasher>>,
    older: Vec<Seen>,
}

impl Ids {
    pub fn insert(&mut self, seen: Seen) {
        if let Some(previous) = self.newest.insert(seen.id, seen) {
            self.older.push(previous);
        }
    }

    /// The newest entry of this id inside the window around `timestamp`.
    pub fn find(&self, id: u128, timestamp: i64, window: Window) -> Option<Seen> {
        let newest = self.newest.get(&id)?;
        if window.holds(newest.timestamp, timestamp) {
            return Some(*newest);
        }
        let mut older = self.older.iter().rev();
        older
            .find(|seen| seen.id == id && window.holds(seen.timestamp, timestamp))
            .copied()
    }

    pub fn len(&self) -> usize {
        self.newest.len() + self.older.len()
    }

    pub fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.newest.reserve(other.newest.len());
        for seen in other.sorted() {
            self.insert(seen);
        }
    }

    /// By id; equal ids oldest first.
    pub(super) fn sorted(self) -> Vec<Seen> {
        let mut all: Vec<Seen> = self.newest.into_values().chain(self.older).collect();
        all.sort_unstable();
        all
    }
}
