//! What the consumer passes without a record: control markers, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::broker::Partition;
use crate::broker::classify::{Error, Reaction};
use crate::broker::port::{Consumer as _, Port, Reader as _};
use crate::broker::scan::{Isolation, Range};
use crate::engine::failure::Failure;
use crate::engine::fixed::Fixed;
use crate::engine::worker::Worker;

/// How often idle tasks are moved past control markers.
const MARKERS_INTERVAL: Duration = Duration::from_secs(30);

/// More offsets than this behind the position of an idle task are not thought to be markers alone.
const MARKERS_MAX: i64 = 1000;

impl<P: Port> Worker<P> {
    /// Where idle tasks could go on behind the control markers that end their logs. Committed now
    /// and then, so that retention which removes a processed log with its markers does not look
    /// like a gap.
    pub(super) fn past_markers(&mut self) -> Result<BTreeMap<Partition, i64>, Failure> {
        if self.fixed.now < self.markers_at + MARKERS_INTERVAL {
            return Ok(BTreeMap::new());
        }
        self.markers_at = self.fixed.now;
        let mut found = BTreeMap::new();
        let mut passed = Vec::new();
        for (partition, inbox, next) in self.tasks.inboxes() {
            if !inbox.is_done_before(next) {
                continue;
            }
            let position = self.consumer.position(partition)?;
            if let Some(position) = position.filter(|position| *position > next) {
                found.insert(partition, position);
                passed.push(Range {
                    partition,
                    from: next,
                    to: position,
                });
            }
        }
        holds_no_record(&self.port, &self.fixed, &passed)?;
        found.extend(self.past_markers_from_the_start()?);
        Ok(found)
    }

    /// The same for tasks that nothing has come in for since they began: the consumer does not tell
    /// how far it has come then.
    fn past_markers_from_the_start(&self) -> Result<BTreeMap<Partition, i64>, Failure> {
        let running = self
            .tasks
            .inboxes()
            .filter(|(partition, inbox, _)| inbox.is_untouched() && self.tasks.runs(*partition));
        let (partitions, nexts): (Vec<Partition>, Vec<i64>) = running
            .map(|(partition, _, next)| (partition, next))
            .unzip();
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let stables = self.reader.ends(&partitions, Isolation::Committed)?;
        let tails = partitions.into_iter().zip(nexts.into_iter().zip(stables));
        let tails: Vec<Range> = tails
            .map(|(partition, (from, to))| Range {
                partition,
                from,
                to,
            })
            .filter(|tail| tail.from < tail.to && tail.to - tail.from <= MARKERS_MAX)
            .collect();
        let mut with_records = BTreeSet::new();
        self.port.scan(Isolation::Committed, &tails, |record, _| {
            with_records.insert(record.partition);
        })?;
        let empty = tails
            .into_iter()
            .filter(|tail| !with_records.contains(&tail.partition));
        Ok(empty.map(|tail| (tail.partition, tail.to)).collect())
    }
}

/// Nothing committed may stand where the consumer has passed without a record: the client library
/// has once jumped over records that nobody had processed.
pub(super) fn holds_no_record<P: Port>(
    port: &P,
    fixed: &Fixed,
    gaps: &[Range],
) -> Result<(), Failure> {
    let mut first = None;
    port.scan(Isolation::Committed, gaps, |record, _| {
        first.get_or_insert((record.partition, record.offset));
    })?;
    let Some((partition, offset)) = first else {
        return Ok(());
    };
    let name = fixed.names.of(partition.topic);
    let detail = format!(
        "{name}/{}: the consumer has gone on behind offset {offset}, where a record stands that it \
         has not delivered",
        partition.number
    );
    let attempt = "read every record in order";
    Err(Error::new(attempt, detail, Reaction::Recover).into())
}
