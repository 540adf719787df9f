//! Takes the committed records one by one: checks what a record says by itself, and keeps facts
//! of it for the judgement of places ([`crate::verify::outcomes`]) and keys
//! ([`crate::verify::totals`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use jiff::ToSpan;
use jiff::civil::Date;

use crate::broker::Record;
use crate::codec::stored::{POSITION_KEY, Position, TOUCH_KEY, read_base, read_totals};
use crate::codec::wire::{self, ExclusionJson, SettlementJson, StatisticsKey, StatisticsValue};
use crate::verify::content::{
    Fields, exclusion_content, fields_of, rule_digests, rule_key, rule_of, settlement_content,
};
use crate::verify::cut::{Cut, Moment};
use crate::verify::facts::{
    self, KeyFact, Kind, Name, OfKey, Outcome, Place, PlaceFact, Sighting, Teller, Total, What,
};
use crate::verify::message::{self, Reading};
use crate::verify::partitioner::home;
use crate::verify::promise::{Findings, Promise};
use crate::verify::rows;
use crate::verify::spill::{Scratch, Spill};
use crate::verify::terms::{Scope, Terms};

/// Offsets of the source that one bucket of places holds.
const PLACES_PER_BUCKET: i64 = 1 << 16;
/// Facts that one bucket of keys or ids is meant to hold.
const FACTS_PER_BUCKET: u64 = 1 << 19;

/// A dead letter with its headers.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    pub record: Record<'a>,
    pub reason: Option<&'a [u8]>,
    pub detail: Option<&'a [u8]>,
    pub source: Option<&'a [u8]>,
    pub truncated: Option<&'a [u8]>,
}

/// A letter that does not hold all bytes of its message.
pub(super) struct Shortened {
    pub(super) kept: usize,
    pub(super) length: u64,
    pub(super) bytes: facts::Digest,
}

/// What is found and what waits to be judged.
pub struct Audit {
    pub(super) terms: Terms,
    pub(super) scope: Scope,
    pub(super) findings: Findings,
    pub(super) cut: Cut,
    pub(super) places: Spill,
    pub(super) keys: Spill,
    pub(super) ids: Spill,
    pub(super) key_buckets: u64,
    pub(super) id_buckets: u64,
    pub(super) shortened: BTreeMap<Place, Shortened>,
    pub(super) tally: BTreeMap<(Kind, String), u64>,
    pub(super) sources: u64,
    /// Timestamp of the first record that each source partition still holds.
    pub(super) log_begins: BTreeMap<i32, i64>,
    pub(super) with_rows: bool,
    /// Nothing may be on its way any more.
    pub(super) at_rest: bool,
    /// Keys of which a payment was refused because the total would leave 64 bits.
    overflowed: BTreeSet<Name>,
    _scratch: Scratch,
}

impl Audit {
    /// `records` is about how many there are of the source.
    pub fn new(terms: Terms, scope: Scope, records: u64) -> io::Result<Self> {
        let scratch = Scratch::new()?;
        Ok(Self {
            terms,
            scope,
            findings: Findings::default(),
            cut: Cut::default(),
            places: Spill::new(&scratch, "places"),
            keys: Spill::new(&scratch, "keys"),
            ids: Spill::new(&scratch, "ids"),
            // A settlement, and at worst its total told twice.
            key_buckets: records * 3 / FACTS_PER_BUCKET + 1,
            id_buckets: records / FACTS_PER_BUCKET + 1,
            shortened: BTreeMap::new(),
            tally: BTreeMap::new(),
            sources: 0,
            log_begins: BTreeMap::new(),
            with_rows: false,
            at_rest: false,
            overflowed: BTreeSet::new(),
            _scratch: scratch,
        })
    }

    /// With nothing allowed to be on its way any more.
    #[must_use]
    pub fn resting(mut self) -> Self {
        self.at_rest = true;
        self
    }

    /// The tables are judged too.
    pub fn with_tables(&mut self) {
        self.with_rows = true;
    }

    pub fn cut(&mut self) -> &mut Cut {
        &mut self.cut
    }

    pub(super) fn place_fact(&mut self, place: Place, what: What) -> io::Result<()> {
        if !self.scope.has_place(place.partition, place.offset) {
            return Ok(());
        }
        let bucket = bucket_of(place);
        let offset = place.offset;
        self.places.push(bucket, &PlaceFact { offset, what })
    }

