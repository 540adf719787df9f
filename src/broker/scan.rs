//! Reads pieces of logs from the side: what is undecided there, or what was committed. Rare: only
//! when a log does not go on.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message};

use crate::broker::classify::{self, Error, Reaction, Stop};
use crate::broker::client::{CALL_TIMEOUT, Quiet, Settings, list};
use crate::broker::mark::{MARK_HEADER, Mark};
use crate::broker::{Partition, Record, Topic, wait};
use crate::clock;

/// A scan that comes no further for so long has failed. One of many offsets is given longer: nothing is
/// heard of what was aborted.
const STANDSTILL: Duration = Duration::from_secs(5);
const STANDSTILL_MAX: Duration = Duration::from_secs(30);
const OFFSETS_PER_SECOND: u64 = 10_000;

const POLL_WAIT: Duration = Duration::from_millis(20);

/// Which records a client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    Committed,
    Uncommitted,
}

impl Isolation {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}

/// Offsets of one log: `from` included, `to` not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub partition: Partition,
    pub from: i64,
    pub to: i64,
}

/// Shows the records of these ranges, each with its mark where it has one. Ranges must lie inside
/// their logs, and below the stable end for committed records.
pub fn scan(
    settings: &Settings,
    isolation: Isolation,
    ranges: &[Range],
    mut visit: impl FnMut(&Record, Option<Mark>),
) -> Result<(), Error> {
    let mut by_topic: BTreeMap<Topic, BTreeMap<i32, Range>> = BTreeMap::new();
    for range in ranges.iter().filter(|range| range.from < range.to) {
        let Partition { topic, number } = range.partition;
        by_topic.entry(topic).or_default().insert(number, *range);
    }
    // The library tells the end of a partition by its number alone.
    for (topic, open) in by_topic {
        scan_topic(settings, isolation, (topic, open), &mut visit)?;
    }
    Ok(())
}

fn scan_topic(
    settings: &Settings,
    isolation: Isolation,
    (topic, mut open): (Topic, BTreeMap<i32, Range>),
    visit: &mut impl FnMut(&Record, Option<Mark>),
) -> Result<(), Error> {
    let attempt = "look at a part of a log";
    let classified = |error| classify::call(attempt, &error);
    let names = &settings.topics;
    // Where nothing but markers and aborted records is left, only the end tells that it was passed:
    // a position is none before the first record that is shown.
    let client: BaseConsumer<Quiet> = settings
        .reader("scan", isolation.as_str())
        .set("enable.partition.eof", "true")
        .create_with_context(Quiet)
        .map_err(|error| Error::new(attempt, error, Reaction::Stop(Stop::Failed)))?;
    // Without metadata the library waits a second before it asks for the leaders.
    let name = names.of(topic).to_owned();
    let known = wait::call(&settings.stop, move || {
        let known = client.fetch_metadata(Some(&name), CALL_TIMEOUT);
        known.map(|_| client)
    });
    let client = known
        .ok_or_else(|| wait::given_up(attempt))?
        .map_err(classified)?;
    let starts = open
        .values()
        .map(|range| (range.partition, Some(range.from)));
    client.assign(&list(names, starts)).map_err(classified)?;
    let patience = patience(open.values());
    let mut moved_at = clock::now();
    while !open.is_empty() {
        match client.poll(POLL_WAIT) {
            Some(Ok(message)) => {
                moved_at = clock::now();
                let Some(range) = open.get(&message.partition()) else {
                    continue;
                };
                if message.offset() < range.to {
                    visit(&record(&message, range.partition), mark(&message));
                }
                if message.offset() + 1 >= range.to {
                    open.remove(&message.partition());
                }
            }
            Some(Err(KafkaError::PartitionEOF(number))) => {
                moved_at = clock::now();
                open.remove(&number);
            }
            Some(Err(error)) => {
                if let Some(failure) = classify::poll(&error) {
                    return Err(failure);
                }
                tracing::debug!(%error, attempt);
            }
            None => {}
        }
        if settings.stop.load(Ordering::Relaxed) {
            return Err(wait::given_up(attempt));
        }
        if clock::now().saturating_sub(moved_at) > patience {
            return Err(Error::new(attempt, "it does not go on", Reaction::Wait));
        }
    }
    Ok(())
}

fn patience<'a>(ranges: impl Iterator<Item = &'a Range>) -> Duration {
    let offsets: i64 = ranges.map(|range| range.to - range.from).sum();
    let seconds = u64::try_from(offsets).unwrap_or(0) / OFFSETS_PER_SECOND;
    STANDSTILL_MAX.min(STANDSTILL + Duration::from_secs(seconds))
}

fn record<'a>(message: &'a BorrowedMessage, partition: Partition) -> Record<'a> {
    Record {
        partition,
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(0),
        key: message.key(),
        value: message.payload(),
    }
}

fn mark(message: &BorrowedMessage) -> Option<Mark> {
    let headers = message.headers()?;
    let header = headers.iter().find(|header| header.key == MARK_HEADER)?;
    Mark::parse(header.value?)
}
