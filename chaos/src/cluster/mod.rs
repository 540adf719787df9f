//! The parts of one cluster, and the cluster that holds one of each.

pub mod acls;
pub mod certificates;
pub mod instance;
pub mod jars;
pub mod kafka;
pub mod names;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod rule_faults;
mod rule_listener;
pub mod rule_service;
pub mod rules;
pub mod scratch;
pub mod security;
pub mod serve_rules;
pub mod service_manager;
pub mod shared;
pub mod stuck;
pub mod tools;
pub mod topics;
pub mod wait;

use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::cluster::instance::InstanceOptions;
use crate::cluster::kafka::{Kafka, KafkaOptions};
use crate::cluster::names::Names;
use crate::cluster::postgres::Postgres;
use crate::cluster::rule_service::{RuleService, RuleServiceOptions};
use crate::cluster::scratch::Scratch;

/// What a [`Cluster`] is made of.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    pub kafka: KafkaOptions,
    pub rules: RuleServiceOptions,
    /// Leave PostgreSQL out.
    pub without_postgres: bool,
}

/// Kafka, PostgreSQL and the rule service in one temporary directory.
#[derive(Debug)]
pub struct Cluster {
    pub kafka: Kafka,
    pub postgres: Option<Postgres>,
    pub rules: RuleService,
    // Last: the directory goes when the processes are gone.
    scratch: Scratch,
}

impl Cluster {
    /// Starts all parts side by side and returns when all of them answer.
    pub fn start(options: &ClusterOptions) -> Result<Self> {
        let scratch = Scratch::new()?;
        let rules = RuleService::start(&options.rules).context("start the rule service")?;
        let (kafka, postgres) = thread::scope(|scope| {
            let postgres = scope.spawn(|| {
                (!options.without_postgres)
                    .then(|| Postgres::start(&scratch.path().join("postgres")))
                    .transpose()
                    .context("start PostgreSQL")
            });
            let kafka = Kafka::start_in(&options.kafka, &scratch.path().join("kafka"))
                .context("start Kafka");
            let postgres = postgres
                .join()
                .map_err(|_| anyhow!("the thread that starts PostgreSQL panicked"));
            (kafka, postgres)
        });
        Ok(Self {
            kafka: kafka?,
            postgres: postgres??,
            rules,
            scratch,
        })
    }

    /// Ends all processes and removes the directory, for an owner that cannot drop the cluster.
    pub fn stop(&self) {
        self.kafka.kill();
        if let Some(postgres) = &self.postgres {
            postgres.halt();
        }
        self.scratch.remove();
    }

    /// The directory of this cluster; logs of its parts are below it.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// PostgreSQL of a cluster that was started with it.
    pub fn postgres(&self) -> &Postgres {
        self.postgres
            .as_ref()
            .expect("the cluster was started with PostgreSQL")
    }

    /// Options for one settle process on this cluster; it owns `<directory>/<application id>/<name>`.
    ///
    /// The database named by `names` is created when it does not exist.
    pub fn instance(
        &self,
        binary: impl AsRef<Path>,
        name: &str,
        names: &Names,
    ) -> Result<InstanceOptions> {
        let directory = self.directory().join(&names.application_id).join(name);
        let mut options = InstanceOptions::new(binary.as_ref(), name, &directory)?
            .set("kafka.bootstrap_servers", self.kafka.bootstrap())
            .set("kafka.application_id", names.application_id.as_str())
            .set("rules.url", self.rules.url())
            .set("topics", names.topics_toml());
        if let Some(postgres) = &self.postgres {
            postgres.create_database(&names.database)?;
            options = options.set("postgres.url", postgres.url_of(&names.database));
        }
        Ok(options)
    }
}
