//! The registry of configuration keys: path, type, default, meaning. Loading, the check for unknown keys, the default
//! file, the dump and the documentation all read this list; there is no other.

use std::time::Duration;

use super::check;
use super::value::Kind;

/// A key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// `section.name`
    pub path: &'static str,
    pub kind: Kind,
    pub default: Fallback,
    pub doc: &'static str,
    /// Never printed; can be given as `<path>_file`, the path of a file that holds it.
    pub secret: bool,
}

/// What holds for a key that nobody set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// As in an environment variable.
    Text(&'static str),
    /// The value of another key.
    SameAs(&'static str),
    /// Nothing: the feature is off. The example may be empty.
    Unset { example: &'static str },
}

impl Key {
    pub fn section(&self) -> &'static str {
        self.split().0
    }

    pub fn name(&self) -> &'static str {
        self.split().1
    }

    fn split(&self) -> (&'static str, &'static str) {
        self.path
            .split_once('.')
            .expect("a key's path has a section")
    }
}

/// A section of the file, with its meaning. Every key's section is listed.
pub const SECTIONS: &[(&str, &str)] = &[
    ("kafka", "The cluster, and who this instance is in it."),
    (
        "topics",
        "Names of the topics, and how missing ones are created.",
    ),
    ("pipeline", "The transactional loop."),
    ("dedup", "Payments that come twice."),
    ("exclude", "Merchants whose payments are not settled."),
    ("state", "The local store."),
    ("rules", "The payout rule service."),
    (
        "postgres",
        "The database that mirrors the topics. Leave the table out to run without one.",
    ),
    ("http", "Queries, health and metrics."),
    ("log", "Lines on standard error."),
    ("shutdown", "The orderly end."),
];

/// The table of librdkafka properties: its names are librdkafka's, so they are not in [`KEYS`].
pub const PROPERTIES: &str = "kafka.properties";
pub const PROPERTIES_DOC: &str = "Any other property of librdkafka, for all clients, such as security.protocol. Passwords can be given as \
     \"<name>_file\". Refused are those the guarantees rest on.";

/// Before the name of every environment variable.
pub const VARIABLE_PREFIX: &str = "SETTLE_";

/// The filter for logs, whose grammar is that of its library.
pub const LOG_FILTER: &str = "log.filter";

/// Where the table of the database stands.
pub const POSTGRES: &str = "postgres";

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        default: Fallback::Text(default),
        doc,
        secret: false,
    }
}

/// A secret that need not be set.
const fn secret(
    path: &'static str,
    check: check::Check,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        path,
        kind: Kind::Text(check),
        default: Fallback::Unset { example },
        doc,
        secret: true,
    }
}

/// The path of a file that need not be named.
const fn file(path: &'static str, example: &'static str, doc: &'static str) -> Key {
    Key {
        path,
        kind: Kind::Text(check::file),
        default: Fallback::Unset { example },
        doc,
        secret: false,
    }
}

const fn topic(path: &'static str, default: &'static str, doc: &'static str) -> Key {
    key(path, Kind::Topic, default, doc)
}

const fn integer(
    path: &'static str,
    bounds: (i64, i64),
    default: &'static str,
    doc: &'static str,
) -> Key {
    key(
        path,
        Kind::Integer {
            min: bounds.0,
            max: bounds.1,
        },
        default,
        doc,
    )
}

const fn duration(
    path: &'static str,
    bounds: (Duration, Duration),
    default: &'static str,
    doc: &'static str,
) -> Key {
    key(
        path,
        Kind::Duration {
            min: bounds.0,
            max: bounds.1,
        },
        default,
        doc,
    )
}

