//! Configuration: one TOML file, overridden key by key by environment variables, checked as a whole before anything starts.
//!
//! - `SETTLE_` + the path in capitals, `__` between levels, overrides a key: `SETTLE_PIPELINE__WORKERS=2`. Lists are comma
//!   separated. `SETTLE_KAFKA__PROPERTIES__SASL_PASSWORD` is the property `sasl.password` of librdkafka.
//! - A secret can be given as `<key>_file`, the path of a file that holds it; both in one source is an error, and what
//!   the environment says in either form wins over the file.
//! - Every problem is reported at once, with its place.
//!
//! [`keys::KEYS`] is the registry of keys; nothing else lists them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use load::{Setting, Settings};
use problem::Errors;
use properties::Properties;
use secret::Secret;
use value::Value;

mod advice;
mod check;
pub mod keys;
mod load;
mod postgres;
mod print;
pub mod problem;
pub mod properties;
pub mod secret;
mod source;
mod value;

pub use load::Users;
pub use postgres::{Postgres, TlsMode};
pub use print::default_file;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub kafka: Kafka,
    pub topics: Topics,
    pub pipeline: Pipeline,
    pub dedup: Dedup,
    pub exclude: Exclude,
    pub state: State,
    pub rules: Rules,
    pub postgres: Option<Postgres>,
    pub http: Http,
    pub log: Log,
    pub shutdown: Shutdown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    pub bootstrap_servers: String,
    pub application_id: String,
    pub instance_id: String,
    pub properties: Properties,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    pub source: String,
    pub bases: String,
    pub rules: String,
    pub settlements: String,
    pub statistics: String,
    pub exclusions: String,
    pub dead_letter: String,
    pub changelog: String,
    pub ingest_changelog: String,
    pub create: bool,
    pub partitions: i32,
    pub replication_factor: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    pub workers: usize,
    pub commit_interval: Duration,
    pub max_batch_records: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedup {
    pub window: Duration,
    pub accept_shorter_window: bool,
}

/// Merchant numbers, or the beginning of one with `*` at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclude {
    pub merchants: Vec<String>,
    pub test_merchants: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub directory: PathBuf,
    /// Bytes, over all files.
    pub cache: u64,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Rules {
    /// May hold a password.
    pub url: String,
    pub timeout: Duration,
    pub max_concurrent: usize,
    pub absent_ttl: Duration,
    pub default_payout_days: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    pub listen: SocketAddr,
    /// `host:port` where other instances reach this one.
    pub advertise: String,
    pub token: Option<Secret>,
    pub tls: Option<HttpTls>,
    pub generator: bool,
}

/// HTTPS, for clients and between instances. Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTls {
    /// The certificate of this instance, with the chain behind it.
    pub certificate_file: PathBuf,
    /// Its key, in PKCS #8.
    pub key_file: PathBuf,
    /// Who signs the certificates of the other instances; the system's authorities when not set.
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub filter: String,
    /// `text`, `json` or `auto`.
    pub format: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    pub grace: Duration,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = print::without_password(&self.url);
        f.debug_struct("Rules")
            .field("url", &shown.as_ref().unwrap_or(&self.url))
            .field("timeout", &self.timeout)
            .field("max_concurrent", &self.max_concurrent)
            .field("absent_ttl", &self.absent_ttl)
            .field("default_payout_days", &self.default_payout_days)
            .finish()
    }
}

impl Config {
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, Errors> {
        Loaded::load(path, environment, Users::NONE).map(|loaded| loaded.config)
    }
}

/// A configuration that still knows where each value came from.
pub struct Loaded {
    pub config: Config,
    settings: Settings,
}

impl Loaded {
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        users: Users,
    ) -> Result<Loaded, Errors> {
        let settings = load::load(path, environment, users)?;
        Ok(Loaded {
            config: build(&settings),
            settings,
        })
    }

    /// The effective configuration as TOML, each value with its origin, without secrets.
    pub fn dump(&self) -> String {
        print::dump(&self.settings)
    }

    /// What is valid and yet worth a thought.
    pub fn warnings(&self) -> Vec<String> {
        advice::warnings(&self.config)
    }
}

