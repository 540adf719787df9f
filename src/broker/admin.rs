//! Topics as the cluster has them: describe and create. Every call ends by a deadline, and its error says what the
//! operator must do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::broker::classify::{self, Administration, Denial, denial};
use crate::broker::client;
use crate::broker::operations::{self, Allowed};
use crate::broker::rights::{self, Operation, Purpose, Resource, Right};
use crate::clock;
use crate::config::Config;
use crate::exit::Exit;

/// For one request; a cluster that does not answer by then is unavailable.
const DEADLINE: Duration = Duration::from_secs(10);

/// For one try to list the topics.
const METADATA_WAIT: Duration = Duration::from_secs(2);

/// For the answer to what is allowed: a group without a coordinator must not hold the start up.
const RIGHTS_WAIT: Duration = Duration::from_secs(3);

/// Between two looks at whether a new topic is there.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOKS: u32 = 200;

/// How long, and how often at most, a client that failed is asked for its reasons.
const COMPLAINT_WAIT: Duration = Duration::from_millis(100);
const COMPLAINTS: u32 = 100;

/// Settings of a topic, by the names Kafka gives them.
pub type TopicConfig = BTreeMap<String, String>;

/// A topic as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    pub partitions: i32,
    pub replication_factor: i32,
    /// Its effective settings, the broker's defaults included.
    pub settings: TopicConfig,
}

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    pub partitions: i32,
    pub replication_factor: i32,
    pub settings: TopicConfig,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Kafka at {servers} cannot be reached: {reason}")]
    Unreachable { servers: String, reason: String },
    #[error("not allowed to {action}: {reason}; the principal needs {right}")]
    NotAllowed {
        action: String,
        right: String,
        reason: String,
    },
    #[error(
        "not allowed: {principal} lacks\n  {}\n`settle acls` prints every right that is needed, as commands",
        .rights.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
    )]
    Denied {
        principal: String,
        rights: Vec<Right>,
    },
    #[error("the client for Kafka cannot be made: {0}")]
    Client(String),
    #[error("cannot {action}: {reason}")]
    Invalid { action: String, reason: String },
    #[error("cannot {action}: {reason}")]
    Refused { action: String, reason: String },
}

/// The administrator's side of a cluster.
pub struct Admin {
    config: ClientConfig,
    client: AdminClient<DefaultClientContext>,
    /// Lists the topics, and unlike the other one tells why it cannot reach a broker.
    probe: BaseConsumer<Watch>,
    runtime: tokio::runtime::Runtime,
    servers: String,
}

/// Keeps what a client complained about: a call that timed out does not know why.
#[derive(Default)]
struct Watch(Mutex<Option<Complaint>>);

#[derive(Clone)]
struct Complaint {
    code: Option<RDKafkaErrorCode>,
    reason: String,
}

impl ClientContext for Watch {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "settle::kafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = code_of(&error);
        let mut last = self.lock();
        let known = last
            .as_ref()
            .is_some_and(|complaint| is_authentication(complaint.code));
        // "All brokers are down" says less than what came before it.
        if last.is_none() || !(known || code == Some(RDKafkaErrorCode::AllBrokersDown)) {
            *last = Some(Complaint {
                code,
                reason: reason.to_owned(),
            });
        }
    }
}

impl ConsumerContext for Watch {}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Option<Complaint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_authentication(code: Option<RDKafkaErrorCode>) -> bool {
    code.and_then(denial) == Some(Denial::Login)
}

fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

impl Error {
    /// Nothing of this is retried at start: a supervisor or a person decides by the exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Unreachable { .. } => Exit::Unavailable,
            Error::NotAllowed { .. } | Error::Denied { .. } => Exit::NotAllowed,
            Error::Client(_) | Error::Invalid { .. } => Exit::Configuration,
            Error::Refused { .. } => Exit::Failed,
        }
    }
}