/// In the order of the default file.
pub static KEYS: &[Key] = &[
    key(
        "kafka.bootstrap_servers",
        Kind::Text(check::brokers),
        "127.0.0.1:9092",
        "Brokers to start from, host:port, comma separated.",
    ),
    key(
        "kafka.application_id",
        Kind::Text(check::identifier),
        "settle",
        "Name of the whole service: consumer group and prefix of the transactional ids. All instances share it.",
    ),
    key(
        "kafka.instance_id",
        Kind::Text(check::identifier),
        "settle-0",
        "Name of this instance: unique among live ones, the same again after a restart.",
    ),
    topic(
        "topics.source",
        "payments",
        "Payments, as the upstream writes them. Its retention must cover dedup.window.",
    ),
    topic(
        "topics.bases",
        "settlement-bases",
        "Payments on their way from ingest to settle.",
    ),
    topic(
        "topics.rules",
        "payout-rules",
        "Payout rules, learnt or published by others.",
    ),
    topic(
        "topics.settlements",
        "settlements",
        "One record for each settled payment.",
    ),
    topic(
        "topics.statistics",
        "settlement-statistics",
        "Running totals.",
    ),
    topic(
        "topics.exclusions",
        "settlement-exclusions",
        "Payments that are not settled, with the reason.",
    ),
    topic(
        "topics.dead_letter",
        "payments-dead-letter",
        "Messages that are no payments, with the reason.",
    ),
    topic(
        "topics.changelog",
        "settlement-changelog",
        "State of settle; belongs to the service alone.",
    ),
    topic(
        "topics.ingest_changelog",
        "settlement-ingest-changelog",
        "State of ingest; belongs to the service alone, as many partitions as the source.",
    ),
    key(
        "topics.create",
        Kind::Flag,
        "true",
        "Create missing topics at start; otherwise they are an error.",
    ),
    integer(
        "topics.partitions",
        (1, 10_000),
        "4",
        "Partitions of the topics that are created, the ingest changelog aside.",
    ),
    integer(
        "topics.replication_factor",
        (1, 100),
        "1",
        "Copies of each partition of the topics that are created. Use 3 where losing a broker must lose nothing.",
    ),
    integer(
        "pipeline.workers",
        (1, 64),
        "1",
        "Worker threads, each with a consumer and a transactional producer.",
    ),
    duration(
        "pipeline.commit_interval",
        (MILLISECOND, Duration::from_secs(60)),
        "100ms",
        "A transaction ends at the latest after this time; sooner when the input runs dry.",
    ),
    integer(
        "pipeline.max_batch_records",
        (1, 1_000_000),
        "10000",
        "A transaction ends at the latest after this many input records.",
    ),
    duration(
        "dedup.window",
        (MILLISECOND, Duration::from_secs(86_400 * 3650)),
        "7d",
        "A payment id that comes again in its partition within this time is a duplicate.",
    ),
    key(
        "dedup.accept_shorter_window",
        Kind::Flag,
        "false",
        "Start although retention has removed part of the window from the source; repeats of what is gone settle twice.",
    ),
    key(
        "exclude.merchants",
        Kind::List(check::merchant),
        "",
        "Merchant numbers, or a beginning followed by *. Their payments are excluded as NON_SETTLEMENT_MERCHANT.",
    ),
    key(
        "exclude.test_merchants",
        Kind::List(check::merchant),
        "",
        "Merchant numbers, compared whole: a * stands for itself. Their payments are excluded as TEST_PAYMENT.",
    ),
    key(
        "state.directory",
        Kind::Text(check::path),
        "data",
        "Directory of the local store; one instance only. It can be rebuilt from Kafka.",
    ),
    key(
        "state.cache",
        Kind::Size {
            min: 1 << 20,
            max: 1 << 40,
        },
        "64MiB",
        "Memory for the cache of the local store, over all its files.",
    ),
    key(
        "rules.url",
        Kind::Text(check::http_url),
        "http://127.0.0.1:8090/payout-rules",
        "Asked with POST for the payout rule of a key that is not known yet.",
    ),
    duration(
        "rules.timeout",
        (Duration::from_millis(10), Duration::from_secs(300)),
        "2s",
        "For one answer; then it is asked again.",
    ),
    integer(
        "rules.max_concurrent",
        (1, 10_000),
        "64",
        "Questions under way at a time.",
    ),
    duration(
        "rules.absent_ttl",
        (Duration::ZERO, DAY),
        "60s",
        "How long \"there is no rule\" is remembered.",
    ),
    integer(
        "rules.default_payout_days",
        (0, 365),
        "2",
        "Days from the payment to its payout where there is no rule.",
    ),
    secret(
        "postgres.url",
        check::postgres_url,
        "postgres://settle@127.0.0.1:5432/settle",
        "Where the database is; url_file takes the path of a file that holds it. sslmode in it: disable, prefer, require, verify-ca, verify-full.",
    ),
    secret(
        "postgres.password",
        check::password,
        "the password",
        "Instead of a password in the URL; password_file takes the path of a file that holds it.",
    ),
    file(
        "postgres.ca_file",
        "/etc/settle/postgres-ca.pem",
        "Who may have signed the certificate of the database, in PEM; the system's authorities unless set. With it, sslmode is verify-full unless the URL says otherwise.",
    ),
    key(
        "http.listen",
        Kind::Text(check::listen),
        "127.0.0.1:8080",
        "Address and port to listen on.",
    ),
    Key {
        path: "http.advertise",
        kind: Kind::Text(check::host_and_port),
        default: Fallback::SameAs("http.listen"),
        doc: "Where other instances reach this one; http.listen unless set.",
        secret: false,
    },
    secret(
        "http.token",
        check::token,
        "",
        "When set, everything but health and metrics needs `Authorization: Bearer <token>`; token_file takes the path of a file that holds it.",
    ),
    file(
        "http.certificate_file",
        "/etc/settle/http.pem",
        "Certificate of this instance with the chain behind it, in PEM. With it and its key, HTTP is HTTPS, between instances too; read at start.",
    ),
    file(
        "http.key_file",
        "/etc/settle/http-key.pem",
        "Key of http.certificate_file, in PEM (PKCS #8).",
    ),
    file(
        "http.ca_file",
        "/etc/settle/http-ca.pem",
        "Who may have signed the certificates of other instances, in PEM; the system's authorities unless set.",
    ),
    key(
        "http.generator",
        Kind::Flag,
        "false",
        "Offer the end point that sends random payments. For demonstrations only.",
    ),
    key(
        LOG_FILTER,
        Kind::Text(check::log_filter),
        "info",
        "Which lines are logged, such as \"info,settle::engine=debug\". The variable RUST_LOG wins. Read again on SIGHUP.",
    ),
    key(
        "log.format",
        Kind::Text(check::log_format),
        "auto",
        "text, json, or auto: text on a terminal, json otherwise. --log-format wins.",
    ),
    duration(
        "shutdown.grace",
        (SECOND, Duration::from_secs(600)),
        "10s",
        "SIGTERM ends the process within this time.",
    ),
];

