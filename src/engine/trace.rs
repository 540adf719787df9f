//! Whether a task without any position has run before: what only it can have written is looked for.
//! A changelog and the group's offsets that were both deleted must not look like a first start.

use crate::broker::port::{Port, Reader as _};
use crate::broker::scan::{Isolation, Range};
use crate::broker::{Bounds, Partition, Topic};
use crate::engine::failure::Failure;
use crate::engine::replay::{misplaced, moved};
use crate::engine::worker::Worker;

/// Offsets that are looked at in one go: enough to meet a committed record at once where there are
/// any.
const STEP: i64 = 1000;

/// Where what was ingested leaves its records.
const INGESTED: &[Topic] = &[
    Topic::Bases,
    Topic::Exclusions,
    Topic::DeadLetter,
    Topic::Settlements,
];

/// Where what was settled leaves its records.
const SETTLED: &[Topic] = &[Topic::Settlements, Topic::Statistics];

impl<P: Port> Worker<P> {
    /// What shows that the task of `partition` has run, for people; `changelog` are the bounds of
    /// its own, in which no position stands.
    pub(super) fn trace_of(
        &self,
        partition: Partition,
        changelog: Bounds,
    ) -> Result<Option<String>, Failure> {
        let (log, outputs) = if partition.topic == Topic::Source {
            (Topic::IngestChangelog, INGESTED)
        } else {
            (Topic::Changelog, SETTLED)
        };
        let name = |topic| self.fixed.names.of(topic);
        if changelog.low > 0 {
            let (topic, low) = (name(log), changelog.low);
            let text = format!("{topic}/{} begins at {low}", partition.number);
            return Ok(Some(text));
        }
        // In this order: what is committed in the outputs was written to the changelog before.
        let outputs = self.written(outputs);
        let ends = self.reader.ends(&outputs, Isolation::Committed)?;
        let logs = self.written(&[log]);
        let highs = self.reader.ends(&logs, Isolation::Uncommitted)?;
        // Others of this kind have run since the topic was made, and this one has not.
        if highs.iter().any(|high| *high > 0) {
            self.keys_are_at_home(&logs)?;
            return Ok(None);
        }
        for (output, end) in outputs.into_iter().zip(ends) {
            if let Some(offset) = self.first_committed(output, end)? {
                let (topic, number) = (name(output.topic), output.number);
                return Ok(Some(format!("{topic}/{number} has a record at {offset}")));
            }
        }
        Ok(None)
    }

    /// A partition in which nothing has ever been may have been added: then keys of the others
    /// belong here.
    fn keys_are_at_home(&self, changelogs: &[Partition]) -> Result<(), Failure> {
        let ends = self.reader.ends(changelogs, Isolation::Committed)?;
        let mut ranges = Vec::new();
        for (log, to) in changelogs.iter().zip(ends) {
            if log.topic == Topic::Changelog && to > 0 {
                let low = self.reader.bounds(*log)?.low;
                ranges.push(Range {
                    partition: *log,
                    from: low.max(to - STEP),
                    to,
                });
            }
        }
        let mut found = None;
        self.port.scan(Isolation::Committed, &ranges, |record, _| {
            if found.is_none()
                && let Some(key) = misplaced(record, &self.fixed)
            {
                found = Some((record.partition, key.to_owned()));
            }
        })?;
        found.map_or(Ok(()), |(log, key)| Err(moved(&self.fixed, log, &key)))
    }

    fn written(&self, topics: &[Topic]) -> Vec<Partition> {
        let all = self.fixed.written.iter().copied();
        all.filter(|partition| topics.contains(&partition.topic))
            .collect()
    }

    /// Offset of the first committed record below `end`.
    fn first_committed(&self, log: Partition, end: i64) -> Result<Option<i64>, Failure> {
        if end == 0 {
            return Ok(None);
        }
        let mut from = self.reader.bounds(log)?.low;
        let mut found = None;
        while found.is_none() && from < end {
            let to = end.min(from + STEP);
            let range = Range {
                partition: log,
                from,
                to,
            };
            self.port
                .scan(Isolation::Committed, &[range], |record, _| {
                    found.get_or_insert(record.offset);
                })?;
            from = to;
        }
        Ok(found)
    }
}
