//! Records of the committed topics as rows.
//!
//! Text of PostgreSQL cannot hold U+0000: where a column may be null it is null then, elsewhere
//! the character becomes U+FFFD. A timestamp has microseconds there: further digits are cut off,
//! never rounded.

use jiff::civil::{Date, DateTime, DateTimeRound};
use jiff::{RoundMode, Timestamp, Unit};

use crate::broker::Topic;
use crate::broker::sink_consumer::Record;
use crate::codec::stored::TOUCH_KEY;
use crate::codec::wire::{
    DETAIL_HEADER, ExclusionJson, REASON_HEADER, SOURCE_HEADER, SettlementJson, StatisticsKey,
    StatisticsValue, read_rule,
};
use crate::domain::payment::{Source, day, local_day};
use crate::domain::rule::{Rule, RuleKey};
use crate::sink::jsonb;

/// The topics that the sink reads.
pub const TOPICS: [Topic; 6] = [
    Topic::Source,
    Topic::Rules,
    Topic::Settlements,
    Topic::Statistics,
    Topic::Exclusions,
    Topic::DeadLetter,
];

/// A record of the source topic, as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    pub place: Source,
    pub payment_id: Option<String>,
    /// `None` when the record has none that a timestamp can hold.
    pub recorded_at: Option<Timestamp>,
    pub body: Option<String>,
    pub raw: Option<Vec<u8>>,
}