    pub(super) fn key_fact(&mut self, key: &str, what: OfKey) -> io::Result<()> {
        let key = facts::name(key.as_bytes());
        let bucket = u64::try_from(key % u128::from(self.key_buckets)).expect("a remainder");
        self.keys.push(bucket, &KeyFact { key, what })
    }

    pub(super) fn has_key(&self, key: &str) -> bool {
        let mut fields = key.split('/');
        self.scope.has_payment(fields.next().zip(fields.next()))
    }

    /// A record that cannot be read breaks the promise that it is about.
    fn unreadable(&mut self, promise: Promise, what: &str, record: &Record) {
        let at = at(record);
        self.findings
            .check(promise, false, || format!("{what} {at} cannot be read"));
    }

    fn keyed(&mut self, promise: Promise, what: &str, (key, record): (&str, &Record)) {
        let expected = home(key, self.terms.partitions.keyed);
        self.findings
            .check(promise, expected == record.partition.number, || {
                format!(
                    "{what} {} of {key} belongs in partition {expected}",
                    at(record)
                )
            });
    }

    pub fn settlement(&mut self, record: &Record) -> io::Result<()> {
        if is_touch(record) {
            return Ok(());
        }
        let value = record.value.unwrap_or_default();
        let Ok(json) = serde_json::from_slice::<SettlementJson>(value) else {
            self.unreadable(Promise::Outcomes, "settlement", record);
            return Ok(());
        };
        let place = place(json.source);
        self.canonical(&json, record);
        let key = rule_key(&json);
        self.keyed(Promise::Outcomes, "settlement", (&key, record));
        let outcome = Outcome {
            kind: Kind::Settlement,
            reason: json.payout_basis.to_owned(),
            at: at(record),
            content: settlement_content(&json.payment_id, &fields_of(&json)),
            first: None,
            is_cut: false,
            row: rows::settlement(&json),
        };
        self.place_fact(place, What::Outcome(outcome))?;
        if !self.has_key(&key) {
            return Ok(());
        }
        let rule = self.basis(&json, at(record));
        let settled = OfKey::Settled {
            at: at(record),
            amount: json.amount,
            place,
            timestamp: record.timestamp,
            rule,
        };
        self.key_fact(&key, settled)
    }

    /// Default dates follow from the day; the rule of the others is judged with its key.
    fn basis(
        &mut self,
        json: &SettlementJson,
        at: Place,
    ) -> Option<(facts::Digest, facts::Digest)> {
        if json.payout_basis == "RULE"
            && let Some(id) = &json.rule_id
        {
            let (payout, confirm) = (json.payout_date.to_string(), json.confirm_date.to_string());
            return Some(rule_digests(id, &payout, &confirm));
        }
        let day = json
            .payment_date
            .get(..10)
            .and_then(|day| day.parse::<Date>().ok());
        let days = self.terms.default_payout_days.days();
        let expected = day.map(|day| day.saturating_add(days));
        let holds = json.payout_basis == "DEFAULT"
            && json.rule_id.is_none()
            && expected == Some(json.payout_date)
            && expected == Some(json.confirm_date);
        self.findings.check(Promise::Rules, holds, || {
            format!("settlement {at} rests on no rule and has not the default dates")
        });
        None
    }

    fn canonical(&mut self, json: &impl serde::Serialize, record: &Record) {
        let mut again = Vec::new();
        wire::write(json, &mut again);
        let holds = record.value == Some(again.as_slice());
        self.findings.check(Promise::Outcomes, holds, || {
            format!(
                "{:?} {} is not written as agreed",
                record.partition.topic,
                at(record)
            )
        });
    }

    pub fn exclusion(&mut self, record: &Record) -> io::Result<()> {
        if is_touch(record) {
            return Ok(());
        }
        let value = record.value.unwrap_or_default();
        let Ok(json) = serde_json::from_slice::<ExclusionJson>(value) else {
            self.unreadable(Promise::Outcomes, "exclusion", record);
            return Ok(());
        };
        let place = place(json.source);
        self.canonical(&json, record);
        let expected = place.partition % self.terms.partitions.exclusions;
        let holds = expected == record.partition.number;
        self.findings.check(Promise::Outcomes, holds, || {
            format!(
                "exclusion {} of {place} belongs in partition {expected}",
                at(record)
            )
        });
        let (id, merchant) = (json.payment_id.as_deref(), json.merchant_number.as_deref());
        let outcome = Outcome {
            kind: Kind::Exclusion,
            reason: json.reason.to_owned(),
            at: at(record),
            content: exclusion_content(id, merchant, json.amount),
            first: json.first.map(self::place),
            is_cut: false,
            row: rows::exclusion(&json),
        };
        self.place_fact(place, What::Outcome(outcome))
    }

