//! One pipeline of a test on the shared, secured cluster: its topics are there, and its client has no rights yet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use chaos::cluster::acls::{Acl, Acls};
use chaos::cluster::certificates::Issued;
use chaos::cluster::instance::{Instance, InstanceOptions};
use chaos::cluster::kafka::KafkaOptions;
use chaos::cluster::names::Names;
use chaos::cluster::security::{Secured, Security};
use chaos::cluster::topics::{Topic, Topics};
use chaos::cluster::{Cluster, ClusterOptions, shared, wait};
use chaos::model::Contract;
use chaos::oracle::settled::{self, Run};
use chaos::oracle::{self, Proof};
use chaos::pipeline;
use chaos::report;
use chaos::workload::day::{Day, DayOptions};
use chaos::workload::send::{self, SendOptions};
use toml::{Table, Value};

pub const LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 2;

/// Users that log in with a password; more than there are rights.
const USERS: usize = 40;

pub fn user(number: usize) -> String {
    format!("user-{number}")
}

pub fn password(user: &str) -> String {
    format!("the-password-of-{user}")
}

pub fn cluster() -> &'static Cluster {
    let users = (0..USERS).map(user);
    let users = users.map(|user| (user.clone(), password(&user))).collect();
    let options = ClusterOptions {
        kafka: KafkaOptions {
            security: Some(Security { users }),
            ..KafkaOptions::default()
        },
        ..ClusterOptions::default()
    };
    shared::cluster_of(&options).unwrap()
}

pub fn secured() -> &'static Secured {
    cluster().kafka.secured()
}

pub struct Site {
    pub names: Names,
    pub contract: Contract,
    directory: PathBuf,
}

impl Site {
    pub fn new(name: &str) -> Self {
        let cluster = cluster();
        let names = Names::unique(name);
        let topics = Topics::connect(&cluster.kafka.bootstrap()).unwrap();
        let source =
            Topic::new(&names.source, PARTITIONS).set("message.timestamp.type", "CreateTime");
        topics.create(&[source]).unwrap();
        let site = Self {
            contract: pipeline::contract(&names),
            directory: cluster.directory().join(&names.application_id),
            names,
        };
        let owner = site.plain("owner").set("topics.create", true);
        let applied = settle(&owner, &["topics", "apply"]);
        assert!(applied.status.success(), "{}", text(&applied));
        site
    }

    /// Options of an instance that comes through the plain listener.
    fn plain(&self, name: &str) -> InstanceOptions {
        let cluster = cluster();
        let binary = env!("CARGO_BIN_EXE_settle").as_ref();
        let options = InstanceOptions::new(binary, name, &self.directory.join(name)).unwrap();
        let options = options
            .set("kafka.bootstrap_servers", cluster.kafka.bootstrap())
            .set("kafka.application_id", self.names.application_id.as_str())
            .set("topics", self.names.topics_toml())
            .set("topics.partitions", i64::from(PARTITIONS))
            .set("topics.create", false)
            .set("rules.url", cluster.rules.url());
        pipeline::configure(options, &self.contract)
    }

    /// Options of an instance that logs in so; it creates no topics.
    pub fn instance(&self, index: usize, login: &Login) -> InstanceOptions {
        let options = self
            .plain(&format!("settle-{index}"))
            .set("kafka.bootstrap_servers", login.bootstrap.as_str());
        let properties = login.properties.iter();
        let properties: Table = properties
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect();
        options.set("kafka.properties", properties)
    }

    /// The database of this pipeline.
    pub fn database(&self) -> String {
        let postgres = cluster().postgres();
        postgres.create_database(&self.names.database).unwrap();
        postgres.url_of(&self.names.database)
    }

    pub fn send(&self, seed: u64, payments: u64) {
        let day = Day::new(DayOptions {
            merchants: 50,
            is_plain: true,
            ..DayOptions::new(seed, payments, PARTITIONS)
        });
        let options = SendOptions::new(&cluster().kafka.bootstrap(), &self.names.source);
        send::send(&options, day, |_| true).unwrap();
    }

