//! `settle offsets show`: where everything stands that remembers a position, and what it means
//! where two of them differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::broker::logs::Logs;
use crate::broker::port::{Fetched as _, GroupOffsets};
use crate::broker::rights::Purpose;
use crate::broker::scan::Isolation;
use crate::broker::{Bounds, Names, Partition, Topic};
use crate::codec::stored::{POSITION_KEY, Position};
use crate::config::Config;
use crate::inspect::Error;
use crate::inspect::table::{Table, or_dash};
use crate::sink;
use crate::sink::read::Snapshot;

/// Control records that may stand behind the last record of a log at rest.
const MARKERS: i64 = 2;

#[derive(Debug, Clone, Serialize)]
pub struct Offsets {
    pub consumed: Vec<Consumed>,
    /// `null` when no database is configured.
    pub database: Option<Vec<Written>>,
    /// What is worth a look, a line each.
    pub notes: Vec<String>,
}

/// One partition that the group consumes. All numbers are offsets of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Consumed {
    pub topic: String,
    pub partition: i32,
    /// Next offset by the consumer group; `null` when it has committed none.
    pub group: Option<i64>,
    /// Next offset by the position record, which decides; `null` when there is none.
    pub position: Option<i64>,
    /// First offset that is there.
    pub start: i64,
    /// A reader of committed records comes this far.
    pub stable: i64,
    /// High watermark: everything that is written.
    pub high: i64,
    /// Offsets between the position and the stable end.
    pub lag: i64,
    /// Offsets between the stable end and the high watermark: of open transactions.
    pub undecided: i64,
}

/// How far the database has a partition of a topic.
#[derive(Debug, Clone, Serialize)]
pub struct Written {
    pub topic: String,
    pub partition: i32,
    /// Next offset to write; `null` when nothing was written yet.
    pub next: Option<i64>,
    pub stable: i64,
    pub lag: i64,
}

/// Reads the positions of now.
pub fn show(config: &Config) -> Result<Offsets, Error> {
    let mut logs = Logs::open(config, Purpose::Verify)?;
    let names = logs.names();
    let mut notes = Vec::new();
    // Positions first: what is asked for later can only lie further on.
    let rows = match &config.postgres {
        Some(postgres) => Some(Snapshot::take(postgres)?.positions()?),
        None => None,
    };
    let positions = positions(&mut logs)?;
    let partitions: Vec<Partition> = [Topic::Source, Topic::Bases]
        .into_iter()
        .flat_map(|topic| (0..logs.count(topic)).map(move |number| Partition::new(topic, number)))
        .collect();
    let group = match logs.committed(&partitions)? {
        GroupOffsets::Stable(offsets) => offsets,
        GroupOffsets::Undecided(offsets) => {
            notes.push(
                "the group's offsets are part of a transaction that is undecided for 2 s: an \
                 instance ends it when it takes its partitions over, or the broker when it times out"
                    .to_owned(),
            );
            offsets
        }
    };
    let mut consumed = Vec::new();
    for (partition, group) in partitions.into_iter().zip(group) {
        let recorded = positions.get(&partition);
        let next = recorded.map(|recorded| recorded.next);
        let one = look(&logs, &names, partition, (group, next))?;
        notes.extend(one.notes());
        let is_foreign = |recorded: &&Position| {
            recorded.application_id != config.kafka.application_id || recorded.topic != one.topic
        };
        if let Some(foreign) = recorded.filter(is_foreign) {
            notes.push(format!(
                "{}/{}: the position record is of application {} and topic {}: the service refuses \
                 to go on from it",
                one.topic, one.partition, foreign.application_id, foreign.topic
            ));
        }
        consumed.push(one);
    }
    let database = rows.map(|rows| written(&logs, &names, rows, &mut notes));
    Ok(Offsets {
        consumed,
        database: database.transpose()?,
        notes,
    })
}

/// The newest position record of each consumed partition.
fn positions(logs: &mut Logs) -> Result<BTreeMap<Partition, Position>, Error> {
    let mut found = BTreeMap::new();
    for (topic, of) in [
        (Topic::IngestChangelog, Topic::Source),
        (Topic::Changelog, Topic::Bases),
    ] {
        let numbers = (0..logs.count(topic)).collect();
        logs.scan(topic, &numbers, |fetched| {
            let record = fetched.record();
            let value = record.value.filter(|_| record.key == Some(POSITION_KEY));
            if let Some(Ok(position)) = value.map(Position::decode) {
                found.insert(Partition::new(of, record.partition.number), position);
            }
            Ok(())
        })?;
    }
    Ok(found)
}

