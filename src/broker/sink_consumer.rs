//! The consumer of the sink: a member of its group that reads committed records from positions the
//! sink names.
//!
//! The group only hands out partitions: it is never asked for a position and never told one. An
//! assigned partition stays silent until [`SinkConsumer::start`], and from then on gives its records in
//! strictly rising order from exactly that offset.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::broker::classify::{self, Denial, Polling};
use crate::broker::client::{Settings, log};
use crate::broker::{Names, Partition, Topic, header};

/// Longest wait for one call to the broker: shorter than that of the workers, because the sink polls
/// its group on the same thread, and looks there whether it is to stop.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The group gave partitions or took them away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Assigned(Vec<Partition>),
    Revoked(Vec<Partition>),
}

/// The readable part of a partition's log: `[first, stable)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readable {
    pub first: i64,
    /// Where the first transaction begins that is still open, or the end.
    pub stable: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Passes by itself: go on polling.
    #[error("{0}")]
    Weather(String),
    /// A started partition's position is outside its log: look at the bounds and start again.
    #[error("position outside of the log: {0}")]
    OutOfRange(String),
    /// The group has replaced this static member: find out by whom.
    #[error("the group has replaced this member")]
    Replaced,
    /// The broker refuses what the sink needs.
    #[error("{text}")]
    NotAllowed { denial: Denial, text: String },
    /// The consumer is over.
    #[error("{0}")]
    Fatal(String),
}

impl From<KafkaError> for Error {
    fn from(error: KafkaError) -> Self {
        let text = error.to_string();
        match classify::polling(&error) {
            Polling::Weather => Self::Weather(text),
            Polling::OutOfRange => Self::OutOfRange(text),
            Polling::Replaced => Self::Replaced,
            Polling::NotAllowed(denial) => Self::NotAllowed { denial, text },
            Polling::Fatal => Self::Fatal(text),
        }
    }
}

/// One record; borrows from the client's fetch buffer.
pub struct Record<'a> {
    message: BorrowedMessage<'a>,
    pub partition: Partition,
}

impl Record<'_> {
    pub fn offset(&self) -> i64 {
        self.message.offset()
    }

    /// Milliseconds since the epoch, if the record has a timestamp.
    pub fn timestamp(&self) -> Option<i64> {
        self.message.timestamp().to_millis()
    }

    pub fn key(&self) -> Option<&[u8]> {
        self.message.key()
    }

    pub fn value(&self) -> Option<&[u8]> {
        self.message.payload()
    }

    /// The value of the last header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        header(&self.message, name)
    }
}

struct Context {
    names: Names,
    changes: Mutex<Vec<Change>>,
    ends: Mutex<BTreeMap<Partition, i64>>,
}

impl Context {
    fn partition(&self, topic: &str, number: i32) -> Option<Partition> {
        let topic = self.names.role(topic)?;
        Some(Partition::new(topic, number))
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<Partition> {
        let elements = list.elements();
        let known = elements
            .iter()
            .filter_map(|element| self.partition(element.topic(), element.partition()));
        known.collect()
    }

    fn changed(&self, change: Change) {
        locked(&self.changes).push(change);
    }
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let mut ends = locked(&self.ends);
        for (name, topic) in &statistics.topics {
            for (&number, partition) in &topic.partitions {
                if let Some(at) = self.partition(name, number)
                    && partition.ls_offset >= 0
                {
                    ends.insert(at, partition.ls_offset);
                }
            }
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "settle::kafka", %error, reason, "client error");
    }
}

impl ConsumerContext for Context {
    /// Assigned partitions are paused before they can be read: only their owner knows from where.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let cooperative = matches!(
            consumer.rebalance_protocol(),
            RebalanceProtocol::Cooperative
        );
        let partitions = self.partitions(list);
        let done = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // An explicit place keeps the client from asking the group for one.
            let placed = list.set_all_offsets(Offset::Beginning);
            let assigned = placed.and_then(|()| {
                if cooperative {
                    consumer.incremental_assign(list)
                } else {
                    consumer.assign(list)
                }
            });
            self.changed(Change::Assigned(partitions));
            assigned.and_then(|()| consumer.pause(list))
        } else {
            self.changed(Change::Revoked(partitions));
            if cooperative {
                consumer.incremental_unassign(list)
            } else {
                consumer.unassign()
            }
        };
        if let Err(error) = done {
            tracing::error!(%error, "cannot apply the sink's new assignment");
        }
    }
}

