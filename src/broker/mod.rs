//! Kafka, and the only place that names rdkafka. Everything the rest of the service sees of Kafka
//! is a plain type of this module; the engine sees it through [`port`].

pub mod acls;
pub mod admin;
mod bootstrap;
mod call;
pub mod classify;
pub mod client;
pub mod consumer;
mod ends;
pub mod feeder;
pub mod group;
mod leaders;
pub mod logs;
pub mod mark;
pub mod monitor;
pub mod native;
mod operations;
pub mod ownerless;
pub mod port;
pub mod producer;
pub mod reader;
pub mod rights;
pub mod scan;
mod signals;
pub mod sink_consumer;
pub mod transaction;
mod wait;

use std::sync::Arc;

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use crate::config::Topics;

/// The topics of the service, by their role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    Source,
    Bases,
    Rules,
    Settlements,
    Statistics,
    Exclusions,
    DeadLetter,
    Changelog,
    IngestChangelog,
}

impl Topic {
    pub const ALL: [Self; 9] = [
        Self::Source,
        Self::Bases,
        Self::Rules,
        Self::Settlements,
        Self::Statistics,
        Self::Exclusions,
        Self::DeadLetter,
        Self::Changelog,
        Self::IngestChangelog,
    ];

    /// What the workers' group consumes: a task each for every partition.
    pub const CONSUMED: [Self; 2] = [Self::Source, Self::Bases];

    pub fn name_in(self, topics: &Topics) -> &str {
        match self {
            Self::Source => &topics.source,
            Self::Bases => &topics.bases,
            Self::Rules => &topics.rules,
            Self::Settlements => &topics.settlements,
            Self::Statistics => &topics.statistics,
            Self::Exclusions => &topics.exclusions,
            Self::DeadLetter => &topics.dead_letter,
            Self::Changelog => &topics.changelog,
            Self::IngestChangelog => &topics.ingest_changelog,
        }
    }
}

/// The configured name of each topic. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Names(Arc<[String; Topic::ALL.len()]>);

impl Names {
    /// Names in the order of [`Topic::ALL`].
    pub fn new(names: [String; Topic::ALL.len()]) -> Self {
        Self(Arc::new(names))
    }

    pub fn of(&self, topic: Topic) -> &str {
        &self.0[topic as usize]
    }

    /// `<topic>/<partition>`, for people.
    pub fn place(&self, partition: Partition) -> String {
        format!("{}/{}", self.of(partition.topic), partition.number)
    }

    /// The role of a topic name; names are distinct.
    pub fn role(&self, name: &str) -> Option<Topic> {
        Topic::ALL.into_iter().find(|topic| self.of(*topic) == name)
    }
}

/// One partition of a topic of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    pub topic: Topic,
    pub number: i32,
}

impl Partition {
    pub const fn new(topic: Topic, number: i32) -> Self {
        Self { topic, number }
    }

    /// All partitions of topics that have so many each.
    pub fn all(counts: &[(Topic, i32)]) -> Vec<Self> {
        let of = |&(topic, count)| (0..count).map(move |number| Self::new(topic, number));
        counts.iter().flat_map(of).collect()
    }
}

/// A consumed record; borrows from the client's fetch buffer.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub partition: Partition,
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// First offset and end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub low: i64,
    /// The high watermark: one past the last record or control marker, committed or not.
    pub high: i64,
}

/// The value of the last header of this name.
fn header<'a>(message: &'a BorrowedMessage, name: &str) -> Option<&'a [u8]> {
    let headers = message.headers()?;
    let found = headers.iter().filter(|header| header.key == name).last();
    found.and_then(|header| header.value)
}
