//! One pipeline of a test on a cluster that several tests share: topics, group, rule service and instances of its own.
//! Its instances reach Kafka through the proxy, everything else goes straight to the broker.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::instance::{Instance, InstanceOptions};
use crate::cluster::kafka::KafkaOptions;
use crate::cluster::names::Names;
use crate::cluster::rule_service::{RuleService, RuleServiceOptions};
use crate::cluster::topics::{Topic, Topics};
use crate::cluster::{Cluster, ClusterOptions, shared};
use crate::model::{Contract, Record};
use crate::oracle::settled::{self, Run};
use crate::oracle::{self, Proof};
use crate::pipeline;
use crate::proxy::Proxy;
use crate::report;
use crate::tail::{Tail, Watched};
use crate::topics_reader;
use crate::workload::send::SendOptions;

/// For whatever must come about by itself.
pub const LIMIT: Duration = Duration::from_secs(60);

/// For the rest of a run: a takeover, a restore and a database that catches up.
const REST_LIMIT: Duration = Duration::from_secs(90);

/// The shared cluster of a test that makes lines: Kafka behind its proxy.
pub fn cluster_options() -> ClusterOptions {
    ClusterOptions {
        kafka: KafkaOptions {
            behind_proxy: true,
            ..KafkaOptions::default()
        },
        without_postgres: true,
        ..ClusterOptions::default()
    }
}

/// What a test run has built, and where it keeps things.
#[derive(Debug, Clone, Copy)]
pub struct Built {
    /// The settle binary.
    pub binary: &'static str,
    /// Logs of failed tests are copied to below this directory.
    pub kept: &'static str,
}

/// The parts of one test. Instances are killed, and topics deleted, when it is dropped.
pub struct Line {
    pub instances: Vec<Instance>,
    pub names: Names,
    pub rules: RuleService,
    pub topics: Topics,
    pub contract: Contract,
    pub cluster: &'static Cluster,
    /// URL of the database to prove; none when the instances run without one.
    pub database: Option<String>,
    partitions: i32,
    directory: PathBuf,
    built: Built,
}

impl Line {
    /// A pipeline without instances and without a database, on the cluster of [`cluster_options`].
    pub fn new(name: &str, partitions: i32, built: Built) -> Result<Self> {
        Self::on(
            shared::cluster_of(&cluster_options())?,
            name,
            partitions,
            built,
        )
    }

    /// The same on this cluster.
    pub fn on(
        cluster: &'static Cluster,
        name: &str,
        partitions: i32,
        built: Built,
    ) -> Result<Self> {
        let names = Names::unique(name);
        let topics = Topics::connect(&cluster.kafka.bootstrap())?;
        let source =
            Topic::new(&names.source, partitions).set("message.timestamp.type", "CreateTime");
        topics.create(&[source])?;
        Ok(Self {
            instances: Vec::new(),
            directory: cluster.directory().join(&names.application_id),
            contract: pipeline::contract(&names),
            names,
            rules: RuleService::start(&RuleServiceOptions::default())?,
            topics,
            cluster,
            database: None,
            partitions,
            built,
        })
    }

    /// Gives it a database of its own on the shared server.
    pub fn create_database(&mut self) -> Result<()> {
        let postgres = self.cluster.postgres();
        postgres.create_database(&self.names.database)?;
        self.database = Some(postgres.url_of(&self.names.database));
        Ok(())
    }