fn look(
    logs: &Logs,
    names: &Names,
    partition: Partition,
    (group, position): (Option<i64>, Option<i64>),
) -> Result<Consumed, Error> {
    // In this order: what is undecided at the high watermark is below it.
    let Bounds { low, high } = logs.bounds_of(partition)?;
    let stable = logs.ends(&[partition], Isolation::Committed)?;
    let stable = stable.first().copied().unwrap_or(high);
    Ok(Consumed {
        topic: names.of(partition.topic).to_owned(),
        partition: partition.number,
        group,
        position,
        start: low,
        stable,
        high: high.max(stable),
        lag: (stable - position.unwrap_or(low).max(low)).max(0),
        undecided: (high - stable).max(0),
    })
}

impl Consumed {
    fn notes(&self) -> Vec<String> {
        let at = format!("{}/{}", self.topic, self.partition);
        let mut notes = Vec::new();
        match (self.group, self.position) {
            (Some(group), Some(position)) if group != position => notes.push(format!(
                "{at}: the group says {group}, the position record {position}: the service goes on at \
                 {position}, and repairs the group's offset with its next transaction there"
            )),
            (Some(group), None) => notes.push(format!(
                "{at}: the group says {group}, and there is no position record: the changelog was \
                 deleted or made anew. The service stops (exit 70) when it takes the partition over"
            )),
            (None, Some(position)) => notes.push(format!(
                "{at}: the group has no offset, the position record says {position}: the service goes \
                 on there; the group's offsets were deleted or have expired"
            )),
            (Some(_), Some(_)) | (None, None) => {}
        }
        if let Some(position) = self.position {
            if position < self.start {
                notes.push(format!(
                    "{at}: {} records from {position} on were deleted before they were processed: the \
                     service stops (exit 70)",
                    self.start - position
                ));
            }
            if position > self.high {
                notes.push(format!(
                    "{at}: the position {position} lies behind the end {}: the topic was truncated or \
                     made anew, and the service stops (exit 70)",
                    self.high
                ));
            }
        }
        if self.undecided > 0 {
            notes.push(format!(
                "{at}: {} offsets belong to open transactions: normal for a moment while somebody \
                 writes; if the stable end stays at {}, a transaction hangs \
                 (docs/runbooks/SettleStableOffsetFrozen.md)",
                self.undecided, self.stable
            ));
        }
        notes
    }
}

fn written(
    logs: &Logs,
    names: &Names,
    rows: Vec<(String, i32, i64)>,
    notes: &mut Vec<String>,
) -> Result<Vec<Written>, Error> {
    let rows = rows.into_iter();
    let rows: BTreeMap<(String, i32), i64> = rows
        .map(|(topic, number, next)| ((topic, number), next))
        .collect();
    let mut found = Vec::new();
    for topic in sink::TOPICS {
        for (partition, Bounds { low, .. }) in logs.bounds(topic)? {
            let name = names.of(topic).to_owned();
            let next = rows.get(&(name.clone(), partition.number)).copied();
            let stable = logs.ends(&[partition], Isolation::Committed)?;
            let stable = stable.first().copied().unwrap_or(low);
            let at = format!("{name}/{}", partition.number);
            if next.is_some_and(|next| next < low) {
                notes.push(format!(
                    "database, {at}: records were deleted before they were written to it: the sink stops"
                ));
            }
            if let Some(next) = next.filter(|next| *next > stable) {
                notes.push(format!(
                    "database, {at}: it stands at {next}, behind the end {stable}: the topic was made anew, \
                     or this is another cluster's database"
                ));
            }
            found.push(Written {
                topic: name,
                partition: partition.number,
                next,
                stable,
                lag: (stable - next.unwrap_or(low).max(low)).max(0),
            });
        }
    }
    Ok(found)
}

impl Offsets {
    pub fn text(&self) -> String {
        let mut table = Table::new([
            "PARTITION",
            "GROUP",
            "POSITION",
            "START",
            "STABLE END",
            "HIGH",
            "LAG",
            "UNDECIDED",
        ]);
        for of in &self.consumed {
            table.row([
                format!("{}/{}", of.topic, of.partition),
                or_dash(of.group),
                or_dash(of.position),
                of.start.to_string(),
                of.stable.to_string(),
                of.high.to_string(),
                of.lag.to_string(),
                of.undecided.to_string(),
            ]);
        }
        let mut out = table.text();
        if let Some(database) = &self.database {
            let mut table = Table::new(["IN POSTGRESQL", "NEXT", "STABLE END", "LAG"]);
            for of in database {
                table.row([
                    format!("{}/{}", of.topic, of.partition),
                    or_dash(of.next),
                    of.stable.to_string(),
                    of.lag.to_string(),
                ]);
            }
            out.push('\n');
            out.push_str(&table.text());
        }
        let _ = writeln!(
            out,
            "\na lag of 1 or {MARKERS} is transaction markers, not records"
        );
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        out
    }
}
