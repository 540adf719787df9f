//! `settle explain`: every fact about one payment id, in the order in which it came about.
//!
//! Where a payment id was received nothing tells but the source itself, which is scanned; from
//! there on only the partitions are read that the payment's rule key and source partition name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::broker::logs::{self, Logs};
use crate::broker::port::Fetched as _;
use crate::broker::reader::Fetched;
use crate::broker::rights::Purpose;
use crate::broker::{Names, Partition, Topic};
use crate::codec::stored::{POSITION_KEY, Position, read_base};
use crate::codec::wire::{
    DETAIL_HEADER, REASON_HEADER, REPLAY_BY_HEADER, REPLAY_HEADER, REPLAY_REASON_HEADER,
    SOURCE_HEADER, SettlementJson, StatisticsKey, StatisticsValue,
};
use crate::config::Config;
use crate::domain::partition;
use crate::inspect::{Error, place, readable, time};
use crate::sink::read::{Snapshot, Table};
use crate::verify::message::{self, Reading};

/// Everything about one payment id.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    pub payment_id: String,
    /// Oldest first in each partition; what comes again is a repeat.
    pub received: Vec<Received>,
}

/// One record of the source with this payment id.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    pub source: String,
    pub time: String,
    pub bytes: usize,
    /// What a reader of `docs/contract.md` makes of it.
    pub says: String,
    pub rule_key: Option<String>,
    pub facts: Vec<Fact>,
    #[serde(skip)]
    at: (i32, i64),
}

#[derive(Debug, Clone, Serialize)]
pub struct Fact {
    pub what: &'static str,
    /// Topic, partition and offset, or the table.
    pub place: String,
    pub time: Option<String>,
    pub detail: Value,
}

/// A settlement's place among those of its key.
struct Counted {
    at: (i32, i64),
    count: u64,
    rule_id: Option<String>,
}

struct Search<'a> {
    logs: Logs,
    names: Names,
    story: Story,
    id: &'a str,
    /// Of the settlements found, by rule key.
    counted: BTreeMap<String, Vec<Counted>>,
}

/// Looks for a payment id in the whole source, or in one partition of it.
pub fn explain(config: &Config, id: &str, partition: Option<i32>) -> Result<Story, Error> {
    let logs = Logs::open(config, Purpose::Look)?;
    let mut search = Search {
        names: logs.names(),
        logs,
        story: Story {
            payment_id: id.to_owned(),
            received: Vec::new(),
        },
        id,
        counted: BTreeMap::new(),
    };
    search.receive(partition)?;
    search.outcomes()?;
    search.settlements()?;
    search.totals()?;
    search.rules()?;
    search.positions()?;
    if let Some(postgres) = &config.postgres {
        search.rows(&Snapshot::take(postgres)?)?;
    }
    Ok(search.story)
}

