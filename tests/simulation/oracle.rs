//! Recomputes every promise from the raw logs, in plain code that shares nothing with the engine
//! but the format of its internal records.
//!
//! A record counts as committed when the coordinator has decided so, whether its marker has been
//! written or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use settle::broker::{Partition, Topic};
use settle::codec::stored::{POSITION_KEY, Position, TOUCH_KEY, read_base, read_totals};
use settle::state::view::Served;

use crate::expected::{Expected, expect};
use crate::log::{Entry, Payload};
use crate::network::Shared;
use crate::world::World;

/// Partition and offset in the source topic.
type Place = (i32, i64);

/// A committed record: its offset, the number of its commit, and itself.
struct Seen {
    offset: i64,
    commit: u64,
    entry: Arc<Entry>,
}

impl Seen {
    fn payload(&self) -> &Payload {
        &self.entry.payload
    }

    fn key(&self) -> &[u8] {
        self.payload().key.as_deref().unwrap_or_default()
    }

    fn value(&self) -> &[u8] {
        self.payload().value.as_deref().unwrap_or_default()
    }

    fn json(&self) -> Result<Value, String> {
        serde_json::from_slice(self.value()).map_err(|error| format!("not JSON: {error}"))
    }
}

/// A base on its way or settled.
struct Base {
    offset: i64,
    key: String,
    amount: i64,
    source: Place,
}

/// All bases, by partition.
type Bases = BTreeMap<i32, Vec<Base>>;

/// A settlement or the dead letter of an overflow, by the place of its payment.
enum Settled {
    Settlement { value: Value, commit: u64 },
    Overflow,
}

fn ensure(holds: bool, breach: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(breach()) }
}

/// Checks everything. What is not finished yet, if anything is not.
pub fn check(shared: &Arc<Shared>, window: Duration) -> Result<Option<String>, String> {
    let world = shared.world();
    let outcomes = match outcomes(&world)? {
        Outcomes::Hanging(what) => return Ok(Some(what)),
        Outcomes::Decided(outcomes) => outcomes,
    };
    let committed = committed(&world, &outcomes)?;
    let positions = positions(&world, &committed)?;
    let (bases, mut unfinished) = ingest(&world, &committed, &positions, window)?;
    let settled = settled(&committed)?;
    let mut sums: BTreeMap<i32, Vec<(i64, String, i64)>> = BTreeMap::new();
    for (number, bases) in &bases {
        let next = positions[&Partition::new(Topic::Bases, *number)];
        sums.insert(*number, settle(*number, bases, next, &settled)?);
        if let Some(base) = bases.iter().find(|base| base.offset >= next) {
            unfinished = Some(format!(
                "base {number}/{} of {:?} is not settled",
                base.offset, base.source
            ));
        }
    }
    let settlements: usize = sums.values().map(Vec::len).sum();
    let known = settled
        .values()
        .filter(|all| matches!(all[..], [Settled::Settlement { .. }]))
        .count();
    ensure(settlements == known, || {
        format!("{known} settlements, {settlements} of them have a base")
    })?;
    rules(&world, &committed, &settled)?;
    totals(&committed, &sums)?;
    drop(world);
    if let Some(problem) = views(shared, &sums, &positions)? {
        unfinished.get_or_insert(problem);
    }
    Ok(unfinished)
}

/// What became of the transactions of which a broker has lost markers.
enum Outcomes {
    /// Something hangs still: what it will come to is open.
    Hanging(String),
    /// Those that are committed, in the order of their commits.
    Decided(BTreeMap<u64, u64>),
}

