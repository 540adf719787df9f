//! Brings a task up to the log: reads what is committed and not yet in its store, and decides
//! where its source partition goes on.
//!
//! The committed offsets are read first, then the high watermarks, then the logs up to there: so
//! everything that those offsets stand for has been read, whatever markers were still under way.
//! The same is done after every failure whose outcome is unknown; the position record in the log
//! says whether the transaction was committed.

use std::time::Duration;

use crate::broker::port::{Consumer as _, Fetched as _, GroupOffsets, Port, Reader as _};
use crate::broker::scan::{Isolation, Range};
use crate::broker::{Bounds, Partition, Topic};
use crate::clock;
use crate::codec::stored::{POSITION_KEY, Position};
use crate::engine::failure::Failure;
use crate::engine::replay::{moved, read_log};
use crate::engine::start::{Facts, Recorded, decide};
use crate::engine::stored::Stored;
use crate::engine::tasks::Life;
use crate::engine::window::Exclusions;
use crate::engine::worker::Worker;
use crate::failpoint::{self, Point};
use crate::state::view::Served;

/// Records that one turn reads from the logs, so that running tasks are not kept waiting.
const RECORDS_PER_TURN: usize = 5000;

/// A restore under way.
#[derive(Debug)]
pub struct Restore {
    /// The logs that are read, each with the end that must be reached.
    pub(super) logs: Vec<(Partition, i64)>,
    group: Option<i64>,
    pub(super) source: Bounds,
    /// Of the changelog.
    pub(super) bounds: Bounds,
    /// The newest position record that was read.
    pub(super) position: Option<Position>,
    /// Next offset of the ingest changelog. The store takes it over when it holds everything that
    /// the position stands for, so that a restore that ends early begins again.
    pub(super) changelog: i64,
    pub(super) stored: Stored,
    /// Offset of the first record of the changelog that was read.
    pub(super) first: Option<i64>,
    /// Where the task goes on, once that is decided.
    start: Option<i64>,
    /// What was read of the exclusions, before the duplicate window is.
    pub(super) exclusions: Option<Exclusions>,
    /// The duplicate window is being read again up to there.
    pub(super) window_until: Option<i64>,
    /// Where reading has come to, and since when (process clock) it has not moved.
    stands: (i64, Duration),
}

/// A log that cannot be read on for so long ends in a transaction that nobody will end soon.
const ABANDONED_AFTER: Duration = Duration::from_secs(1);

/// What was tried is tried again after so long.
const ABANDONED_PAUSE: Duration = Duration::from_secs(5);

impl<P: Port> Worker<P> {
    /// Begins to restore the tasks that have not begun.
    pub(super) fn begin_restores(&mut self) -> Result<(), Failure> {
        let new = self.tasks.in_life(|life| matches!(life, Life::New));
        if new.is_empty() {
            return Ok(());
        }
        // An undecided transaction of another's is not waited for: the changelog is.
        let (GroupOffsets::Stable(offsets) | GroupOffsets::Undecided(offsets)) =
            self.reader.committed(&new)?;
        failpoint::fail::<Failure>(Point::RestoreOffsets)?;
        for (partition, group) in new.into_iter().zip(offsets) {
            self.goes_on();
            self.open(partition)?;
            failpoint::fail::<Failure>(Point::RestoreOpened)?;
            let restore = self.begin_restore(partition, group)?;
            let restoring = Life::Restoring(Box::new(restore));
            self.tasks.lives.insert(partition, restoring);
        }
        Ok(())
    }

    fn begin_restore(
        &mut self,
        partition: Partition,
        group: Option<i64>,
    ) -> Result<Restore, Failure> {
        self.stop_reading(partition)?;
        let number = partition.number;
        let logs = if partition.topic == Topic::Source {
            let task = &self.tasks.ingest[&number];
            vec![(task.changelog(), task.store.positions().changelog)]
        } else {
            let task = &self.tasks.settle[&number];
            if let Some(key) = task.misplaced(&self.fixed)? {
                return Err(moved(&self.fixed, task.changelog(), &key));
            }
            let positions = task.store.positions();
            vec![
                (task.changelog(), positions.changelog),
                (task.rules(), positions.rules),
            ]
        };
        let changelog = logs[0].1;
        let stored = Stored {
            changelog,
            source: self.source_of(partition),
        };
        let mut of_changelog = Bounds { low: 0, high: 0 };
        let mut ends = Vec::new();
        for (log, next) in logs {
            let bounds = self.reader.bounds(log)?;
            let mut from = next;
            if log.topic != Topic::Rules {
                self.check_changelog(partition, log, next, bounds)?;
                of_changelog = bounds;
                // The store's own last record is read again, to see that it is committed.
                from = next - 1;
            }
            let from = from.clamp(bounds.low, bounds.high);
            self.reader.start(log, from)?;
            ends.push((log, bounds.high));
        }
        let source = self.reader.bounds(partition)?;
        failpoint::fail::<Failure>(Point::RestoreBounds)?;
        Ok(Restore {
            logs: ends,
            group,
            source,
            bounds: of_changelog,
            position: None,
            changelog,
            stored,
            first: None,
            start: None,
            exclusions: None,
            window_until: None,
            stands: (-1, Duration::ZERO),
        })
    }

