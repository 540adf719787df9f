//! Properties of librdkafka that an operator sets: which are refused because the guarantees rest on them, which are secret.

use std::collections::BTreeMap;
use std::time::Duration;

use super::secret::{REDACTED, Secret};

/// Refused names, `*` for any ending, with the reason. Aliases that librdkafka knows are refused with what they stand for.
pub const REFUSED: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.bootstrap_servers"),
    ("metadata.broker.list", "set kafka.bootstrap_servers"),
    ("client.id", "it carries the address of the instance"),
    ("group.id", "set kafka.application_id"),
    ("group.instance.id", "set kafka.instance_id"),
    (
        "group.protocol",
        "transactions are fenced by the classic protocol",
    ),
    (
        "partition.assignment.strategy",
        "partitions move cooperatively",
    ),
    ("transactional.id", "set kafka.instance_id"),
    ("enable.idempotence", "transactions need it"),
    ("acks", "transactions need all of them"),
    ("request.required.acks", "transactions need all of them"),
    ("max.in.flight*", "the order of records rests on it"),
    ("isolation.level", "aborted records must not be read"),
    (
        "enable.auto.*",
        "offsets are committed in the transaction only",
    ),
    (
        "auto.commit.enable",
        "offsets are committed in the transaction only",
    ),
    (
        "auto.offset.reset",
        "a lost position must stop the service, not move it",
    ),
    (
        "retry.backoff.*",
        "the detection of late requests rests on it",
    ),
    ("message.timeout.ms", "it follows transaction.timeout.ms"),
    ("delivery.timeout.ms", "it follows transaction.timeout.ms"),
    ("queue.buffering.*", "a batch must fit the queue"),
    (
        "delivery.report.only.error",
        "the offsets of delivered records are needed",
    ),
    ("test.mock.*", "a mock cluster keeps no promise"),
];

/// Why a property cannot be set, if so.
pub fn refused(name: &str) -> Option<&'static str> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    REFUSED
        .iter()
        .find(|(pattern, _)| matches(pattern))
        .map(|(_, reason)| *reason)
}

/// Whether a property holds a secret; such a one can be given as `<name>_file`.
pub fn secret(name: &str) -> bool {
    ["password", "secret", "passphrase"]
        .iter()
        .any(|word| name.contains(word))
        || name.ends_with("key.pem")
        || name == "sasl.oauthbearer.config"
}

const SESSION_TIMEOUT: &str = "session.timeout.ms";
const TRANSACTION_TIMEOUT: &str = "transaction.timeout.ms";
const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(6);
const DEFAULT_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Properties the service computes with, so they must be numbers within these bounds (milliseconds).
const NUMBERS: &[(&str, u64, u64)] = &[
    (SESSION_TIMEOUT, 1_000, 3_600_000),
    (TRANSACTION_TIMEOUT, 1_000, 3_600_000),
];

/// What is wrong with the value of a property, as far as the service itself needs to know.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    let Some((_, min, max)) = NUMBERS.iter().find(|(known, ..)| *known == name) else {
        return Ok(());
    };
    match value.parse::<u64>() {
        Ok(number) if (*min..=*max).contains(&number) => Ok(()),
        _ => Err(format!(
            "must be milliseconds between {min} and {max}, not {value:?}"
        )),
    }
}

/// The properties that were set. All of them are kept as secrets; only harmless ones are printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, Secret>);

impl Properties {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::expose)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
    }

    /// After this time without a heartbeat an instance loses its partitions.
    pub fn session_timeout(&self) -> Duration {
        self.millis(SESSION_TIMEOUT)
            .unwrap_or(DEFAULT_SESSION_TIMEOUT)
    }

    /// After this time the broker aborts a transaction that nobody ended.
    pub fn transaction_timeout(&self) -> Duration {
        self.millis(TRANSACTION_TIMEOUT)
            .unwrap_or(DEFAULT_TRANSACTION_TIMEOUT)
    }

    fn millis(&self, name: &str) -> Option<Duration> {
        let number = self.get(name)?.parse().expect("checked when loaded");
        Some(Duration::from_millis(number))
    }
}

impl FromIterator<(String, String)> for Properties {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name, Secret::new(value)))
                .collect(),
        )
    }
}

impl std::fmt::Debug for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |(name, value)| (name, if secret(name) { REDACTED } else { value });
        f.debug_map().entries(self.iter().map(shown)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Properties, check, refused, secret};

    #[test]
    fn properties_the_guarantees_rest_on_are_refused() {
        for name in [
            "bootstrap.servers",
            "client.id",
            "group.id",
            "group.instance.id",
            "group.protocol",
            "partition.assignment.strategy",
            "transactional.id",
            "enable.idempotence",
            "acks",
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "isolation.level",
            "enable.auto.commit",
            "enable.auto.offset.store",
            "auto.offset.reset",
            "retry.backoff.ms",
            "retry.backoff.max.ms",
            "message.timeout.ms",
            "queue.buffering.max.ms",
            "queue.buffering.max.messages",
        ] {
            assert!(refused(name).is_some(), "{name}");
        }
    }

    #[test]
    fn other_properties_may_be_set() {
        for name in [
            "session.timeout.ms",
            "transaction.timeout.ms",
            "security.protocol",
            "sasl.username",
            "linger.ms",
        ] {
            assert_eq!(refused(name), None, "{name}");
        }
    }

    #[test]
    fn time_outs_have_defaults_and_bounds() {
        let properties = Properties::default();
        assert_eq!(properties.session_timeout(), Duration::from_secs(6));
        assert_eq!(properties.transaction_timeout(), Duration::from_secs(10));
        let properties: Properties = [("session.timeout.ms".to_owned(), "9000".to_owned())]
            .into_iter()
            .collect();
        assert_eq!(properties.session_timeout(), Duration::from_secs(9));
        assert!(check("session.timeout.ms", "soon").is_err());
        assert!(check("transaction.timeout.ms", "1").is_err());
        assert!(check("security.protocol", "anything").is_ok());
    }

    #[test]
    fn passwords_are_not_printed() {
        assert!(secret("sasl.password") && secret("ssl.key.pem") && !secret("sasl.username"));
        let pairs = [("sasl.password", "hunter2"), ("sasl.username", "settle")];
        let properties: Properties = pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        assert_eq!(
            format!("{properties:?}"),
            r#"{"sasl.password": "***", "sasl.username": "settle"}"#
        );
    }
}
