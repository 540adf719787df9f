//! `settle dead-letters replay`: sends a message that became a dead letter to the source again,
//! once.
//!
//! The record in the source is the record of the deed: its headers name the first place of the
//! message, who had it sent, and why. The source partition is read from the message to its end;
//! where a replay of it stands there, that is the end of it. Then the transactional id is taken over,
//! by which everything that another process has begun is decided and no other can write, and the
//! partition is read on to its end of then. Only then one record is written. Who has lost the id in
//! between cannot commit any more. What of that part of the log is deleted can no longer be looked
//! at, so such a message is refused.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use crate::broker::client::Settings;
use crate::broker::logs::Logs;
use crate::broker::native::Outgoing;
use crate::broker::port::Fetched as _;
use crate::broker::rights::Purpose;
use crate::broker::{Bounds, Partition, Topic};
use crate::clock;
use crate::codec::wire::{REPLAY_BY_HEADER, REPLAY_HEADER, REPLAY_REASON_HEADER};
use crate::config::Config;
use crate::inspect::letters::{self, Letter, Raw};
use crate::inspect::{place, time};
use crate::operate::{Error, Writer};
use crate::verify::message::{self, Reading};

/// Names the transactional id.
const TOOL: &str = "replay";

/// Longest text of `--by` and `--reason`, in bytes.
const TEXT_BYTES_MAX: usize = 500;

/// The reason of the one kind of dead letter that is the first payment of its id.
const OVERFLOW: &str = "AMOUNT_OVERFLOW";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Of the source.
    pub partition: i32,
    pub offset: i64,
    pub by: String,
    pub reason: String,
    /// Without it everything is looked at and nothing is written.
    pub is_meant: bool,
}

/// What was done, or would be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    #[serde(flatten)]
    pub letter: Letter,
    pub by: String,
    pub why: String,
    /// What this version makes of the message.
    pub reads_as: String,
    /// How far the source partition was searched for an earlier replay.
    pub searched: Searched,
    /// Where the message stands now; `null` when nothing was written.
    pub replayed_as: Option<String>,
}

/// Offsets of the source partition: `from` included, `to` not.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Searched {
    pub from: i64,
    pub to: i64,
}

/// Looks, and sends the message again if it is meant.
pub fn replay(config: &Config, request: &Request) -> Result<Replay, Error> {
    check("--by", &request.by)?;
    check("--reason", &request.reason)?;
    let mut logs = Logs::open(config, Purpose::Look)?;
    let Request {
        partition, offset, ..
    } = *request;
    let raw = letters::find(&mut logs, partition, offset)?
        .ok_or_else(|| refused("this source record has no dead letter"))?;
    if let Some(length) = &raw.letter.truncated {
        let kept = raw.letter.bytes;
        let text = format!("the dead letter was cut: it holds {kept} bytes of {length}");
        return Err(Error::Refused(text));
    }
    let source = Partition::new(Topic::Source, partition);
    let of = place(&logs.names(), source, offset);
    if raw.letter.source != of {
        let found = &raw.letter.source;
        let text = format!("the dead letter is of {found}, which is not the configured source");
        return Err(Error::Refused(text));
    }
    let mut search = Search::begin(&logs, &raw, (source, offset), config)?;
    search.go_on(&mut logs)?;
    let writer = if request.is_meant {
        // From here on nobody else can write a replay; the first look took the time.
        let writer = Writer::take(&Settings::new(config), TOOL)?;
        search.go_on(&mut logs)?;
        Some(writer)
    } else {
        None
    };
    let (searched, first) = (search.searched, search.first);
    if raw.letter.reason == OVERFLOW {
        check_window(config, first)?;
    }
    let headers = [
        (REPLAY_HEADER, of),
        (REPLAY_BY_HEADER, request.by.clone()),
        (REPLAY_REASON_HEADER, request.reason.clone()),
    ];
    let record = Outgoing {
        partition: source,
        key: raw.key.as_deref(),
        value: raw.value.as_deref(),
        headers: &headers,
        receipt: None,
    };
    let written = writer.map(|writer| writer.write(&record)).transpose()?;
    Ok(Replay {
        reads_as: reads_as(&raw),
        letter: raw.letter,
        by: request.by.clone(),
        why: request.reason.clone(),
        searched,
        replayed_as: written.map(|at| place(&logs.names(), source, at)),
    })
}

fn refused(text: &str) -> Error {
    Error::Refused(text.to_owned())
}

fn check(name: &str, text: &str) -> Result<(), Error> {
    let fits = !text.trim().is_empty() && text.len() <= TEXT_BYTES_MAX;
    if fits && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{name} must be one line of 1 to {TEXT_BYTES_MAX} bytes"
    )))
}

/// Reads the source partition from the message to its end.
struct Search<'a> {
    source: Partition,
    offset: i64,
    /// The place of the message, as a replay names it.
    of: String,
    raw: &'a Raw,
    /// Milliseconds.
    window: u64,
    searched: Searched,
    /// Timestamp of the first payment that a replay would be compared with.
    first: Option<i64>,
}

