//! Reads pieces of logs from the side: what is undecided there, or what was committed. Rare: only
//! when a log does not go on.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::topic_partition_list::Offset;

use crate::broker::classify::{self, Error, Reaction, Stop};
use crate::broker::client::{CALL_TIMEOUT, Quiet, Settings, list};
use crate::broker::mark::{MARK_HEADER, Mark};
use crate::broker::{Partition, Record};
use crate::clock;

/// A scan that comes no further for so long has failed.
const STANDSTILL: Duration = Duration::from_secs(5);

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
pub(super) fn scan(
    settings: &Settings,
    isolation: Isolation,
    ranges: &[Range],
    mut visit: impl FnMut(&Record, Option<Mark>),
) -> Result<(), Error> {
    let attempt = "look at a part of a log";
    let classified = |error| classify::call(attempt, &error);
    let mut open: BTreeMap<Partition, i64> = ranges
        .iter()
        .filter(|range| range.from < range.to)
        .map(|range| (range.partition, range.to))
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    let names = &settings.topics;
    let client: BaseConsumer<Quiet> = settings
        .reader("scan", isolation.as_str())
        .create_with_context(Quiet)
        .map_err(|error| Error::new(attempt, error, Reaction::Stop(Stop::Failed)))?;
    // Without metadata the library waits a second before it asks for the leaders.
    client
        .fetch_metadata(None, CALL_TIMEOUT)
        .map_err(classified)?;
    let starts = ranges
        .iter()
        .filter(|range| range.from < range.to)
        .map(|range| (range.partition, Some(range.from)));
    client.assign(&list(names, starts)).map_err(classified)?;
    let mut moved_at = clock::now();
    while !open.is_empty() {
        match client.poll(POLL_WAIT) {
            Some(Ok(message)) => {
                moved_at = clock::now();
                let topic = names.role(message.topic());
                let topic = topic.expect("only topics of the service are read");
                let partition = Partition::new(topic, message.partition());
                let Some(to) = open.get(&partition) else {
                    continue;
                };
                if message.offset() < *to {
                    visit(&record(&message, partition), mark(&message));
                }
                if message.offset() + 1 >= *to {
                    open.remove(&partition);
                }
                continue;
            }
            Some(Err(error)) => {
                if let Some(failure) = classify::poll(&error) {
                    return Err(failure);
                }
                tracing::debug!(%error, attempt);
            }
            None => {}
        }
        // Markers and aborted records are not shown; the position passes them.
        let positions = client.position().map_err(classified)?;
        let before = open.len();
        open.retain(|partition, to| {
            let element =
                positions.find_partition(names.of(partition.topic), partition.number);
            !matches!(element.map(|element| element.offset()), Some(Offset::Offset(at)) if at >= *to)
        });
        if open.len() < before {
            moved_at = clock::now();
        }
        if clock::now().saturating_sub(moved_at) > STANDSTILL {
            return Err(Error::new(attempt, "it does not go on", Reaction::Wait));
        }
    }
    Ok(())
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
