//! What is the same for every batch of a worker, and the time of the batch at hand.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::broker::{Names, Partition, Topic};
use crate::domain::classify::Exclude;
use crate::domain::partition;

/// Partition counts of the topics that the engine addresses by number.
#[derive(Debug, Clone, Copy)]
pub struct Partitions {
    pub source: i32,
    /// Also of rules, settlements, statistics and changelog.
    pub bases: i32,
    pub exclusions: i32,
    pub dead_letter: i32,
}

impl Partitions {
    /// Every partition that the group consumes.
    pub fn consumed(self) -> Vec<Partition> {
        Partition::all(&[(Topic::Source, self.source), (Topic::Bases, self.bases)])
    }

    /// Every partition that a worker may write to.
    pub fn written(self) -> Vec<Partition> {
        Partition::all(&[
            (Topic::Bases, self.bases),
            (Topic::Rules, self.bases),
            (Topic::Settlements, self.bases),
            (Topic::Statistics, self.bases),
            (Topic::Exclusions, self.exclusions),
            (Topic::DeadLetter, self.dead_letter),
            (Topic::Changelog, self.bases),
            (Topic::IngestChangelog, self.source),
        ])
    }
}

#[derive(Clone)]
pub struct Fixed {
    pub application_id: String,
    pub transactional_id: String,
    pub names: Names,
    pub partitions: Partitions,
    /// [`Partitions::written`].
    pub written: Arc<[Partition]>,
    pub exclude: Exclude,
    pub default_payout_days: u32,
    pub absent_ttl: Duration,
    /// `max.message.bytes` of the dead-letter topic.
    pub dead_letter_bytes_max: usize,
    /// Cache of one task's state file.
    pub cache_per_task: usize,
    /// Transactional ids that this process has taken over, to end what they have left.
    pub ending: Arc<Mutex<BTreeSet<String>>>,
    /// Wall clock at the start of the turn, milliseconds since the epoch.
    pub wall_now: i64,
    /// Process clock at the start of the turn.
    pub now: Duration,
}

impl Fixed {
    /// The partition of bases, totals and rules that a rule key belongs to.
    pub fn home_of(&self, key: &str) -> i32 {
        partition::of_key(key.as_bytes(), self.partitions.bases)
    }

    /// Whether a transactional id is that of an instance or a tool of this application.
    pub fn is_of_application(&self, transactional_id: &str) -> bool {
        let rest = transactional_id.strip_prefix(&self.application_id);
        rest.is_some_and(|rest| rest.starts_with(':'))
    }
}
