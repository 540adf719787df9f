//! What each topic is for, and so how it must keep its records: the settings of a topic that is created, and what is
//! wrong with those of one that exists.

use std::time::Duration;

use crate::broker::Topic;
use crate::broker::admin::{Existing, TopicConfig};
use crate::config::Config;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Records or promises are lost: the service does not start.
    Violation,
    Warning,
}

const DAY: Duration = Duration::from_secs(86_400);
const BASES_RETENTION: Duration = Duration::from_secs(7 * 86_400);
/// A base waits this long at least for a settle task that is down.
const SHORTEST_BASES_RETENTION: Duration = DAY;
const UNLIMITED: i64 = -1;
/// Kafka's default for the largest message of a topic.
const DEFAULT_LARGEST_MESSAGE: i64 = 1_048_588;
/// Room for the headers of a dead letter.
const HEADER_ROOM: i64 = 16 * 1024;
/// With so many copies, one more than the leader must have a record before it counts as written.
const COPIES_FOR_QUORUM: i32 = 3;

/// The settings of a topic that is created. `source` is the source topic where it exists already.
pub fn settings(role: Topic, config: &Config, source: Option<&Existing>) -> TopicConfig {
    let mut settings = TopicConfig::new();
    let mut set = |name: &str, value: &str| settings.insert(name.to_owned(), value.to_owned());
    match role {
        Topic::Rules | Topic::Statistics | Topic::Changelog | Topic::IngestChangelog => {
            set("cleanup.policy", "compact");
        }
        Topic::Source
        | Topic::Bases
        | Topic::Settlements
        | Topic::Exclusions
        | Topic::DeadLetter => {
            set("cleanup.policy", "delete");
            set("retention.bytes", &UNLIMITED.to_string());
            set("retention.ms", &retention(role, config).to_string());
        }
    }
    if role == Topic::Bases {
        set("message.timestamp.type", "LogAppendTime");
    }
    if role == Topic::DeadLetter {
        set(
            "max.message.bytes",
            &largest_dead_letter(source).to_string(),
        );
    }
    if config.topics.replication_factor >= COPIES_FOR_QUORUM {
        set("min.insync.replicas", "2");
    }
    settings
}

