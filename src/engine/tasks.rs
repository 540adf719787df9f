//! The tasks of a worker, by the partition they own.

use std::collections::BTreeMap;

use crate::broker::{Partition, Record, Topic};
use crate::engine::ingest;
use crate::engine::restore::Restore;
use crate::engine::settle;
use crate::rules::Desk;

/// Where a task stands.
#[derive(Debug)]
pub enum Life {
    /// Assigned; the producer must be ours before the log is read.
    New,
    Restoring(Restore),
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
    pub fn accept(&mut self, record: &Record) {
        if !matches!(self.lives.get(&record.partition), Some(Life::Running)) {
            return;
        }
        let number = record.partition.number;
        match record.partition.topic {
            Topic::Source => {
                let task = self
                    .ingest
                    .get_mut(&number)
                    .expect("a running task is open");
                if record.offset >= task.store.positions().source {
                    task.inbox.push(record);
                }
            }
            Topic::Bases => {
                let task = self
                    .settle
                    .get_mut(&number)
                    .expect("a running task is open");
                if record.offset >= task.store.positions().source {
                    task.inbox.push(record);
                }
            }
            other => unreachable!("the group consumer reads payments and bases, not {other:?}"),
        }
    }

    /// Partitions in this state of life.
    pub fn in_life(&self, is: fn(&Life) -> bool) -> Vec<Partition> {
        let lives = self.lives.iter().filter(|(_, life)| is(life));
        lives.map(|(partition, _)| *partition).collect()
    }

    pub fn is_restoring(&self) -> bool {
        self.lives
            .values()
            .any(|life| !matches!(life, Life::Running))
    }

    /// Drops everything that is not committed; every task begins anew from the log.
    pub fn restart_all(&mut self) {
        self.ingest.values_mut().for_each(ingest::Task::discard);
        self.settle.values_mut().for_each(settle::Task::discard);
        self.lives.values_mut().for_each(|life| *life = Life::New);
    }

    /// Forgets a task without making its state durable.
    pub fn remove(&mut self, partition: Partition, desk: &mut Desk) {
        self.lives.remove(&partition);
        self.drop_state(partition, desk);
    }

    /// Closes a task's file; the task opens it again when it restores.
    pub fn drop_state(&mut self, partition: Partition, desk: &mut Desk) {
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
