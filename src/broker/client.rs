//! Settings of every client: where the broker is, who we are, and the properties that the
//! guarantees rest on.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::broker::port::Holder;
use crate::broker::{Names, Partition, Topic};
use crate::clock;
use crate::config::Config;
use crate::config::properties::Properties;

/// Longest wait for one call to the broker. Longer than `socket.timeout.ms`, so that a call
/// survives one broken connection.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells this process from any other that has, or had, the same `kafka.instance_id`.
static PROCESS: LazyLock<String> =
    LazyLock::new(|| format!("{:x}-{:x}", std::process::id(), clock::wall_millis()));

/// The sink's place in a client id, where workers have their number.
pub const SINK_ROLE: &str = "sink";

/// Who a member of a group is, by its client id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity<'a> {
    pub(super) instance: &'a str,
    /// Number of the worker, or [`SINK_ROLE`].
    pub(super) role: &'a str,
    process: &'a str,
    /// Where its instance answers HTTP.
    pub(super) address: &'a str,
}

impl<'a> Identity<'a> {
    pub(super) fn parse(client_id: &'a str) -> Option<Self> {
        let mut parts = client_id.splitn(5, '|').skip(1);
        Some(Self {
            instance: parts.next()?,
            role: parts.next()?,
            process: parts.next()?,
            address: parts.next()?,
        })
    }
}

/// What every client is made from.
#[derive(Clone)]
pub struct Settings {
    pub bootstrap_servers: String,
    pub application_id: String,
    pub instance_id: String,
    /// Where other instances reach the HTTP server of this one.
    pub advertise: String,
    /// librdkafka properties of the operator.
    pub properties: Properties,
    pub topics: Names,
    /// No batch of records may be larger: the topics refuse it. No bound until they are known.
    pub batch_bytes_max: usize,
    /// By group and role, the process that a group first named in our place. A static member keeps
    /// the client id of its first process, so this is ours, or one that we have replaced.
    pub first_seen: Arc<Mutex<BTreeMap<(String, String), String>>>,
    /// Set when the process is to end: questions to brokers, and takeovers of transactional ids, are
    /// not waited for any more.
    pub stop: Arc<AtomicBool>,
}

/// Bytes of a batch, as the library has it when nothing is given.
const BATCH_BYTES: usize = 1_000_000;

/// The framing of a batch.
const BATCH_OVERHEAD_BYTES: usize = 512;

/// Transaction time-out of a producer that carries one through the restart of a broker; a third
/// of what brokers allow when nothing is said (`transaction.max.timeout.ms`).
pub const STEADFAST_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(300);

/// Longest time between two heartbeats.
const HEARTBEAT_MAX: Duration = Duration::from_secs(2);

/// Properties that belong to one kind of client only.
const CONSUMER_ONLY: [&str; 2] = ["session.timeout.ms", "max.poll.interval.ms"];
const PRODUCER_ONLY: [&str; 1] = ["transaction.timeout.ms"];
const MEMBER_OR_TRANSACTION_ONLY: [&str; 3] = [
    "session.timeout.ms",
    "max.poll.interval.ms",
    "transaction.timeout.ms",
];

impl Settings {
    pub fn new(config: &Config) -> Self {
        let names = Topic::ALL.map(|topic| topic.name_in(&config.topics).to_owned());
        Self {
            bootstrap_servers: config.kafka.bootstrap_servers.clone(),
            application_id: config.kafka.application_id.clone(),
            instance_id: config.kafka.instance_id.clone(),
            advertise: config.http.advertise.clone(),
            properties: config.kafka.properties.clone(),
            topics: Names::new(names),
            batch_bytes_max: usize::MAX,
            first_seen: Arc::default(),
            stop: Arc::default(),
        }
    }

