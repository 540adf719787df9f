//! Restores the duplicate window of an ingest task: reads the source again from where the first
//! remembered payment stands.
//!
//! A payment is remembered unless it was excluded as a repeat. What it repeated can stand before the
//! part that is read, so the log of exclusions tells the repeats, and not the part itself.

use crate::broker::port::{Port, Reader as _};
use crate::broker::scan::{Isolation, Range};
use crate::broker::{Partition, Topic};
use crate::codec::stored::WindowStart;
use crate::codec::wire::read_repeat;
use crate::engine::failure::Failure;
use crate::engine::ingest::Again;
use crate::engine::tasks::Life;
use crate::engine::worker::Worker;
use crate::failpoint::{self, Point};

/// How far a clock is thought to be set back between two decisions.
const CLOCK_STEP_MILLIS: i64 = 60_000;

/// Offsets of the exclusions that one turn reads.
const SLICE: i64 = 50_000;

impl<P: Port> Worker<P> {
    /// Begins to read the source again up to `start`, as far as the store of seen ids lags.
    /// `false` when it does not.
    pub(super) fn begin_window(
        &mut self,
        partition: Partition,
        start: i64,
    ) -> Result<bool, Failure> {
        let Some(Life::Restoring(restore)) = self.tasks.lives.get(&partition) else {
            return Ok(false);
        };
        let positions = self.tasks.ingest[&partition.number].store.positions();
        let position = restore.position.as_ref();
        let never_ran = position.is_none() && positions.source < 0;
        if never_ran || positions.source >= start {
            return Ok(false);
        }
        let window = position.map_or(WindowStart::default(), |position| position.window);
        let low = restore.source.low;
        let is_lost = positions.source < low;
        let from = if is_lost {
            let time = position.map_or(positions.time, |position| position.time);
            let is_idle = start >= restore.source.high;
            self.check_retention(partition, (low, start), (window, time, is_idle))?;
            window.offset.max(low)
        } else {
            positions.source
        };
        if from >= start {
            return Ok(false);
        }
        let repeats = if is_lost {
            match self.read_exclusions(partition, from, window.decided_since)? {
                Repeats::NotYet => return Ok(true),
                Repeats::Deleted => None,
                Repeats::At(offsets) => Some(offsets),
            }
        } else {
            None
        };
        tracing::info!(
            partition = partition.number,
            from,
            to = start,
            "reading payments again for the duplicate window"
        );
        failpoint::fail::<Failure>(Point::RestoreWindow)?;
        // Where a call fails, all of this is done again.
        self.reader.start(partition, from)?;
        if let Some(Life::Restoring(restore)) = self.tasks.lives.get_mut(&partition) {
            for (log, _) in &restore.logs {
                self.reader.stop(*log)?;
            }
            restore.logs = vec![(partition, start)];
            restore.window_until = Some(start);
        }
        let task = self.tasks.ingest.get_mut(&partition.number);
        task.expect("open since it restores").begin_again(Again {
            decided_since: window.decided_since,
            repeats,
        });
        Ok(true)
    }

    /// Whether retention has removed remembered payments that are inside the window. What comes next
    /// comes now, if nothing waits: then the window ends now, however long the partition was idle.
    fn check_retention(
        &self,
        partition: Partition,
        (low, start): (i64, i64),
        (window, newest, is_idle): (WindowStart, i64, bool),
    ) -> Result<(), Failure> {
        let now = self.fixed.wall_now;
        let time = if is_idle { newest.max(now) } else { newest };
        let begins = time.saturating_sub(self.window.length());
        let inside = self.reader.offset_at(partition, begins)?.unwrap_or(start);
        if window.offset >= low || inside > low || newest < begins || self.accept_shorter_window {
            return Ok(());
        }
        Err(Failure::Broken(format!(
            "{}/{}: the log begins at {low}, inside the duplicate window before offset {start}, which \
             begins at {}: payments that could be repeated are no longer known. Lengthen the topic's \
             retention, or accept a shorter window once (dedup.accept_shorter_window = true)",
            self.fixed.names.of(partition.topic),
            partition.number,
            window.offset
        )))
    }

    /// Reads on in the log of exclusions: which payments of a source partition, from `from` on, were
    /// excluded as repeats. Not everything in one turn: other tasks run meanwhile.
    fn read_exclusions(
        &mut self,
        source: Partition,
        from: i64,
        decided_since: i64,
    ) -> Result<Repeats, Failure> {
        let number = source.number % self.fixed.partitions.exclusions;
        let log = Partition::new(Topic::Exclusions, number);
        let Some(Life::Restoring(restore)) = self.tasks.lives.get_mut(&source) else {
            return Ok(Repeats::NotYet);
        };
        let mut read = match restore.exclusions.take() {
            Some(read) => read,
            None => match self.begin_exclusions(log, decided_since)? {
                Some(read) => read,
                None => return Ok(Repeats::Deleted),
            },
        };
        let stable = self.reader.ends(&[log], Isolation::Committed)?[0];
        let to = read.end.min(stable).min(read.next + SLICE);
        let range = Range {
            partition: log,
            from: read.next,
            to,
        };
        let isolation = Isolation::Committed;
        self.port.scan(isolation, &[range], |record, _| {
            let repeat = record.value.and_then(read_repeat);
            let ours = repeat.filter(|it| it.partition == source.number && it.offset >= from);
            read.repeats.extend(ours.map(|repeat| repeat.offset));
        })?;
        read.next = read.next.max(to);
        if read.next >= read.end {
            read.repeats.sort_unstable();
            return Ok(Repeats::At(read.repeats));
        }
        let next = read.next;
        if let Some(Life::Restoring(restore)) = self.tasks.lives.get_mut(&source) {
            restore.exclusions = Some(read);
        }
        // All transactions of this task have ended; the markers of the last may be under way here.
        if next >= stable {
            self.look_after(source, log, next)?;
        }
        Ok(Repeats::NotYet)
    }

    /// Where to read the exclusions; `None` when a part of them is gone.
    fn begin_exclusions(
        &self,
        log: Partition,
        decided_since: i64,
    ) -> Result<Option<Exclusions>, Failure> {
        let bounds = self.reader.bounds(log)?;
        let since = decided_since.saturating_sub(CLOCK_STEP_MILLIS);
        let next = self.reader.offset_at(log, since)?.unwrap_or(bounds.high);
        if bounds.low > 0 && next <= bounds.low {
            tracing::warn!(
                topic = self.fixed.names.of(log.topic),
                partition = log.number,
                from = bounds.low,
                "exclusions were deleted: a payment whose first is no longer in the log is taken for \
                 a first"
            );
            return Ok(None);
        }
        Ok(Some(Exclusions {
            next,
            end: bounds.high,
            repeats: Vec::new(),
        }))
    }
}

/// The log of exclusions while it is read.
#[derive(Debug)]
pub(super) struct Exclusions {
    next: i64,
    end: i64,
    /// Offsets in the source.
    repeats: Vec<i64>,
}

/// What the log of exclusions tells.
enum Repeats {
    NotYet,
    /// Nothing certain: a part of it is gone.
    Deleted,
    /// Rising offsets in the source.
    At(Vec<i64>),
}