    /// Between the instances and Kafka; rules for one instance name it by [`Line::client`].
    pub fn proxy(&self) -> &'static Proxy {
        self.cluster.kafka.proxy()
    }

    /// The name of an instance; no other line of this process has one like it.
    pub fn name(&self, index: usize) -> String {
        format!("{}-{index}", self.names.application_id)
    }

    /// Contained in the client ids of an instance and in no others.
    pub fn client(&self, index: usize) -> String {
        format!("|{}|", self.name(index))
    }

    /// Contained in the client ids of the producers of an instance's first worker and in no others.
    pub fn producer(&self, index: usize) -> String {
        format!("|{}|0|producer", self.name(index))
    }

    /// The transactional id of an instance's first worker.
    pub fn transactional_id(&self, index: usize) -> String {
        format!("{}:{}-0", self.names.application_id, self.name(index))
    }

    /// The options of an instance, to be changed before it starts.
    pub fn options(&self, index: usize) -> Result<InstanceOptions> {
        self.options_at(index, self.proxy().bootstrap())
    }

    /// The same for an instance that reaches Kafka at these addresses.
    pub fn options_at(&self, index: usize, bootstrap: String) -> Result<InstanceOptions> {
        let name = self.name(index);
        let directory = self.directory.join(&name);
        let options = InstanceOptions::new(Path::new(self.built.binary), &name, &directory)?
            .set("kafka.bootstrap_servers", bootstrap)
            .set("kafka.application_id", self.names.application_id.as_str())
            .set("topics", self.names.topics_toml())
            .set("topics.partitions", i64::from(self.partitions))
            .set("rules.url", self.rules.url());
        let options = pipeline::configure(options, &self.contract);
        Ok(match &self.database {
            Some(url) => options.set("postgres.url", url.as_str()),
            None => options,
        })
    }

    /// Starts an instance and returns when it is ready.
    pub fn start(&mut self, options: InstanceOptions) -> Result<()> {
        self.instances.push(Instance::start(options)?);
        self.wait_ready()
    }

    /// Starts an instance again on its directory and returns when it is ready.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        self.instances[index].restart()?;
        self.instances[index].wait_ready(LIMIT)
    }

    /// Removes the local state of an instance.
    pub fn lose_state(&self, index: usize) -> Result<()> {
        let state = self.instances[index].options().state_directory();
        std::fs::remove_dir_all(&state).with_context(|| format!("remove {}", state.display()))
    }

    /// Runs a command of the program with the configuration of an instance.
    pub fn command(&self, index: usize, arguments: &[&str]) -> Result<Output> {
        Command::new(self.built.binary)
            .args(arguments)
            .arg("--config")
            .arg(self.instances[index].options().config_file())
            .output()
            .context("run the program")
    }

    /// Waits until every running instance is ready.
    pub fn wait_ready(&self) -> Result<()> {
        self.running().try_for_each(|one| one.wait_ready(LIMIT))
    }

    fn running(&self) -> impl Iterator<Item = &Instance> {
        let instances = self.instances.iter();
        instances.filter(|instance| instance.exit_status().is_none())
    }

    /// Straight to the broker.
    pub fn bootstrap(&self) -> String {
        self.cluster.kafka.bootstrap()
    }

    pub fn sending(&self) -> SendOptions {
        SendOptions::new(&self.bootstrap(), &self.names.source)
    }

    /// Counts outcomes from now on.
    pub fn tail(&self) -> Result<Tail> {
        Tail::start(&self.bootstrap(), &Watched::of(&self.names))
    }

    /// Everything an instance has logged.
    pub fn log(&self, index: usize) -> Result<String> {
        Ok(std::fs::read_to_string(self.instances[index].log())?)
    }

    /// Every committed record of a topic.
    pub fn read(&self, topic: &str, mut feed: impl FnMut(&Record)) -> Result<()> {
        topics_reader::read(&self.bootstrap(), topic, |record| feed(record))?;
        Ok(())
    }

    /// What the proof needs to know.
    pub fn run(&self) -> Run {
        let addresses = self.running().map(|one| one.address().to_string());
        Run {
            bootstrap: self.bootstrap(),
            names: self.names.clone(),
            postgres: self.database.clone(),
            instances: addresses.collect(),
        }
    }

    /// Waits until every payment has its outcome and the database has everything.
    pub fn settle(&self) -> Result<()> {
        settled::wait_settled(&self.run(), REST_LIMIT).with_context(|| self.tails())
    }

    /// Waits for rest, and proves from the raw input that every promise holds.
    pub fn prove(&self) -> Result<Proof> {
        self.settle()?;
        // HTTP is part of the proof: who restores answers 503.
        self.wait_ready()?;
        let service = pipeline::service(self.rules.seed());
        let proof = oracle::prove(&self.run(), &self.contract, &service)?;
        ensure!(
            proof.findings.hold() && proof.sources > 0,
            "{}",
            report::proof(&proof)
        );
        Ok(proof)
    }

    /// The last lines of every instance's log.
    pub fn tails(&self) -> String {
        let tails: Vec<String> = self.instances.iter().map(Instance::tail).collect();
        tails.join("\n")
    }

    /// The cluster's directory goes away; the logs of a failed test stay.
    fn keep_logs(&self) -> Result<()> {
        let kept = Path::new(self.built.kept).join(&self.names.application_id);
        std::fs::create_dir_all(&kept)?;
        for instance in &self.instances {
            std::fs::copy(
                instance.log(),
                kept.join(format!("{}.log", instance.name())),
            )?;
        }
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second failure would hide the first.
            let _ = self.keep_logs();
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
