//! What the sink tells others about itself: written by its threads, read by HTTP and metrics.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock;
use crate::lock::lock;
use crate::sink::statements::Written;

/// One partition of one of the topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Next offset, as the database has it; `None`: it knows nothing of the partition yet.
    pub position: Option<i64>,
    /// Committed records not yet in the database, control records among them; 0 when all are.
    pub lag: Option<i64>,
}

#[derive(Debug, Default)]
pub struct Status {
    connected: AtomicBool,
    rows: [AtomicU64; 6],
    commits: AtomicU64,
    rewinds: AtomicU64,
    unreadable: AtomicU64,
    lost: AtomicU64,
    problem: Mutex<Option<String>>,
    partitions: Mutex<BTreeMap<(String, i32), Progress>>,
}

impl Status {
    /// The last use of the database succeeded.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Rows written since the start, by table; a row that was there already is not counted.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.rows.iter().map(|count| count.load(Ordering::Relaxed));
        Written::TABLES.into_iter().zip(counts)
    }

    /// Database transactions committed.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// How often the positions in the database were not where this sink had left them.
    pub fn rewinds(&self) -> u64 {
        self.rewinds.load(Ordering::Relaxed)
    }

    /// Records that are no row, and were passed over.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Offsets of the source topic that were deleted before they were written.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The last trouble, in one line; `None` once the database is reached again.
    pub fn problem(&self) -> Option<String> {
        lock(&self.problem).clone()
    }

    /// The partitions that this instance writes, by topic and number.
    pub fn partitions(&self) -> BTreeMap<(String, i32), Progress> {
        lock(&self.partitions).clone()
    }

    pub(super) fn wrote(&self, written: Written) {
        for (total, rows) in self.rows.iter().zip(written.0) {
            total.fetch_add(rows, Ordering::Relaxed);
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn reached(&self) {
        if !self.connected.swap(true, Ordering::Relaxed) {
            tracing::info!("the sink has reached its database");
            *lock(&self.problem) = None;
        }
    }

    pub(super) fn lost_database(&self) {
        self.connected.store(false, Ordering::Relaxed);
    }

    pub(super) fn rewound(&self) {
        self.rewinds.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn passed_over(&self) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost_records(&self, offsets: u64) {
        self.lost.fetch_add(offsets, Ordering::Relaxed);
    }

    pub(super) fn set_problem(&self, problem: String) {
        *lock(&self.problem) = Some(problem);
    }

    pub(super) fn set_partitions(&self, partitions: BTreeMap<(String, i32), Progress>) {
        *lock(&self.partitions) = partitions;
    }
}

/// Lets one of many equal complaints through.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    last: Option<Duration>,
    held_back: u64,
}

impl Throttle {
    const INTERVAL: Duration = Duration::from_secs(10);

    /// `Some(n)`: say it, n were held back since the last time.
    pub(super) fn pass(&mut self) -> Option<u64> {
        let now = clock::now();
        if self.last.is_some_and(|last| now < last + Self::INTERVAL) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}