impl Search<'_> {
    fn receive(&mut self, partition: Option<i32>) -> Result<(), logs::Error> {
        let (id, names) = (self.id.as_bytes(), self.names.clone());
        let numbers = partition.map_or_else(
            || (0..self.logs.count(Topic::Source)).collect(),
            |only| BTreeSet::from([only]),
        );
        let mut received = Vec::new();
        let mut replayed = Vec::new();
        self.logs.scan(Topic::Source, &numbers, |fetched| {
            let record = fetched.record();
            if record.key != Some(id) {
                return Ok(());
            }
            let (says, rule_key) = match message::read(record.key, record.value) {
                Reading::Finish => ("a FINISH marker".to_owned(), None),
                Reading::NoData => ("a message without data".to_owned(), None),
                Reading::Dead(reason) => (format!("no payment: {reason}"), None),
                Reading::Payment(payment) => {
                    let (amount, merchant) = (payment.amount, &payment.merchant);
                    let says = format!("a payment of {amount} to {merchant}");
                    (says, Some(payment.rule_key()))
                }
            };
            let replay = replay_of(&names, fetched);
            if let Some((of, replay)) = &replay {
                let mut replay = replay.clone();
                replay.what = "replayed as";
                replay.place = place(&names, record.partition, record.offset);
                replayed.push((of.clone(), replay));
            }
            received.push(Received {
                source: place(&names, record.partition, record.offset),
                time: time(record.timestamp),
                bytes: record.value.map_or(0, <[u8]>::len),
                says,
                rule_key,
                facts: replay.into_iter().map(|(_, fact)| fact).collect(),
                at: (record.partition.number, record.offset),
            });
            Ok(())
        })?;
        for (of, fact) in replayed {
            if let Some(first) = received.iter_mut().find(|first| first.source == of) {
                first.facts.push(fact);
            }
        }
        received.sort_by_key(|received| received.at);
        self.story.received = received;
        Ok(())
    }

    /// The homes of all rule keys that were found.
    fn homes(&self) -> BTreeSet<i32> {
        let count = self.logs.count(Topic::Bases);
        let keys = self.story.received.iter();
        keys.filter_map(|received| received.rule_key.as_deref())
            .map(|key| partition::of_key(key.as_bytes(), count))
            .collect()
    }

    fn outcomes(&mut self) -> Result<(), logs::Error> {
        for topic in [Topic::Exclusions, Topic::DeadLetter] {
            let count = self.logs.count(topic);
            let received = self.story.received.iter();
            let numbers = received.map(|received| received.at.0 % count).collect();
            let (id, names) = (self.id.as_bytes(), &self.names);
            let received = &mut self.story.received;
            self.logs.scan(topic, &numbers, |fetched| {
                let record = fetched.record();
                if record.key != Some(id) {
                    return Ok(());
                }
                let (what, at, detail) = if topic == Topic::Exclusions {
                    let json = value_of(record.value);
                    ("exclusion", source_of(&json), json)
                } else {
                    let text = |name| fetched.header(name).map(String::from_utf8_lossy);
                    let at = text(SOURCE_HEADER).and_then(|source| place_in(&source));
                    let (reason, detail) = (text(REASON_HEADER), text(DETAIL_HEADER));
                    (
                        "dead letter",
                        at,
                        json!({"reason": reason, "detail": detail}),
                    )
                };
                add(received, at, fact(names, fetched, what, detail));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Bases and settlements, and how many of its key a settlement makes.
    fn settlements(&mut self) -> Result<(), logs::Error> {
        let (homes, names, id) = (self.homes(), &self.names, self.id);
        let received = &mut self.story.received;
        self.logs.scan(Topic::Bases, &homes, |fetched| {
            let record = fetched.record();
            let base = read_base(record.value.unwrap_or_default());
            if let Ok(base) = base
                && base.payment_id == id
            {
                let at = (base.source.partition, base.source.offset);
                let key = String::from_utf8_lossy(record.key.unwrap_or_default());
                add(
                    received,
                    Some(at),
                    fact(names, fetched, "base", json!({"ruleKey": key})),
                );
            }
            Ok(())
        })?;
        let keys: BTreeSet<String> = received
            .iter()
            .filter_map(|received| received.rule_key.clone())
            .collect();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let counted = &mut self.counted;
        self.logs.scan(Topic::Settlements, &homes, |fetched| {
            let record = fetched.record();
            let json = serde_json::from_slice::<SettlementJson>(record.value.unwrap_or_default());
            let Ok(json) = json else {
                return Ok(());
            };
            let day = json.payment_date.get(..10).unwrap_or_default();
            let (action, method) = (json.payment_action_type, json.payment_method_type);
            let key = format!("{}/{day}/{action}/{method}", json.merchant_number);
            if !keys.contains(&key) {
                return Ok(());
            }
            let count = counts.entry(key.clone()).or_default();
            *count += 1;
            if json.payment_id == id {
                let at = (json.source.partition, json.source.offset);
                let detail = value_of(record.value);
                add(
                    received,
                    Some(at),
                    fact(names, fetched, "settlement", detail),
                );
                counted.entry(key).or_default().push(Counted {
                    at,
                    count: *count,
                    rule_id: json.rule_id.map(Into::into),
                });
            }
            Ok(())
        })
    }

    /// The first published total that counts a settlement, and the last one of its key.
    fn totals(&mut self) -> Result<(), logs::Error> {
        let (homes, names, counted) = (self.homes(), &self.names, &self.counted);
        let received = &mut self.story.received;
        let mut into: BTreeMap<(i32, i64), Fact> = BTreeMap::new();
        let mut last: BTreeMap<(i32, i64), Fact> = BTreeMap::new();
        self.logs.scan(Topic::Statistics, &homes, |fetched| {
            let record = fetched.record();
            let key = serde_json::from_slice::<StatisticsKey>(record.key.unwrap_or_default());
            let value = serde_json::from_slice::<StatisticsValue>(record.value.unwrap_or_default());
            let (Ok(key), Ok(value)) = (key, value) else {
                return Ok(());
            };
            let (action, method) = (key.payment_action_type, key.payment_method_type);
            let key = format!(
                "{}/{}/{action}/{method}",
                key.merchant_number, key.payment_date_daily
            );
            for settled in counted.get(&key).into_iter().flatten() {
                if value.count < settled.count {
                    continue;
                }
                let detail = json!({"total": value, "settlementOfItsKey": settled.count});
                let first = fact(names, fetched, "total", detail);
                into.entry(settled.at).or_insert(first);
                let detail = json!({"total": value});
                last.insert(settled.at, fact(names, fetched, "latest total", detail));
            }
            Ok(())
        })?;
        for (at, fact) in into.into_iter().chain(last) {
            add(received, Some(at), fact);
        }
        Ok(())
    }

    fn rules(&mut self) -> Result<(), logs::Error> {
        let (homes, names, counted) = (self.homes(), &self.names, &self.counted);
        let received = &mut self.story.received;
        self.logs.scan(Topic::Rules, &homes, |fetched| {
            let record = fetched.record();
            let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
            let json = value_of(record.value);
            for settled in key.and_then(|key| counted.get(key)).into_iter().flatten() {
                let is_named =
                    settled.rule_id.is_some() && json["ruleId"] == json!(settled.rule_id);
                let what = if is_named { "its rule" } else { "another rule" };
                add(
                    received,
                    Some(settled.at),
                    fact(names, fetched, what, json.clone()),
                );
            }
            Ok(())
        })
    }

    /// Says of a record without outcome whether the service has come to it.
    fn positions(&mut self) -> Result<(), logs::Error> {
        let partitions = self.story.received.iter().map(|received| received.at.0);
        let numbers: BTreeSet<i32> = partitions.collect();
        let mut positions: BTreeMap<i32, i64> = BTreeMap::new();
        self.logs
            .scan(Topic::IngestChangelog, &numbers, |fetched| {
                let record = fetched.record();
                let value = record.value.filter(|_| record.key == Some(POSITION_KEY));
                if let Some(Ok(position)) = value.map(Position::decode) {
                    positions.insert(record.partition.number, position.next);
                }
                Ok(())
            })?;
        for received in &mut self.story.received {
            let next = positions.get(&received.at.0).copied().unwrap_or(0);
            let has_outcome = |fact: &Fact| !fact.what.starts_with("replay");
            if !received.facts.iter().any(has_outcome) {
                let log = Partition::new(Topic::IngestChangelog, received.at.0);
                received.facts.push(Fact {
                    what: "no outcome",
                    place: place(&self.names, log, next),
                    time: None,
                    detail: json!({"processed": received.at.1 < next, "position": next}),
                });
            }
        }
        Ok(())
    }

    fn rows(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        for received in &mut self.story.received {
            let (partition, offset) = received.at;
            for table in Table::ALL.into_iter().filter(|table| table.has_places()) {
                for row in snapshot.rows_at(table, partition, offset)? {
                    let columns = table.columns().iter().map(|name| (*name).to_owned());
                    let mut detail: serde_json::Map<String, Value> = columns
                        .zip(row.texts.into_iter().map(Value::from))
                        .collect();
                    if let Some(bytes) = row.bytes {
                        let (form, text) = readable(&bytes);
                        detail.insert(form.to_owned(), Value::from(text));
                    }
                    received.facts.push(Fact {
                        what: "row",
                        place: format!("settle.{}", table.name()),
                        time: None,
                        detail: Value::Object(detail),
                    });
                }
            }
        }
        Ok(())
    }
}

/// The place that a replayed record came to first, and what is said of the replay.
fn replay_of(names: &Names, fetched: &Fetched) -> Option<(String, Fact)> {
    let text = |name| fetched.header(name).map(String::from_utf8_lossy);
    let of = text(REPLAY_HEADER)?.into_owned();
    let (by, reason) = (text(REPLAY_BY_HEADER), text(REPLAY_REASON_HEADER));
    let detail = json!({"by": by, "reason": reason});
    let mut replay = fact(names, fetched, "replay of", detail);
    replay.place.clone_from(&of);
    Some((of, replay))
}

fn fact(names: &Names, fetched: &Fetched, what: &'static str, detail: Value) -> Fact {
    let record = fetched.record();
    Fact {
        what,
        place: place(names, record.partition, record.offset),
        time: Some(time(record.timestamp)),
        detail,
    }
}

fn add(received: &mut [Received], at: Option<(i32, i64)>, fact: Fact) {
    if let Some(received) = received.iter_mut().find(|received| Some(received.at) == at) {
        received.facts.push(fact);
    }
}

fn value_of(value: Option<&[u8]>) -> Value {
    serde_json::from_slice(value.unwrap_or_default()).unwrap_or_default()
}

fn source_of(json: &Value) -> Option<(i32, i64)> {
    let source = &json["source"];
    let partition = i32::try_from(source["partition"].as_i64()?).ok()?;
    Some((partition, source["offset"].as_i64()?))
}

fn place_in(header: &str) -> Option<(i32, i64)> {
    let (rest, offset) = header.rsplit_once('/')?;
    let (_, partition) = rest.rsplit_once('/')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

impl Story {
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("memory takes every text");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "payment {}", self.payment_id)?;
        for received in &self.received {
            let Received {
                source,
                time,
                bytes,
                says,
                ..
            } = received;
            writeln!(out, "received as {source} at {time}, {bytes} bytes: {says}")?;
            if let Some(key) = &received.rule_key {
                writeln!(out, "  {:<13} {key}", "rule key")?;
            }
            for fact in &received.facts {
                let time = fact.time.as_deref().unwrap_or_default();
                writeln!(out, "  {:<13} {} {time}", fact.what, fact.place)?;
                writeln!(out, "  {:<13} {}", "", fact.detail)?;
            }
        }
        Ok(())
    }
}
