//! A whole pipeline on this machine: the cluster, the source topic and the settle instances of demo and measurement.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use toml::{Table, Value};

use crate::cluster::instance::{Instance, InstanceOptions};
use crate::cluster::names::Names;
use crate::cluster::rules::{self, RuleKey};
use crate::cluster::topics::{Topic, Topics};
use crate::cluster::{Cluster, ClusterOptions};
use crate::model::{Contract, Rule, outgoing};
use crate::oracle::settled::Run;
use crate::workload::{EXCLUDED_MERCHANTS, TEST_MERCHANTS};

const READY_LIMIT: Duration = Duration::from_secs(60);

/// What a pipeline is made of.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    pub binary: PathBuf,
    pub instances: usize,
    pub partitions: i32,
    pub cluster: ClusterOptions,
    /// `kafka.properties` of the instances.
    pub properties: BTreeMap<String, String>,
}

impl PipelineOptions {
    /// Every broker has a copy of everything.
    fn replication(&self) -> i32 {
        i32::try_from(self.cluster.kafka.brokers).expect("there are 1 or 3")
    }

    /// The settle that was built beside this program.
    pub fn new() -> Result<Self> {
        let binary = std::env::current_exe()
            .context("find this program")?
            .with_file_name("settle");
        Ok(Self {
            binary,
            instances: 2,
            partitions: 6,
            cluster: ClusterOptions::default(),
            properties: BTreeMap::new(),
        })
    }
}

/// Running parts; all of them end when it is dropped.
#[derive(Debug)]
pub struct Pipeline {
    // Before the cluster: the instances go first.
    pub instances: Vec<Instance>,
    pub cluster: Cluster,
    pub names: Names,
    pub contract: Contract,
    pub partitions: i32,
}

impl Pipeline {
    /// Starts the cluster and creates the source topic, without instances.
    pub fn prepare(options: &PipelineOptions) -> Result<Self> {
        ensure!(
            options.binary.is_file(),
            "there is no {}: build it with cargo build --release",
            options.binary.display()
        );
        let cluster = Cluster::start(&options.cluster)?;
        let names = Names::defaults();
        let source = Topic {
            replication: options.replication(),
            ..Topic::new(&names.source, options.partitions)
        };
        let source = source.set("message.timestamp.type", "CreateTime");
        Topics::connect(&cluster.kafka.bootstrap())?.create(&[source])?;
        let contract = contract(&names);
        Ok(Self {
            instances: Vec::new(),
            cluster,
            names,
            contract,
            partitions: options.partitions,
        })
    }

    /// Starts the cluster and the instances, and returns when these are ready.
    pub fn start(options: &PipelineOptions) -> Result<Self> {
        let mut pipeline = Self::prepare(options)?;
        for index in 0..options.instances {
            let instance = pipeline.instance(options, index)?;
            pipeline.instances.push(Instance::start(instance)?);
        }
        pipeline.wait_ready()?;
        Ok(pipeline)
    }

    /// Waits until every instance is ready.
    pub fn wait_ready(&self) -> Result<()> {
        let mut instances = self.instances.iter();
        instances.try_for_each(|instance| instance.wait_ready(READY_LIMIT))
    }

    /// The options of one instance of this pipeline.
    pub fn instance(&self, options: &PipelineOptions, index: usize) -> Result<InstanceOptions> {
        let instance =
            self.cluster
                .instance(&options.binary, &format!("settle-{index}"), &self.names)?;
        let instance = instance
            .set("topics.partitions", i64::from(self.partitions))
            .set(
                "topics.replication_factor",
                i64::from(options.replication()),
            );
        let instance = if options.cluster.kafka.behind_proxy {
            instance.set(
                "kafka.bootstrap_servers",
                self.cluster.kafka.proxy().bootstrap(),
            )
        } else {
            instance
        };
        let properties = options.properties.clone().into_iter();
        let properties: Table = properties
            .map(|(name, value)| (name, Value::from(value)))
            .collect();
        let instance = instance.set("kafka.properties", properties);
        Ok(configure(instance, &self.contract).set("http.generator", true))
    }

    pub fn bootstrap(&self) -> String {
        self.cluster.kafka.bootstrap()
    }

    /// What the proof needs to know of it.
    pub fn run(&self) -> Run {
        Run::new(&self.cluster, &self.names, &self.instances)
    }

    /// The rule service's answer for a rule key.
    pub fn service(&self) -> impl Fn(&str) -> Option<Rule> + use<> {
        service(self.cluster.rules.seed())
    }

    /// An error, with its log, when an instance has ended.
    pub fn check_alive(&self) -> Result<()> {
        for instance in &self.instances {
            if let Some(status) = instance.exit_status() {
                bail!(
                    "{} ended with {status}\n{}",
                    instance.name(),
                    instance.tail()
                );
            }
        }
        Ok(())
    }

    /// Where everything can be reached, a line each.
    pub fn addresses(&self) -> Vec<(String, String)> {
        let mut lines = vec![("Kafka".to_owned(), self.bootstrap())];
        if let Some(postgres) = &self.cluster.postgres {
            lines.push((
                "PostgreSQL".to_owned(),
                postgres.url_of(&self.names.database),
            ));
        }
        lines.push(("rule service".to_owned(), self.cluster.rules.url()));
        for instance in &self.instances {
            lines.push((
                instance.name().to_owned(),
                format!("{}/api/status", instance.http()),
            ));
        }
        lines.push((
            "directory".to_owned(),
            self.cluster.directory().display().to_string(),
        ));
        lines
    }
}

/// The contract of an instance that excludes the merchants which the days of the workload want excluded.
pub fn contract(names: &Names) -> Contract {
    Contract {
        source_topic: names.source.clone(),
        excluded_merchants: EXCLUDED_MERCHANTS.map(str::to_owned).to_vec(),
        test_merchants: TEST_MERCHANTS.map(str::to_owned).to_vec(),
        ..Contract::default()
    }
}

/// Configures an instance to keep a contract.
#[must_use]
pub fn configure(instance: InstanceOptions, contract: &Contract) -> InstanceOptions {
    instance
        .set("exclude.merchants", contract.excluded_merchants.clone())
        .set("exclude.test_merchants", contract.test_merchants.clone())
        .set("dedup.window", format!("{}ms", contract.window_ms))
}

/// The answers of a rule service with this seed, for the proof.
pub fn service(seed: u64) -> impl Fn(&str) -> Option<Rule> {
    move |rule_key| {
        let [merchant, day, action, method] = outgoing::fields(rule_key)?;
        let key = RuleKey {
            merchant_number: merchant.to_owned(),
            payment_day: day.parse().ok()?,
            action_type: action.to_owned(),
            method_type: method.to_owned(),
        };
        let rule = rules::rule_of(seed, &key)?;
        Some(Rule {
            id: rule.rule_id,
            payout_date: rule.payout_date.to_string(),
            confirm_date: rule.confirm_date.to_string(),
        })
    }
}
