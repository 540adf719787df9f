//! One pipeline of a test: topics, group, database, rule service and instances of its own on the shared cluster, and
//! the proof of what came out of it.

use std::path::PathBuf;
use std::time::Duration;

use chaos::cluster::instance::{Instance, InstanceOptions};
use chaos::cluster::kafka::KafkaOptions;
use chaos::cluster::names::Names;
use chaos::cluster::rule_service::{RuleService, RuleServiceOptions};
use chaos::cluster::topics::{Topic, Topics};
use chaos::cluster::{Cluster, ClusterOptions, shared};
use chaos::model::Contract;
use chaos::model::Record;
use chaos::oracle::settled::{self, Run};
use chaos::oracle::{self, Proof};
use chaos::pipeline;
use chaos::report;
use chaos::tail::{Tail, Watched};
use chaos::topics_reader;
use chaos::workload::day::{Day, DayOptions};
use chaos::workload::send::{self, SendOptions, Sent};
use chaos::workload::{EXCLUDED_MERCHANTS, Message, TEST_MERCHANTS};

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::turn::Turn;

/// For whatever must come about by itself.
pub const LIMIT: Duration = Duration::from_secs(60);
/// For the rest of a run: a takeover, a restore and a database that catches up.
const REST_LIMIT: Duration = Duration::from_secs(90);
/// `shutdown.grace`, and what the kernel needs.
pub const GRACE: Duration = Duration::from_secs(11);

pub const PARTITIONS: i32 = 4;

/// The parts of one test. Instances are killed, and topics deleted, when it is dropped.
pub struct Line {
    pub instances: Vec<Instance>,
    pub names: Names,
    pub contract: Contract,
    pub rules: RuleService,
    pub topics: Topics,
    pub cluster: &'static Cluster,
    /// The database to prove; none when the instances run without one.
    pub database: Option<String>,
    directory: PathBuf,
    #[allow(dead_code, reason = "held; read by tests that rest")]
    turn: Option<Turn>,
}

impl Line {
    /// A pipeline without instances. It has no database unless [`Line::with_database`] gives it one.
    pub fn new(name: &str) -> Self {
        let turn = Turn::take();
        let options = ClusterOptions {
            kafka: KafkaOptions {
                behind_proxy: true,
                ..KafkaOptions::default()
            },
            ..ClusterOptions::default()
        };
        let cluster = shared::cluster_of(&options).unwrap();
        let names = Names::unique(name);
        let topics = Topics::connect(&cluster.kafka.bootstrap()).unwrap();
        let source =
            Topic::new(&names.source, PARTITIONS).set("message.timestamp.type", "CreateTime");
        topics.create(&[source]).unwrap();
        let contract = Contract {
            source_topic: names.source.clone(),
            excluded_merchants: EXCLUDED_MERCHANTS.map(str::to_owned).to_vec(),
            test_merchants: TEST_MERCHANTS.map(str::to_owned).to_vec(),
            ..Contract::default()
        };
        Self {
            instances: Vec::new(),
            directory: cluster.directory().join(&names.application_id),
            names,
            contract,
            rules: RuleService::start(&RuleServiceOptions::default()).unwrap(),
            topics,
            cluster,
            database: None,
            turn: Some(turn),
        }
    }

    /// A database of its own on the shared server.
    pub fn with_database(mut self) -> Self {
        let postgres = self.cluster.postgres();
        postgres.create_database(&self.names.database).unwrap();
        self.database = Some(postgres.url_of(&self.names.database));
        self
    }

    /// The options of an instance called `settle-<index>`, to be changed before it starts.
    pub fn options(&self, index: usize) -> InstanceOptions {
        let name = format!("settle-{index}");
        let options = InstanceOptions::new(
            env!("CARGO_BIN_EXE_settle").as_ref(),
            &name,
            &self.directory.join(&name),
        )
        .unwrap()
        .set("kafka.bootstrap_servers", self.bootstrap())
        .set("kafka.application_id", self.names.application_id.as_str())
        .set("topics", self.names.topics_toml())
        .set("topics.partitions", i64::from(PARTITIONS))
        .set("rules.url", self.rules.url())
        .set(
            "exclude.merchants",
            self.contract.excluded_merchants.clone(),
        )
        .set(
            "exclude.test_merchants",
            self.contract.test_merchants.clone(),
        );
        match &self.database {
            Some(url) => options.set("postgres.url", url.as_str()),
            None => options,
        }
    }

    /// Starts an instance with these options and returns its place among the instances.
    pub fn launch(&mut self, options: InstanceOptions) -> usize {
        self.instances.push(Instance::start(options).unwrap());
        self.instances.len() - 1
    }

    /// Starts so many instances and returns when they are ready.
    pub fn start(&mut self, count: usize) {
        for _ in 0..count {
            let options = self.options(self.instances.len());
            self.launch(options);
        }
        self.wait_ready();
    }

    pub fn wait_ready(&self) {
        for instance in &self.instances {
            instance.wait_ready(LIMIT).unwrap();
        }
    }

    /// Starts an instance again on its directory and returns when it is ready.
    pub fn restart(&mut self, index: usize) {
        self.instances[index].restart().unwrap();
        self.instances[index].wait_ready(LIMIT).unwrap();
    }

