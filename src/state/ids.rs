//! Payment ids in memory, and the window inside which one may not come again.

#[expect(
    clippy::disallowed_types,
    reason = "looked up by id; sorted before it is iterated"
)]
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use crate::codec::stored::WindowStart;
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

    /// How much longer than the window an entry is kept: the window itself, but at least an hour and
    /// at most a day. A record that comes that much out of order is still recognised.
    pub fn slack(self) -> i64 {
        const HOUR: i64 = 3_600_000;
        self.length.clamp(HOUR, 24 * HOUR)
    }

    /// How long an entry is kept at least, in partition time from the moment it came.
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
#[derive(Clone)]
pub struct Ids {
    newest: HashMap<u128, Seen, BuildHasherDefault<IdHasher>>,
    older: Vec<Seen>,
    start: WindowStart,
}

/// Where no entry begins.
pub const NOWHERE: WindowStart = WindowStart {
    offset: i64::MAX,
    decided_since: i64::MAX,
};

/// The earlier of both, each by itself.
pub fn earlier(one: WindowStart, other: WindowStart) -> WindowStart {
    WindowStart {
        offset: one.offset.min(other.offset),
        decided_since: one.decided_since.min(other.decided_since),
    }
}

impl Ids {
    #[expect(clippy::disallowed_types, reason = "as above")]
    /// Nothing that will be inserted was decided before `decided_since` (wall clock, milliseconds).
    pub fn decided_since(decided_since: i64) -> Self {
        Self {
            newest: HashMap::default(),
            older: Vec::new(),
            start: WindowStart {
                decided_since,
                ..NOWHERE
            },
        }
    }

    /// Where the entries begin; [`NOWHERE`] while there are none.
    pub fn start(&self) -> WindowStart {
        if self.is_empty() { NOWHERE } else { self.start }
    }

    pub fn insert(&mut self, seen: Seen) {
        self.start.offset = self.start.offset.min(seen.offset);
        if let Some(previous) = self.newest.insert(seen.id, seen) {
            self.older.push(previous);
        }
    }

    /// The first payment that `payment` repeats: of those of its id inside the window the newest with
    /// the same bytes, else the newest.
    pub fn find(&self, payment: &Seen, window: Window) -> Option<Seen> {
        let newest = self.newest.get(&payment.id)?;
        let older = self.older.iter().rev().filter(|seen| seen.id == payment.id);
        let all = std::iter::once(newest).chain(older);
        let mut near = all
            .filter(|seen| window.holds(seen.timestamp, payment.timestamp))
            .copied();
        let first = near.next()?;
        if first.fingerprint == payment.fingerprint {
            return Some(first);
        }
        let same = near.find(|seen| seen.fingerprint == payment.fingerprint);
        Some(same.unwrap_or(first))
    }

    pub fn len(&self) -> usize {
        self.newest.len() + self.older.len()
    }

    pub fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.start = earlier(self.start(), other.start());
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