    /// Takes down who holds our places in a group, if it is the first time.
    pub(super) fn see<'a>(&self, group: &str, members: impl Iterator<Item = Identity<'a>>) {
        let ours = members.filter(|identity| identity.instance == self.instance_id);
        let mut seen = self
            .first_seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for identity in ours {
            let place = (group.to_owned(), identity.role.to_owned());
            seen.entry(place)
                .or_insert_with(|| identity.process.to_owned());
        }
    }

    /// Who `identity` is, that holds one of our places.
    pub(super) fn holder(&self, group: &str, identity: &Identity) -> Holder {
        let place = (group.to_owned(), identity.role.to_owned());
        let seen = self
            .first_seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if identity.process == *PROCESS {
            Holder::Us
        } else if seen.get(&place).map(String::as_str) == Some(identity.process) {
            Holder::Unclear
        } else {
            Holder::Another
        }
    }

    fn base(&self, client_id: String, left_out: &[&str]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", client_id)
            .set("socket.timeout.ms", "3000")
            // Of a broker that is frozen or cut off, another attempt hears as late.
            .set("api.version.request.timeout.ms", "3000")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("enable.metrics.push", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in self.properties.iter() {
            if !left_out.contains(&name) {
                config.set(name, value);
            }
        }
        config
    }

    /// `settle|<instance>|<role>|<process>|<advertised address>`: the group's description hands it
    /// to whoever looks for the owner of a partition.
    fn member_client_id(&self, role: &str) -> String {
        let (instance, address) = (&self.instance_id, &self.advertise);
        format!("settle|{instance}|{role}|{}|{address}", *PROCESS)
    }

    /// Transactional id of the worker with this identity.
    pub(super) fn transactional_id_of(&self, identity: &Identity) -> String {
        let Identity { instance, role, .. } = identity;
        let prefix = transactional_id_prefix(&self.application_id);
        format!("{prefix}{instance}-{role}")
    }

    /// The group of the sink.
    pub fn sink_group(&self) -> String {
        sink_group(&self.application_id)
    }

    /// The static identity of a worker, the same after a restart.
    pub fn worker_id(&self, worker: usize) -> String {
        format!("{}-{worker}", self.instance_id)
    }

    pub fn transactional_id(&self, worker: usize) -> String {
        let prefix = transactional_id_prefix(&self.application_id);
        format!("{prefix}{}", self.worker_id(worker))
    }

    /// Transactional id of a tool of the operator. Those of workers end in a number.
    pub fn tool_id(&self, tool: &str) -> String {
        format!("{}{tool}", transactional_id_prefix(&self.application_id))
    }

    /// A third of the session, so that two lost heartbeats end nothing; at most 2 s.
    fn heartbeat(&self) -> Duration {
        let third = self.properties.session_timeout() / 3;
        third.clamp(Duration::from_millis(1), HEARTBEAT_MAX)
    }

    /// A static member of a group, that reads what is committed from positions its owner names.
    fn group_member(&self, client_id: String, group: &str, instance: String) -> ClientConfig {
        let mut config = self.base(client_id, &PRODUCER_ONLY);
        config
            .set("group.id", group)
            .set("group.instance.id", instance)
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set(
                "session.timeout.ms",
                millis(self.properties.session_timeout()),
            );
        let heartbeat = millis(self.heartbeat());
        for (name, value) in [
            ("heartbeat.interval.ms", heartbeat.as_str()),
            ("fetch.wait.max.ms", "100"),
            ("fetch.queue.backoff.ms", "20"),
        ] {
            set_unless_given(&mut config, &self.properties, name, value);
        }
        config
    }

    pub(super) fn member(&self, worker: usize) -> ClientConfig {
        let client_id = self.member_client_id(&worker.to_string());
        let mut config = self.group_member(client_id, &self.application_id, self.worker_id(worker));
        set_unless_given(
            &mut config,
            &self.properties,
            "queued.max.messages.kbytes",
            "16384",
        );
        set_unless_given(
            &mut config,
            &self.properties,
            "queued.min.messages",
            "20000",
        );
        config
    }

    /// The sink's member of a group of its own.
    pub(super) fn sink_member(&self) -> ClientConfig {
        let client_id = self.member_client_id(SINK_ROLE);
        let group = self.sink_group();
        let mut config = self.group_member(client_id, &group, self.instance_id.clone());
        let name = "queued.max.messages.kbytes";
        set_unless_given(&mut config, &self.properties, name, "16384");
        // Stable ends of the partitions are read off the statistics.
        config.set("statistics.interval.ms", "1000");
        config
    }

    /// A member that comes to a group for a moment and leaves it when it is dropped.
    pub(super) fn guest(&self, group: &str) -> ClientConfig {
        let client_id = format!("settle|{}|guest", self.instance_id);
        let mut config = self.group_member(client_id, group, String::new());
        config.remove("group.instance.id");
        config
    }

    /// Describes and creates topics.
    pub(super) fn admin(&self) -> ClientConfig {
        let client_id = format!("settle|{}|admin", self.instance_id);
        self.base(client_id, &MEMBER_OR_TRANSACTION_ONLY)
    }

    pub(super) fn producer(&self, worker: usize) -> ClientConfig {
        let client_id = format!("settle|{}|{worker}|producer", self.instance_id);
        let mut config = self.base(client_id, &CONSUMER_ONLY);
        config
            .set("transactional.id", self.transactional_id(worker))
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // A faster silent retry would hide doubtful commits.
            .set("retry.backoff.ms", "100")
            // One transaction is queued whole before it is flushed.
            .set("queue.buffering.max.messages", "10000000")
            .set("queue.buffering.max.kbytes", "2097151")
            .set(
                "transaction.timeout.ms",
                millis(self.properties.transaction_timeout()),
            );
        set_unless_given(&mut config, &self.properties, "linger.ms", "2");
        set_unless_given(
            &mut config,
            &self.properties,
            "message.max.bytes",
            "100000000",
        );
        let given = self.properties.get("batch.size");
        let wanted = given.map_or(Ok(BATCH_BYTES), str::parse);
        // What is no number is refused, with its name, by the library.
        if let Ok(wanted) = wanted {
            let room = self.batch_bytes_max.saturating_sub(BATCH_OVERHEAD_BYTES);
            config.set("batch.size", wanted.min(room.max(1)).to_string());
        }
        config
    }

    /// A producer that takes over another's transactional id, to end its transaction.
    pub(super) fn successor(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.producer(0);
        config.set("transactional.id", transactional_id);
        config.set(
            "client.id",
            format!("settle|{}|successor", self.instance_id),
        );
        config
    }

    /// A producer of a tool of the operator.
    pub(super) fn tool(&self, tool: &str) -> ClientConfig {
        let mut config = self.producer(0);
        config.set("transactional.id", self.tool_id(tool));
        config.set("client.id", format!("settle|{}|{tool}", self.instance_id));
        config
    }

    /// A successor whose transaction outlives the restart of a broker.
    pub(super) fn steadfast(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.successor(transactional_id);
        config.set(
            "transaction.timeout.ms",
            millis(STEADFAST_TRANSACTION_TIMEOUT),
        );
        config
    }

    /// An idempotent producer without transactions.
    pub(super) fn feeder(&self) -> ClientConfig {
        let client_id = format!("settle|{}|generator", self.instance_id);
        let mut config = self.base(client_id, &MEMBER_OR_TRANSACTION_ONLY);
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "20");
        config
    }

    /// A client that is no member of the group: reads logs, asks for watermarks and offsets.
    pub(super) fn reader(&self, name: &str, isolation: &str) -> ClientConfig {
        let client_id = format!("settle|{}|{name}", self.instance_id);
        let mut config = self.base(client_id, &PRODUCER_ONLY);
        config
            .set("group.id", &self.application_id)
            .set("isolation.level", isolation)
            .set("auto.offset.reset", "error")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false");
        for (name, value) in [
            ("fetch.wait.max.ms", "20"),
            ("fetch.queue.backoff.ms", "5"),
            ("queued.max.messages.kbytes", "16384"),
        ] {
            set_unless_given(&mut config, &self.properties, name, value);
        }
        config
    }
}