fn retention(role: Topic, config: &Config) -> i64 {
    match role {
        Topic::Source => millis(config.dedup.window + DAY),
        Topic::Bases => millis(BASES_RETENTION),
        _ => UNLIMITED,
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn largest_dead_letter(source: Option<&Existing>) -> i64 {
    let largest = source.and_then(|source| number(source, "max.message.bytes"));
    (largest.unwrap_or(DEFAULT_LARGEST_MESSAGE) + HEADER_ROOM).min(i64::from(i32::MAX))
}

fn number(topic: &Existing, setting: &str) -> Option<i64> {
    topic.settings.get(setting)?.parse().ok()
}

/// What is wrong with the settings of a topic that exists.
pub fn findings(
    role: Topic,
    topic: &Existing,
    config: &Config,
    source: Option<&Existing>,
) -> Vec<(Severity, String)> {
    let mut findings = match role {
        Topic::Source => of_source(topic, config),
        Topic::Bases => of_bases(topic),
        Topic::Rules => of_rules(topic),
        Topic::Changelog | Topic::IngestChangelog => of_state(topic),
        Topic::Statistics => deletion(topic).into_iter().collect(),
        Topic::Settlements | Topic::Exclusions => of_outcomes(topic),
        Topic::DeadLetter => {
            let mut findings = of_outcomes(topic);
            findings.extend(of_dead_letters(topic, source));
            findings
        }
    };
    let alone = number(topic, "min.insync.replicas") == Some(1);
    if topic.replication_factor >= COPIES_FOR_QUORUM && alone {
        let text =
            "min.insync.replicas is 1: a record that only one broker has counts as written; set 2";
        findings.push((Severity::Warning, text.to_owned()));
    }
    findings
}

fn has_policy(topic: &Existing, policy: &str) -> bool {
    let policies = topic
        .settings
        .get("cleanup.policy")
        .map_or("", String::as_str);
    policies.split(',').any(|one| one.trim() == policy)
}

/// How a topic forgets records by age or size, if it does.
fn limit(topic: &Existing) -> Option<String> {
    if !has_policy(topic, "delete") {
        return None;
    }
    ["retention.ms", "retention.bytes"]
        .into_iter()
        .find_map(|setting| {
            let value = number(topic, setting).filter(|value| *value != UNLIMITED)?;
            Some(format!("{setting}={value}"))
        })
}

fn of_source(topic: &Existing, config: &Config) -> Vec<(Severity, String)> {
    let mut findings = Vec::new();
    if has_policy(topic, "compact") {
        let text = "cleanup.policy holds compact: payments are removed before they are settled; set delete";
        findings.push((Severity::Violation, text.to_owned()));
    }
    let retention = number(topic, "retention.ms").filter(|value| *value != UNLIMITED);
    let window = millis(config.dedup.window);
    if let Some(retention) = retention.filter(|retention| *retention < window) {
        let text = format!(
            "retention.ms is {retention}, less than dedup.window ({window} ms): duplicates may be missed after the loss of the local state"
        );
        findings.push((Severity::Warning, text));
    }
    findings
}

fn of_bases(topic: &Existing) -> Vec<(Severity, String)> {
    let mut findings = Vec::new();
    if has_policy(topic, "compact") {
        let text =
            "cleanup.policy holds compact: payments of one rule key remove each other; set delete";
        findings.push((Severity::Violation, text.to_owned()));
    }
    let retention = number(topic, "retention.ms").filter(|value| *value != UNLIMITED);
    let by_broker = topic
        .settings
        .get("message.timestamp.type")
        .is_some_and(|kind| kind == "LogAppendTime");
    if retention.is_some() && !by_broker {
        let text = "message.timestamp.type is not LogAppendTime: the clock of an instance decides when a payment is deleted; set LogAppendTime";
        findings.push((Severity::Warning, text.to_owned()));
    }
    let shortest = millis(SHORTEST_BASES_RETENTION);
    if let Some(retention) = retention.filter(|retention| *retention < shortest) {
        let text = format!(
            "retention.ms is {retention}: payments that wait longer are lost; set {} or more",
            millis(BASES_RETENTION)
        );
        findings.push((Severity::Warning, text));
    }
    if let Some(bytes) = number(topic, "retention.bytes").filter(|value| *value != UNLIMITED) {
        let text = format!(
            "retention.bytes is {bytes}: a backlog that is larger is lost; set {UNLIMITED}"
        );
        findings.push((Severity::Warning, text));
    }
    findings
}

fn of_state(topic: &Existing) -> Vec<(Severity, String)> {
    if let Some(limit) = limit(topic) {
        let text = format!(
            "cleanup.policy holds delete and {limit}: state is lost; set cleanup.policy=compact"
        );
        return vec![(Severity::Violation, text)];
    }
    if has_policy(topic, "compact") {
        return Vec::new();
    }
    let text =
        "cleanup.policy is not compact: the topic grows without end; set cleanup.policy=compact";
    vec![(Severity::Warning, text.to_owned())]
}

/// A rule that is gone is asked for again.
fn of_rules(topic: &Existing) -> Vec<(Severity, String)> {
    let findings = of_state(topic).into_iter();
    findings
        .map(|(_, text)| (Severity::Warning, text))
        .collect()
}

fn of_outcomes(topic: &Existing) -> Vec<(Severity, String)> {
    let mut findings = Vec::new();
    if has_policy(topic, "compact") {
        let text = "cleanup.policy holds compact: outcomes with one payment id remove each other; set delete";
        findings.push((Severity::Violation, text.to_owned()));
    }
    findings.extend(deletion(topic));
    findings
}

fn deletion(topic: &Existing) -> Option<(Severity, String)> {
    let limit = limit(topic)?;
    Some((
        Severity::Warning,
        format!("{limit}: records past it are gone for every reader"),
    ))
}

fn of_dead_letters(topic: &Existing, source: Option<&Existing>) -> Option<(Severity, String)> {
    let largest = number(topic, "max.message.bytes")?;
    let wanted = largest_dead_letter(source);
    let text = format!("max.message.bytes is {largest}: larger dead letters are cut; set {wanted}");
    (largest < wanted).then_some((Severity::Warning, text))
}
