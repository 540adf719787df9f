//! Reads the topics and the tables in the order that [`crate::verify::cut`] gives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::broker::admin::{Admin, Existing};
use crate::broker::client::Settings;
use crate::broker::port::{Fetched as _, GroupOffsets, Reader as _};
use crate::broker::reader::{Fetched, Reader};
use crate::broker::scan::Isolation;
use crate::broker::{Bounds, Names, Partition, Record, Topic};
use crate::clock;
use crate::codec::wire;
use crate::config::Config;
use crate::sink::read::{self, Snapshot};
use crate::verify::audit::{Audit, Letter};
use crate::verify::cut::Moment;
use crate::verify::promise::Promise;
use crate::verify::terms::{Counts, Scope, Terms};
use crate::verify::{Error, Report};

const POLL: Duration = Duration::from_millis(50);
/// Records between two looks at how far the reader has come.
const LOOK_EVERY: u32 = 2000;
/// A log that does not go on for so long ends in a transaction that nobody ends.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes that a record of the rules topic takes, about.
const RULE_BYTES: i64 = 300;

/// The logs of one cluster.
pub struct Logs {
    reader: Reader,
    settings: Settings,
    topics: BTreeMap<Topic, Existing>,
}

impl Logs {
    pub fn open(config: &Config) -> Result<Self, Error> {
        let settings = Settings::new(config);
        let names = Topic::ALL.map(|topic| topic.name_in(&config.topics));
        let mut found = Admin::new(&settings)?.describe(&names)?;
        let mut topics = BTreeMap::new();
        for topic in Topic::ALL {
            let name = topic.name_in(&config.topics);
            let existing = found.remove(name);
            let existing = existing.ok_or_else(|| Error::Missing(name.to_owned()))?;
            topics.insert(topic, existing);
        }
        let reader = Reader::new(&settings, "verify")?;
        Ok(Self {
            reader,
            settings,
            topics,
        })
    }

    pub fn count(&self, topic: Topic) -> i32 {
        self.topics[&topic].partitions
    }

    pub fn names(&self) -> Names {
        self.settings.topics.clone()
    }

    /// Hands every committed record of these partitions of a topic to `each`.
    pub fn scan(
        &mut self,
        topic: Topic,
        numbers: &BTreeSet<i32>,
        each: impl FnMut(&Fetched) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut logs = Vec::new();
        for (log, bounds) in self.bounds(topic)? {
            if numbers.contains(&log.number) {
                logs.push((log, bounds.low, bounds.high));
            }
        }
        self.read(&logs, each)
    }

    pub fn counts(&self) -> Counts {
        Counts {
            source: self.count(Topic::Source),
            keyed: self.count(Topic::Bases),
            exclusions: self.count(Topic::Exclusions),
            letters: self.count(Topic::DeadLetter),
        }
    }

    fn partitions(&self, topic: Topic) -> impl Iterator<Item = Partition> + use<> {
        (0..self.count(topic)).map(move |number| Partition::new(topic, number))
    }

    /// First offsets and high watermarks of a topic.
    pub fn bounds(&self, topic: Topic) -> Result<Vec<(Partition, Bounds)>, Error> {
        self.partitions(topic)
            .map(|partition| Ok((partition, self.reader.bounds(partition)?)))
            .collect()
    }

    /// First offset and high watermark of one log.
    pub fn bounds_of(&self, partition: Partition) -> Result<Bounds, Error> {
        Ok(self.reader.bounds(partition)?)
    }

    /// Where these logs end for a reader with this isolation, in their order.
    pub fn ends(&self, partitions: &[Partition], isolation: Isolation) -> Result<Vec<i64>, Error> {
        Ok(self.reader.ends(partitions, isolation)?)
    }

    /// What the group has committed for these partitions, in their order.
    pub fn committed(&self, partitions: &[Partition]) -> Result<GroupOffsets, Error> {
        Ok(self.reader.committed(partitions)?)
    }

    /// Hands the committed records of each log from the first to before the second offset to
    /// `each`, and returns when the reader has passed all second offsets.
    pub fn read(
        &mut self,
        logs: &[(Partition, i64, i64)],
        mut each: impl FnMut(&Fetched) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut open: BTreeMap<Partition, i64> = BTreeMap::new();
        for (log, from, to) in logs {
            if from < to {
                self.reader.start(*log, *from)?;
                open.insert(*log, *to);
            }
        }
        let (mut since_look, mut heard) = (0, clock::now());
        while !open.is_empty() {
            if let Some(fetched) = self.reader.poll(POLL)? {
                let record = fetched.record();
                since_look += 1;
                if open
                    .get(&record.partition)
                    .is_some_and(|to| record.offset < *to)
                {
                    each(&fetched)?;
                }
                if since_look < LOOK_EVERY {
                    continue;
                }
            }
            let before = open.len();
            self.close_ended(&mut open)?;
            if since_look > 0 || open.len() < before {
                heard = clock::now();
            } else if clock::now().saturating_sub(heard) > SILENCE
                && let Some((log, end)) = open.first_key_value()
            {
                let name = self.settings.topics.of(log.topic);
                return Err(Error::Stuck(format!("{name}/{}", log.number), *end));
            }
            since_look = 0;
        }
        Ok(())
    }

