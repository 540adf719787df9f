//! `settle dead-letters`: what was no payment, and why.

use std::collections::BTreeSet;
use std::fmt::Write;

use jiff::Timestamp;
use serde::Serialize;

use crate::broker::Topic;
use crate::broker::logs::{Error, Logs};
use crate::broker::port::Fetched as _;
use crate::broker::reader::Fetched;
use crate::broker::rights::Purpose;
use crate::codec::wire::{DETAIL_HEADER, REASON_HEADER, SOURCE_HEADER, TRUNCATED_HEADER};
use crate::config::Config;
use crate::inspect::{place, readable, time};

/// Which letters are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub reason: Option<String>,
    /// Of the source.
    pub partition: Option<i32>,
    pub since: Option<Timestamp>,
    /// The first moment that is no longer listed.
    pub until: Option<Timestamp>,
}

/// A dead letter, its bytes aside.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Letter {
    /// Topic, partition and offset of the message.
    pub source: String,
    pub letter: String,
    pub time: String,
    pub reason: String,
    pub detail: String,
    pub key: Option<String>,
    pub bytes: usize,
    /// Length of the message where the letter does not hold all of it.
    pub truncated: Option<String>,
}

/// A dead letter with its bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Whole {
    #[serde(flatten)]
    pub letter: Letter,
    /// `text` or `hex`.
    pub form: &'static str,
    pub value: String,
}

/// Hands each letter that passes the filter to `each`.
pub fn list(
    config: &Config,
    filter: &Filter,
    mut each: impl FnMut(Letter) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut logs = Logs::open(config, Purpose::Look)?;
    let count = logs.count(Topic::DeadLetter);
    let numbers = filter.partition.map_or_else(
        || (0..count).collect(),
        |partition| BTreeSet::from([partition.rem_euclid(count)]),
    );
    let names = logs.names();
    logs.scan(Topic::DeadLetter, &numbers, |fetched| {
        let record = fetched.record();
        let at = Timestamp::from_millisecond(record.timestamp).unwrap_or_default();
        let letter = read(&place(&names, record.partition, record.offset), fetched);
        let is_wanted = filter
            .reason
            .as_ref()
            .is_none_or(|only| *only == letter.reason)
            && filter.since.is_none_or(|since| at >= since)
            && filter.until.is_none_or(|until| at < until)
            && filter.partition.is_none_or(|only| {
                place_of(&letter.source).is_some_and(|(partition, _)| partition == only)
            });
        if is_wanted { each(letter) } else { Ok(()) }
    })
}

/// A dead letter with the bytes as they are.
#[derive(Debug, Clone)]
pub struct Raw {
    pub letter: Letter,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// The letter of one message, with its bytes.
pub fn show(config: &Config, partition: i32, offset: i64) -> Result<Option<Whole>, Error> {
    let found = find(&mut Logs::open(config, Purpose::Look)?, partition, offset)?;
    Ok(found.map(|raw| {
        let (form, value) = readable(raw.value.as_deref().unwrap_or_default());
        Whole {
            letter: raw.letter,
            form,
            value,
        }
    }))
}

/// The letter of one message, as it lies in its topic.
pub fn find(logs: &mut Logs, partition: i32, offset: i64) -> Result<Option<Raw>, Error> {
    let count = logs.count(Topic::DeadLetter);
    let names = logs.names();
    let mut found = None;
    let numbers = BTreeSet::from([partition.rem_euclid(count)]);
    logs.scan(Topic::DeadLetter, &numbers, |fetched| {
        let record = fetched.record();
        let letter = read(&place(&names, record.partition, record.offset), fetched);
        if place_of(&letter.source) == Some((partition, offset)) {
            found = Some(Raw {
                letter,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
            });
        }
        Ok(())
    })?;
    Ok(found)
}

fn read(at: &str, fetched: &Fetched) -> Letter {
    let record = fetched.record();
    let header = |name| {
        let bytes = fetched.header(name);
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    Letter {
        source: header(SOURCE_HEADER).unwrap_or_default(),
        letter: at.to_owned(),
        time: time(record.timestamp),
        reason: header(REASON_HEADER).unwrap_or_default(),
        detail: header(DETAIL_HEADER).unwrap_or_default(),
        key: record.key.map(|key| readable(key).1),
        bytes: record.value.map_or(0, <[u8]>::len),
        truncated: header(TRUNCATED_HEADER),
    }
}

fn place_of(source: &str) -> Option<(i32, i64)> {
    let (rest, offset) = source.rsplit_once('/')?;
    let (_, partition) = rest.rsplit_once('/')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

impl Letter {
    /// One line.
    pub fn line(&self) -> String {
        let Self {
            source,
            time,
            reason,
            detail,
            ..
        } = self;
        let key = self.key.as_deref().unwrap_or("-");
        let key = key.escape_debug();
        format!("{source}  {time}  {reason}  {key}  {detail}\n")
    }
}

impl Whole {
    pub fn text(&self) -> String {
        let mut out = String::new();
        let letter = &self.letter;
        let lines = [
            ("source", letter.source.as_str()),
            ("letter", &letter.letter),
            ("time", &letter.time),
            ("reason", &letter.reason),
            ("detail", &letter.detail),
            ("key", letter.key.as_deref().unwrap_or("none")),
            ("cut from", letter.truncated.as_deref().unwrap_or("not cut")),
        ];
        for (name, value) in lines {
            let value = value.escape_debug();
            writeln!(out, "{name:<9} {value}").expect("memory takes every text");
        }
        let (form, length) = (self.form, letter.bytes);
        writeln!(out, "value     {length} bytes, as {form}\n{}", self.value)
            .expect("memory takes every text");
        out
    }
}
