//! Apache Kafka in KRaft mode: one or three brokers that are controllers as well.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::cluster::jars;
use crate::cluster::ports;
use crate::cluster::process::{self, Process};
use crate::cluster::scratch::Scratch;
use crate::cluster::tools;
use crate::proxy::{Proxy, Route};

const START_LIMIT: Duration = Duration::from_secs(90);
const TERMINATE_LIMIT: Duration = Duration::from_secs(60);
const METADATA_LIMIT: Duration = Duration::from_millis(500);
const LOGGING: &str = include_str!("log4j2.properties");

/// How a Kafka cluster is made.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// 1 or 3.
    pub brokers: usize,
    /// The JVM's heap, as in `-Xmx`.
    pub heap: String,
    /// Server properties that replace or extend the ones chosen here.
    pub properties: BTreeMap<String, String>,
    /// Each broker has a second listener that clients reach through [`Kafka::proxy`] only.
    pub behind_proxy: bool,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: 1,
            heap: "320m".to_owned(),
            properties: BTreeMap::new(),
            behind_proxy: false,
        }
    }
}

/// A running cluster; its brokers are killed on drop.
#[derive(Debug)]
pub struct Kafka {
    brokers: Vec<Broker>,
    proxy: Option<Proxy>,
    // Only when no directory was given; last, so that it goes when the brokers are gone.
    _scratch: Option<Scratch>,
}

impl Kafka {
    /// Starts a cluster in a temporary directory of its own.
    pub fn start(options: &KafkaOptions) -> Result<Self> {
        let scratch = Scratch::new()?;
        let directory = scratch.path().join("kafka");
        Self::assemble(options, &directory, Some(scratch))
    }

    /// Starts a new cluster below `directory` and returns when every broker is known to clients.
    pub fn start_in(options: &KafkaOptions, directory: &Path) -> Result<Self> {
        Self::assemble(options, directory, None)
    }