/// Takes each setting once; what is left over, or missing, is a key without a field or the reverse.
struct Fields(BTreeMap<&'static str, Setting>);

impl Fields {
    fn optional(&mut self, path: &str) -> Option<Value> {
        self.0
            .remove(path)
            .unwrap_or_else(|| panic!("{path} is no key"))
            .value
    }

    fn value(&mut self, path: &str) -> Value {
        self.optional(path)
            .unwrap_or_else(|| panic!("{path} has no value"))
    }

    fn text(&mut self, path: &str) -> String {
        match self.value(path) {
            Value::Text(text) => text,
            other => panic!("{path} is no text: {other:?}"),
        }
    }

    fn secret(&mut self, path: &str) -> Option<Secret> {
        self.optional(path).map(|value| match value {
            Value::Text(text) => Secret::new(text),
            _ => panic!("{path} is no text"),
        })
    }

    fn file(&mut self, path: &str) -> Option<PathBuf> {
        self.optional(path).map(|value| match value {
            Value::Text(text) => PathBuf::from(text),
            other => panic!("{path} is no text: {other:?}"),
        })
    }

    fn list(&mut self, path: &str) -> Vec<String> {
        match self.value(path) {
            Value::List(items) => items,
            other => panic!("{path} is no list: {other:?}"),
        }
    }

    fn flag(&mut self, path: &str) -> bool {
        match self.value(path) {
            Value::Flag(flag) => flag,
            other => panic!("{path} is no flag: {other:?}"),
        }
    }

    fn number<N: TryFrom<i64>>(&mut self, path: &str) -> N {
        match self.value(path) {
            Value::Integer(number) => {
                N::try_from(number).unwrap_or_else(|_| panic!("{path} has wrong bounds"))
            }
            other => panic!("{path} is no integer: {other:?}"),
        }
    }

    fn duration(&mut self, path: &str) -> Duration {
        match self.value(path) {
            Value::Duration(duration) => duration,
            other => panic!("{path} is no duration: {other:?}"),
        }
    }

    fn size(&mut self, path: &str) -> u64 {
        match self.value(path) {
            Value::Size(size) => size,
            other => panic!("{path} is no size: {other:?}"),
        }
    }
}

fn build(settings: &Settings) -> Config {
    let mut fields = Fields(settings.keys.clone());
    let properties = settings
        .properties
        .iter()
        .map(|(name, property)| (name.clone(), property.text.clone()));
    let config = Config {
        kafka: Kafka {
            bootstrap_servers: fields.text("kafka.bootstrap_servers"),
            application_id: fields.text("kafka.application_id"),
            instance_id: fields.text("kafka.instance_id"),
            properties: properties.collect(),
        },
        topics: topics(&mut fields),
        pipeline: Pipeline {
            workers: fields.number("pipeline.workers"),
            commit_interval: fields.duration("pipeline.commit_interval"),
            max_batch_records: fields.number("pipeline.max_batch_records"),
        },
        dedup: Dedup {
            window: fields.duration("dedup.window"),
            accept_shorter_window: fields.flag("dedup.accept_shorter_window"),
        },
        exclude: Exclude {
            merchants: fields.list("exclude.merchants"),
            test_merchants: fields.list("exclude.test_merchants"),
        },
        state: State {
            directory: PathBuf::from(fields.text("state.directory")),
            cache: fields.size("state.cache"),
        },
        rules: Rules {
            url: fields.text("rules.url"),
            timeout: fields.duration("rules.timeout"),
            max_concurrent: fields.number("rules.max_concurrent"),
            absent_ttl: fields.duration("rules.absent_ttl"),
            default_payout_days: fields.number("rules.default_payout_days"),
        },
        postgres: postgres(&mut fields),
        http: Http {
            listen: fields
                .text("http.listen")
                .parse()
                .expect("checked when read"),
            advertise: fields.text("http.advertise"),
            token: fields.secret("http.token"),
            tls: http_tls(&mut fields),
            generator: fields.flag("http.generator"),
        },
        log: Log {
            filter: fields.text("log.filter"),
            format: fields.text("log.format"),
        },
        shutdown: Shutdown {
            grace: fields.duration("shutdown.grace"),
        },
    };
    assert!(
        fields.0.is_empty(),
        "keys without a field: {:?}",
        fields.0.keys()
    );
    config
}

fn postgres(fields: &mut Fields) -> Option<Postgres> {
    let password = fields.secret("postgres.password");
    let ca_file = fields.file("postgres.ca_file");
    let url = fields.secret("postgres.url")?;
    Some(Postgres::new(url.expose(), password, ca_file))
}

fn http_tls(fields: &mut Fields) -> Option<HttpTls> {
    let certificate_file = fields.file("http.certificate_file");
    let key_file = fields.file("http.key_file");
    let ca_file = fields.file("http.ca_file");
    Some(HttpTls {
        certificate_file: certificate_file?,
        key_file: key_file?,
        ca_file,
    })
}

fn topics(fields: &mut Fields) -> Topics {
    Topics {
        source: fields.text("topics.source"),
        bases: fields.text("topics.bases"),
        rules: fields.text("topics.rules"),
        settlements: fields.text("topics.settlements"),
        statistics: fields.text("topics.statistics"),
        exclusions: fields.text("topics.exclusions"),
        dead_letter: fields.text("topics.dead_letter"),
        changelog: fields.text("topics.changelog"),
        ingest_changelog: fields.text("topics.ingest_changelog"),
        create: fields.flag("topics.create"),
        partitions: fields.number("topics.partitions"),
        replication_factor: fields.number("topics.replication_factor"),
    }
}

#[cfg(test)]
mod tests;
