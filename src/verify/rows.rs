//! The rows that records must have, as digests of their columns; and the same of the rows that are
//! there. Texts lose U+0000, which the database cannot hold.

use std::io;
use std::ops::RangeInclusive;

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::broker::Record;
use crate::codec::wire::{ExclusionJson, SettlementJson};
use crate::sink::read::{self, Key, Row};
use crate::verify::audit::Audit;
use crate::verify::facts::{self, Digest, Ink, OfKey, Place, Table, Teller, Total, What};

/// Digits of a second's fraction that the database keeps.
const FRACTION_DIGITS: usize = 6;

fn columns(columns: &[Option<&str>]) -> Ink {
    let texts = columns.iter().map(|column| column.map(str::as_bytes));
    texts.fold(Ink::default(), Ink::maybe)
}

pub fn settlement(json: &SettlementJson) -> Digest {
    let (payout, confirm) = (json.payout_date.to_string(), json.confirm_date.to_string());
    columns(&[
        Some(&json.payment_id),
        Some(json.channel),
        Some(json.payment_type),
        Some(&json.amount.to_string()),
        Some(&json.merchant_number),
        Some(&timestamp(&json.payment_date)),
        Some(json.payment_action_type),
        Some(json.payment_method_type),
        Some(&payout),
        Some(&confirm),
        Some(json.payout_basis),
        json.rule_id.as_deref(),
    ])
    .digest()
}

/// A local date-time with seconds and six digits, further ones cut off.
fn timestamp(text: &str) -> String {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = if clock.matches(':').count() < 2 {
        ":00"
    } else {
        ""
    };
    let fraction: String = fraction
        .chars()
        .chain(std::iter::repeat('0'))
        .take(FRACTION_DIGITS)
        .collect();
    format!("{clock}{seconds}.{fraction}")
}

pub fn exclusion(json: &ExclusionJson) -> Digest {
    let amount = json.amount.map(|amount| amount.to_string());
    let first = json.first;
    let partition = first.map(|first| first.partition.to_string());
    let offset = first.map(|first| first.offset.to_string());
    let id = json.payment_id.as_deref().filter(|id| !id.contains('\0'));
    columns(&[
        id,
        Some(json.reason),
        json.merchant_number.as_deref(),
        amount.as_deref(),
        partition.as_deref(),
        offset.as_deref(),
    ])
    .digest()
}

pub fn letter(record: &Record, reason: &str, detail: &str) -> Digest {
    let detail = detail.replace('\0', "\u{fffd}");
    let ink = columns(&[id(record.key), Some(reason), Some(&detail)]);
    ink.maybe(record.value).digest()
}

pub fn rule(key: &str, id: &str, payout: &str, confirm: &str) -> Digest {
    columns(&[Some(key), Some(id), Some(payout), Some(confirm)]).digest()
}

/// Times that are stored, in milliseconds: from where PostgreSQL's begin to the end of the year 9999. Others are null,
/// which is read as 0.
const TIMES: RangeInclusive<i64> = -210_866_803_200_000..=253_402_207_200_999;

pub fn payment(record: &Record) -> Digest {
    let is_stored = TIMES.contains(&record.timestamp);
    let time = if is_stored { record.timestamp } else { 0 }.to_string();
    let ink = columns(&[id(record.key), Some(&time)]);
    ink.maybe(record.value.map(content).as_ref().map(<[u8; 8]>::as_slice))
        .digest()
}

fn id(key: Option<&[u8]>) -> Option<&str> {
    let id = std::str::from_utf8(key?).ok()?;
    (!id.contains('\0')).then_some(id)
}

/// A value in one number, the same for all texts of one JSON: the database keeps what a text
/// means. JSON too deep or too large to be read here is taken for equal.
fn content(value: &[u8]) -> [u8; 8] {
    let digest = match serde_json::from_slice::<Value>(value) {
        Ok(json) => meaning(&json, Ink::default()).digest(),
        Err(_) if serde_json::from_slice::<IgnoredAny>(value).is_ok() => 0,
        Err(_) => facts::bytes(None, Some(value)),
    };
    digest.to_le_bytes()
}

