//! The tasks of a worker, by the partition they own.

use std::collections::BTreeMap;

use crate::broker::scan::Range;
use crate::broker::{Partition, Record, Topic};
use crate::engine::inbox::Inbox;
use crate::engine::ingest;
use crate::engine::restore::Restore;
use crate::engine::settle;
use crate::rules::Service;

/// Longest gap between two records that is not looked into.
const MARKERS_AT_MOST: i64 = 16;

/// Where a task stands.
#[derive(Debug)]
pub enum Life {
    /// Assigned; the producer must be ours before the log is read.
    New,
    Restoring(Box<Restore>),
    Running,
}

#[derive(Default)]
pub struct Tasks {
    pub ingest: BTreeMap<i32, ingest::Task>,
    pub settle: BTreeMap<i32, settle::Task>,
    /// By source or bases partition; also of tasks whose files are not open yet.
    pub lives: BTreeMap<Partition, Life>,
}

impl Tasks {
    /// Hands a consumed record to its task; dropped unless that one runs and expects it.
    ///
    /// What lies between it and the record before, when that is more than the markers of a few
    /// transactions: then the record is not taken yet.
    #[must_use]
    pub fn accept(&mut self, record: &Record) -> Option<Range> {
        let (inbox, position) = self.running(record.partition)?;
        let from = inbox.expects(position);
        if record.offset - from > MARKERS_AT_MOST {
            return Some(Range {
                partition: record.partition,
                from,
                to: record.offset,
            });
        }
        // One that comes twice is dropped, too.
        if record.offset >= from {
            inbox.push(record);
        }
        None
    }

    /// Hands a record over that stands behind a gap without records.
    pub fn accept_behind_gap(&mut self, record: &Record) {
        if let Some((inbox, _)) = self.running(record.partition) {
            inbox.push(record);
        }
    }

    /// Inbox and source position of a task, if it runs.
    fn running(&mut self, partition: Partition) -> Option<(&mut Inbox, i64)> {
        if !self.runs(partition) {
            return None;
        }
        let open = "a running task is open";
        Some(match partition.topic {
            Topic::Source => {
                let task = self.ingest.get_mut(&partition.number).expect(open);
                (&mut task.inbox, task.store.positions().source)
            }
            Topic::Bases => {
                let task = self.settle.get_mut(&partition.number).expect(open);
                (&mut task.inbox, task.store.positions().source)
            }
            other => unreachable!("the group consumer reads payments and bases, not {other:?}"),
        })
    }

    /// Partitions in this state of life.
    pub fn in_life(&self, is: fn(&Life) -> bool) -> Vec<Partition> {
        let lives = self.lives.iter().filter(|(_, life)| is(life));
        lives.map(|(partition, _)| *partition).collect()
    }

    /// The inbox and the source position of every open task.
    pub fn inboxes(&self) -> impl Iterator<Item = (Partition, &Inbox, i64)> {
        let ingest = self.ingest.values().map(|task| {
            let next = task.store.positions().source;
            (task.partition(), &task.inbox, next)
        });
        let settle = self.settle.values().map(|task| {
            let next = task.store.positions().source;
            (task.partition(), &task.inbox, next)
        });
        ingest.chain(settle)
    }

    pub fn runs(&self, partition: Partition) -> bool {
        matches!(self.lives.get(&partition), Some(Life::Running))
    }

    /// The task that restores from this changelog.
    fn restoring(&self, log: Partition) -> Option<(Partition, &Restore)> {
        let topic = match log.topic {
            Topic::IngestChangelog => Topic::Source,
            Topic::Changelog => Topic::Bases,
            _ => return None,
        };
        let partition = Partition::new(topic, log.number);
        match self.lives.get(&partition) {
            Some(Life::Restoring(restore)) => Some((partition, restore)),
            _ => None,
        }
    }

    /// The same, when it has read nothing of it yet.
    pub fn begins_with(&self, log: Partition) -> Option<(Partition, &Restore)> {
        let found = self.restoring(log);
        found.filter(|(_, restore)| restore.first.is_none())
    }

    /// Whether a record of a changelog came after the restore had begun: the partition has another owner
    /// by now, and a part of a transaction of that one is no state.
    pub fn is_of_another_owner(&self, record: &Record) -> bool {
        let found = self.restoring(record.partition);
        found.is_some_and(|(_, restore)| record.offset >= restore.bounds.high)
    }

    /// Whether the task that owns this log restores.
    pub fn restores_from(&self, log: Partition) -> bool {
        let source = match log.topic {
            Topic::Source | Topic::IngestChangelog => Topic::Source,
            _ => Topic::Bases,
        };
        let life = self.lives.get(&Partition::new(source, log.number));
        matches!(life, Some(Life::Restoring(_)))
    }

    pub fn is_restoring(&self) -> bool {
        self.lives
            .values()
            .any(|life| !matches!(life, Life::Running))
    }

    /// Drops everything that is not committed; every task begins anew from the log.
    pub fn restart_all(&mut self) {
        let partitions: Vec<Partition> = self.lives.keys().copied().collect();
        for partition in partitions {
            self.restart(partition);
        }
    }

    /// The same for one task.
    pub fn restart(&mut self, partition: Partition) {
        let number = &partition.number;
        if partition.topic == Topic::Source {
            let task = self.ingest.get_mut(number);
            task.into_iter().for_each(ingest::Task::discard);
        } else {
            let task = self.settle.get_mut(number);
            task.into_iter().for_each(settle::Task::discard);
        }
        self.lives.insert(partition, Life::New);
    }

    /// Forgets a task without making its state durable.
    pub fn remove(&mut self, partition: Partition, desk: &mut dyn Service) {
        self.lives.remove(&partition);
        self.drop_state(partition, desk);
    }

    /// Closes a task's file; the task opens it again when it restores.
    pub fn drop_state(&mut self, partition: Partition, desk: &mut dyn Service) {
        match partition.topic {
            Topic::Source => {
                self.ingest.remove(&partition.number);
            }
            _ => {
                if let Some(mut task) = self.settle.remove(&partition.number) {
                    task.close(desk);
                }
            }
        }
    }
}