/// A transaction is committed whole or not at all, also when markers of it were lost.
fn outcomes(world: &World) -> Result<Outcomes, String> {
    let mut outcomes = world.commits.clone();
    let mut found: BTreeMap<u64, [Option<(Partition, i64)>; 3]> = BTreeMap::new();
    for (partition, log) in &world.logs {
        for (offset, entry) in log.records() {
            let number = entry.transaction.unwrap_or(0);
            if world.broker.lost.contains(&number) {
                let fate = if log.is_committed(offset) {
                    0
                } else if log.is_aborted(offset) {
                    1
                } else {
                    2
                };
                found.entry(number).or_default()[fate] = Some((*partition, offset));
            }
        }
    }
    let mut hanging = None;
    for (number, [committed, aborted, undecided]) in found {
        if let (Some(one), Some(other)) = (committed, aborted) {
            return Err(format!(
                "transaction {number} is torn: {one:?} is committed, {other:?} aborted"
            ));
        }
        if let Some(at) = undecided {
            hanging = Some(format!("{at:?} of transaction {number} hangs"));
        }
        if committed.is_none() {
            outcomes.remove(&number);
        } else {
            let behind = world.commits.len() as u64 + number;
            outcomes.entry(number).or_insert(behind);
        }
    }
    Ok(hanging.map_or(Outcomes::Decided(outcomes), Outcomes::Hanging))
}

type Committed = BTreeMap<Partition, Vec<Seen>>;

fn committed(world: &World, outcomes: &BTreeMap<u64, u64>) -> Result<Committed, String> {
    let mut all = Committed::new();
    for (partition, log) in &world.logs {
        let seen = all.entry(*partition).or_default();
        for (offset, entry) in log.records() {
            let commit = match entry.transaction {
                None => 0,
                Some(number) => match outcomes.get(&number) {
                    None => {
                        ensure(!log.is_committed(offset), || {
                            format!("{partition:?}/{offset} is visible, its transaction aborted")
                        })?;
                        continue;
                    }
                    Some(commit) => *commit,
                },
            };
            ensure(!log.is_aborted(offset), || {
                format!("{partition:?}/{offset} is aborted, its transaction committed")
            })?;
            if entry.payload.key.as_deref() == Some(TOUCH_KEY) && entry.payload.value.is_none() {
                continue;
            }
            seen.push(Seen {
                offset,
                commit,
                entry: Arc::clone(entry),
            });
        }
    }
    Ok(all)
}

fn of_topic(committed: &Committed, topic: Topic) -> impl Iterator<Item = (i32, &Seen)> {
    let of_topic = committed.iter().filter(move |(at, _)| at.topic == topic);
    of_topic.flat_map(|(at, all)| all.iter().map(|seen| (at.number, seen)))
}

/// Next offsets by the position records, which the group's offsets must equal.
fn positions(world: &World, committed: &Committed) -> Result<BTreeMap<Partition, i64>, String> {
    let offsets = world.decided_offsets();
    let mut positions = BTreeMap::new();
    for (changelog, source) in [
        (Topic::IngestChangelog, Topic::Source),
        (Topic::Changelog, Topic::Bases),
    ] {
        for number in 0..world.partitions(source) {
            let at = Partition::new(source, number);
            let mut last: Option<i64> = None;
            let log = &committed[&Partition::new(changelog, number)];
            for seen in log.iter().filter(|seen| seen.key() == POSITION_KEY) {
                let position = Position::decode(seen.value()).map_err(|error| error.to_string())?;
                ensure(last.is_none_or(|last| position.next > last), || {
                    format!(
                        "{at:?}: the position goes from {last:?} to {}",
                        position.next
                    )
                })?;
                last = Some(position.next);
            }
            let group = offsets.get(&at).copied();
            ensure(group == last || world.group.disturbed.contains(&at), || {
                format!("{at:?}: the group's offset is {group:?}, the recorded position {last:?}")
            })?;
            positions.insert(at, last.unwrap_or(0));
        }
    }
    Ok(positions)
}

fn place(json: &Value) -> Place {
    let number = json["partition"].as_i64().unwrap_or(-1);
    let offset = json["offset"].as_i64().unwrap_or(-1);
    (i32::try_from(number).unwrap_or(-1), offset)
}