/// The sink's member of its group.
pub struct SinkConsumer {
    consumer: BaseConsumer<Context>,
    /// The least offset that may come next, of started partitions.
    next: BTreeMap<Partition, i64>,
}

impl SinkConsumer {
    /// Joins the group of the sink in the background; partitions of these topics arrive through
    /// [`SinkConsumer::changes`].
    pub fn open(settings: &Settings, topics: &[Topic]) -> Result<Self, Error> {
        let names = &settings.topics;
        let context = Context {
            names: names.clone(),
            changes: Mutex::default(),
            ends: Mutex::default(),
        };
        let consumer: BaseConsumer<Context> =
            settings.sink_member().create_with_context(context)?;
        let topics: Vec<&str> = topics.iter().map(|topic| names.of(*topic)).collect();
        consumer.subscribe(&topics)?;
        Ok(Self {
            consumer,
            next: BTreeMap::new(),
        })
    }

    /// Waits up to `timeout` for a record of a started partition. Changes of the assignment happen
    /// in here: take [`SinkConsumer::changes`] after each call, before looking at the record.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<Record<'_>>, Error> {
        let message = match self.consumer.poll(timeout) {
            None => return Ok(None),
            Some(message) => message?,
        };
        let context = self.consumer.context();
        let partition = context.partition(message.topic(), message.partition());
        let Some((partition, next)) = partition.and_then(|at| Some((at, self.next.get_mut(&at)?)))
        else {
            return Ok(None);
        };
        if message.offset() < *next {
            return Ok(None);
        }
        *next = message.offset() + 1;
        Ok(Some(Record { message, partition }))
    }

    /// What the group has changed since the last call, in order.
    pub fn changes(&mut self) -> Vec<Change> {
        let changes = std::mem::take(&mut *locked(&self.consumer.context().changes));
        for change in &changes {
            let (Change::Assigned(partitions) | Change::Revoked(partitions)) = change;
            for partition in partitions {
                self.next.remove(partition);
                locked(&self.consumer.context().ends).remove(partition);
            }
        }
        changes
    }

    /// Asks the partition's leader.
    pub fn bounds(&self, partition: Partition) -> Result<Readable, Error> {
        let topic = self.topic(partition);
        let (first, stable) =
            self.consumer
                .fetch_watermarks(topic, partition.number, CALL_TIMEOUT)?;
        Ok(Readable { first, stable })
    }

    /// Reads an assigned partition from `offset` on, also when it is being read already.
    pub fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error> {
        self.next.remove(&partition);
        let list = self.list([(partition, Offset::Offset(offset))])?;
        let list = self.consumer.seek_partitions(list, CALL_TIMEOUT)?;
        for element in list.elements() {
            element.error()?;
        }
        self.consumer
            .resume(&self.list([(partition, Offset::Invalid)])?)?;
        self.next.insert(partition, offset);
        Ok(())
    }

    /// No record of these partitions comes until [`SinkConsumer::resume`] or a new start.
    pub fn pause(&self, partitions: &BTreeSet<Partition>) -> Result<(), Error> {
        let list = self.list(partitions.iter().map(|&at| (at, Offset::Invalid)))?;
        Ok(self.consumer.pause(&list)?)
    }

    pub fn resume(&self, partitions: &BTreeSet<Partition>) -> Result<(), Error> {
        let list = self.list(partitions.iter().map(|&at| (at, Offset::Invalid)))?;
        Ok(self.consumer.resume(&list)?)
    }

    /// Stable ends of the partitions as last heard of, at most a second or two old.
    pub fn ends(&self) -> BTreeMap<Partition, i64> {
        locked(&self.consumer.context().ends).clone()
    }

    /// How far the partitions have been read; counts the control records passed.
    pub fn read_positions(&self) -> Result<BTreeMap<Partition, i64>, Error> {
        let list = self.consumer.position()?;
        let elements = list.elements();
        let known = elements.iter().filter_map(|element| {
            let context = self.consumer.context();
            let partition = context.partition(element.topic(), element.partition())?;
            Some((partition, element.offset().to_raw()?))
        });
        Ok(known.filter(|(_, offset)| *offset >= 0).collect())
    }

    pub fn topic(&self, partition: Partition) -> &str {
        self.consumer.context().names.of(partition.topic)
    }

    fn list(
        &self,
        partitions: impl IntoIterator<Item = (Partition, Offset)>,
    ) -> Result<TopicPartitionList, Error> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in partitions {
            list.add_partition_offset(self.topic(partition), partition.number, offset)?;
        }
        Ok(list)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