/// What a path in a file or in the environment stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Key,
    /// `<path>_file` of a secret.
    Twin,
}

pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

pub fn known(path: &str) -> Option<Known> {
    if find(path).is_some() {
        return Some(Known::Key);
    }
    let secret = path
        .strip_suffix("_file")
        .and_then(find)
        .is_some_and(|key| key.secret);
    secret.then_some(Known::Twin)
}

pub fn is_section(path: &str) -> bool {
    path == PROPERTIES || SECTIONS.iter().any(|(section, _)| *section == path)
}

/// The environment variable of a path.
pub fn variable(path: &str) -> String {
    format!(
        "{VARIABLE_PREFIX}{}",
        path.replace('.', "__").to_ascii_uppercase()
    )
}

/// The known paths, for suggestions.
fn paths() -> impl Iterator<Item = String> {
    let keys = KEYS.iter().map(|key| key.path.to_owned());
    let twins = KEYS
        .iter()
        .filter(|key| key.secret)
        .map(|key| format!("{}_file", key.path));
    let sections = SECTIONS.iter().map(|(section, _)| (*section).to_owned());
    keys.chain(twins)
        .chain(sections)
        .chain([PROPERTIES.to_owned()])
}

const ALIKE: f64 = 0.8;

/// The known path that an unknown one was probably meant to be: like it as a whole, or with the same name elsewhere.
pub fn suggest(path: &str) -> Option<String> {
    let like = |candidate: &String| strsim::normalized_damerau_levenshtein(path, candidate);
    let nearest = paths().max_by(|a, b| like(a).total_cmp(&like(b)))?;
    if like(&nearest) >= ALIKE {
        return Some(nearest);
    }
    let name = path.rsplit('.').next()?;
    let mut elsewhere = paths().filter(|candidate| candidate.rsplit('.').next() == Some(name));
    elsewhere.next()
}

/// The variable that an unknown one was probably meant to be.
pub fn suggest_variable(name: &str) -> Option<String> {
    let like = |candidate: &String| strsim::normalized_damerau_levenshtein(name, candidate);
    let variables = paths()
        .filter(|path| !is_section(path))
        .map(|path| variable(&path));
    variables
        .max_by(|a, b| like(a).total_cmp(&like(b)))
        .filter(|nearest| like(nearest) >= ALIKE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{KEYS, SECTIONS, suggest, suggest_variable, variable};

    #[test]
    fn every_key_is_listed_once_and_in_a_section() {
        let paths: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(paths.len(), KEYS.len());
        for key in KEYS {
            assert!(
                SECTIONS
                    .iter()
                    .any(|(section, _)| *section == key.section()),
                "{}",
                key.path
            );
        }
    }

    #[test]
    fn the_keys_of_a_section_stand_together() {
        let mut sections: Vec<_> = KEYS.iter().map(super::Key::section).collect();
        sections.dedup();
        assert_eq!(
            sections,
            SECTIONS
                .iter()
                .map(|(section, _)| *section)
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_typo_gets_the_nearest_key() {
        assert_eq!(
            suggest("pipeline.comit_interval").as_deref(),
            Some("pipeline.commit_interval")
        );
        assert_eq!(suggest("pipelines").as_deref(), Some("pipeline"));
        assert_eq!(
            suggest("kafka.workers").as_deref(),
            Some("pipeline.workers")
        );
        assert_eq!(suggest("colour"), None);
    }

    #[test]
    fn a_typo_in_a_variable_gets_the_nearest_variable() {
        assert_eq!(variable("http.token_file"), "SETTLE_HTTP__TOKEN_FILE");
        assert_eq!(
            suggest_variable("SETTLE_KAFKA_BOOTSTRAP_SERVERS").as_deref(),
            Some("SETTLE_KAFKA__BOOTSTRAP_SERVERS")
        );
    }
}