fn header<'a>(seen: &'a Seen, name: &str) -> &'a str {
    let mut headers = seen.payload().headers.iter();
    let found = headers.find(|(known, _)| known == name);
    found.map_or("", |(_, text)| text)
}

fn dead_letters(committed: &Committed) -> impl Iterator<Item = (Place, String)> {
    of_topic(committed, Topic::DeadLetter).map(|(_, seen)| {
        let mut parts = header(seen, "settle-source").split('/').skip(1);
        let mut part = || parts.next().and_then(|text| text.parse::<i64>().ok());
        let number = part().and_then(|number| i32::try_from(number).ok());
        let place = (number.unwrap_or(-1), part().unwrap_or(-1));
        (place, header(seen, "settle-reason").to_owned())
    })
}

/// Every record below the position has its one outcome, no other has any (SPEC 5.1).
fn ingest(
    world: &World,
    committed: &Committed,
    positions: &BTreeMap<Partition, i64>,
    window: Duration,
) -> Result<(Bases, Option<String>), String> {
    let mut outcomes: BTreeMap<Place, Vec<Expected>> = BTreeMap::new();
    let mut bases = Bases::new();
    for number in 0..world.partitions(Topic::Bases) {
        bases.insert(number, Vec::new());
    }
    for (number, seen) in of_topic(committed, Topic::Bases) {
        let base = read_base(seen.value()).map_err(|error| error.to_string())?;
        let key = String::from_utf8_lossy(seen.key()).into_owned();
        let source = (base.source.partition, base.source.offset);
        outcomes.entry(source).or_default().push(Expected::Base {
            key: key.clone(),
            amount: base.amount,
        });
        bases.entry(number).or_default().push(Base {
            offset: seen.offset,
            key,
            amount: base.amount,
            source,
        });
    }
    for (_, seen) in of_topic(committed, Topic::Exclusions) {
        let json = seen.json()?;
        let reason = json["reason"].as_str().unwrap_or_default().to_owned();
        let first = json["first"]["offset"].as_i64();
        let source = place(&json["source"]);
        let excluded = Expected::Excluded { reason, first };
        outcomes.entry(source).or_default().push(excluded);
    }
    for (source, reason) in dead_letters(committed) {
        if reason != "AMOUNT_OVERFLOW" {
            let dead = Expected::Dead { reason };
            outcomes.entry(source).or_default().push(dead);
        }
    }
    let mut unfinished = None;
    for number in 0..world.partitions(Topic::Source) {
        let at = Partition::new(Topic::Source, number);
        let payloads = committed_payloads(committed, at);
        let expected = expect(&payloads, window);
        for (offset, expected) in expected {
            let found = outcomes.remove(&(number, offset)).unwrap_or_default();
            if offset < positions[&at] {
                ensure(found == [expected.clone()], || {
                    format!("{at:?}/{offset}: {found:?} instead of {expected:?}")
                })?;
            } else {
                ensure(found.is_empty(), || {
                    format!("{at:?}/{offset}: {found:?} above the position")
                })?;
                unfinished = Some(format!("{at:?}/{offset} is not processed"));
            }
        }
    }
    ensure(outcomes.is_empty(), || {
        format!("outcomes of records that are not there: {outcomes:?}")
    })?;
    Ok((bases, unfinished))
}

fn committed_payloads(committed: &Committed, at: Partition) -> Vec<(i64, i64, &Payload)> {
    let all = committed[&at].iter();
    all.map(|seen| (seen.offset, seen.entry.timestamp, seen.payload()))
        .collect()
}

