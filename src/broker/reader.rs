//! Reads logs outside the consumer group: changelogs and the source while a task restores, the
//! rules topic for as long as the task lives. Committed records only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset;

use crate::broker::classify::{self, Error, Reaction, Stop};
use crate::broker::client::{CALL_TIMEOUT, Quiet, Settings, list};
use crate::broker::ends;
use crate::broker::port::{self, GroupOffsets};
use crate::broker::scan::Isolation;
use crate::broker::{Bounds, Names, Partition, Record, header, wait};

/// Offsets that are not stable after so long hang in a transaction that nobody will end soon.
const STABLE_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Reader {
    config: ClientConfig,
    client: Arc<BaseConsumer<Quiet>>,
    /// Sees records of undecided transactions: knows where a log really ends.
    watermarks: Arc<BaseConsumer<Quiet>>,
    names: Names,
    /// Where each partition was started.
    started: BTreeMap<Partition, i64>,
    stop: Arc<AtomicBool>,
}

/// A record that is still in the fetch buffer.
pub struct Fetched<'a> {
    message: BorrowedMessage<'a>,
    partition: Partition,
}

impl Fetched<'_> {
    /// The value of the last header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        header(&self.message, name)
    }
}

impl port::Fetched for Fetched<'_> {
    fn record(&self) -> Record<'_> {
        Record {
            partition: self.partition,
            offset: self.message.offset(),
            timestamp: self.message.timestamp().to_millis().unwrap_or(0),
            key: self.message.key(),
            value: self.message.payload(),
        }
    }
}

fn create(config: &ClientConfig) -> Result<Arc<BaseConsumer<Quiet>>, Error> {
    config
        .create_with_context(Quiet)
        .map(Arc::new)
        .map_err(|error| Error::new("create a log reader", error, Reaction::Stop(Stop::Failed)))
}

impl Reader {
    pub fn new(settings: &Settings, name: &str) -> Result<Self, Error> {
        let committed = Isolation::Committed.as_str();
        let uncommitted = Isolation::Uncommitted.as_str();
        let config = settings.reader(&format!("reader-{name}"), committed);
        let watermarks = settings.reader(&format!("watermarks-{name}"), uncommitted);
        Ok(Self {
            client: create(&config)?,
            config,
            watermarks: create(&watermarks)?,
            names: settings.topics.clone(),
            started: BTreeMap::new(),
            stop: Arc::clone(&settings.stop),
        })
    }

    /// The answer of a broker, unless the process is to end before it comes.
    fn ask<T: Send + 'static>(
        &self,
        client: &Arc<BaseConsumer<Quiet>>,
        question: impl FnOnce(&BaseConsumer<Quiet>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let client = Arc::clone(client);
        let answer = wait::call(&self.stop, move || question(&client));
        answer.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Asks for the metadata of one topic, or of all of them.
    fn refresh(
        &self,
        client: &Arc<BaseConsumer<Quiet>>,
        topic: Option<&str>,
    ) -> Result<(), KafkaError> {
        let topic = topic.map(str::to_owned);
        self.ask(client, move |client| {
            let known = client.fetch_metadata(topic.as_deref(), CALL_TIMEOUT);
            known.map(drop)
        })
    }

    /// What a question about logs came to. A client that fetches nothing does not notice by itself
    /// that their leaders have changed: it would ask in vain until its metadata is refreshed.
    fn known<T>(&self, answer: Result<T, KafkaError>, attempt: &'static str) -> Result<T, Error> {
        answer.map_err(|error| {
            if let Err(error) = self.refresh(&self.watermarks, None) {
                tracing::debug!(%error, "refresh the metadata");
            }
            classify::call(attempt, &error)
        })
    }

    fn client_of(&self, isolation: Isolation) -> &Arc<BaseConsumer<Quiet>> {
        match isolation {
            Isolation::Committed => &self.client,
            Isolation::Uncommitted => &self.watermarks,
        }
    }

    fn offsets_seen(
        &self,
        isolation: Isolation,
        partitions: &[Partition],
        timeout: Duration,
    ) -> Result<Vec<Option<i64>>, KafkaError> {
        let places = partitions.iter().map(|partition| (*partition, None));
        let asked = list(&self.names, places);
        let answer = self.ask(self.client_of(isolation), move |client| {
            client.committed_offsets(asked, timeout)
        })?;
        let offset = |partition: &Partition| {
            let name = self.names.of(partition.topic);
            let element = answer.find_partition(name, partition.number);
            let element = element.ok_or(KafkaError::OffsetFetch(Code::UnknownPartition))?;
            element.error()?;
            match element.offset() {
                Offset::Offset(offset) => Ok(Some(offset)),
                _ => Ok(None),
            }
        };
        partitions.iter().map(offset).collect()
    }
}

impl port::Reader for Reader {
    type Fetched<'a> = Fetched<'a>;

    fn bounds(&self, partition: Partition) -> Result<Bounds, Error> {
        let name = self.names.of(partition.topic).to_owned();
        let bounds = self.ask(&self.watermarks, move |client| {
            client.fetch_watermarks(&name, partition.number, CALL_TIMEOUT)
        });
        let bounds = bounds.map(|(low, high)| Bounds { low, high });
        self.known(bounds, "read the end of a log")
    }

    fn ends(&self, partitions: &[Partition], isolation: Isolation) -> Result<Vec<i64>, Error> {
        let (names, partitions) = (self.names.clone(), partitions.to_vec());
        let ends = self.ask(&self.watermarks, move |client| {
            let client = client.client().native_ptr();
            ends::ends(client, (&names, &partitions), isolation, CALL_TIMEOUT)
        });
        self.known(ends, "read the ends of logs")
    }

