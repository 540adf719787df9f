//! Reads the topics and the tables in the order that [`crate::verify::cut`] gives.

use std::collections::BTreeMap;

use crate::broker::logs::Logs;
use crate::broker::port::{Fetched as _, GroupOffsets};
use crate::broker::reader::Fetched;
use crate::broker::rights::Purpose;
use crate::broker::scan::Isolation;
use crate::broker::{Partition, Record, Topic};
use crate::clock;
use crate::codec::wire;
use crate::config::{Config, Postgres};
use crate::sink::read::{self, Snapshot};
use crate::verify::audit::{Audit, Letter};
use crate::verify::cut::Moment;
use crate::verify::promise::Promise;
use crate::verify::terms::{Counts, Scope, Terms};
use crate::verify::{Error, Report};

/// Bytes that a record of the rules topic takes, about.
const RULE_BYTES: i64 = 300;

/// Reads topics whole, up to their high watermarks of now.
fn read_whole(
    logs: &mut Logs,
    topics: &[Topic],
    audit: &mut Audit,
    mut feed: impl FnMut(&mut Audit, &Fetched) -> Result<(), Error>,
) -> Result<Vec<(Partition, i64)>, Error> {
    let mut parts = Vec::new();
    for topic in topics {
        for (log, bounds) in logs.bounds(*topic)? {
            audit.cut().low.insert(log, bounds.low);
            parts.push((log, bounds.low, bounds.high));
        }
    }
    logs.try_read(&parts, |fetched| feed(audit, fetched))?;
    Ok(parts.into_iter().map(|(log, _, end)| (log, end)).collect())
}

/// Reads everything, in the one order that is right beside live instances, and judges it.
pub fn run(config: &Config, scope: Scope, at_rest: bool) -> Result<Report, Error> {
    let mut logs = Logs::open(config, Purpose::Verify)?;
    let terms = Terms::new(config, counts(&logs));
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
        read_tables(postgres, &logs, &mut audit)?;
    }
    let settled: Vec<Partition> = logs.partitions(Topic::Settlements).collect();
    let ends = logs.ends(&settled, Isolation::Committed)?;
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

fn counts(logs: &Logs) -> Counts {
    Counts {
        source: logs.count(Topic::Source),
        keyed: logs.count(Topic::Bases),
        exclusions: logs.count(Topic::Exclusions),
        letters: logs.count(Topic::DeadLetter),
    }
}

fn read_tables(postgres: &Postgres, logs: &Logs, audit: &mut Audit) -> Result<(), Error> {
    let snapshot = Snapshot::take(postgres)?;
    audit.with_tables();
    let names = logs.names();
    for (name, number, next) in snapshot.positions()? {
        if let Some(topic) = names.role(&name) {
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
    let ends = read_whole(logs, &topics, audit, |audit, fetched| {
        feed_changelog(audit, &fetched.record(), Moment::Before)
    })?;
    read_whole(logs, &[Topic::Statistics], audit, |audit, fetched| {
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
    read_whole(logs, &outcomes, audit, |audit, fetched| {
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
    let ends = read_whole(
        logs,
        &[Topic::Rules, Topic::Bases],
        audit,
        |audit, fetched| {
            let record = fetched.record();
            if record.partition.topic == Topic::Rules {
                let begins = (record.offset, record.timestamp);
                first.entry(record.partition.number).or_insert(begins);
                return Ok(audit.rule(&record)?);
            }
            Ok(audit.base(&record)?)
        },
    )?;
    for (log, end) in ends
        .into_iter()
        .filter(|(log, _)| log.topic == Topic::Rules)
    {
        let begins = first.get(&log.number).copied();
        if may_be_compacted(logs, log, begins, end)? {
            audit.cut().rules_compacted.insert(log.number, end);
        }
    }
    Ok(())
}

/// Whether records of a log may have been compacted away: only closed segments ever are.
fn may_be_compacted(
    logs: &Logs,
    log: Partition,
    first: Option<(i64, i64)>,
    end: i64,
) -> Result<bool, Error> {
    let low = logs.bounds_of(log)?.low;
    let setting = |name: &str, otherwise: i64| {
        let text = logs.setting(log.topic, name);
        text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let (offset, begun) = first.unwrap_or((end, clock::wall_millis()));
    let age = clock::wall_millis().saturating_sub(begun);
    Ok(offset > low && first.is_some()
        || age >= setting("segment.ms", 7 * 24 * 3_600_000)
        || (end - low).saturating_mul(RULE_BYTES) >= setting("segment.bytes", 1 << 30))
}

fn read_after(
    logs: &mut Logs,
    audit: &mut Audit,
    changelogs: &[(Partition, i64)],
) -> Result<(), Error> {
    let mut rest = Vec::new();
    for (log, from) in changelogs {
        rest.push((*log, *from, logs.bounds_of(*log)?.high));
    }
    logs.try_read(&rest, |fetched| {
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
    logs.try_read(&sources, |fetched| Ok(audit.source(&fetched.record())?))
}

/// The offsets that the group has committed, of source and bases.
struct Offsets(Vec<(Partition, Option<i64>)>);

impl Offsets {
    fn read(logs: &Logs) -> Result<Self, Error> {
        let partitions: Vec<Partition> = [Topic::Source, Topic::Bases]
            .into_iter()
            .flat_map(|topic| logs.partitions(topic))
            .collect();
        let offsets = match logs.committed(&partitions)? {
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
