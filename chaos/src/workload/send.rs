//! Sends messages to the source topic: as fast as the broker takes them or at a fixed rate, plainly or in transactions
//! of which some are aborted and sent again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use crate::workload::Message;

/// Longer than a broker that was killed stays away.
const LIMIT: Duration = Duration::from_secs(180);
const POLL_EVERY: u64 = 256;

/// Where and how fast.
#[derive(Debug, Clone)]
pub struct SendOptions {
    pub bootstrap: String,
    pub topic: String,
    /// At most this many a second, each at its own moment; `None` for as many as possible.
    pub per_second: Option<u32>,
    pub transactions: Option<Transactions>,
}

impl SendOptions {
    pub fn new(bootstrap: &str, topic: &str) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            topic: topic.to_owned(),
            per_second: None,
            transactions: None,
        }
    }
}

/// Sending in transactions.
#[derive(Debug, Clone)]
pub struct Transactions {
    pub id: String,
    /// Messages in each.
    pub size: usize,
    /// Every so many transactions one is aborted, and its messages are sent again in the next.
    pub abort_every: usize,
}

/// What was sent and acknowledged.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    pub messages: u64,
    /// By what the messages are meant to become.
    pub by_intent: BTreeMap<&'static str, u64>,
    pub aborted_transactions: u64,
}

#[derive(Default)]
struct Deliveries {
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        // Purged messages belong to a transaction that is aborted on purpose.
        if let Err((error, _)) = result
            && error.rdkafka_error_code() != Some(RDKafkaErrorCode::PurgeQueue)
        {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends all messages and waits for their acknowledgement; `progress` counts them as they go, and stops the sending
/// when it says false.
pub fn send(
    options: &SendOptions,
    messages: impl Iterator<Item = Message>,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<Sent> {
    let mut sender = Sender::connect(options)?;
    let mut open: Vec<Message> = Vec::new();
    for message in messages {
        sender.pace(options);
        sender.send(&message)?;
        *sender.sent.by_intent.entry(message.intent).or_default() += 1;
        sender.sent.messages += 1;
        if let Some(transactions) = &options.transactions {
            open.push(message);
            if open.len() == transactions.size {
                sender.end_transaction(transactions, &mut open)?;
            }
        }
        if sender.sent.messages.is_multiple_of(POLL_EVERY) || options.per_second.is_some() {
            sender.producer.poll(Duration::ZERO);
            if !progress(sender.sent.messages) {
                break;
            }
        }
    }
    if options.transactions.is_some() {
        sender.commit()?;
    }
    sender.finish()?;
    progress(sender.sent.messages);
    Ok(sender.sent)
}

/// Sends while `work` goes on. What it returns comes with what was sent until then.
pub fn during<T>(
    options: &SendOptions,
    messages: impl Iterator<Item = Message> + Send,
    work: impl FnOnce() -> T,
) -> Result<(T, Sent)> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(options, messages, |_| !is_over.load(Ordering::Relaxed)));
        let over = Over(&is_over);
        let worked = work();
        drop(over);
        let sent = sender.join().expect("the sender does not panic")?;
        Ok((worked, sent))
    })
}

/// Ends the sending, also when what goes on beside it panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Sender<'a> {
    producer: BaseProducer<Deliveries>,
    topic: &'a str,
    start: Instant,
    start_ms: i64,
    /// When the next message is due.
    due: Duration,
    sent: Sent,
    transactions: usize,
}

impl<'a> Sender<'a> {
    fn connect(options: &'a SendOptions) -> Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &options.bootstrap)
            .set("enable.idempotence", "true")
            // After an answer that names no new leader, librdkafka can take a broker that is not there for it (issue
            // 5280) until it asks again; the service has a cure of its own (src/broker/leaders.rs).
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set(
                "linger.ms",
                if options.per_second.is_some() {
                    "0"
                } else {
                    "20"
                },
            )
            .set("batch.size", "262144")
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("message.max.bytes", "4194304");
        if let Some(transactions) = &options.transactions {
            config.set("transactional.id", &transactions.id);
        }
        let producer: BaseProducer<Deliveries> = config
            .create_with_context(Deliveries::default())
            .context("create a producer for the source")?;
        if options.transactions.is_some() {
            producer
                .init_transactions(LIMIT)
                .context("initialise transactions for the source")?;
            producer
                .begin_transaction()
                .context("begin a transaction for the source")?;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock is before 1970")?;
        Ok(Self {
            producer,
            topic: &options.topic,
            start: Instant::now(),
            start_ms: i64::try_from(now.as_millis())?,
            due: Duration::ZERO,
            sent: Sent::default(),
            transactions: 0,
        })
    }

    /// Waits for the moment of the next message.
    fn pace(&mut self, options: &SendOptions) {
        let Some(per_second) = options.per_second else {
            self.due = self.start.elapsed();
            return;
        };
        let sent = u32::try_from(self.sent.messages).unwrap_or(u32::MAX);
        self.due = Duration::from_secs(1) * sent / per_second;
        while let Some(left) = self
            .due
            .checked_sub(self.start.elapsed())
            .filter(|left| !left.is_zero())
        {
            self.producer.poll(Duration::ZERO);
            thread::sleep(left.min(Duration::from_millis(5)));
        }
    }

    /// The record bears the moment it was due, so that a sender that falls behind shows as latency.
    fn send(&self, message: &Message) -> Result<()> {
        let due_ms = i64::try_from(self.due.as_millis()).context("a day is short")?;
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(self.topic)
            .partition(message.partition)
            .timestamp(self.start_ms + due_ms);
        if let Some(key) = &message.key {
            record = record.key(key);
        }
        if let Some(value) = &message.value {
            record = record.payload(value);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => bail!("send to {}: {error}", self.topic),
            }
        }
    }

    fn end_transaction(
        &mut self,
        transactions: &Transactions,
        open: &mut Vec<Message>,
    ) -> Result<()> {
        self.transactions += 1;
        if self.transactions.is_multiple_of(transactions.abort_every) {
            self.producer
                .flush(LIMIT)
                .context("flush before the abort")?;
            self.producer
                .abort_transaction(LIMIT)
                .context("abort a transaction of the source")?;
            self.producer.begin_transaction()?;
            for message in &*open {
                self.send(message)?;
            }
            self.sent.aborted_transactions += 1;
        }
        open.clear();
        self.commit()?;
        self.producer
            .begin_transaction()
            .context("begin a transaction for the source")
    }

    fn commit(&self) -> Result<()> {
        self.producer.flush(LIMIT).context("flush the source")?;
        self.producer
            .commit_transaction(LIMIT)
            .context("commit a transaction of the source")
    }

    fn finish(&self) -> Result<()> {
        self.producer
            .flush(LIMIT)
            .context("wait for the acknowledgements of the source")?;
        let failed = self.producer.context().failed.load(Ordering::Relaxed);
        ensure!(
            failed == 0,
            "{failed} messages were not taken by the broker"
        );
        Ok(())
    }
}