    /// Waits for rest and proves from the raw input that every promise holds.
    pub fn prove(&self, instances: &[Instance], postgres: Option<String>) -> Proof {
        let run = Run {
            bootstrap: cluster().kafka.bootstrap(),
            names: self.names.clone(),
            postgres,
            instances: instances
                .iter()
                .map(|instance| instance.address().to_string())
                .collect(),
        };
        settled::wait_settled(&run, LIMIT).unwrap_or_else(|error| {
            let tails: Vec<String> = instances.iter().map(Instance::tail).collect();
            panic!("{error:#}\n{}", tails.join("\n"))
        });
        let service = pipeline::service(cluster().rules.seed());
        let proof = oracle::prove(&run, &self.contract, &service).unwrap();
        let broken = proof.findings.broken();
        assert!(broken.is_empty(), "{broken:?}\n{}", report::proof(&proof));
        assert!(proof.sources > 0, "nothing was proved");
        proof
    }
}

/// How a client comes in.
#[derive(Clone)]
pub struct Login {
    pub principal: String,
    pub bootstrap: String,
    pub properties: BTreeMap<String, String>,
}

impl Login {
    fn new(principal: String, bootstrap: &str, properties: &[(&str, &str)]) -> Self {
        let trusted = secured().authority.file().display().to_string();
        let pairs = properties.iter().copied();
        let pairs = pairs.chain([("ssl.ca.location", trusted.as_str())]);
        Self {
            principal,
            bootstrap: bootstrap.to_owned(),
            properties: pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    /// Name and password, the password in a file.
    pub fn scram(user: &str) -> Self {
        let file = cluster().directory().join(format!("{user}.password"));
        std::fs::write(&file, password(user)).unwrap();
        Self::new(
            format!("User:{user}"),
            &secured().sasl,
            &[
                ("security.protocol", "SASL_SSL"),
                ("sasl.mechanism", "SCRAM-SHA-512"),
                ("sasl.username", user),
                ("sasl.password_file", file.to_str().unwrap()),
            ],
        )
    }

    /// A certificate.
    pub fn certificate(name: &str) -> Self {
        let issued: Issued = secured().authority.issue(name, &[]).unwrap();
        Self::new(
            format!("User:CN={name}"),
            &secured().tls,
            &[
                ("security.protocol", "SSL"),
                (
                    "ssl.certificate.location",
                    issued.certificate.to_str().unwrap(),
                ),
                ("ssl.key.location", issued.key.to_str().unwrap()),
            ],
        )
    }

    /// A token that the client library makes itself.
    pub fn token(name: &str) -> Self {
        Self::new(
            format!("User:{name}"),
            &secured().sasl,
            &[
                ("security.protocol", "SASL_SSL"),
                ("sasl.mechanism", "OAUTHBEARER"),
                ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
                ("sasl.oauthbearer.config", &format!("principal={name}")),
            ],
        )
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.properties.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.properties.remove(name);
        self
    }
}

/// What `settle acls` prints for these options, as entries.
pub fn needed(options: &InstanceOptions, principal: &str) -> Vec<Acl> {
    let arguments = ["acls", "--output", "json", "--principal", principal];
    let output = settle(options, &arguments);
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn acls() -> &'static Acls {
    static ACLS: OnceLock<Acls> = OnceLock::new();
    ACLS.get_or_init(|| Acls::connect(&cluster().kafka.bootstrap()).unwrap())
}

/// Grants rights and returns when the broker knows them: `options` are of somebody who has all that `settle topics plan`
/// needs from then on.
pub fn grant(entries: &[Acl], options: &InstanceOptions) {
    acls().grant(entries).unwrap();
    wait::until("the rights are known", LIMIT, || {
        let planned = settle(options, &["topics", "plan"]);
        Ok(planned.status.success().then_some(()))
    })
    .unwrap();
}

/// The right as the service names it.
pub fn name(acl: &Acl) -> String {
    let operation: String = acl.operation.split('_').map(capitalised).collect();
    let resource = match acl.resource_type.as_str() {
        "TOPIC" => "topic",
        "GROUP" => "group",
        _ => "transactional ids that begin with",
    };
    format!("{operation} on {resource} {}", acl.resource_name)
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    format!("{first}{}", rest.to_ascii_lowercase())
}

/// Runs a command of the program to its end.
pub fn settle(options: &InstanceOptions, arguments: &[&str]) -> Output {
    std::fs::create_dir_all(&options.directory).unwrap();
    let config = toml::to_string(&options.config).unwrap();
    std::fs::write(options.config_file(), config).unwrap();
    let environment = options.environment.iter();
    Command::new(&options.binary)
        .current_dir(&options.directory)
        .args(arguments)
        .arg("--config")
        .arg(options.config_file())
        .envs(environment.map(|(name, value)| (name, value)))
        .output()
        .unwrap()
}

/// Everything that a command has said.
pub fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}
