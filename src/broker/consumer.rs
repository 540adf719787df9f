//! The group consumer of a worker: records, and changes of its assignment as values.
//!
//! A rebalance event is handed to the worker instead of being answered inside the poll. Until the
//! worker answers with [`Consumer::assign`] or [`Consumer::unassign`], the group gives a revoked
//! partition to nobody else.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::broker::classify::{self, Error, Reaction, Stop};
use crate::broker::client::{CALL_TIMEOUT, Quiet, Settings, list};
use crate::broker::native::Membership;
use crate::broker::port::{self, Polled, Rebalance};
use crate::broker::{Names, Partition, Record, Topic};

struct Context {
    names: Names,
    pending: Mutex<VecDeque<Rebalance>>,
    closing: AtomicBool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::SeqCst) {
            // Nobody answers any more; the library waits for it before it closes.
            let _ = consumer.incremental_unassign(partitions);
            return;
        }
        let named: Vec<Partition> = partitions
            .elements()
            .iter()
            .filter_map(|element| {
                let topic = self.names.role(element.topic())?;
                Some(Partition::new(topic, element.partition()))
            })
            .collect();
        let change = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Rebalance::Assigned(named)
        } else {
            Rebalance::Revoked {
                partitions: named,
                lost: consumer.assignment_lost(),
            }
        };
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.push_back(change);
    }
}

/// A record that is still in the fetch buffer.
pub struct Fetched<'a> {
    message: BorrowedMessage<'a>,
    topic: Topic,
}

impl port::Fetched for Fetched<'_> {
    fn record(&self) -> Record<'_> {
        Record {
            partition: Partition::new(self.topic, self.message.partition()),
            offset: self.message.offset(),
            timestamp: self.message.timestamp().to_millis().unwrap_or(0),
            key: self.message.key(),
            value: self.message.payload(),
        }
    }
}

pub struct Consumer {
    client: BaseConsumer<Context>,
    names: Names,
}

impl Consumer {
    /// Joins the group and subscribes to payments and bases.
    pub(super) fn join(settings: &Settings, worker: usize) -> Result<Self, Error> {
        let attempt = "join the consumer group";
        let names = settings.topics.clone();
        let context = Context {
            names: names.clone(),
            pending: Mutex::default(),
            closing: AtomicBool::new(false),
        };
        let client: BaseConsumer<Context> = settings
            .member(worker)
            .create_with_context(context)
            .map_err(|error| Error::new(attempt, error, Reaction::Stop(Stop::Failed)))?;
        client
            .subscribe(&Topic::CONSUMED.map(|topic| names.of(topic)))
            .map_err(|error| classify::call(attempt, &error))?;
        Ok(Self { client, names })
    }
}

impl port::Consumer for Consumer {
    type Fetched<'a> = Fetched<'a>;
    type Membership = Membership;

    fn poll(&self, timeout: Duration) -> Result<Polled<Fetched<'_>>, Error> {
        let polled = self.client.poll(timeout);
        match polled {
            Some(Ok(message)) => {
                // Records come from the two subscribed topics only.
                let is_source = message.topic() == self.names.of(Topic::Source);
                let topic = if is_source {
                    Topic::Source
                } else {
                    Topic::Bases
                };
                Ok(Polled::Record(Fetched { message, topic }))
            }
            Some(Err(error)) => {
                if let Some(failure) = classify::poll(&error) {
                    return Err(failure);
                }
                tracing::debug!(%error, "poll");
                Ok(Polled::Nothing)
            }
            None => {
                let context = self.client.context();
                let mut pending = context
                    .pending
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                Ok(pending
                    .pop_front()
                    .map_or(Polled::Nothing, Polled::Rebalance))
            }
        }
    }

    /// Not at a logical offset: that one is looked up, and librdkafka repeats the look-up when its
    /// answer comes after the seek of a start (2.12.1, `rd_kafka_toppar_handle_Offset`): half a
    /// second later a partition that was assigned at its end jumps there, over records that nobody
    /// has processed.
    fn assign(&self, partitions: &[(Partition, i64)]) -> Result<(), Error> {
        let attempt = "take over assigned partitions";
        let places = partitions
            .iter()
            .map(|(partition, offset)| (*partition, Some(*offset)));
        let assigned = list(&self.names, places);
        self.client
            .incremental_assign(&assigned)
            .and_then(|()| self.client.pause(&assigned))
            .map_err(|error| classify::call(attempt, &error))
    }

    fn unassign(&self, partitions: &[Partition]) -> Result<(), Error> {
        let revoked = list(
            &self.names,
            partitions.iter().map(|partition| (*partition, None)),
        );
        self.client
            .incremental_unassign(&revoked)
            .map_err(|error| classify::call("give up revoked partitions", &error))
    }

    fn start(&self, partition: Partition, offset: i64) -> Result<(), Error> {
        let attempt = "seek to the position of a task";
        let target = list(&self.names, [(partition, Some(offset))]);
        let sought = self
            .client
            .seek_partitions(target, CALL_TIMEOUT)
            .map_err(|error| classify::call(attempt, &error))?;
        for element in sought.elements() {
            element
                .error()
                .map_err(|error| classify::call(attempt, &error))?;
        }
        self.resume(partition)
    }

    fn pause(&self, partition: Partition) -> Result<(), Error> {
        let list = list(&self.names, [(partition, None)]);
        self.client
            .pause(&list)
            .map_err(|error| classify::call("pause a partition", &error))
    }

    fn resume(&self, partition: Partition) -> Result<(), Error> {
        let list = list(&self.names, [(partition, None)]);
        self.client
            .resume(&list)
            .map_err(|error| classify::call("resume a partition", &error))
    }

    fn position(&self, partition: Partition) -> Result<Option<i64>, Error> {
        let positions = self
            .client
            .position()
            .map_err(|error| classify::call("read the consumer's position", &error))?;
        let element = positions.find_partition(self.names.of(partition.topic), partition.number);
        Ok(element.and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }

    fn membership(&self) -> Result<Membership, Error> {
        Membership::of(self.client.client().native_ptr())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.client.context().closing.store(true, Ordering::SeqCst);
    }
}