    /// The group's committed offsets. Asked by a client that is no member: a member's requests
    /// queue behind its own request to join, which may wait for others.
    fn committed(&self, partitions: &[Partition]) -> Result<GroupOffsets, Error> {
        match self.offsets_seen(Isolation::Committed, partitions, STABLE_TIMEOUT) {
            Ok(offsets) => Ok(GroupOffsets::Stable(offsets)),
            // The library asks again in silence while a transaction is undecided.
            Err(KafkaError::MetadataFetch(Code::OperationTimedOut)) => {
                let seen = self.offsets_seen(Isolation::Uncommitted, partitions, CALL_TIMEOUT);
                seen.map(GroupOffsets::Undecided)
            }
            Err(error) => Err(error),
        }
        .map_err(|error| classify::call("read the committed offsets", &error))
    }

    fn offset_at(&self, partition: Partition, timestamp: i64) -> Result<Option<i64>, Error> {
        let attempt = "find the start of the duplicate window";
        let asked = list(&self.names, [(partition, Some(timestamp.max(0)))]);
        let answer = self.ask(&self.watermarks, move |client| {
            client.offsets_for_times(asked, CALL_TIMEOUT)
        });
        let found = answer.and_then(|answer| {
            let elements = answer.elements();
            let element = elements.first().expect("one partition was asked for");
            element.error().map(|()| element.offset())
        });
        Ok(match self.known(found, attempt)? {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error> {
        let attempt = "start to read a log";
        self.stop(partition)?;
        // Without metadata the library waits a second before it asks for the partition's leader.
        let known = self.refresh(&self.client, Some(self.names.of(partition.topic)));
        if let Err(error) = known {
            self.renew()?;
            return Err(classify::call(attempt, &error));
        }
        self.client
            .incremental_assign(&list(&self.names, [(partition, Some(offset))]))
            .map_err(|error| classify::call(attempt, &error))?;
        self.started.insert(partition, offset);
        Ok(())
    }

    fn stop(&mut self, partition: Partition) -> Result<(), Error> {
        if self.started.remove(&partition).is_none() {
            return Ok(());
        }
        self.client
            .incremental_unassign(&list(&self.names, [(partition, None)]))
            .map_err(|error| classify::call("stop reading a log", &error))
    }

    fn poll(&self, timeout: Duration) -> Result<Option<Fetched<'_>>, Error> {
        if self.started.is_empty() {
            return Ok(None);
        }
        match self.client.poll(timeout) {
            None => Ok(None),
            Some(Ok(message)) => {
                let topic = self
                    .names
                    .role(message.topic())
                    .expect("only our topics are read");
                let partition = Partition::new(topic, message.partition());
                Ok(Some(Fetched { message, partition }))
            }
            Some(Err(error)) => {
                if let Some(failure) = classify::poll(&error) {
                    return Err(failure);
                }
                tracing::debug!(%error, "read a log");
                Ok(None)
            }
        }
    }

    fn position(&self, partition: Partition) -> Result<i64, Error> {
        let started = self.started.get(&partition).copied().unwrap_or(0);
        let positions = self
            .client
            .position()
            .map_err(|error| classify::call("read the reader's position", &error))?;
        let element = positions.find_partition(self.names.of(partition.topic), partition.number);
        match element.map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Ok(offset),
            _ => Ok(started),
        }
    }

    fn places(&self) -> Result<BTreeMap<Partition, i64>, Error> {
        let place = |partition: &Partition| Ok((*partition, self.position(*partition)?));
        self.started.keys().map(place).collect()
    }

    /// One that has no partition to fetch does not find back to a broker that was frozen for a while
    /// (seen with librdkafka 2.12.1).
    fn renew(&mut self) -> Result<(), Error> {
        let client = create(&self.config)?;
        for (partition, from) in self.started.clone() {
            let position = self.position(partition).unwrap_or(from);
            client
                .incremental_assign(&list(&self.names, [(partition, Some(position))]))
                .map_err(|error| classify::call("read a log with a new client", &error))?;
            self.started.insert(partition, position);
        }
        let old = std::mem::replace(&mut self.client, client);
        // Closing it may wait for the broker.
        std::thread::spawn(move || drop(old));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::Ordering;
    use std::thread;

    use super::*;
    use crate::broker::Topic;
    use crate::broker::port::Reader as _;
    use crate::clock;
    use crate::config::Config;

    const STOP_AFTER: Duration = Duration::from_millis(500);

    #[test]
    fn questions_to_a_silent_broker_are_given_up_when_the_process_is_to_end() {
        // Connections are made, and nothing is ever said.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let servers = (
            "SETTLE_KAFKA__BOOTSTRAP_SERVERS".to_owned(),
            silent.local_addr().unwrap().to_string(),
        );
        let config = Config::load(None, [servers].into_iter()).unwrap();
        let settings = Settings::new(&config);
        let source = Partition::new(Topic::Source, 0);
        let mut reader = Reader::new(&settings, "test").unwrap();
        let stop = Arc::clone(&settings.stop);
        let began = clock::now();
        thread::spawn(move || {
            thread::sleep(STOP_AFTER);
            stop.store(true, Ordering::Relaxed);
        });
        let failures = [
            reader.bounds(source).unwrap_err(),
            reader.ends(&[source], Isolation::Committed).unwrap_err(),
            reader.committed(&[source]).unwrap_err(),
            reader.offset_at(source, 0).unwrap_err(),
            port::Reader::start(&mut reader, source, 0).unwrap_err(),
        ];
        let took = clock::now().saturating_sub(began);
        assert!(took >= STOP_AFTER && took < CALL_TIMEOUT, "{took:?}");
        for failure in failures {
            assert_eq!(failure.reaction, Reaction::Wait, "{failure}");
        }
    }
}