    fn close_ended(&mut self, open: &mut BTreeMap<Partition, i64>) -> Result<(), Error> {
        for (log, end) in open.clone() {
            if self.reader.position(log)? >= end {
                self.reader.stop(log)?;
                open.remove(&log);
            }
        }
        Ok(())
    }

    /// Reads topics whole, up to their high watermarks of now.
    fn read_whole(
        &mut self,
        topics: &[Topic],
        audit: &mut Audit,
        mut feed: impl FnMut(&mut Audit, &Fetched) -> Result<(), Error>,
    ) -> Result<Vec<(Partition, i64)>, Error> {
        let mut logs = Vec::new();
        for topic in topics {
            for (log, bounds) in self.bounds(*topic)? {
                audit.cut().low.insert(log, bounds.low);
                logs.push((log, bounds.low, bounds.high));
            }
        }
        self.read(&logs, |fetched| feed(audit, fetched))?;
        Ok(logs.into_iter().map(|(log, _, end)| (log, end)).collect())
    }
}

/// Reads everything, in the one order that is right beside live instances, and judges it.
pub fn run(config: &Config, scope: Scope, at_rest: bool) -> Result<Report, Error> {
    let mut logs = Logs::open(config)?;
    let terms = Terms::new(config, logs.counts());
    let source: i64 = logs
        .bounds(Topic::Source)?
        .iter()
        .map(|(_, bounds)| bounds.high - bounds.low)
        .sum();
    let mut audit = Audit::new(terms, scope, source.unsigned_abs())?;
    if at_rest {
        audit = audit.resting();
    }
    if let Some(postgres) = &config.postgres {
        read_tables(postgres.url.expose(), &logs, &mut audit)?;
    }
    let settled: Vec<Partition> = logs.partitions(Topic::Settlements).collect();
    let ends = logs.reader.ends(&settled, Isolation::Committed)?;
    for (log, end) in settled.iter().zip(ends) {
        audit.cut().settled.insert(log.number, end);
    }
    let changelogs = read_before(&mut logs, &mut audit)?;
    let offsets = Offsets::read(&logs)?;
    read_outputs(&mut logs, &mut audit)?;
    let later = Offsets::read(&logs)?;
    read_after(&mut logs, &mut audit, &changelogs)?;
    offsets.judge(&later, &mut audit);
    read_source(&mut logs, &mut audit)?;
    audit.judge()
}

fn read_tables(url: &str, logs: &Logs, audit: &mut Audit) -> Result<(), Error> {
    let snapshot = Snapshot::take(url)?;
    audit.with_tables();
    for (name, number, next) in snapshot.positions()? {
        if let Some(topic) = logs.settings.topics.role(&name) {
            audit.cut().rows.insert(Partition::new(topic, number), next);
        }
    }
    for table in read::Table::ALL {
        snapshot.rows(table, |row| Ok::<(), Error>(audit.row(table, &row)?))?;
    }
    Ok(())
}

/// Positions and totals; where both changelogs were read up to.
fn read_before(logs: &mut Logs, audit: &mut Audit) -> Result<Vec<(Partition, i64)>, Error> {
    let topics = [Topic::IngestChangelog, Topic::Changelog];
    let ends = logs.read_whole(&topics, audit, |audit, fetched| {
        feed_changelog(audit, &fetched.record(), Moment::Before)
    })?;
    logs.read_whole(&[Topic::Statistics], audit, |audit, fetched| {
        Ok(audit.statistics(&fetched.record())?)
    })?;
    Ok(ends)
}

fn feed_changelog(audit: &mut Audit, record: &Record, moment: Moment) -> Result<(), Error> {
    if record.partition.topic == Topic::IngestChangelog {
        audit.position(record, moment);
        return Ok(());
    }
    Ok(audit.changelog(record, moment)?)
}

