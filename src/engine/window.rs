//! Restores the duplicate window of an ingest task: reads the source again from where the first
//! remembered payment stands.
//!
//! A payment is remembered unless it was excluded as a repeat. What it repeated can stand before the
//! part that is read, so the log of exclusions tells the repeats, and not the part itself.

use std::collections::BTreeMap;

use crate::broker::port::{Port, Reader as _};
use crate::broker::scan::{Isolation, Range};
use crate::broker::{Partition, Topic};
use crate::codec::stored::WindowStart;
use crate::codec::wire::read_repeat;
use crate::engine::failure::Failure;
use crate::engine::ingest::{self, Again};
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
        let mut again = Again {
            decided_since: window.decided_since,
            // A store that only lags goes through the same times as when its records were decided.
            time: position
                .filter(|_| is_lost)
                .map_or(0, |position| position.time),
            repeats: None,
        };
        if from >= start {
            self.task_of(partition).begin_again(again);
            return Ok(false);
        }
        if is_lost {
            again.repeats = match self.read_exclusions(partition, from, window.decided_since)? {
                Repeats::NotYet => return Ok(true),
                Repeats::Deleted => None,
                Repeats::At(offsets) => Some(offsets),
            };
        }
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
        self.task_of(partition).begin_again(again);
        Ok(true)
    }

    fn task_of(&mut self, partition: Partition) -> &mut ingest::Task {
        let task = self.tasks.ingest.get_mut(&partition.number);
        task.expect("open since it restores")
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

    /// Reads on in the exclusions: which payments of a source partition, from `from` on, were excluded
    /// as repeats. Not everything in one turn: other tasks run meanwhile.
    fn read_exclusions(
        &mut self,
        source: Partition,
        from: i64,
        decided_since: i64,
    ) -> Result<Repeats, Failure> {
        let Some(Life::Restoring(restore)) = self.tasks.lives.get_mut(&source) else {
            return Ok(Repeats::NotYet);
        };
        let mut read = match restore.exclusions.take() {
            Some(read) => read,
            None => match self.begin_exclusions(decided_since)? {
                Some(read) => read,
                None => return Ok(Repeats::Deleted),
            },
        };
        if read.open.is_empty() {
            return Ok(Repeats::At(read.repeats));
        }
        let open: Vec<Partition> = read.open.keys().copied().collect();
        let stables = self.reader.ends(&open, Isolation::Committed)?;
        let range = |((partition, (next, end)), stable): ((&Partition, &(i64, i64)), &i64)| Range {
            partition: *partition,
            from: *next,
            to: (*end).min(*stable).min(next + SLICE),
        };
        let ranges: Vec<Range> = read.open.iter().zip(&stables).map(range).collect();
        let isolation = Isolation::Committed;
        self.port.scan(isolation, &ranges, |record, _| {
            let repeat = record.value.and_then(read_repeat);
            let ours = repeat.filter(|it| it.partition == source.number && it.offset >= from);
            read.repeats.extend(ours.map(|repeat| repeat.offset));
        })?;
        for range in &ranges {
            if let Some((next, _)) = read.open.get_mut(&range.partition) {
                *next = range.to.max(*next);
            }
        }
        // All transactions of this task have ended; the markers of the last may be under way there.
        let behind = ranges.iter().zip(&stables);
        let behind = behind.filter(|(range, stable)| range.to >= **stable);
        let behind: Vec<(Partition, i64)> = behind
            .map(|(range, stable)| (range.partition, *stable))
            .collect();
        read.open.retain(|_, (next, end)| next < end);
        if read.open.is_empty() {
            read.repeats.sort_unstable();
            return Ok(Repeats::At(read.repeats));
        }
        let waits = behind
            .into_iter()
            .find(|(partition, _)| read.open.contains_key(partition));
        if let Some(Life::Restoring(restore)) = self.tasks.lives.get_mut(&source) {
            restore.exclusions = Some(read);
        }
        if let Some((log, position)) = waits {
            self.look_after(source, log, position)?;
        }
        Ok(Repeats::NotYet)
    }

    /// Where to read the exclusions: all partitions, for their number may have been another one.
    /// `None` when a part of them is gone, or all.
    fn begin_exclusions(&self, decided_since: i64) -> Result<Option<Exclusions>, Failure> {
        let since = decided_since.saturating_sub(CLOCK_STEP_MILLIS);
        let (mut open, mut is_empty) = (BTreeMap::new(), true);
        for number in 0..self.fixed.partitions.exclusions {
            let log = Partition::new(Topic::Exclusions, number);
            let bounds = self.reader.bounds(log)?;
            let next = self.reader.offset_at(log, since)?.unwrap_or(bounds.high);
            if bounds.low > 0 && next <= bounds.low {
                tracing::warn!(
                    topic = self.fixed.names.of(log.topic),
                    partition = number,
                    from = bounds.low,
                    "exclusions were deleted: a payment whose first is no longer in the log is taken \
                     for a first"
                );
                return Ok(None);
            }
            is_empty &= bounds.high == 0;
            if next < bounds.high {
                open.insert(log, (next, bounds.high));
            }
        }
        let read = Exclusions {
            open,
            repeats: Vec::new(),
        };
        Ok((!is_empty).then_some(read))
    }
}

/// The exclusions while they are read.
#[derive(Debug)]
pub(super) struct Exclusions {
    /// Partitions that are not read to the end: the next offset, and the end.
    open: BTreeMap<Partition, (i64, i64)>,
    /// Offsets in the source.
    repeats: Vec<i64>,
}

/// What the exclusions tell.
enum Repeats {
    NotYet,
    /// Nothing certain: a part of them is gone.
    Deleted,
    /// Rising offsets in the source.
    At(Vec<i64>),
}