impl<'a> Search<'a> {
    /// Refuses when it could not tell whether the message was replayed before.
    fn begin(
        logs: &Logs,
        raw: &'a Raw,
        (source, offset): (Partition, i64),
        config: &Config,
    ) -> Result<Self, Error> {
        let of = place(&logs.names(), source, offset);
        if source.number >= logs.count(Topic::Source) {
            return Err(refused("the source topic has no such partition"));
        }
        let Bounds { low, high } = logs.bounds_of(source)?;
        if low > offset + 1 {
            return Err(Error::Refused(format!(
                "the source partition begins at offset {low}: what came after {of} is deleted in \
                 part, so it is not known whether the message was replayed before. Its bytes are \
                 in the dead letter; send them as a new payment if they are due"
            )));
        }
        if offset >= high {
            return Err(Error::Refused(format!(
                "the source partition ends at offset {high}: the topic was made anew"
            )));
        }
        let from = low.max(offset);
        Ok(Self {
            source,
            offset,
            of,
            raw,
            window: u64::try_from(config.dedup.window.as_millis()).unwrap_or(u64::MAX),
            searched: Searched { from, to: from },
            first: None,
        })
    }

    /// Reads on to the end of now, and refuses when the message was replayed before.
    fn go_on(&mut self, logs: &mut Logs) -> Result<(), Error> {
        let Bounds { low, high } = logs.bounds_of(self.source)?;
        let from = self.searched.to;
        if low > from {
            return Err(refused("the source lost records while it was searched"));
        }
        let names = logs.names();
        let mut refusal = None;
        logs.read(&[(self.source, from, high)], |fetched| {
            let record = fetched.record();
            let raw = (self.raw.key.as_deref(), self.raw.value.as_deref());
            if record.offset == self.offset && (record.key, record.value) != raw {
                refusal = Some(format!(
                    "{} holds another message than the dead letter: the topic was made anew",
                    self.of
                ));
            }
            if fetched.header(REPLAY_HEADER) == Some(self.of.as_bytes()) {
                let text = |name| String::from_utf8_lossy(fetched.header(name).unwrap_or_default());
                let at = place(&names, record.partition, record.offset);
                refusal = Some(format!(
                    "{} was replayed before: as {at} at {}, by {}: {}",
                    self.of,
                    time(record.timestamp),
                    text(REPLAY_BY_HEADER),
                    text(REPLAY_REASON_HEADER)
                ));
            }
            if record.key == raw.0 {
                let at = record.timestamp;
                let is_repeat = |first: i64| at.abs_diff(first) <= self.window;
                self.first = self.first.filter(|first| is_repeat(*first)).or(Some(at));
            }
            Ok(())
        })?;
        self.searched.to = high;
        refusal.map_or(Ok(()), |text| Err(Error::Refused(text)))
    }
}

/// A payment whose total overflowed is the first of its id: inside the window the replay would be
/// excluded as its duplicate, and there is only one.
fn check_window(config: &Config, first: Option<i64>) -> Result<(), Error> {
    let window = i64::try_from(config.dedup.window.as_millis()).unwrap_or(i64::MAX);
    let ends = first.map_or(i64::MIN, |first| first.saturating_add(window));
    if clock::wall_millis() > ends {
        return Ok(());
    }
    let ends =
        Timestamp::from_millisecond(ends).map_or_else(|_| "ever".to_owned(), |at| at.to_string());
    Err(Error::Refused(format!(
        "the payment is the first of its id inside dedup.window: until {ends} a replay would be \
         excluded as its DUPLICATE, and it can be replayed only once"
    )))
}

fn reads_as(raw: &Raw) -> String {
    match message::read(raw.key.as_deref(), raw.value.as_deref()) {
        Reading::Finish => "a FINISH marker: it becomes an exclusion".to_owned(),
        Reading::NoData => "a message without data: it becomes an exclusion".to_owned(),
        Reading::Dead(reason) => format!("no payment ({reason}): it becomes a dead letter again"),
        Reading::Payment(payment) => {
            let (amount, merchant) = (payment.amount, &payment.merchant);
            let text = format!("a payment of {amount} to {merchant}");
            if raw.letter.reason == OVERFLOW {
                return text + ": a dead letter again if the total of its key still has no room";
            }
            text
        }
    }
}

impl Replay {
    pub fn text(&self) -> String {
        let mut out = String::new();
        let letter = &self.letter;
        let Searched { from, to } = self.searched;
        let lines = [
            (
                "message",
                format!("{}, {} bytes", letter.source, letter.bytes),
            ),
            (
                "dead letter",
                format!("{} of {}", letter.letter, letter.time),
            ),
            ("because", format!("{}: {}", letter.reason, letter.detail)),
            ("read as", self.reads_as.clone()),
            (
                "searched",
                format!("offsets {from} to {to}: not replayed before"),
            ),
            ("by", self.by.clone()),
            ("reason", self.why.clone()),
        ];
        for (name, value) in lines {
            writeln!(out, "{name:<11} {}", value.escape_debug()).expect("memory takes every text");
        }
        match &self.replayed_as {
            Some(at) => writeln!(out, "replayed as {at}"),
            None => writeln!(out, "nothing was changed: add --yes to send it"),
        }
        .expect("memory takes every text");
        out
    }
}
