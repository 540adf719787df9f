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
            self.check_retention(partition, (low, start), (window, time))?;
            window.offset.max(low)
        } else {
            positions.source
        };
        if from >= start {
            return Ok(false);
        }
        let repeats = if is_lost {
            match self.repeats(partition, from, window.decided_since)? {
                Repeats::NotReadable => return Ok(true),
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

    /// Whether retention has removed remembered payments that are inside the window.
    fn check_retention(
        &self,
        partition: Partition,
        (low, start): (i64, i64),
        (window, time): (WindowStart, i64),
    ) -> Result<(), Failure> {
        let begins = time.saturating_sub(self.window.length());
        let inside = self.reader.offset_at(partition, begins)?.unwrap_or(start);
        if window.offset >= low || inside > low || self.accept_shorter_window {
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

    /// Which payments of a source partition, from `from` on, were excluded as repeats.
    fn repeats(
        &mut self,
        source: Partition,
        from: i64,
        decided_since: i64,
    ) -> Result<Repeats, Failure> {
        let number = source.number % self.fixed.partitions.exclusions;
        let log = Partition::new(Topic::Exclusions, number);
        let bounds = self.reader.bounds(log)?;
        let Some(Life::Restoring(restore)) = self.tasks.lives.get_mut(&source) else {
            return Ok(Repeats::NotReadable);
        };
        // All transactions of this task have ended; the markers of the last may be under way here.
        let end = *restore.exclusions_end.get_or_insert(bounds.high);
        if self.reader.ends(&[log], Isolation::Committed)?[0] < end {
            return Ok(Repeats::NotReadable);
        }
        let since = decided_since.saturating_sub(CLOCK_STEP_MILLIS);
        let begin = self.reader.offset_at(log, since)?.unwrap_or(end);
        if bounds.low > 0 && begin <= bounds.low {
            tracing::warn!(
                topic = self.fixed.names.of(Topic::Exclusions),
                partition = number,
                from = bounds.low,
                "exclusions were deleted: a payment whose first is no longer in the log is taken for a first"
            );
            return Ok(Repeats::Deleted);
        }
        let range = Range {
            partition: log,
            from: begin,
            to: end,
        };
        let mut offsets = Vec::new();
        let isolation = Isolation::Committed;
        self.port.scan(isolation, &[range], |record, _| {
            let repeat = record.value.and_then(read_repeat);
            let ours = repeat.filter(|it| it.partition == source.number && it.offset >= from);
            offsets.extend(ours.map(|repeat| repeat.offset));
        })?;
        offsets.sort_unstable();
        Ok(Repeats::At(offsets))
    }
}

/// What the log of exclusions tells.
enum Repeats {
    /// Not yet: a transaction in it is undecided.
    NotReadable,
    /// Nothing certain: a part of it is gone.
    Deleted,
    /// Rising offsets in the source.
    At(Vec<i64>),
}
