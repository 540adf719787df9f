//! Whether a local store belongs to its log: it may lag behind it, and never holds what it does not.

use std::path::Path;

use crate::broker::port::Port;
use crate::broker::scan::{Isolation, Range};
use crate::broker::{Bounds, Partition, Topic};
use crate::engine::failure::Failure;
use crate::engine::replay::made_anew;
use crate::engine::restore::Restore;
use crate::engine::worker::Worker;
use crate::state;

/// What the store stood for when the restore began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    /// Next offset of its changelog.
    pub(super) changelog: i64,
    /// Next offset of its source.
    pub(super) source: i64,
}

impl<P: Port> Worker<P> {
    /// A store must not be ahead of its changelog, and the changelog must reach back to it: the
    /// record that the store ends with says whether it is committed. The positions of ingest are
    /// one record, which the rest of the log holds again, and the source rebuilds its store. Totals
    /// that were deleted stand nowhere else.
    pub(super) fn check_changelog(
        &self,
        partition: Partition,
        log: Partition,
        next: i64,
        bounds: Bounds,
    ) -> Result<(), Failure> {
        let Bounds { low, high } = bounds;
        let damaged = |reason| {
            let (path, _) = self.store_of(partition);
            let path = path.to_owned();
            Err(Failure::State(state::Error::Damaged { path, reason }))
        };
        if next > high {
            return damaged(format!(
                "it is at {next}, ahead of its log, which ends at {high}"
            ));
        }
        let (topic, number) = (self.fixed.names.of(log.topic), log.number);
        if low == 0 || low < next {
            if low > 0 && log.topic == Topic::Changelog {
                tracing::error!(
                    topic,
                    partition = number,
                    from = low,
                    recorded = next,
                    "records of this changelog were deleted: only this local state holds their \
                     totals, and nobody else can take the partition over. Stop all instances, \
                     delete the topic, and run `settle positions rebuild`"
                );
            }
            return Ok(());
        }
        if log.topic == Topic::IngestChangelog {
            if next == 0 {
                return Ok(());
            }
            return damaged(format!(
                "it is at {next}, and its changelog begins at {low}: the record it ends with was \
                 deleted"
            ));
        }
        Err(Failure::Broken(format!(
            "{topic}/{number}: the changelog begins at {low}, the local state ends at {next}: \
             records were deleted, and totals cannot be read from it. {}",
            made_anew(topic)
        )))
    }

    /// The next offset of its source that the store of an open task stands for.
    pub(super) fn source_of(&self, partition: Partition) -> i64 {
        let number = &partition.number;
        if partition.topic == Topic::Source {
            self.tasks.ingest[number].store.positions().source
        } else {
            self.tasks.settle[number].store.positions().source
        }
    }

    /// The file of an open task, and how far it has taken its changelog over.
    pub(super) fn store_of(&self, partition: Partition) -> (&Path, i64) {
        if partition.topic == Topic::Source {
            let store = &self.tasks.ingest[&partition.number].store;
            (store.path(), store.positions().changelog)
        } else {
            let store = &self.tasks.settle[&partition.number].store;
            (store.path(), store.positions().changelog)
        }
    }

    /// A store may hold a transaction that the log does not: a broker has lost its markers, nobody had
    /// seen it, and it was undone. Its payments are processed again, and a store that held them
    /// already would add them twice. Somebody else may have begun with that meanwhile, so a later
    /// record says nothing for the store's own last one. Asked before anything is taken over: a store
    /// that was moved on tells nothing any more.
    pub(super) fn check_first(
        &self,
        partition: Partition,
        restore: &Restore,
        first: i64,
    ) -> Result<(), Failure> {
        let last = restore.stored.changelog - 1;
        if last < 0 || first == last || !self.holds(restore, last)? {
            return Ok(());
        }
        Err(self.holds_more(partition, &format!("its record {last} is not committed")))
    }

    /// The same where the store's own last record is the last of the changelog, or where compaction
    /// has taken it.
    pub(super) fn check_stored(
        &self,
        partition: Partition,
        restore: &Restore,
    ) -> Result<(), Failure> {
        let Stored { changelog, source } = restore.stored;
        if changelog == 0 || restore.first == Some(changelog - 1) {
            return Ok(());
        }
        match &restore.position {
            None => {
                let reason = format!("no record is committed from {} on", changelog - 1);
                Err(self.holds_more(partition, &reason))
            }
            Some(position) if position.next < source => {
                let reason = format!("it has processed {source}, the log {}", position.next);
                Err(self.holds_more(partition, &reason))
            }
            Some(_) => Ok(()),
        }
    }

    fn holds_more(&self, partition: Partition, reason: &str) -> Failure {
        let path = self.store_of(partition).0.to_owned();
        let reason = format!("it holds a transaction that its changelog does not: {reason}");
        Failure::State(state::Error::Damaged { path, reason })
    }

    /// Whether the changelog holds a record at this offset, committed or not; compaction may have
    /// taken it.
    fn holds(&self, restore: &Restore, offset: i64) -> Result<bool, Failure> {
        if offset < restore.bounds.low {
            return Ok(false);
        }
        let range = Range {
            partition: restore.logs[0].0,
            from: offset,
            to: offset + 1,
        };
        let mut is_there = false;
        let isolation = Isolation::Uncommitted;
        self.port
            .scan(isolation, &[range], |_, _| is_there = true)?;
        Ok(is_there)
    }
}