/// The group of an application's sinks.
pub(super) fn sink_group(application_id: &str) -> String {
    format!("{application_id}-sink")
}

/// How all transactional ids of an application begin. No part of one holds another colon, so no two
/// applications can meet in one id.
pub(super) fn transactional_id_prefix(application_id: &str) -> String {
    format!("{application_id}:")
}

fn set_unless_given(config: &mut ClientConfig, given: &Properties, name: &str, value: &str) {
    if given.get(name).is_none() {
        config.set(name, value);
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// Client events go to the log; what an operator must act on is classified where it is returned.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level as i32, facility, message);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "settle::kafka", %error, reason, "client error");
    }
}

impl ConsumerContext for Quiet {}

/// Logs a line of the client library. Connection trouble is weather to the library's user.
pub(super) fn log(level: i32, facility: &str, message: &str) {
    match level {
        ..=2 => tracing::error!(target: "settle::kafka", facility, "{message}"),
        3..=4 => tracing::warn!(target: "settle::kafka", facility, "{message}"),
        _ => tracing::debug!(target: "settle::kafka", facility, "{message}"),
    }
}

/// A list of partitions for the library; without an offset where `None`.
pub(super) fn list(
    names: &Names,
    partitions: impl IntoIterator<Item = (Partition, Option<i64>)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        let name = names.of(partition.topic);
        match offset {
            None => {
                list.add_partition(name, partition.number);
            }
            Some(offset) => list
                .add_partition_offset(name, partition.number, Offset::Offset(offset))
                .expect("offsets of a log are never negative"),
        }
    }
    list
}
