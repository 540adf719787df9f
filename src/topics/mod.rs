//! The topics of the service: which are missing, which break a rule, and what to do about it.
//!
//! [`plan`] is pure: it compares the configuration with what the cluster has. [`ensure`] carries it out at start,
//! [`apply`] by command.

use std::collections::BTreeMap;
use std::fmt;

use crate::broker::Topic;
use crate::broker::admin::{self, Admin, Existing, Wanted};
use crate::broker::client::Settings;
use crate::config::Config;
use crate::exit::Exit;

use policy::Severity;

mod policy;

/// The topics whose partition `n` belongs together: whoever owns it owns the rule keys in it.
const COPARTITIONED: [Topic; 5] = [
    Topic::Bases,
    Topic::Rules,
    Topic::Settlements,
    Topic::Statistics,
    Topic::Changelog,
];

/// What a broker takes when nothing else is said.
const BROKER_MESSAGE_BYTES_MAX: usize = 1_048_588;

/// What would have to happen for the topics to be as they should.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub create: Vec<Wanted>,
    /// Names and partition counts of the topics that exist.
    pub keep: Vec<(String, i32)>,
    /// One line each, beginning with the name of the topic.
    pub violations: Vec<String>,
    pub warnings: Vec<String>,
}

/// Partition counts of the topics, once they are as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions {
    pub source: i32,
    pub bases: i32,
    pub exclusions: i32,
    pub dead_letter: i32,
    /// `max.message.bytes` of the dead-letter topic.
    pub dead_letter_bytes_max: usize,
    /// The least `max.message.bytes` of the topics that are written: a broker refuses a batch of
    /// several records that is larger, as it refuses one record.
    pub batch_bytes_max: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Admin(#[from] admin::Error),
    #[error("topics break the rules:\n  {}", .0.join("\n  "))]
    Violations(Vec<String>),
    #[error("topics are missing, or hidden from this principal, and topics.create is false: {}; `settle topics apply` creates them", .0.join(", "))]
    Missing(Vec<String>),
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Error::Admin(error) => error.exit(),
            Error::Violations(_) | Error::Missing(_) => Exit::Configuration,
        }
    }
}

/// The plan for what the cluster has now.
pub fn look(config: &Config) -> Result<Plan, Error> {
    let existing = describe(&Admin::new(&Settings::new(config))?, config)?;
    Ok(plan(config, &existing))
}

/// Partition counts of the topics that exist, by name.
pub fn existing(config: &Config) -> Result<BTreeMap<String, i32>, Error> {
    let found = describe(&Admin::new(&Settings::new(config))?, config)?;
    let counts = found.into_iter();
    Ok(counts
        .map(|(name, topic)| (name, topic.partitions))
        .collect())
}

/// Creates what is missing, whatever `topics.create` says, and answers what was done.
pub fn apply(config: &Config) -> Result<Plan, Error> {
    let admin = Admin::new(&Settings::new(config))?;
    let plan = plan(config, &describe(&admin, config)?);
    if plan.violations.is_empty() {
        admin.create(&plan.create)?;
    }
    Ok(plan)
}

/// Makes sure at start that the topics are there and keep the rules.
pub fn ensure(config: &Config) -> Result<Partitions, Error> {
    let admin = Admin::new(&Settings::new(config))?;
    let existing = describe(&admin, config)?;
    let first = plan(config, &existing);
    for warning in &first.warnings {
        tracing::warn!("topic {warning}");
    }
    refuse_violations(&first)?;
    if first.create.is_empty() {
        return Ok(partitions(config, &existing));
    }
    let missing: Vec<_> = first
        .create
        .iter()
        .map(|topic| topic.name.clone())
        .collect();
    if !config.topics.create {
        return Err(Error::Missing(missing));
    }
    admin.create(&first.create)?;
    tracing::info!(topics = missing.join(", "), "topics created");
    // Another instance may have created them first, from another configuration.
    let existing = describe(&admin, config)?;
    let second = plan(config, &existing);
    refuse_violations(&second)?;
    if second.create.is_empty() {
        return Ok(partitions(config, &existing));
    }
    Err(Error::Missing(
        second.create.into_iter().map(|topic| topic.name).collect(),
    ))
}

fn refuse_violations(plan: &Plan) -> Result<(), Error> {
    if plan.violations.is_empty() {
        Ok(())
    } else {
        Err(Error::Violations(plan.violations.clone()))
    }
}

fn describe(admin: &Admin, config: &Config) -> Result<BTreeMap<String, Existing>, Error> {
    let names = Topic::ALL.map(|role| role.name_in(&config.topics));
    Ok(admin.describe(&names)?)
}

