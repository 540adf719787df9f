//! The access rights as an administrator needs them: commands of Kafka, or JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::broker::rights::{self, Operation, Resource, Right};
use crate::config::Config;

/// One access control entry, in the words of Kafka's administrator interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub principal: String,
    pub host: &'static str,
    /// `TOPIC`, `GROUP` or `TRANSACTIONAL_ID`
    pub resource_type: &'static str,
    pub resource_name: String,
    /// `LITERAL` or `PREFIXED`
    pub pattern_type: &'static str,
    pub operation: Operation,
    pub permission_type: &'static str,
}

/// Every entry that `settle run` needs.
pub fn entries(config: &Config, principal: &str) -> Vec<Entry> {
    let rights = rights::all(config).into_iter();
    rights
        .map(
            |Right {
                 resource,
                 operation,
             }| {
                let (resource_type, resource_name, pattern_type) = match resource {
                    Resource::Topic(name) => ("TOPIC", name, "LITERAL"),
                    Resource::Group(name) => ("GROUP", name, "LITERAL"),
                    Resource::TransactionalIds(prefix) => ("TRANSACTIONAL_ID", prefix, "PREFIXED"),
                };
                Entry {
                    principal: principal.to_owned(),
                    host: "*",
                    resource_type,
                    resource_name,
                    pattern_type,
                    operation,
                    permission_type: "ALLOW",
                }
            },
        )
        .collect()
}

/// The same as commands: one for each resource.
pub fn commands(config: &Config, principal: &str) -> String {
    let mut operations: BTreeMap<&Resource, Vec<Operation>> = BTreeMap::new();
    let rights = rights::all(config);
    let mut order: Vec<&Resource> = rights.iter().map(|right| &right.resource).collect();
    order.dedup();
    for right in &rights {
        let of = operations.entry(&right.resource).or_default();
        of.push(right.operation);
    }
    let servers = quoted(&config.kafka.bootstrap_servers);
    let principal = quoted(principal);
    let mut out = String::new();
    for resource in order {
        write!(
            out,
            "kafka-acls.sh --bootstrap-server {servers} --add --allow-principal {principal}"
        )
        .expect("a String takes everything");
        for operation in &operations[resource] {
            out.push_str(" --operation ");
            out.push_str(operation.as_str());
        }
        let (option, name) = match resource {
            Resource::Topic(name) => ("--topic", name),
            Resource::Group(name) => ("--group", name),
            Resource::TransactionalIds(prefix) => (
                "--resource-pattern-type prefixed --transactional-id",
                prefix,
            ),
        };
        writeln!(out, " {option} {}", quoted(name)).expect("a String takes everything");
    }
    out
}

/// A word for the shell.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:,=/@".contains(&byte);
    if text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(environment: &[(&str, &str)]) -> Config {
        let pairs = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(None, pairs)
            .map_err(|errors| errors.to_string())
            .unwrap()
    }

    fn of(config: &Config, resource: &str) -> Vec<&'static str> {
        let entries = entries(config, "User:settle");
        let of = entries
            .iter()
            .filter(|entry| entry.resource_name == resource);
        of.map(|entry| entry.operation.as_str()).collect()
    }

    #[test]
    fn rights_follow_what_is_switched_on() {
        let plain = config(&[("SETTLE_TOPICS__CREATE", "false")]);
        assert_eq!(of(&plain, "payments"), ["Read", "DescribeConfigs"]);
        assert_eq!(
            of(&plain, "settlements"),
            ["Read", "Write", "DescribeConfigs"]
        );
        assert_eq!(of(&plain, "settle"), ["Read"]);
        assert_eq!(of(&plain, "settle:"), ["Write"]);
        assert!(of(&plain, "settle-sink").is_empty());
        let all = config(&[
            ("SETTLE_HTTP__GENERATOR", "true"),
            ("SETTLE_POSTGRES__URL", "postgres://settle@db/settle"),
        ]);
        assert_eq!(
            of(&all, "payments"),
            ["Read", "Write", "DescribeConfigs", "Create"]
        );
        assert_eq!(of(&all, "settle-sink"), ["Read"]);
    }

    #[test]
    fn there_is_a_command_for_each_resource() {
        let config = config(&[("SETTLE_TOPICS__CREATE", "false")]);
        let text = commands(&config, "User:CN=settle 1,O=o'clock");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 11);
        let begins = "kafka-acls.sh --bootstrap-server 127.0.0.1:9092 --add --allow-principal \
                      'User:CN=settle 1,O=o'\\''clock'";
        assert_eq!(
            lines[0],
            format!("{begins} --operation Read --operation DescribeConfigs --topic payments")
        );
        assert_eq!(
            lines[10],
            format!(
                "{begins} --operation Write --resource-pattern-type prefixed --transactional-id settle:"
            )
        );
    }
}
