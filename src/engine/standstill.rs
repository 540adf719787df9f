//! Looks whether the client library reads on where there is something to read.
//!
//! librdkafka can stay with a broker that no longer leads a partition: every fetch is refused there,
//! and nobody is told (confluentinc/librdkafka issue 3399 and pull request 5593, both open). Only a
//! new client finds the leader.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker::Partition;
use crate::broker::classify::{Error, Reaction};
use crate::broker::port::{Consumer as _, Port, Reader as _};
use crate::broker::scan::{Isolation, Range};
use crate::engine::failure::Failure;
use crate::engine::worker::Worker;

/// How often it is looked, and so for how long at least reading has not moved when it stands still.
const INTERVAL: Duration = Duration::from_secs(30);

/// So many offsets behind a position are looked through for a record that should have come.
const LOOKED_THROUGH: i64 = 1000;

/// Where reading has come to, by partition.
type Places = BTreeMap<Partition, i64>;

/// What lay before committed records at the last look.
#[derive(Default)]
pub struct Standstill {
    next_at: Duration,
    consumed: Places,
    read: Places,
}

impl<P: Port> Worker<P> {
    /// Takes a new client where one stands still.
    pub(super) fn look_for_standstill(&mut self) -> Result<(), Failure> {
        if self.fixed.now < self.standstill.next_at {
            return Ok(());
        }
        let before = std::mem::take(&mut self.standstill);
        self.standstill.next_at = self.fixed.now + INTERVAL;
        let consumed = self.behind(self.consumed()?)?;
        let read = self.behind(self.reader.places()?)?;
        if let Some(range) = still(&read, &before.read).next() {
            tracing::warn!(
                worker = self.number,
                topic = self.fixed.names.of(range.partition.topic),
                partition = range.partition.number,
                offset = range.from,
                "reading stands still before the end of a log; going on with a new client"
            );
            self.reader.renew()?;
        }
        let still: Vec<Range> = still(&consumed, &before.consumed).collect();
        if let Some((partition, offset)) = self.missed(&still)? {
            let detail = format!(
                "{}/{}: the consumer has not delivered offset {offset} for {} s",
                self.fixed.names.of(partition.topic),
                partition.number,
                INTERVAL.as_secs()
            );
            return Err(Error::new("read on", detail, Reaction::Rejoin).into());
        }
        let places = |behind: Vec<Range>| {
            let place = |range: Range| (range.partition, range.from);
            behind.into_iter().map(place).collect()
        };
        self.standstill.consumed = places(consumed);
        self.standstill.read = places(read);
        Ok(())
    }

    /// Where the consumer stands in tasks that have nothing to do.
    fn consumed(&self) -> Result<Places, Failure> {
        let mut places = Places::new();
        for (partition, inbox, next) in self.tasks.inboxes() {
            let is_fed = self.tasks.runs(partition) && !self.paused.contains(&partition);
            if is_fed && inbox.is_empty() {
                let position = self.consumer.position(partition)?;
                places.insert(partition, position.unwrap_or(next).max(next));
            }
        }
        Ok(places)
    }

    /// What there is to read behind these places; those at the end are left out.
    fn behind(&self, places: Places) -> Result<Vec<Range>, Failure> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let partitions: Vec<Partition> = places.keys().copied().collect();
        let ends = self.reader.ends(&partitions, Isolation::Committed)?;
        let ranges = places
            .into_iter()
            .zip(ends)
            .map(|((partition, from), to)| Range {
                partition,
                from,
                to,
            });
        Ok(ranges.filter(|range| range.from < range.to).collect())
    }

    /// The first record that the consumer should have delivered in these ranges. Markers and what was
    /// aborted it passes in silence.
    fn missed(&self, ranges: &[Range]) -> Result<Option<(Partition, i64)>, Failure> {
        let near: Vec<Range> = ranges
            .iter()
            .map(|range| Range {
                to: range.to.min(range.from + LOOKED_THROUGH),
                ..*range
            })
            .collect();
        let mut missed = None;
        self.port.scan(Isolation::Committed, &near, |record, _| {
            missed.get_or_insert((record.partition, record.offset));
        })?;
        Ok(missed)
    }
}

/// What lies behind places that have not moved since the look before.
fn still(behind: &[Range], before: &Places) -> impl Iterator<Item = Range> {
    let is_still = |range: &&Range| before.get(&range.partition) == Some(&range.from);
    behind.iter().filter(is_still).copied()
}