    /// Reads the logs of restoring tasks and the rules topic.
    pub(super) fn follow_logs(&mut self) -> Result<(), Failure> {
        self.are_logs_dry = true;
        for _ in 0..RECORDS_PER_TURN {
            let idle = self.idle_wait();
            let Some(fetched) = self.reader.poll(idle)? else {
                break;
            };
            self.are_logs_dry = false;
            let record = fetched.record();
            failpoint::hit(Point::RestoreRead);
            if self.tasks.restores_from(record.partition) {
                self.metrics.restore_records.increment(1);
            }
            if self.tasks.is_of_another_owner(&record) {
                continue;
            }
            if let Some((partition, restore)) = self.tasks.begins_with(record.partition) {
                // The reader has gone on behind the record: it is not read by waiting.
                self.check_first(partition, restore, record.offset)
                    .map_err(Failure::instead_of_waiting)?;
                if let Some(Life::Restoring(restore)) = self.tasks.lives.get_mut(&partition) {
                    restore.first = Some(record.offset);
                }
            }
            read_log(&mut self.tasks, &record, &self.fixed)?;
        }
        for partition in self
            .tasks
            .in_life(|life| matches!(life, Life::Restoring(_)))
        {
            self.goes_on();
            self.continue_restore(partition)?;
        }
        Ok(())
    }

    fn continue_restore(&mut self, partition: Partition) -> Result<(), Failure> {
        let Some(Life::Restoring(restore)) = self.tasks.lives.get(&partition) else {
            return Ok(());
        };
        for (log, end) in restore.logs.clone() {
            let position = self.reader.position(log)?;
            if position < end {
                return self.look_after(partition, log, position);
            }
        }
        if let Some(until) = restore.window_until {
            return self.set_running(partition, until);
        }
        if let Some(start) = restore.start {
            return self.go_on_at(partition, start);
        }
        let start = self.decide_start(partition, restore)?;
        failpoint::fail::<Failure>(Point::RestoreDecided)?;
        let writer = restore
            .position
            .as_ref()
            .map(|position| position.transactional_id.clone());
        if let Some(writer) = writer.filter(|writer| *writer != self.fixed.transactional_id) {
            self.former_writers.add(writer);
        }
        if let Some(Life::Restoring(restore)) = self.tasks.lives.get_mut(&partition) {
            restore.start = Some(start);
        }
        self.go_on_at(partition, start)
    }

    fn go_on_at(&mut self, partition: Partition, start: i64) -> Result<(), Failure> {
        if partition.topic == Topic::Source && self.begin_window(partition, start)? {
            return Ok(());
        }
        self.set_running(partition, start)
    }

    /// A log that does not go on: the transaction of an instance that is gone keeps readers from
    /// going on until it times out. Its first record says whose it is, and whoever takes that one's
    /// partitions over may end it at once. What hangs of our own is found by [`Worker::look_out`],
    /// and a member of the group finds its own: ended by others, it would go on with state that is
    /// undone.
    pub(super) fn look_after(
        &mut self,
        partition: Partition,
        log: Partition,
        position: i64,
    ) -> Result<(), Failure> {
        let now = self.fixed.now;
        let Some(Life::Restoring(restore)) = self.tasks.lives.get_mut(&partition) else {
            return Ok(());
        };
        if restore.stands.0 != position {
            restore.stands = (position, now);
        }
        let waited = now.saturating_sub(restore.stands.1);
        if waited < ABANDONED_AFTER {
            return Ok(());
        }
        restore.stands.1 = now + ABANDONED_PAUSE;
        let from = self.reader.ends(&[log], Isolation::Committed)?[0];
        let to = self.reader.bounds(log)?.high;
        let range = Range {
            partition: log,
            from,
            to,
        };
        if from > position || from >= to {
            return Ok(());
        }
        let topic = self.fixed.names.of(log.topic);
        match self.undecided_writer(range)? {
            Some(writer) if writer == self.fixed.transactional_id => {}
            Some(writer) if self.fixed.is_of_application(&writer) => {
                tracing::warn!(
                    topic,
                    partition = log.number,
                    offset = from,
                    transactional_id = writer,
                    "an undecided transaction of another instance keeps this log from being read; \
                     ending it when that instance is no member of the group"
                );
                self.former_writers.add(writer);
            }
            _ => tracing::error!(
                topic,
                partition = log.number,
                offset = from,
                "an undecided transaction of another application keeps this log from being read. \
                 The task waits until it is ended"
            ),
        }
        Ok(())
    }