fn meaning(json: &Value, ink: Ink) -> Ink {
    match json {
        Value::Null => ink.text("null"),
        Value::Bool(flag) => ink.text(if *flag { "true" } else { "false" }),
        Value::Number(number) => ink.text(&plain(number)),
        Value::String(text) => ink.text("text").text(text),
        Value::Array(items) => {
            let ink = ink.text("array").number(length(items.len()));
            items.iter().fold(ink, |ink, item| meaning(item, ink))
        }
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_unstable();
            let ink = ink.text("object").number(length(names.len()));
            let field = |ink: Ink, name: &String| meaning(&fields[name], ink.text(name));
            names.into_iter().fold(ink, field)
        }
    }
}

fn length(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// `1e3`, `1000.0` and `1000` are one number, and so are `-0` and `0`.
fn plain(number: &serde_json::Number) -> String {
    let float = number.as_f64().unwrap_or_default() + 0.0;
    format!("{float:e}")
}

impl Audit {
    /// A row of any table.
    pub fn row(&mut self, table: read::Table, row: &Row) -> io::Result<()> {
        let of_places = match table {
            read::Table::Settlement => Some(Table::Settlement),
            read::Table::Exclusion => Some(Table::Exclusion),
            read::Table::DeadLetter => Some(Table::DeadLetter),
            read::Table::PaymentLog => Some(Table::PaymentLog),
            read::Table::PayoutRule | read::Table::Statistics => None,
        };
        match of_places {
            Some(table) => self.place_row(table, row),
            None => self.key_row(row),
        }
    }

    /// A row of the tables that are keyed by a source record.
    fn place_row(&mut self, table: Table, row: &Row) -> io::Result<()> {
        let texts: Vec<Option<&str>> = row.texts.iter().map(Option::as_deref).collect();
        let Key::Place(partition, offset) = row.key else {
            return Ok(());
        };
        let place = Place { partition, offset };
        let digest = match table {
            Table::Settlement | Table::Exclusion => columns(&texts).digest(),
            Table::DeadLetter => columns(&texts).maybe(row.bytes.as_deref()).digest(),
            Table::PaymentLog => {
                let body = texts.get(2).copied().flatten().map(str::as_bytes);
                let value = body.or(row.bytes.as_deref()).map(content);
                let known = columns(texts.get(..2).unwrap_or_default());
                known
                    .maybe(value.as_ref().map(<[u8; 8]>::as_slice))
                    .digest()
            }
        };
        self.place_fact(place, What::Row(table, digest))
    }

    /// A row of `payout_rule` or `statistics`.
    fn key_row(&mut self, row: &Row) -> io::Result<()> {
        let Key::RuleKey(name) = &row.key else {
            return Ok(());
        };
        if !self.has_key(name) {
            return Ok(());
        }
        let texts: Vec<Option<&str>> = row.texts.iter().map(Option::as_deref).collect();
        let what = match texts[..] {
            [Some(amount), Some(count)] => OfKey::Total(Total {
                teller: Teller::Row,
                at: Place {
                    partition: 0,
                    offset: 0,
                },
                name: name.clone(),
                amount: amount.parse().unwrap_or(i64::MIN),
                count: count.parse().unwrap_or(u64::MAX),
            }),
            _ => OfKey::RuleRow {
                name: name.clone(),
                row: Ink::default()
                    .maybe(Some(name.as_bytes()))
                    .also(&texts)
                    .digest(),
            },
        };
        self.key_fact(name, what)
    }
}

impl Ink {
    fn also(self, texts: &[Option<&str>]) -> Self {
        texts
            .iter()
            .fold(self, |ink, text| ink.maybe(text.map(str::as_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::{content, timestamp};

    #[test]
    fn the_database_keeps_what_a_text_means() {
        let same = |a: &str, b: &str| content(a.as_bytes()) == content(b.as_bytes());
        assert!(same(
            r#"{"b":1e3,"a":[null]}"#,
            r#"{"a": [null], "b": 1000}"#
        ));
        assert!(same(r#"{"a":1,"a":2}"#, r#"{"a": 2}"#));
        assert!(same("-0", "0"));
        assert!(!same("[1]", "[2]"));
        assert!(!same("{", "{ "));
        assert!(!same(r#"{"a":"1"}"#, r#"{"a":1}"#));
    }

    #[test]
    fn a_time_has_microseconds_cut_and_never_rounded() {
        for (text, kept) in [
            ("2025-05-26T14:23", "2025-05-26T14:23:00.000000"),
            ("2025-05-26T14:23:51", "2025-05-26T14:23:51.000000"),
            ("2025-05-26T14:23:51.1234569", "2025-05-26T14:23:51.123456"),
        ] {
            assert_eq!(timestamp(text), kept);
        }
    }
}
