//! What the workers tell others about themselves: written by a worker once per turn of its loop,
//! read by HTTP and the metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock;

/// Which half of the work a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A partition of the source topic.
    Ingest,
    /// A partition of the bases topic.
    Settle,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Settle => "settle",
        }
    }
}

/// Where a task stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reads committed records to rebuild its state; so many are left.
    Restoring {
        remaining: i64,
    },
    Running,
    /// Running, and its next payment waits for the rule service.
    WaitingForRule,
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restoring { .. } => "restoring",
            Self::Running => "running",
            Self::WaitingForRule => "waiting_for_rule",
        }
    }
}

/// What is held back by a payment whose rule is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    pub records: u64,
    /// Sum of their amounts, in minor units.
    pub amount: i64,
    /// Timestamp of the oldest one's source record, milliseconds since the epoch.
    pub oldest: Option<i64>,
}

/// What lies behind the stable offset of a source partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unstable {
    pub records: i64,
    /// For how long the stable offset has not moved, 0 when nothing lies behind it.
    pub stuck: Duration,
}

/// One task at the end of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    pub phase: Phase,
    /// Next offset of its source partition that is not committed yet.
    pub position: i64,
    /// Records between the position and the stable offset of the source partition, when known.
    pub lag: Option<i64>,
    pub waiting: Waiting,
    pub unstable: Unstable,
    /// Age of the oldest payment that it holds, or of the last one it dealt with when it lags.
    pub oldest: Option<Duration>,
}

/// One worker.
#[derive(Debug, Default)]
pub struct Worker {
    /// Milliseconds of the process clock at the last turn of the loop.
    turned_at: AtomicU64,
    /// The producer has its epoch and the broker answers.
    connected: AtomicBool,
    /// Milliseconds of the process clock, and 1, since when it is not known what became of the last
    /// transaction; 0 when it is known.
    in_doubt_since: AtomicU64,
    /// The group has given it its share (which may be none).
    assigned: AtomicBool,
    tasks: Mutex<BTreeMap<(Kind, i32), Task>>,
    last_problem: Mutex<Option<(String, Duration)>>,
}

impl Worker {
    pub fn turned_at(&self) -> u64 {
        self.turned_at.load(Ordering::Relaxed)
    }

    pub fn turn(&self, now_millis: u64) {
        self.turned_at.store(now_millis, Ordering::Relaxed);
    }

    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// How long it has not been known what became of the last transaction.
    pub fn in_doubt(&self) -> Duration {
        match self.in_doubt_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => clock::now().saturating_sub(Duration::from_millis(since - 1)),
        }
    }

    /// A failure has left open what became of the last transaction; a further one changes nothing.
    pub fn set_in_doubt(&self) {
        let now = u64::try_from(clock::now().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let known = &self.in_doubt_since;
        // Fails when it has been in doubt for longer.
        let _ = known.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The transaction is decided.
    pub fn set_decided(&self) {
        self.in_doubt_since.store(0, Ordering::Relaxed);
    }

    pub fn is_assigned(&self) -> bool {
        self.assigned.load(Ordering::Relaxed)
    }

    pub fn set_assigned(&self, assigned: bool) {
        self.assigned.store(assigned, Ordering::Relaxed);
    }

    pub fn tasks(&self) -> BTreeMap<(Kind, i32), Task> {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn set_tasks(&self, tasks: BTreeMap<(Kind, i32), Task>) {
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
    }

    /// The last trouble that the worker had to react to, in one line, and when (process clock).
    pub fn last_problem(&self) -> Option<(String, Duration)> {
        self.last_problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn set_problem(&self, problem: String) {
        *self
            .last_problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((problem, clock::now()));
    }
}

/// All workers of the process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Status {
    pub workers: Arc<[Arc<Worker>]>,
}

impl Status {
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Arc::default()).collect(),
        }
    }
}