    /// SIGTERM; it ends cleanly and in time.
    pub fn terminate(&self, index: usize) {
        let instance = &self.instances[index];
        let status = instance.terminate(GRACE).unwrap();
        assert_eq!(status.code(), Some(0), "{}", instance.tail());
    }

    pub fn bootstrap(&self) -> String {
        self.cluster.kafka.bootstrap()
    }

    /// Waits for something long while nothing of this pipeline needs a core: others get its turn.
    #[allow(
        dead_code,
        reason = "not every test that includes this file waits so long"
    )]
    pub fn rest<T>(&mut self, wait: impl FnOnce(&Self) -> T) -> T {
        self.turn = None;
        let waited = wait(self);
        self.turn = Some(Turn::take());
        waited
    }

    /// Everything an instance has logged.
    pub fn log(&self, index: usize) -> String {
        std::fs::read_to_string(self.instances[index].log()).unwrap()
    }

    /// Sends as fast as the broker takes them.
    pub fn send(&self, messages: impl IntoIterator<Item = Message>) -> Sent {
        send::send(&self.sending(), messages.into_iter(), |_| true).unwrap()
    }

    pub fn sending(&self) -> SendOptions {
        SendOptions::new(&self.bootstrap(), &self.names.source)
    }

    /// Counts outcomes from now on.
    pub fn tail(&self) -> Tail {
        Tail::start(&self.bootstrap(), &Watched::of(&self.names)).unwrap()
    }

    /// What the proof needs to know.
    pub fn run(&self) -> Run {
        let running = self
            .instances
            .iter()
            .filter(|instance| instance.exit_status().is_none());
        Run {
            bootstrap: self.bootstrap(),
            names: self.names.clone(),
            postgres: self.database.clone(),
            instances: running
                .map(|instance| instance.address().to_string())
                .collect(),
        }
    }

    /// Waits until every payment has its outcome and the database has everything.
    pub fn settle(&self) {
        settled::wait_settled(&self.run(), REST_LIMIT).unwrap_or_else(|error| {
            let tails: Vec<String> = self.instances.iter().map(Instance::tail).collect();
            panic!("{error:#}\n{}", tails.join("\n"))
        });
    }

    /// Waits for rest, and proves from the raw input that every promise holds.
    pub fn prove(&self) -> Proof {
        self.settle();
        self.running_ready();
        let service = pipeline::service(self.rules.seed());
        let proof = oracle::prove(&self.run(), &self.contract, &service).unwrap();
        let broken = proof.findings.broken();
        assert!(broken.is_empty(), "{broken:?}\n{}", report::proof(&proof));
        assert!(proof.sources > 0, "nothing was proved");
        proof
    }

    /// HTTP is part of the proof: who restores answers 503.
    fn running_ready(&self) {
        for instance in self
            .instances
            .iter()
            .filter(|instance| instance.exit_status().is_none())
        {
            instance.wait_ready(LIMIT).unwrap();
        }
    }

    /// Every committed record of a topic.
    pub fn read(&self, topic: &str, mut feed: impl FnMut(&Record)) {
        topics_reader::read(&self.bootstrap(), topic, |record| feed(record)).unwrap();
    }

    /// Writes one record, as another system would.
    pub fn produce(&self, topic: &str, partition: i32, key: &str, value: Option<&str>) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .set("acks", "all")
            .create()
            .unwrap();
        let record = BaseRecord::<str, str>::to(topic)
            .partition(partition)
            .key(key);
        let record = match value {
            Some(value) => record.payload(value),
            None => record,
        };
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(LIMIT).unwrap();
    }
}

impl Line {
    /// The cluster's directory goes away; the logs of a failed test stay.
    fn keep_logs(&self) {
        let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&self.names.application_id);
        for instance in &self.instances {
            let copied = std::fs::create_dir_all(&kept).and_then(|()| {
                std::fs::copy(
                    instance.log(),
                    kept.join(format!("{}.log", instance.name())),
                )
            });
            eprintln!(
                "the whole log of {}: {copied:?} bytes in {}",
                instance.name(),
                kept.display()
            );
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for instance in &self.instances {
                eprintln!("{}", instance.tail());
            }
            self.keep_logs();
        }
        self.instances.clear();
        let names: Vec<&str> = self
            .names
            .topics()
            .iter()
            .map(|(_, topic)| *topic)
            .collect();
        // What is left goes with the cluster.
        let _ = self.topics.delete(&names);
    }
}

/// A day of payments of every kind.
pub fn day(seed: u64, payments: u64) -> Day {
    Day::new(DayOptions {
        merchants: 400,
        ..DayOptions::new(seed, payments, PARTITIONS)
    })
}

/// The same without anything wrong, and few keys.
pub fn plain(seed: u64, payments: u64) -> Day {
    Day::new(DayOptions {
        merchants: 100,
        is_plain: true,
        ..DayOptions::new(seed, payments, PARTITIONS)
    })
}

/// How many outcomes of this kind and reason the proof has counted.
pub fn count(proof: &Proof, reason: &str) -> u64 {
    proof
        .tally
        .iter()
        .filter(|((_, found), _)| found == reason)
        .map(|(_, count)| count)
        .sum()
}