    fn decide_start(&self, partition: Partition, restore: &Restore) -> Result<i64, Failure> {
        let topic = self.fixed.names.of(partition.topic);
        self.check_stored(partition, restore)?;
        let recorded = restore.position.as_ref().map(|position| Recorded {
            application_id: &position.application_id,
            topic: &position.topic,
            next: position.next,
        });
        // The group may have given the partition to another owner, who has gone on meanwhile.
        let is_behind = recorded.is_some_and(|recorded| recorded.next > restore.source.high);
        let source = if is_behind {
            self.reader.bounds(partition)?
        } else {
            restore.source
        };
        let trace = match (recorded, restore.group) {
            (None, None) => self.trace_of(partition, restore.bounds)?,
            _ => None,
        };
        let is_undone = match (recorded, restore.group) {
            (None, Some(group)) => self.is_undone(restore.logs[0].0, topic, group)?,
            _ => false,
        };
        let facts = Facts {
            recorded,
            group: restore.group,
            trace: trace.as_deref(),
            is_undone,
            source,
            ends_in_marker: partition.topic == Topic::Bases,
            application_id: &self.fixed.application_id,
            topic,
        };
        let start = decide(&facts).map_err(|refusal| Failure::Refused {
            task: partition,
            topic: topic.to_owned(),
            refusal,
        })?;
        if start.group_differed {
            self.metrics.positions_repaired.increment(1);
            tracing::error!(
                topic,
                partition = partition.number,
                recorded = start.offset,
                committed_offset = restore.group,
                "the group's offset differs from the position committed with the outputs; going \
                 on from the latter"
            );
        }
        Ok(start.offset)
    }

    /// Whether `changelog`, which holds no committed position, holds an aborted one that stands for
    /// the offset of the group.
    fn is_undone(&self, changelog: Partition, topic: &str, group: i64) -> Result<bool, Failure> {
        let bounds = self.reader.bounds(changelog)?;
        let range = Range {
            partition: changelog,
            from: bounds.low,
            to: bounds.high,
        };
        let mut is_undone = false;
        self.port
            .scan(Isolation::Uncommitted, &[range], |record, _| {
                let value = record.value.filter(|_| record.key == Some(POSITION_KEY));
                let position = value.and_then(|value| Position::decode(value).ok());
                is_undone |= position.is_some_and(|it| {
                    let is_ours = it.application_id == self.fixed.application_id;
                    is_ours && it.topic == topic && it.next == group
                });
            })?;
        Ok(is_undone)
    }

    /// Lets a restored task run from `start` on.
    fn set_running(&mut self, partition: Partition, start: i64) -> Result<(), Failure> {
        failpoint::fail::<Failure>(Point::RestoreRunning)?;
        // What fails from here on is done again, and needs no log any more.
        self.consumer.start(partition, start)?;
        if let Some(Life::Restoring(restore)) = self.tasks.lives.get_mut(&partition) {
            restore.logs.clear();
        }
        let number = partition.number;
        if partition.topic == Topic::Source {
            self.reader.stop(partition)?;
            let task = self.tasks.ingest.get_mut(&number);
            let task = task.expect("open since it restores");
            self.reader.stop(task.changelog())?;
            if let Some(Life::Restoring(restore)) = self.tasks.lives.get(&partition) {
                task.begin_at(start, restore.changelog);
            }
        } else {
            let task = self.tasks.settle.get_mut(&number);
            let task = task.expect("open since it restores");
            self.reader.stop(task.changelog())?;
            task.begin_at(start);
            self.views.serve(number, Served::Ready(task.store.view()));
        }
        self.tasks.lives.insert(partition, Life::Running);
        failpoint::hit(Point::RestoreDone);
        self.metrics.restores.increment(1);
        tracing::info!(
            topic = self.fixed.names.of(partition.topic),
            partition = number,
            start,
            "task runs"
        );
        Ok(())
    }

    /// Stops reading the logs of a task that is given up.
    pub(super) fn stop_reading(&mut self, partition: Partition) -> Result<(), Failure> {
        let number = partition.number;
        let logs = match partition.topic {
            Topic::Source => [Topic::Source, Topic::IngestChangelog],
            _ => [Topic::Changelog, Topic::Rules],
        };
        for topic in logs {
            self.reader.stop(Partition::new(topic, number))?;
        }
        Ok(())
    }

    /// Records that restoring tasks still have to read.
    pub(super) fn remaining(&self, partition: Partition) -> i64 {
        let Some(Life::Restoring(restore)) = self.tasks.lives.get(&partition) else {
            return 0;
        };
        let left = restore.logs.iter().map(|(log, end)| {
            let position = self.reader.position(*log).unwrap_or(*end);
            (end - position).max(0)
        });
        left.sum()
    }
}

impl<P: Port> Worker<P> {
    /// How long a poll of the logs may wait: only when nothing else is to be done.
    fn idle_wait(&self) -> Duration {
        let nothing_runs = self
            .tasks
            .in_life(|life| matches!(life, Life::Running))
            .is_empty();
        if nothing_runs && self.tasks.is_restoring() && clock::now() > self.fixed.now {
            Duration::from_millis(5)
        } else {
            Duration::ZERO
        }
    }
}