impl Logged {
    /// The server has refused the body.
    pub fn refuse_body(&mut self) {
        if let Some(body) = self.body.take() {
            self.raw = Some(body.into_bytes());
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub source: Source,
    pub payment_id: String,
    pub channel: String,
    pub payment_type: String,
    pub amount: i64,
    pub merchant: String,
    pub payment_date: DateTime,
    pub action: String,
    pub method: String,
    pub payout_date: Date,
    pub confirm_date: Date,
    pub basis: String,
    pub rule_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excluded {
    pub source: Source,
    pub payment_id: Option<String>,
    pub reason: String,
    pub merchant: Option<String>,
    pub amount: Option<i64>,
    pub first: Option<Source>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    pub source: Source,
    pub payment_id: Option<String>,
    pub reason: String,
    pub detail: String,
    pub payload: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TotalsKey {
    pub merchant: String,
    pub day: Date,
    pub action: String,
    pub method: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub amount: i64,
    pub count: i64,
}

/// What one record does to one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    Payment(Logged),
    Settlement(Box<Settled>),
    Exclusion(Box<Excluded>),
    DeadLetter(Box<Dead>),
    /// `None` takes the rule away.
    Rule(RuleKey, Option<Rule>),
    Statistics(Box<TotalsKey>, Option<Totals>),
}

/// In one line, why a record is no row.
pub type Unreadable = &'static str;

/// The row of a record; `Ok(None)` for one that only moves the position.
pub fn row(topic: Topic, record: &Record) -> Result<Option<Row>, Unreadable> {
    let (key, value) = (record.key(), record.value());
    if topic == Topic::Source {
        let place = Source {
            partition: record.partition.number,
            offset: record.offset(),
        };
        let logged = payment(place, record.timestamp(), key, value);
        return Ok(Some(Row::Payment(logged)));
    }
    let says_nothing = key.is_none_or(|key| key == TOUCH_KEY) && value.is_none();
    if says_nothing && record.header(SOURCE_HEADER).is_none() {
        return Ok(None);
    }
    let row = match topic {
        Topic::Rules => rule(key, value)?,
        Topic::Statistics => statistics(key, value)?,
        Topic::Settlements => settlement(value.ok_or(NO_VALUE)?)?,
        Topic::Exclusions => exclusion(value.ok_or(NO_VALUE)?)?,
        Topic::DeadLetter => {
            let headers = [REASON_HEADER, DETAIL_HEADER, SOURCE_HEADER];
            dead_letter(key, value, headers.map(|name| record.header(name)))?
        }
        Topic::Source => unreachable!("answered above"),
        Topic::Bases | Topic::Changelog | Topic::IngestChangelog => return Ok(None),
    };
    Ok(Some(row))
}

const NO_VALUE: Unreadable = "it has no value";

fn payment(
    place: Source,
    timestamp: Option<i64>,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Logged {
    let body = value.and_then(jsonb::text);
    let raw = value.filter(|_| body.is_none());
    Logged {
        place,
        payment_id: key.and_then(storable_key),
        recorded_at: timestamp.and_then(storable_time),
        body: body.map(str::to_owned),
        raw: raw.map(<[u8]>::to_vec),
    }
}

/// The first millisecond that `timestamptz` holds, in 4714 BC.
const TIME_MIN: i64 = -210_866_803_200_000;

fn storable_time(millis: i64) -> Option<Timestamp> {
    let time = (millis >= TIME_MIN).then(|| Timestamp::from_millisecond(millis));
    time.and_then(Result::ok)
}

fn settlement(value: &[u8]) -> Result<Row, Unreadable> {
    let json: SettlementJson = serde_json::from_slice(value).map_err(|_| "not a settlement")?;
    Ok(Row::Settlement(Box::new(Settled {
        source: Source {
            partition: json.source.partition,
            offset: json.source.offset,
        },
        payment_id: storable(&json.payment_id),
        channel: storable(json.channel),
        payment_type: storable(json.payment_type),
        amount: json.amount,
        merchant: storable(&json.merchant_number),
        payment_date: local_date_time(&json.payment_date).ok_or("its paymentDate is none")?,
        action: storable(json.payment_action_type),
        method: storable(json.payment_method_type),
        payout_date: json.payout_date,
        confirm_date: json.confirm_date,
        basis: storable(json.payout_basis),
        rule_id: json.rule_id.as_deref().map(storable),
    })))
}

fn exclusion(value: &[u8]) -> Result<Row, Unreadable> {
    let json: ExclusionJson = serde_json::from_slice(value).map_err(|_| "not an exclusion")?;
    let place = |partition, offset| Source { partition, offset };
    Ok(Row::Exclusion(Box::new(Excluded {
        source: place(json.source.partition, json.source.offset),
        payment_id: json
            .payment_id
            .filter(|id| !id.contains('\0'))
            .map(Into::into),
        reason: storable(json.reason),
        merchant: json.merchant_number.as_deref().map(storable),
        amount: json.amount,
        first: json.first.map(|first| place(first.partition, first.offset)),
    })))
}

fn dead_letter(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    [reason, detail, source]: [Option<&[u8]>; 3],
) -> Result<Row, Unreadable> {
    let text =
        |header: Option<&[u8]>| header.map(|bytes| storable(&String::from_utf8_lossy(bytes)));
    Ok(Row::DeadLetter(Box::new(Dead {
        source: source.and_then(place).ok_or("its settle-source is none")?,
        payment_id: key.and_then(storable_key),
        reason: text(reason).ok_or("it has no settle-reason")?,
        detail: text(detail).unwrap_or_default(),
        payload: value.map(<[u8]>::to_vec),
    })))
}

fn rule(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Row, Unreadable> {
    let key = key.and_then(|key| std::str::from_utf8(key).ok());
    let key = key
        .and_then(RuleKey::parse)
        .ok_or("its key is no rule key")?;
    let rule = value
        .map(|value| read_rule(&key, value))
        .transpose()
        .map_err(|_| "it is no rule of its key")?;
    let rule = rule.map(|rule| Rule {
        rule_id: storable(&rule.rule_id),
        ..rule
    });
    Ok(Row::Rule(key, rule))
}

fn statistics(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Row, Unreadable> {
    let key: StatisticsKey = key
        .and_then(|key| serde_json::from_slice(key).ok())
        .ok_or("its key is no statistics key")?;
    let key = TotalsKey {
        merchant: storable(&key.merchant_number),
        day: day(&key.payment_date_daily).ok_or("its paymentDateDaily is no day")?,
        action: storable(key.payment_action_type),
        method: storable(key.payment_method_type),
    };
    let Some(value) = value else {
        return Ok(Row::Statistics(Box::new(key), None));
    };
    let json: StatisticsValue = serde_json::from_slice(value).map_err(|_| "not a total")?;
    let totals = Totals {
        amount: json.total_amount,
        count: i64::try_from(json.count).map_err(|_| "its count leaves 63 bits")?,
    };
    Ok(Row::Statistics(Box::new(key), Some(totals)))
}

/// `payments/3/81725`; the topic's name may hold anything.
fn place(header: &[u8]) -> Option<Source> {
    let mut parts = std::str::from_utf8(header).ok()?.rsplit('/');
    let offset = parts.next()?.parse().ok()?;
    let partition = parts.next()?.parse().ok()?;
    parts.next()?;
    Some(Source { partition, offset })
}

fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn storable_key(key: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(key).ok()?;
    (!text.contains('\0')).then(|| text.to_owned())
}

fn local_date_time(text: &str) -> Option<DateTime> {
    local_day(text)?;
    let whole = DateTimeRound::new()
        .smallest(Unit::Microsecond)
        .mode(RoundMode::Trunc);
    text.parse::<DateTime>().ok()?.round(whole).ok()
}

#[cfg(test)]
mod tests;