fn settled(committed: &Committed) -> Result<BTreeMap<Place, Vec<Settled>>, String> {
    let mut settled: BTreeMap<Place, Vec<Settled>> = BTreeMap::new();
    for (_, seen) in of_topic(committed, Topic::Settlements) {
        let value = seen.json()?;
        let commit = seen.commit;
        let all = settled.entry(place(&value["source"])).or_default();
        all.push(Settled::Settlement { value, commit });
    }
    for (source, reason) in dead_letters(committed) {
        if reason == "AMOUNT_OVERFLOW" {
            settled.entry(source).or_default().push(Settled::Overflow);
        }
    }
    Ok(settled)
}

/// Every base below the position has its one settlement, or overflows its total; no other has
/// any. The settled ones: offset of the base, key, amount.
fn settle(
    number: i32,
    bases: &[Base],
    next: i64,
    settled: &BTreeMap<Place, Vec<Settled>>,
) -> Result<Vec<(i64, String, i64)>, String> {
    let mut totals: BTreeMap<&str, i64> = BTreeMap::new();
    let mut done = Vec::new();
    for base in bases {
        let found = settled.get(&base.source).map_or(&[][..], Vec::as_slice);
        let name = || format!("base {number}/{} of {:?}", base.offset, base.source);
        if base.offset >= next {
            let breach = || format!("{}: settled above the position {next}", name());
            ensure(found.is_empty(), breach)?;
            continue;
        }
        let total = totals.entry(&base.key).or_default();
        match (total.checked_add(base.amount), found) {
            (Some(sum), [Settled::Settlement { value, .. }]) => {
                *total = sum;
                let amount = value["amount"].as_i64();
                ensure(amount == Some(base.amount), || {
                    format!("{}: amount {amount:?}", name())
                })?;
                done.push((base.offset, base.key.clone(), base.amount));
            }
            (None, [Settled::Overflow]) => {}
            (sum, found) => {
                let count = found.len();
                return Err(format!("{}: {count} outcomes, sum {sum:?}", name()));
            }
        }
    }
    Ok(done)
}

/// Dates come from a rule that is committed with the settlement or before, or are default dates
/// after the service has denied a rule (SPEC 5.4).
fn rules(
    world: &World,
    committed: &Committed,
    settled: &BTreeMap<Place, Vec<Settled>>,
) -> Result<(), String> {
    let mut known: BTreeMap<(String, String), (u64, Value)> = BTreeMap::new();
    for (_, seen) in of_topic(committed, Topic::Rules) {
        let Ok(rule) = seen.json() else { continue };
        let Some(id) = rule["ruleId"].as_str() else {
            continue;
        };
        let key = String::from_utf8_lossy(seen.key()).into_owned();
        let entry = known.entry((key, id.to_owned()));
        entry.or_insert((seen.commit, rule));
    }
    for (source, all) in settled {
        let [Settled::Settlement { value, commit }] = &all[..] else {
            continue;
        };
        let text = |name: &str| value[name].as_str().unwrap_or_default();
        let day = text("paymentDate").get(..10).unwrap_or_default();
        let key = format!(
            "{}/{day}/{}/{}",
            text("merchantNumber"),
            text("paymentActionType"),
            text("paymentMethodType")
        );
        let dates = (text("payoutDate"), text("confirmDate"));
        if text("payoutBasis") == "RULE" {
            let rule = known.get(&(key, text("ruleId").to_owned()));
            let holds = rule.is_some_and(|(published, rule)| {
                let of_rule = |name: &str| rule[name].as_str().unwrap_or_default();
                let same = dates == (of_rule("payoutDate"), of_rule("confirmDate"));
                published <= commit && same
            });
            ensure(holds, || {
                format!("{source:?}: its rule is not known: {value}")
            })?;
        } else {
            ensure(world.rules.denied.contains(&key), || {
                format!("{source:?}: default dates, and nobody denied a rule: {value}")
            })?;
            let defaults = match day {
                "2025-05-26" => "2025-05-28",
                _ => "2025-05-29",
            };
            ensure(dates == (defaults, defaults), || {
                format!("{source:?}: other default dates: {value}")
            })?;
        }
    }
    Ok(())
}

