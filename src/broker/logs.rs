//! The topics of the service, read as anybody can who may read them: committed records, bounds and
//! the group's offsets. For what looks at a run and takes no part in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::broker::admin::{self, Admin, Existing};
use crate::broker::classify::{self, Reaction, Stop};
use crate::broker::client::Settings;
use crate::broker::port::{Fetched as _, GroupOffsets, Reader as _};
use crate::broker::reader::{Fetched, Reader};
use crate::broker::rights::Purpose;
use crate::broker::scan::Isolation;
use crate::broker::{Bounds, Names, Partition, Topic};
use crate::clock;
use crate::config::Config;
use crate::exit::Exit;

const POLL: Duration = Duration::from_millis(50);
/// Records between two looks at how far the reader has come.
const LOOK_EVERY: u32 = 2000;
/// A log that does not go on for so long ends in a transaction that nobody ends.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Admin(#[from] admin::Error),
    #[error("Kafka: {0}")]
    Kafka(#[from] classify::Error),
    #[error("there is no topic {0}: nothing has run here, or this principal may not see it")]
    Missing(String),
    #[error(
        "{0} cannot be read up to {1}: a transaction stays open, or its markers are lost \
         (docs/kafka.md, section 7)"
    )]
    Stuck(String, i64),
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Admin(error) => error.exit(),
            Self::Kafka(error) => match error.reaction {
                Reaction::Stop(Stop::NotAllowed(_)) => Exit::NotAllowed,
                _ => Exit::Unavailable,
            },
            Self::Missing(_) => Exit::Configuration,
            Self::Stuck(..) => Exit::Unavailable,
        }
    }
}

/// The logs of one cluster.
pub struct Logs {
    reader: Reader,
    settings: Settings,
    topics: BTreeMap<Topic, Existing>,
}

impl Logs {
    pub fn open(config: &Config, purpose: Purpose) -> Result<Self, Error> {
        let settings = Settings::new(config);
        let names = Topic::ALL.map(|topic| topic.name_in(&config.topics));
        let admin = Admin::new(&settings)?;
        admin.demand(config, purpose)?;
        let mut found = admin.describe(&names)?;
        let mut topics = BTreeMap::new();
        for topic in Topic::ALL {
            let name = topic.name_in(&config.topics);
            let existing = found.remove(name);
            let existing = existing.ok_or_else(|| Error::Missing(name.to_owned()))?;
            topics.insert(topic, existing);
        }
        let reader = Reader::new(&settings, "verify")?;
        Ok(Self {
            reader,
            settings,
            topics,
        })
    }

    pub fn count(&self, topic: Topic) -> i32 {
        self.topics[&topic].partitions
    }

    pub fn names(&self) -> Names {
        self.settings.topics.clone()
    }

    /// Hands every committed record of these partitions of a topic to `each`.
    pub fn scan(
        &mut self,
        topic: Topic,
        numbers: &BTreeSet<i32>,
        each: impl FnMut(&Fetched) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut logs = Vec::new();
        for (log, bounds) in self.bounds(topic)? {
            if numbers.contains(&log.number) {
                logs.push((log, bounds.low, bounds.high));
            }
        }
        self.read(&logs, each)
    }

    /// The broker's value of a setting of a topic.
    pub fn setting(&self, topic: Topic, name: &str) -> Option<&str> {
        self.topics[&topic].settings.get(name).map(String::as_str)
    }

    pub fn partitions(&self, topic: Topic) -> impl Iterator<Item = Partition> + use<> {
        (0..self.count(topic)).map(move |number| Partition::new(topic, number))
    }

    /// First offsets and high watermarks of a topic.
    pub fn bounds(&self, topic: Topic) -> Result<Vec<(Partition, Bounds)>, Error> {
        self.partitions(topic)
            .map(|partition| Ok((partition, self.reader.bounds(partition)?)))
            .collect()
    }

    /// First offset and high watermark of one log.
    pub fn bounds_of(&self, partition: Partition) -> Result<Bounds, Error> {
        Ok(self.reader.bounds(partition)?)
    }

    /// Where these logs end for a reader with this isolation, in their order.
    pub fn ends(&self, partitions: &[Partition], isolation: Isolation) -> Result<Vec<i64>, Error> {
        Ok(self.reader.ends(partitions, isolation)?)
    }

    /// What the group has committed for these partitions, in their order.
    pub fn committed(&self, partitions: &[Partition]) -> Result<GroupOffsets, Error> {
        Ok(self.reader.committed(partitions)?)
    }

    /// Hands the committed records of each log from the first to before the second offset to
    /// `each`, and returns when the reader has passed all second offsets.
    pub fn read(
        &mut self,
        logs: &[(Partition, i64, i64)],
        each: impl FnMut(&Fetched) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.try_read(logs, each)
    }

    /// The same for an `each` that can fail in ways of its own.
    pub fn try_read<E: From<Error>>(
        &mut self,
        logs: &[(Partition, i64, i64)],
        mut each: impl FnMut(&Fetched) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut open: BTreeMap<Partition, i64> = BTreeMap::new();
        for (log, from, to) in logs {
            if from < to {
                self.reader.start(*log, *from).map_err(Error::from)?;
                open.insert(*log, *to);
            }
        }
        let (mut since_look, mut heard) = (0, clock::now());
        while !open.is_empty() {
            if let Some(fetched) = self.reader.poll(POLL).map_err(Error::from)? {
                let record = fetched.record();
                since_look += 1;
                if open
                    .get(&record.partition)
                    .is_some_and(|to| record.offset < *to)
                {
                    each(&fetched)?;
                }
                if since_look < LOOK_EVERY {
                    continue;
                }
            }
            let before = open.len();
            self.close_ended(&mut open)?;
            if since_look > 0 || open.len() < before {
                heard = clock::now();
            } else if clock::now().saturating_sub(heard) > SILENCE
                && let Some((log, end)) = open.first_key_value()
            {
                let name = self.settings.topics.of(log.topic);
                return Err(Error::Stuck(format!("{name}/{}", log.number), *end).into());
            }
            since_look = 0;
        }
        Ok(())
    }

    fn close_ended(&mut self, open: &mut BTreeMap<Partition, i64>) -> Result<(), Error> {
        for (log, end) in open.clone() {
            if self.reader.position(log)? >= end {
                self.reader.stop(log)?;
                open.remove(&log);
            }
        }
        Ok(())
    }
}
