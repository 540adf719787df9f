//! Watches outcomes become visible to a `read_committed` consumer, while they do.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::cluster::names::Names;
use crate::cluster::wait;
use crate::oracle::TOUCH_KEY;
use crate::topics_reader;

/// The topics that are watched; settlements tell the recovery.
#[derive(Debug, Clone)]
pub struct Watched {
    pub settlements: String,
    pub exclusions: String,
    pub dead_letters: String,
}

impl Watched {
    pub fn of(names: &Names) -> Self {
        Self {
            settlements: names.settlements.clone(),
            exclusions: names.exclusions.clone(),
            dead_letters: names.dead_letter.clone(),
        }
    }
}

/// What was seen so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    pub settlements: u64,
    pub exclusions: u64,
    pub dead_letters: u64,
}

impl Seen {
    pub fn total(self) -> u64 {
        self.settlements + self.exclusions + self.dead_letters
    }
}

/// A mark in time: how long each partition of the settlements needed to show something newer.
#[derive(Debug, Clone)]
struct Mark {
    at: Instant,
    /// What has this offset or a higher one is newer.
    newer: Vec<i64>,
    first: Vec<Option<Duration>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    settlements: AtomicU64,
    exclusions: AtomicU64,
    dead_letters: AtomicU64,
    mark: Mutex<Option<Mark>>,
    /// Partition and offset of each settlement, and when it was seen.
    seen_at: Mutex<Option<Vec<(i32, i64, i64)>>>,
    failure: Mutex<Option<String>>,
}

/// A reader on a thread of its own; stopped on drop.
#[derive(Debug)]
pub struct Tail {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    bootstrap: String,
    watched: Watched,
}

impl Tail {
    /// Reads from now on.
    pub fn start(bootstrap: &str, watched: &Watched) -> Result<Self> {
        let consumer = topics_reader::committed_consumer(bootstrap, "none")?;
        let mut list = TopicPartitionList::new();
        for topic in [
            &watched.settlements,
            &watched.exclusions,
            &watched.dead_letters,
        ] {
            for (partition, (_, high)) in (0_i32..).zip(topics_reader::bounds(bootstrap, topic)?) {
                list.add_partition_offset(topic, partition, Offset::Offset(high))?;
            }
        }
        consumer.assign(&list).context("assign the outcomes")?;
        let shared = Arc::new(Shared::default());
        let (theirs, topics) = (Arc::clone(&shared), watched.clone());
        let thread = thread::Builder::new()
            .name("tail".to_owned())
            .spawn(move || follow(&consumer, &topics, &theirs))?;
        Ok(Self {
            shared,
            thread: Some(thread),
            bootstrap: bootstrap.to_owned(),
            watched: watched.clone(),
        })
    }

    /// What has been seen since the start.
    pub fn seen(&self) -> Result<Seen> {
        if let Some(failure) = lock(&self.shared.failure).as_ref() {
            return Err(anyhow!("watching the outcomes: {failure}"));
        }
        Ok(Seen {
            settlements: self.shared.settlements.load(Ordering::Relaxed),
            exclusions: self.shared.exclusions.load(Ordering::Relaxed),
            dead_letters: self.shared.dead_letters.load(Ordering::Relaxed),
        })
    }

    /// Starts the clock at `at`: from here on each partition's first settlement that was not visible counts.
    pub fn mark(&self, at: Instant) -> Result<()> {
        let consumer = topics_reader::committed_consumer(&self.bootstrap, "none")?;
        let topic = &self.watched.settlements;
        let newer = (0..topics_reader::partitions(&consumer, topic)?)
            .map(|partition| {
                Ok(consumer
                    .fetch_watermarks(topic, partition, Duration::from_secs(10))?
                    .1)
            })
            .collect::<Result<Vec<i64>>>()?;
        let first = vec![None; newer.len()];
        *lock(&self.shared.mark) = Some(Mark { at, newer, first });
        Ok(())
    }

    /// Per partition, the time from the mark to the first newer settlement.
    pub fn since_mark(&self) -> Vec<Option<Duration>> {
        lock(&self.shared.mark)
            .as_ref()
            .map_or_else(Vec::new, |mark| mark.first.clone())
    }

    /// Waits until every partition has shown a settlement that is newer than the mark.
    pub fn wait_newer(&self, after: &str, limit: Duration) -> Result<()> {
        let what = format!("progress of every partition after {after}");
        wait::until(&what, limit, || {
            self.seen()?;
            let newer = self.since_mark().iter().all(Option::is_some);
            Ok(newer.then_some(()))
        })
    }

    /// From now on keeps the time each settlement was seen.
    pub fn keep_times(&self) {
        *lock(&self.shared.seen_at) = Some(Vec::new());
    }

    /// What was kept: partition and offset in the settlements topic, milliseconds since 1970.
    pub fn times(&self) -> Vec<(i32, i64, i64)> {
        lock(&self.shared.seen_at).take().unwrap_or_default()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn follow(consumer: &BaseConsumer, topics: &Watched, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(message)) if is_touch(&message) => {}
            Some(Ok(message)) if message.topic() == topics.settlements => {
                shared.settlements.fetch_add(1, Ordering::Relaxed);
                note(shared, message.partition(), message.offset());
            }
            Some(Ok(message)) if message.topic() == topics.exclusions => {
                shared.exclusions.fetch_add(1, Ordering::Relaxed);
            }
            Some(Ok(_)) => {
                shared.dead_letters.fetch_add(1, Ordering::Relaxed);
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) if topics_reader::is_weather(&error) => {}
            Some(Err(error)) => {
                *lock(&shared.failure) = Some(error.to_string());
                return;
            }
        }
    }
}

/// A record that ends a transaction whose markers a broker has lost: it says nothing.
fn is_touch(message: &BorrowedMessage) -> bool {
    message.key() == Some(TOUCH_KEY) && message.payload().is_none()
}

fn note(shared: &Shared, partition: i32, offset: i64) {
    if let Some(mark) = lock(&shared.mark).as_mut() {
        let index = usize::try_from(partition).expect("a partition is not negative");
        if offset >= mark.newer[index] && mark.first[index].is_none() {
            mark.first[index] = Some(mark.at.elapsed());
        }
    }
    if let Some(times) = lock(&shared.seen_at).as_mut() {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        times.push((
            partition,
            offset,
            i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        ));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
