//! Reads whole topics as a `read_committed` consumer sees them, without a group.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::interrupt;
use crate::model::Record;

const LIMIT: Duration = Duration::from_secs(30);
/// How long a partition may deliver nothing before its end.
const SILENCE: Duration = Duration::from_secs(60);

/// A consumer that sees committed records and the ends of partitions.
pub fn committed_consumer(bootstrap: &str, group: &str) -> Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "20")
        .set("queued.max.messages.kbytes", "16384")
        .set("allow.auto.create.topics", "false")
        .create()
        .context("create a consumer for committed records")
}

/// The number of partitions of a topic that must exist.
pub fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<i32> {
    let metadata = consumer
        .fetch_metadata(Some(topic), LIMIT)
        .with_context(|| format!("look for {topic}"))?;
    let count = metadata
        .topics()
        .first()
        .map_or(0, |found| found.partitions().len());
    ensure!(count > 0, "there is no topic {topic}");
    i32::try_from(count).context("count partitions")
}

/// The first offset and the high watermark of each partition.
pub fn bounds(bootstrap: &str, topic: &str) -> Result<Vec<(i64, i64)>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("isolation.level", "read_uncommitted")
        .create()
        .context("create a consumer for high watermarks")?;
    (0..partitions(&consumer, topic)?)
        .map(|partition| {
            let bounds = consumer.fetch_watermarks(topic, partition, LIMIT);
            bounds.with_context(|| format!("read the ends of {topic}/{partition}"))
        })
        .collect()
}

/// Hands every committed record of a topic at rest to `feed`, each partition in the order of its offsets.
///
/// Waits until no transaction is open on it: until the last stable offset is the high watermark.
pub fn read(bootstrap: &str, topic: &str, mut feed: impl FnMut(&Record)) -> Result<u64> {
    let consumer = committed_consumer(bootstrap, "none")?;
    let bounds = stable_bounds(bootstrap, &consumer, topic)?;
    let mut list = TopicPartitionList::new();
    let mut open = vec![false; bounds.len()];
    for (partition, &(low, high)) in (0_i32..).zip(&bounds) {
        if low < high {
            list.add_partition_offset(topic, partition, Offset::Offset(low))?;
            open[usize::try_from(partition)?] = true;
        }
    }
    consumer
        .assign(&list)
        .with_context(|| format!("assign {topic}"))?;
    let mut count = 0;
    let mut heard = Instant::now();
    while open.contains(&true) {
        interrupt::check()?;
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                count += 1;
                with_record(&message, &mut feed);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open[usize::try_from(partition)?] = false;
            }
            Some(Err(error)) if is_weather(&error) => {}
            Some(Err(error)) => bail!("read {topic}: {error}"),
            None if heard.elapsed() > SILENCE => bail!("{topic} did not come to its end: {open:?}"),
            None => {}
        }
    }
    Ok(count)
}

/// Whether librdkafka goes on by itself after this.
pub fn is_weather(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, OperationTimedOut,
    };
    let code = error.rdkafka_error_code();
    code.is_some_and(|code| {
        matches!(
            code,
            AllBrokersDown | BrokerTransportFailure | OperationTimedOut
        )
    })
}

/// Lends a message as a record.
pub fn with_record(message: &BorrowedMessage, feed: &mut impl FnMut(&Record)) {
    let headers = message.headers().map(|headers| {
        headers
            .iter()
            .map(|header| (header.key, header.value))
            .collect()
    });
    feed(&Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key(),
        value: message.payload(),
        headers: headers.unwrap_or_default(),
    });
}

fn stable_bounds(bootstrap: &str, consumer: &BaseConsumer, topic: &str) -> Result<Vec<(i64, i64)>> {
    let start = Instant::now();
    loop {
        let bounds = bounds(bootstrap, topic)?;
        let mut is_stable = true;
        for (partition, &(_, high)) in (0_i32..).zip(&bounds) {
            is_stable &= consumer.fetch_watermarks(topic, partition, LIMIT)?.1 == high;
        }
        if is_stable {
            return Ok(bounds);
        }
        ensure!(
            start.elapsed() < LIMIT,
            "a transaction stays open on {topic}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