    pub fn letter(&mut self, letter: &Letter) -> io::Result<()> {
        let record = &letter.record;
        if is_touch(record) && letter.source.is_none() {
            return Ok(());
        }
        let text = |header: Option<&[u8]>| {
            header.and_then(|bytes| Some(std::str::from_utf8(bytes).ok()?.to_owned()))
        };
        let source = text(letter.source);
        let place = source
            .as_deref()
            .and_then(|source| self.place_in_source(source));
        let (Some(place), Some(reason), Some(detail)) =
            (place, text(letter.reason), text(letter.detail))
        else {
            self.unreadable(Promise::Outcomes, "dead letter", record);
            return Ok(());
        };
        let expected = place.partition % self.terms.partitions.letters;
        let holds = expected == record.partition.number && detail.lines().count() <= 1;
        self.findings.check(Promise::Outcomes, holds, || {
            format!(
                "dead letter {} of {place} belongs in partition {expected} with one line of detail",
                at(record)
            )
        });
        let value = record.value.unwrap_or_default();
        let length = text(letter.truncated).map(|length| length.parse().unwrap_or(u64::MAX));
        if let Some(length) = length {
            let (kept, bytes) = (value.len(), facts::bytes(record.key, Some(value)));
            self.shortened.insert(
                place,
                Shortened {
                    kept,
                    length,
                    bytes,
                },
            );
        }
        if reason == "AMOUNT_OVERFLOW"
            && let Reading::Payment(payment) = message::read(record.key, record.value)
        {
            let key = payment.rule_key();
            if self.has_key(&key) {
                self.overflowed.insert(facts::name(key.as_bytes()));
                self.key_fact(&key, OfKey::Refused { place })?;
            }
        }
        let outcome = Outcome {
            kind: Kind::Letter,
            row: rows::letter(record, &reason, &detail),
            reason,
            at: at(record),
            content: facts::bytes(record.key, Some(value)),
            first: None,
            is_cut: length.is_some(),
        };
        self.place_fact(place, What::Outcome(outcome))
    }