    fn assemble(
        options: &KafkaOptions,
        directory: &Path,
        scratch: Option<Scratch>,
    ) -> Result<Self> {
        ensure!(
            matches!(options.brokers, 1 | 3),
            "a cluster has 1 or 3 brokers, not {}",
            options.brokers
        );
        let jars = jars::directory()?;
        let nodes = (0..options.brokers)
            .map(|_| {
                Ok(Node {
                    broker: ports::free()?,
                    controller: ports::free()?,
                    proxied: options.behind_proxy.then(route).transpose()?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let cluster_id = cluster_id();
        let brokers = (0..nodes.len())
            .map(|index| Broker::prepare(options, jars, directory, &nodes, index))
            .collect::<Result<Vec<_>>>()?;
        for broker in &brokers {
            broker.format(&cluster_id)?;
        }
        let routes: Vec<Route> = nodes.iter().filter_map(|node| node.proxied).collect();
        let proxy = options.behind_proxy.then(|| Proxy::start(&routes));
        let kafka = Self {
            brokers,
            proxy: proxy.transpose()?,
            _scratch: scratch,
        };
        for broker in &kafka.brokers {
            broker.launch()?;
        }
        kafka.await_ready()?;
        Ok(kafka)
    }

    /// `host:port` of every broker, separated by commas.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.brokers.iter().map(Broker::address).collect();
        addresses.join(",")
    }

    /// The proxy of a cluster that was started behind one.
    pub fn proxy(&self) -> &Proxy {
        self.proxy
            .as_ref()
            .expect("the cluster was started behind a proxy")
    }

    /// The brokers, in the order of their node ids, which start at 1.
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// SIGKILL to every broker.
    pub fn kill(&self) {
        self.brokers.iter().for_each(Broker::kill);
    }

    /// SIGTERM to every broker, and their end.
    pub fn terminate(&self) -> Result<()> {
        for broker in &self.brokers {
            broker.signal(libc::SIGTERM);
        }
        self.brokers.iter().try_for_each(Broker::terminate)
    }

    /// SIGSTOP to every broker.
    pub fn pause(&self) {
        self.brokers.iter().for_each(Broker::pause);
    }

    /// SIGCONT to every broker.
    pub fn resume(&self) {
        self.brokers.iter().for_each(Broker::resume);
    }

    /// Starts the brokers that are down, on their ports and data, and waits until all are known.
    pub fn restart(&self) -> Result<()> {
        for broker in &self.brokers {
            if !broker.is_running() {
                broker.launch()?;
            }
        }
        self.await_ready()
    }

    /// Waits until clients see every broker.
    pub fn await_ready(&self) -> Result<()> {
        for broker in &self.brokers {
            broker.await_known(self.brokers.len())?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Node {
    broker: u16,
    controller: u16,
    proxied: Option<Route>,
}

fn route() -> Result<Route> {
    Ok(Route {
        clients: ports::free()?,
        broker: ports::free()?,
    })
}

/// One broker; its process comes and goes, its ports and directory stay.
#[derive(Debug)]
pub struct Broker {
    id: usize,
    port: u16,
    directory: PathBuf,
    jars: PathBuf,
    heap: String,
    process: Mutex<Option<Process>>,
}

impl Broker {
    fn prepare(
        options: &KafkaOptions,
        jars: &Path,
        directory: &Path,
        nodes: &[Node],
        index: usize,
    ) -> Result<Self> {
        let id = index + 1;
        let directory = directory.join(format!("broker-{id}"));
        fs::create_dir_all(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let mut properties = defaults(nodes, index, &directory);
        properties.extend(options.properties.clone());
        let lines: Vec<String> = properties
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        fs::write(directory.join("server.properties"), lines.join("\n"))?;
        fs::write(directory.join("log4j2.properties"), LOGGING)?;
        Ok(Self {
            id,
            port: nodes[index].broker,
            directory,
            jars: jars.to_owned(),
            heap: options.heap.clone(),
            process: Mutex::new(None),
        })
    }

    /// The node id.
    pub fn id(&self) -> usize {
        self.id
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The broker's log.
    pub fn log(&self) -> PathBuf {
        self.directory.join("kafka.log")
    }

    pub fn pid(&self) -> Option<libc::pid_t> {
        self.with(Process::pid)
    }

    pub fn is_running(&self) -> bool {
        self.with(Process::is_running).unwrap_or(false)
    }

    pub fn kill(&self) {
        self.with(Process::kill);
    }

    pub fn terminate(&self) -> Result<()> {
        self.with(|process| process.terminate(TERMINATE_LIMIT).map(drop))
            .unwrap_or(Ok(()))
    }

    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Starts a broker that is down and waits until it serves `brokers` brokers' metadata.
    pub fn restart(&self, brokers: usize) -> Result<()> {
        self.launch()?;
        self.await_known(brokers)
    }

    fn signal(&self, signal: libc::c_int) {
        self.with(|process| process.signal(signal));
    }

    fn with<T>(&self, call: impl FnOnce(&Process) -> T) -> Option<T> {
        let process = self
            .process
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        process.as_ref().map(call)
    }

    fn format(&self, cluster_id: &str) -> Result<()> {
        let mut command = self.java();
        command
            .args([
                "-Xmx128m",
                "-XX:TieredStopAtLevel=1",
                "kafka.tools.StorageTool",
                "format",
            ])
            .args(["-t", cluster_id, "-c"])
            .arg(self.directory.join("server.properties"));
        process::run(
            "format Kafka's storage",
            command,
            &self.directory.join("format.log"),
        )
    }

    fn launch(&self) -> Result<()> {
        let mut command = self.java();
        command
            .arg(format!("-Xmx{}", self.heap))
            .arg(format!("-Xms{}", self.heap))
            .arg("kafka.Kafka")
            .arg(self.directory.join("server.properties"));
        let name = format!("Kafka broker {}", self.id);
        let process = Process::start(&name, command, &self.log())?;
        *self
            .process
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(process);
        Ok(())
    }

    fn java(&self) -> Command {
        let mut command = tools::java();
        command
            .current_dir(&self.directory)
            .arg("-cp")
            .arg(self.jars.join("*"))
            .arg(format!(
                "-Dlog4j2.configurationFile={}",
                self.directory.join("log4j2.properties").display()
            ))
            .args([
                "-XX:+UseSerialGC",
                "-Xshare:auto",
                "-XX:-UsePerfData",
                "-Djava.awt.headless=true",
            ]);
        command
    }

    fn await_known(&self, brokers: usize) -> Result<()> {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.address())
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "100")
            .create()
            .context("create a Kafka client")?;
        let what = format!("the start of Kafka broker {}", self.id);
        let ready = || {
            let known = client
                .fetch_metadata(None, METADATA_LIMIT)
                .is_ok_and(|metadata| metadata.brokers().len() >= brokers);
            Ok(known.then_some(()))
        };
        self.with(|process| process.until(&what, START_LIMIT, ready))
            .unwrap_or_else(|| anyhow::bail!("broker {} was never started", self.id))
    }
}

fn defaults(nodes: &[Node], index: usize, directory: &Path) -> BTreeMap<String, String> {
    let Node {
        broker,
        controller,
        proxied,
    } = nodes[index];
    let (mut listeners, mut advertised) = (String::new(), String::new());
    if let Some(route) = proxied {
        listeners = format!(",PROXIED://127.0.0.1:{}", route.broker);
        advertised = format!(",PROXIED://127.0.0.1:{}", route.clients);
    }
    let voters: Vec<String> = nodes
        .iter()
        .enumerate()
        .map(|(other, node)| format!("{}@127.0.0.1:{}", other + 1, node.controller))
        .collect();
    let replicas = nodes.len().to_string();
    let in_sync = if nodes.len() == 3 { "2" } else { "1" };
    let own = [
        ("node.id", (index + 1).to_string()),
        ("controller.quorum.voters", voters.join(",")),
        (
            "listeners",
            format!(
                "PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}{listeners}"
            ),
        ),
        (
            "advertised.listeners",
            format!("PLAINTEXT://127.0.0.1:{broker}{advertised}"),
        ),
        ("log.dirs", directory.join("data").display().to_string()),
    ];
    let replicated = [
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
    ];
    let fixed = [
        ("process.roles", "broker,controller"),
        ("controller.listener.names", "CONTROLLER"),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT",
        ),
        ("min.insync.replicas", in_sync),
        ("transaction.state.log.min.isr", in_sync),
        ("offsets.topic.num.partitions", "4"),
        ("transaction.state.log.num.partitions", "4"),
        ("auto.create.topics.enable", "false"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("group.min.session.timeout.ms", "1000"),
        // An instance that never comes back blocks readers for its transaction time-out and this.
        (
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            "1000",
        ),
        // A killed broker is let in again when its old session has ended: the default makes that 9 s.
        ("broker.session.timeout.ms", "3000"),
        ("broker.heartbeat.interval.ms", "500"),
        ("log.retention.ms", "-1"),
        ("log.cleaner.dedupe.buffer.size", "16777216"),
        ("num.network.threads", "3"),
        ("num.io.threads", "4"),
        ("background.threads", "4"),
    ];
    let own = own.map(|(key, value)| (key.to_owned(), value));
    let replicated = replicated.map(|key| (key.to_owned(), replicas.clone()));
    let fixed = fixed.map(|(key, value)| (key.to_owned(), value.to_owned()));
    own.into_iter().chain(replicated).chain(fixed).collect()
}

/// 16 random bytes as Kafka writes them: URL-safe base64 without padding.
fn cluster_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // The last of the 22 characters carries two bits only; an id must not begin with a dash.
    let mut id: String = (0..21)
        .map(|_| char::from(ALPHABET[rand::random_range(0..52_usize)]))
        .collect();
    id.push('A');
    id
}