/// Statistics and changelog say what the settlements add up to; counts rise (SPEC 5.2).
fn totals(
    committed: &Committed,
    settled: &BTreeMap<i32, Vec<(i64, String, i64)>>,
) -> Result<(), String> {
    let mut sums: BTreeMap<String, (i64, u64)> = BTreeMap::new();
    for (_, key, amount) in settled.values().flatten() {
        let sum = sums.entry(key.clone()).or_default();
        *sum = (sum.0 + amount, sum.1 + 1);
    }
    let mut published: BTreeMap<String, (i64, u64)> = BTreeMap::new();
    let mut once: BTreeSet<(u64, String)> = BTreeSet::new();
    for (_, seen) in of_topic(committed, Topic::Statistics) {
        let key: Value = serde_json::from_slice(seen.key()).map_err(|error| error.to_string())?;
        let text = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
        let key = [
            text("merchantNumber"),
            text("paymentDateDaily"),
            text("paymentActionType"),
            text("paymentMethodType"),
        ]
        .join("/");
        let value = seen.json()?;
        let count = value["count"].as_u64().unwrap_or_default();
        let amount = value["totalAmount"].as_i64().unwrap_or_default();
        ensure(once.insert((seen.commit, key.clone())), || {
            format!("{key}: two statistics in one transaction")
        })?;
        let before = published.insert(key.clone(), (amount, count));
        ensure(before.is_none_or(|(_, before)| count > before), || {
            format!("{key}: the count goes from {before:?} to {count}")
        })?;
    }
    ensure(published == sums, || {
        format!("statistics {published:?} instead of {sums:?}")
    })?;
    let mut logged: BTreeMap<String, (i64, u64)> = BTreeMap::new();
    for (_, seen) in of_topic(committed, Topic::Changelog) {
        if seen.key() != POSITION_KEY {
            let totals = read_totals(seen.value()).map_err(|error| error.to_string())?;
            let key = String::from_utf8_lossy(seen.key()).into_owned();
            logged.insert(key, (totals.amount, totals.count));
        }
    }
    ensure(logged == sums, || {
        format!("changelog {logged:?} instead of {sums:?}")
    })
}

/// Local state is what is committed up to its position, and never ahead (SPEC 5.5). What nobody
/// serves yet, if anything.
fn views(
    shared: &Arc<Shared>,
    settled: &BTreeMap<i32, Vec<(i64, String, i64)>>,
    positions: &BTreeMap<Partition, i64>,
) -> Result<Option<String>, String> {
    let mut served: BTreeSet<i32> = BTreeSet::new();
    let slots = shared.slots.lock().expect("one thread");
    for (process, slot) in slots.iter().enumerate() {
        for (number, view) in slot.views.all() {
            let Served::Ready(view) = view else { continue };
            let next = positions[&Partition::new(Topic::Bases, number)];
            let keys: BTreeSet<&String> = settled[&number].iter().map(|(_, key, _)| key).collect();
            let mut is_current = true;
            for key in keys {
                let (totals, position) = view.get(key).map_err(|error| error.to_string())?;
                ensure(position <= next, || {
                    format!("process {process}: store {number} at {position}, the log at {next}")
                })?;
                is_current &= position == next;
                let below = settled[&number]
                    .iter()
                    .filter(|(offset, of, _)| of == key && *offset < position);
                let sum = below.fold((0, 0), |sum, (_, _, amount)| (sum.0 + amount, sum.1 + 1));
                let found = totals.map_or((0, 0), |totals| (totals.amount, totals.count));
                ensure(found == sum, || {
                    format!("process {process}: {key} is {found:?} at {position}, not {sum:?}")
                })?;
            }
            if is_current {
                served.insert(number);
            }
        }
    }
    let unserved = settled.keys().find(|number| !served.contains(number));
    Ok(unserved.map(|number| format!("nobody serves the totals of partition {number}")))
}