    /// `payments/3/81725`, of this source topic.
    fn place_in_source(&self, header: &str) -> Option<Place> {
        let rest = header.strip_prefix(self.terms.source_topic.as_str())?;
        let (partition, offset) = rest.strip_prefix('/')?.split_once('/')?;
        Some(Place {
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }

    pub fn base(&mut self, record: &Record) -> io::Result<()> {
        if is_touch(record) {
            return Ok(());
        }
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let base = read_base(record.value.unwrap_or_default());
        let (Some(key), Ok(base)) = (key, base) else {
            self.unreadable(Promise::Outcomes, "base", record);
            return Ok(());
        };
        self.keyed(Promise::Outcomes, "base", (key, record));
        let mut parts = key.split('/');
        let (merchant, _day) = (parts.next(), parts.next());
        let fields = Fields {
            channel: base.channel.as_str(),
            payment_type: base.payment_type.as_str(),
            amount: base.amount,
            merchant: merchant.unwrap_or_default(),
            date: base.date,
            action: parts.next().unwrap_or_default(),
            method: parts.next().unwrap_or_default(),
        };
        let place = Place {
            partition: base.source.partition,
            offset: base.source.offset,
        };
        let content = settlement_content(base.payment_id, &fields);
        let at = at(record);
        if self.overflowed.contains(&facts::name(key.as_bytes())) {
            let amount = base.amount;
            self.key_fact(key, OfKey::Base { at, amount, place })?;
        }
        self.place_fact(place, What::Base { at, content })
    }

    pub fn statistics(&mut self, record: &Record) -> io::Result<()> {
        if is_touch(record) {
            return Ok(());
        }
        let key = record
            .key
            .and_then(|key| serde_json::from_slice::<StatisticsKey>(key).ok());
        let value = record
            .value
            .and_then(|value| serde_json::from_slice::<StatisticsValue>(value).ok());
        let (Some(json), Some(value)) = (key, value) else {
            self.unreadable(Promise::Totals, "statistics record", record);
            return Ok(());
        };
        let StatisticsKey {
            merchant_number,
            payment_date_daily,
            payment_action_type,
            payment_method_type,
        } = &json;
        let key = format!(
            "{merchant_number}/{payment_date_daily}/{payment_action_type}/{payment_method_type}"
        );
        let (mut key_again, mut value_again) = (Vec::new(), Vec::new());
        wire::write(&json, &mut key_again);
        wire::write(&value, &mut value_again);
        let holds = record.key == Some(key_again.as_slice())
            && record.value == Some(value_again.as_slice());
        self.findings.check(Promise::Totals, holds, || {
            format!("statistics record {} is not written as agreed", at(record))
        });
        self.keyed(Promise::Totals, "statistics record", (&key, record));
        self.total(
            &key,
            Teller::Statistics,
            record,
            (value.total_amount, value.count),
        )
    }

    fn total(
        &mut self,
        key: &str,
        teller: Teller,
        record: &Record,
        (amount, count): (i64, u64),
    ) -> io::Result<()> {
        if !self.has_key(key) {
            return Ok(());
        }
        let (at, name) = (at(record), key.to_owned());
        self.key_fact(
            key,
            OfKey::Total(Total {
                teller,
                at,
                name,
                amount,
                count,
            }),
        )
    }

    /// A record of the settle tasks' changelog: a total, or the position of its partition.
    pub fn changelog(&mut self, record: &Record, moment: Moment) -> io::Result<()> {
        if record.key == Some(POSITION_KEY) {
            self.position(record, moment);
            return Ok(());
        }
        if moment == Moment::After || is_touch(record) {
            return Ok(());
        }
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let totals = record.value.and_then(|value| read_totals(value).ok());
        self.findings
            .check(Promise::State, key.is_some() && totals.is_some(), || {
                format!("changelog record {} cannot be read", at(record))
            });
        let (Some(key), Some(totals)) = (key, totals) else {
            return Ok(());
        };
        self.keyed(Promise::State, "changelog record", (key, record));
        self.total(
            key,
            Teller::Changelog,
            record,
            (totals.amount, totals.count),
        )
    }

    /// A position record of either changelog.
    pub fn position(&mut self, record: &Record, moment: Moment) {
        if is_touch(record) {
            return;
        }
        let position = record.value.and_then(|value| Position::decode(value).ok());
        self.findings.check(Promise::State, position.is_some(), || {
            format!(
                "position record {:?} {} cannot be read",
                record.partition.topic,
                at(record)
            )
        });
        if let Some(position) = position {
            self.cut.moved(moment, record.partition, position.next);
        }
    }

    pub fn rule(&mut self, record: &Record) -> io::Result<()> {
        let key = record.key.filter(|_| !is_touch(record));
        let Some(key) = key.and_then(|key| std::str::from_utf8(key).ok()) else {
            return Ok(());
        };
        if !self.has_key(key) {
            return Ok(());
        }
        let at = at(record);
        let Some(value) = record.value else {
            return self.key_fact(key, OfKey::NoRule { at });
        };
        // What is no rule of its key is ignored by the service too.
        let Some(json) = rule_of(key, value) else {
            return Ok(());
        };
        let (id, whole) = rule_digests(&json.rule_id, &json.payout_date, &json.confirm_date);
        let timestamp = record.timestamp;
        let row = rows::rule(key, &json.rule_id, &json.payout_date, &json.confirm_date);
        self.key_fact(
            key,
            OfKey::Rule {
                at,
                id,
                whole,
                timestamp,
                row,
            },
        )
    }

    pub(super) fn sighting(&mut self, sighting: &Sighting) -> io::Result<()> {
        let bucket = u64::try_from(sighting.id % u128::from(self.id_buckets)).expect("a remainder");
        self.ids.push(bucket, sighting)
    }
}

pub(super) fn bucket_of(place: Place) -> u64 {
    let partition = u64::try_from(place.partition).unwrap_or(u64::MAX >> 40);
    let span = u64::try_from(place.offset / PLACES_PER_BUCKET).unwrap_or(0);
    partition << 40 | span
}

pub(super) fn partition_of(bucket: u64) -> i32 {
    i32::try_from(bucket >> 40).unwrap_or(i32::MAX)
}

/// A record that says nothing: it only ends again what a broker has lost the markers of.
fn is_touch(record: &Record) -> bool {
    record.key.is_none_or(|key| key == TOUCH_KEY) && record.value.is_none()
}

fn at(record: &Record) -> Place {
    Place {
        partition: record.partition.number,
        offset: record.offset,
    }
}

fn place(json: wire::SourceJson) -> Place {
    Place {
        partition: json.partition,
        offset: json.offset,
    }
}