fn read_outputs(logs: &mut Logs, audit: &mut Audit) -> Result<(), Error> {
    let outcomes = [Topic::Settlements, Topic::Exclusions, Topic::DeadLetter];
    logs.read_whole(&outcomes, audit, |audit, fetched| {
        let record = fetched.record();
        match record.partition.topic {
            Topic::Settlements => audit.settlement(&record)?,
            Topic::Exclusions => audit.exclusion(&record)?,
            _ => audit.letter(&Letter {
                record,
                reason: fetched.header(wire::REASON_HEADER),
                detail: fetched.header(wire::DETAIL_HEADER),
                source: fetched.header(wire::SOURCE_HEADER),
                truncated: fetched.header(wire::TRUNCATED_HEADER),
            })?,
        }
        Ok(())
    })?;
    let mut first: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
    let ends = logs.read_whole(&[Topic::Rules, Topic::Bases], audit, |audit, fetched| {
        let record = fetched.record();
        if record.partition.topic == Topic::Rules {
            let begins = (record.offset, record.timestamp);
            first.entry(record.partition.number).or_insert(begins);
            return Ok(audit.rule(&record)?);
        }
        Ok(audit.base(&record)?)
    })?;
    for (log, end) in ends
        .into_iter()
        .filter(|(log, _)| log.topic == Topic::Rules)
    {
        let begins = first.get(&log.number).copied();
        if logs.may_be_compacted(log, begins, end)? {
            audit.cut().rules_compacted.insert(log.number, end);
        }
    }
    Ok(())
}

impl Logs {
    /// Whether records of a log may have been compacted away: only closed segments ever are.
    fn may_be_compacted(
        &self,
        log: Partition,
        first: Option<(i64, i64)>,
        end: i64,
    ) -> Result<bool, Error> {
        let low = self.reader.bounds(log)?.low;
        let setting = |name: &str, otherwise: i64| {
            let text = self.topics[&log.topic].settings.get(name);
            text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
        };
        let (offset, begun) = first.unwrap_or((end, clock::wall_millis()));
        let age = clock::wall_millis().saturating_sub(begun);
        Ok(offset > low && first.is_some()
            || age >= setting("segment.ms", 7 * 24 * 3_600_000)
            || (end - low).saturating_mul(RULE_BYTES) >= setting("segment.bytes", 1 << 30))
    }
}

fn read_after(
    logs: &mut Logs,
    audit: &mut Audit,
    changelogs: &[(Partition, i64)],
) -> Result<(), Error> {
    let mut rest = Vec::new();
    for (log, from) in changelogs {
        rest.push((*log, *from, logs.reader.bounds(*log)?.high));
    }
    logs.read(&rest, |fetched| {
        feed_changelog(audit, &fetched.record(), Moment::After)
    })
}

fn read_source(logs: &mut Logs, audit: &mut Audit) -> Result<(), Error> {
    let mut sources = Vec::new();
    for (log, bounds) in logs.bounds(Topic::Source)? {
        audit.cut().low.insert(log, bounds.low);
        let position = audit.cut.after.source.get(&log.number).copied();
        let end = audit.scope.to_offset.unwrap_or(i64::MAX);
        // The database may have logged more than has been processed.
        let logged = audit.cut.rows.get(&log).copied().unwrap_or(0);
        let read = position.unwrap_or(bounds.low).max(logged);
        let end = read.min(bounds.high).min(end);
        if audit.at_rest {
            audit.judge_rest(log.number, position.unwrap_or(0), &bounds);
        }
        if audit.scope.has_partition(log.number) {
            sources.push((log, bounds.low, end));
        }
    }
    logs.read(&sources, |fetched| Ok(audit.source(&fetched.record())?))
}

/// The offsets that the group has committed, of source and bases.
struct Offsets(Vec<(Partition, Option<i64>)>);

impl Offsets {
    fn read(logs: &Logs) -> Result<Self, Error> {
        let partitions: Vec<Partition> = [Topic::Source, Topic::Bases]
            .into_iter()
            .flat_map(|topic| logs.partitions(topic))
            .collect();
        let offsets = match logs.reader.committed(&partitions)? {
            GroupOffsets::Stable(offsets) => offsets,
            // The transaction decides which they are: there is nothing to compare.
            GroupOffsets::Undecided(_) => vec![None; partitions.len()],
        };
        Ok(Self(partitions.into_iter().zip(offsets).collect()))
    }

    /// Read after the positions before, an offset is none below them; read before the positions
    /// after, none above.
    fn judge(&self, later: &Self, audit: &mut Audit) {
        for ((log, offset), (_, later)) in self.0.iter().zip(&later.0) {
            let of = |source: &BTreeMap<i32, i64>, bases: &BTreeMap<i32, i64>| {
                let positions = if log.topic == Topic::Source {
                    source
                } else {
                    bases
                };
                positions.get(&log.number).copied()
            };
            let before = of(&audit.cut.before.source, &audit.cut.before.bases).unwrap_or(0);
            let after = of(&audit.cut.after.source, &audit.cut.after.bases).unwrap_or(0);
            let (Some(offset), Some(later)) = (*offset, *later) else {
                if before > 0 {
                    audit.findings.skip(
                        Promise::Atomicity,
                        "the group has no offset, or one that is undecided",
                    );
                }
                continue;
            };
            let holds = offset >= before && later <= after;
            audit.findings.check(Promise::Atomicity, holds, || {
                format!(
                    "the group's offset of {:?}/{} is {offset}, then {later}; the position \
                     committed with the outcomes {before}, then {after}",
                    log.topic, log.number
                )
            });
        }
    }
}