impl Admin {
    /// Makes the client; nothing is sent yet. Not to be called on a thread of an asynchronous runtime.
    pub fn new(settings: &client::Settings) -> Result<Admin, Error> {
        let config = settings.admin();
        let failed = |error: KafkaError| Error::Client(error.to_string());
        let client = config.create().map_err(failed)?;
        let probe = config
            .create_with_context(Watch::default())
            .map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| Error::Client(error.to_string()))?;
        Ok(Admin {
            config,
            client,
            probe,
            runtime,
            servers: settings.bootstrap_servers.clone(),
        })
    }

    /// Fails with everything that a purpose needs on what exists and that this principal may not do.
    /// Transactional ids are not asked for: Kafka tells only who uses one.
    pub fn demand(&self, config: &Config, purpose: Purpose) -> Result<(), Error> {
        let rights = self.missing(&rights::needed(config, purpose))?;
        if rights.is_empty() {
            return Ok(());
        }
        Err(Error::Denied {
            principal: rights::principal_hint(config),
            rights,
        })
    }

    /// Those of the rights on topics and groups that this principal does not have. What the cluster
    /// does not tell is taken for allowed.
    pub fn missing(&self, needed: &[Right]) -> Result<Vec<Right>, Error> {
        // Tells, unlike the requests below, why no broker is reached.
        self.metadata()?;
        let (mut topics, mut groups) = (BTreeSet::new(), BTreeSet::new());
        for right in needed {
            match &right.resource {
                Resource::Topic(name) => topics.insert(name.as_str()),
                Resource::Group(name) => groups.insert(name.as_str()),
                Resource::TransactionalIds(_) => false,
            };
        }
        let client = self.client.inner().native_ptr();
        let topics: Vec<&str> = topics.into_iter().collect();
        let told = |answer: Result<BTreeMap<String, Allowed>, KafkaError>| {
            answer.unwrap_or_else(|error| {
                tracing::warn!(%error, "the cluster does not tell what is allowed");
                BTreeMap::new()
            })
        };
        let on_topics = told(operations::on_topics(client, &topics, RIGHTS_WAIT));
        let on_groups: BTreeMap<&str, Allowed> = groups
            .into_iter()
            .map(|group| (group, self.on_group(group, topics.first())))
            .collect();
        // What cannot be seen may still be asked for its settings.
        let hidden = on_topics
            .iter()
            .filter(|(_, allowed)| **allowed == Allowed::Nothing);
        let settings = self.settings(hidden.map(|(name, _)| name))?;
        let is_readable = |right: &Right| match &right.resource {
            Resource::Topic(name) if right.operation == Operation::DescribeConfigs => settings
                .get(name)
                .is_some_and(|settings| !settings.is_empty()),
            _ => false,
        };
        let is_missing = |right: &&Right| {
            let allowed = match &right.resource {
                Resource::Topic(name) => on_topics.get(name),
                Resource::Group(name) => on_groups.get(name.as_str()),
                Resource::TransactionalIds(_) => None,
            };
            match allowed {
                None | Some(Allowed::Unknown) => false,
                Some(Allowed::Nothing) => !is_readable(right),
                Some(Allowed::These(operations)) => !operations.contains(&right.operation),
            }
        };
        Ok(needed.iter().filter(is_missing).cloned().collect())
    }

    /// Whether a group may be seen, by its offset of some topic. What else is allowed on it shows when
    /// it is joined: the request that tells (`DescribeConsumerGroups` with operations) aborts the
    /// process when its connection breaks (librdkafka, pull request 5397).
    fn on_group(&self, group: &str, topic: Option<&&str>) -> Allowed {
        let mut config = self.config.clone();
        config
            .set("group.id", group)
            .set("isolation.level", "read_uncommitted");
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic.copied().unwrap_or(group), 0);
        let created = config.create_with_context(Watch::default());
        let answer = created.and_then(|client: BaseConsumer<Watch>| {
            let answer = client.committed_offsets(asked, RIGHTS_WAIT);
            // A refusal by the coordinator is told beside the call, which only times out.
            let _ = client.poll(Duration::ZERO);
            let complaint = client.context().lock().clone();
            match complaint.and_then(|complaint| complaint.code) {
                Some(code) if answer.is_err() => Err(KafkaError::OffsetFetch(code)),
                _ => answer,
            }
        });
        match answer {
            Err(KafkaError::OffsetFetch(RDKafkaErrorCode::GroupAuthorizationFailed)) => {
                Allowed::Nothing
            }
            Err(error) => {
                tracing::warn!(group, %error, "the cluster does not tell what is allowed");
                Allowed::Unknown
            }
            Ok(_) => Allowed::Unknown,
        }
    }

    /// Those of the named topics that exist and that the principal may see.
    pub fn describe(&self, names: &[&str]) -> Result<BTreeMap<String, Existing>, Error> {
        let mut existing = self.layout(names)?;
        let mut settings = self.settings(existing.keys())?;
        for (name, topic) in &mut existing {
            // The client library drops the error of a single topic: what is left of it is an answer without settings.
            let found = settings
                .remove(name)
                .filter(|settings| !settings.is_empty());
            topic.settings = found.ok_or_else(|| Error::NotAllowed {
                action: format!("read the settings of topic {name}"),
                right: format!("DescribeConfigs on topic {name}"),
                reason: "the cluster answered without them".to_owned(),
            })?;
        }
        Ok(existing)
    }

    /// The effective settings of topics, empty where the cluster refused.
    fn settings<'a>(
        &self,
        names: impl Iterator<Item = &'a String>,
    ) -> Result<BTreeMap<String, TopicConfig>, Error> {
        let resources: Vec<_> = names.map(|name| ResourceSpecifier::Topic(name)).collect();
        if resources.is_empty() {
            return Ok(BTreeMap::new());
        }
        let options = AdminOptions::new().request_timeout(Some(DEADLINE));
        let (action, right) = (
            "read the settings of topics",
            "DescribeConfigs on its topics",
        );
        let answer = self
            .runtime
            .block_on(self.client.describe_configs(&resources, &options));
        let mut settings = BTreeMap::new();
        for resource in answer.map_err(|error| self.classify(&error, action, right))? {
            let resource = resource.map_err(|code| self.classify_code(code, action, right))?;
            if let OwnedResourceSpecifier::Topic(name) = resource.specifier {
                let entries = resource.entries.into_iter();
                let entries = entries.filter_map(|entry| Some((entry.name, entry.value?)));
                settings.insert(name, entries.collect());
            }
        }
        Ok(settings)
    }

    /// Partitions and copies of the named topics that the cluster shows. Asks for all topics: asking for one by its name
    /// would create it on a broker that allows that.
    fn layout(&self, names: &[&str]) -> Result<BTreeMap<String, Existing>, Error> {
        let metadata = self.metadata()?;
        let mut existing = BTreeMap::new();
        for topic in metadata
            .topics()
            .iter()
            .filter(|topic| names.contains(&topic.name()))
        {
            let name = topic.name().to_owned();
            match topic.error().map(RDKafkaErrorCode::from) {
                None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
                Some(code) => {
                    let right = format!("Describe on topic {name}");
                    return Err(self.classify_code(
                        code,
                        &format!("describe topic {name}"),
                        &right,
                    ));
                }
            }
            let copies = topic
                .partitions()
                .iter()
                .map(|partition| partition.replicas().len())
                .min();
            let topic = Existing {
                partitions: count(topic.partitions().len()),
                replication_factor: count(copies.unwrap_or(0)),
                settings: TopicConfig::new(),
            };
            existing.insert(name, topic);
        }
        Ok(existing)
    }

    fn metadata(&self) -> Result<Metadata, Error> {
        let deadline = clock::now() + DEADLINE;
        loop {
            let error = match self.probe.fetch_metadata(None, METADATA_WAIT) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            // A broker that has refused the credentials will not take them a moment later.
            if clock::now() >= deadline || self.is_refused() {
                return Err(self.classify(&error, "list the topics", "Describe on its topics"));
            }
        }
    }

    /// Creates topics and waits until each partition has a leader. A topic that another instance created meanwhile is
    /// left as it is.
    pub fn create(&self, topics: &[Wanted]) -> Result<(), Error> {
        if topics.is_empty() {
            return Ok(());
        }
        let options = AdminOptions::new()
            .request_timeout(Some(DEADLINE))
            .operation_timeout(Some(DEADLINE));
        let new: Vec<_> = topics.iter().map(new_topic).collect();
        let answers = self
            .runtime
            .block_on(self.client.create_topics(&new, &options));
        let (action, right) = ("create topics", "Create on the cluster or on its topics");
        for answer in answers.map_err(|error| self.classify(&error, action, right))? {
            match answer {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    let right = format!("Create on topic {name}");
                    return Err(self.classify_code(code, &format!("create topic {name}"), &right));
                }
            }
        }
        self.await_leaders(topics)
    }

    fn await_leaders(&self, topics: &[Wanted]) -> Result<(), Error> {
        let mut missing = Vec::new();
        for _ in 0..LOOKS {
            let metadata = self.metadata()?;
            let is_led = |wanted: &Wanted| {
                metadata.topics().iter().any(|topic| {
                    topic.name() == wanted.name
                        && topic.error().is_none()
                        && !topic.partitions().is_empty()
                        && topic
                            .partitions()
                            .iter()
                            .all(|partition| partition.leader() >= 0)
                })
            };
            missing = topics
                .iter()
                .filter(|wanted| !is_led(wanted))
                .map(|wanted| wanted.name.clone())
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Err(Error::Refused {
            action: format!("see topics {} with all their leaders", missing.join(", ")),
            reason: "they exist; is the principal allowed to Describe them?".to_owned(),
        })
    }

    fn classify(&self, error: &KafkaError, action: &str, right: &str) -> Error {
        match code_of(error) {
            Some(code) => self.classify_code(code, action, right),
            None => Error::Refused {
                action: action.to_owned(),
                reason: error.to_string(),
            },
        }
    }

    fn classify_code(&self, code: RDKafkaErrorCode, action: &str, right: &str) -> Error {
        let (action, reason) = (action.to_owned(), code.to_string());
        match classify::administration(code) {
            Administration::NotAllowed => Error::NotAllowed {
                action,
                right: right.to_owned(),
                reason,
            },
            Administration::Unreachable => self.unreachable(code),
            Administration::Invalid => Error::Invalid { action, reason },
            Administration::Refused => Error::Refused { action, reason },
        }
    }

    fn is_refused(&self) -> bool {
        let complaint = self.complaint();
        complaint.is_some_and(|complaint| is_authentication(complaint.code))
    }

    fn complaint(&self) -> Option<Complaint> {
        // Complaints wait in the client's queue until somebody asks for messages.
        for _ in 0..COMPLAINTS {
            if self.probe.poll(COMPLAINT_WAIT).is_none() {
                break;
            }
        }
        self.probe.context().lock().clone()
    }

    fn unreachable(&self, code: RDKafkaErrorCode) -> Error {
        let complaint = self.complaint();
        let Complaint { code, reason } = complaint.unwrap_or_else(|| Complaint {
            code: Some(code),
            reason: code.to_string(),
        });
        if is_authentication(code) {
            return Error::NotAllowed {
                action: format!("log in at {}", self.servers),
                right: "valid credentials in kafka.properties".to_owned(),
                reason,
            };
        }
        Error::Unreachable {
            servers: self.servers.clone(),
            reason,
        }
    }
}

fn count(length: usize) -> i32 {
    i32::try_from(length).expect("Kafka counts partitions and replicas with 32 bits")
}

fn new_topic(wanted: &Wanted) -> NewTopic<'_> {
    let replication = TopicReplication::Fixed(wanted.replication_factor);
    let topic = NewTopic::new(&wanted.name, wanted.partitions, replication);
    wanted
        .settings
        .iter()
        .fold(topic, |topic, (name, value)| topic.set(name, value))
}

/// Why librdkafka does not take a property.
pub fn check_property(name: &str, value: &str) -> Result<(), String> {
    let native = ClientConfig::new().set(name, value).create_native_config();
    native.map(drop).map_err(|error| reason(&error))
}

fn reason(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, description, ..) => description.clone(),
        other => other.to_string(),
    }
}