fn partitions(config: &Config, existing: &BTreeMap<String, Existing>) -> Partitions {
    let of = |role: Topic| existing[role.name_in(&config.topics)].partitions;
    let bytes_max = |role: Topic| {
        let settings = &existing[role.name_in(&config.topics)].settings;
        let text = settings.get("max.message.bytes");
        text.and_then(|text| text.parse().ok())
            .unwrap_or(BROKER_MESSAGE_BYTES_MAX)
    };
    let written = Topic::ALL.into_iter().filter(|role| *role != Topic::Source);
    Partitions {
        dead_letter_bytes_max: bytes_max(Topic::DeadLetter),
        batch_bytes_max: written.map(bytes_max).min().unwrap_or_default(),
        source: of(Topic::Source),
        bases: of(Topic::Bases),
        exclusions: of(Topic::Exclusions),
        dead_letter: of(Topic::DeadLetter),
    }
}

/// Compares what should be with what is; `existing` is by name.
pub fn plan(config: &Config, existing: &BTreeMap<String, Existing>) -> Plan {
    let find = |role: Topic| existing.get(role.name_in(&config.topics));
    let source = find(Topic::Source);
    let reference = reference(&|role| Some(find(role)?.partitions));
    let mut plan = Plan::default();
    for role in Topic::ALL {
        let name = role.name_in(&config.topics);
        let (wanted, reason) = wanted_partitions(role, config, source, reference);
        let Some(topic) = find(role) else {
            plan.create.push(Wanted {
                name: name.to_owned(),
                partitions: wanted,
                replication_factor: config.topics.replication_factor,
                settings: policy::settings(role, config, source),
            });
            continue;
        };
        plan.keep.push((name.to_owned(), topic.partitions));
        if let Some(reason) = reason.filter(|_| topic.partitions != wanted) {
            let count = topic.partitions;
            let cure = cure(role, name, (count, wanted));
            plan.violations.push(format!(
                "{name}: has {count} partitions and must have {wanted}, {reason}; {cure}"
            ));
        }
        for (severity, text) in policy::findings(role, topic, config, source) {
            let list = match severity {
                Severity::Violation => &mut plan.violations,
                Severity::Warning => &mut plan.warnings,
            };
            list.push(format!("{name}: {text}"));
        }
    }
    plan
}

/// The number of partitions that most topics with rule keys have, the smaller of two that are as
/// frequent, and the first topic with it: the odd one out is named, not the others.
fn reference(count_of: &dyn Fn(Topic) -> Option<i32>) -> Option<(Topic, i32)> {
    let counts: Vec<(Topic, i32)> = COPARTITIONED
        .into_iter()
        .filter_map(|role| Some((role, count_of(role)?)))
        .collect();
    let frequency = |count: i32| counts.iter().filter(|(_, other)| *other == count).count();
    let most = counts.iter().map(|(_, count)| *count);
    let most = most.max_by_key(|count| (frequency(*count), -count))?;
    counts.into_iter().find(|(_, count)| *count == most)
}

/// What an operator does about a wrong number of partitions.
fn cure(role: Topic, name: &str, (count, wanted): (i32, i32)) -> String {
    if role == Topic::IngestChangelog && count < wanted {
        return format!("add them: `kafka-topics.sh --alter --topic {name} --partitions {wanted}`");
    }
    "rule keys live where they are, and Kafka takes no partition away: docs/damage.md says how to \
     make it anew"
        .to_owned()
}

/// How many partitions a topic should have, and the rule if it is one that an existing topic must keep.
fn wanted_partitions(
    role: Topic,
    config: &Config,
    source: Option<&Existing>,
    reference: Option<(Topic, i32)>,
) -> (i32, Option<String>) {
    let configured = config.topics.partitions;
    match role {
        Topic::IngestChangelog => {
            let reason = format!("as many as {}", config.topics.source);
            (
                source.map_or(configured, |source| source.partitions),
                Some(reason),
            )
        }
        role if COPARTITIONED.contains(&role) => match reference {
            Some((other, count)) => (
                count,
                Some(format!("as many as {}", other.name_in(&config.topics))),
            ),
            None => (configured, None),
        },
        _ => (configured, None),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, partitions) in &self.keep {
            writeln!(
                f,
                "exists   {name}: {}",
                counted(*partitions, "partition", "partitions")
            )?;
        }
        for topic in &self.create {
            let partitions = counted(topic.partitions, "partition", "partitions");
            let copies = counted(topic.replication_factor, "copy", "copies");
            let settings: Vec<_> = topic
                .settings
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            writeln!(
                f,
                "create   {}: {partitions}, {copies}, {}",
                topic.name,
                settings.join(" ")
            )?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning  {warning}")?;
        }
        for violation in &self.violations {
            writeln!(f, "error    {violation}")?;
        }
        Ok(())
    }
}

fn counted(count: i32, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests;
