//! What the service may do on the cluster: the one list of access rights. `settle acls` prints it,
//! every start compares it with what the cluster allows.
//!
//! It holds nothing that another right implies: Read and Write on a resource imply Describe.

use std::fmt;

use serde::Serialize;

use crate::broker::Topic;
use crate::broker::client::{sink_group, transactional_id_prefix};
use crate::config::Config;

/// Operations as Kafka names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Operation {
    Read,
    Write,
    Create,
    Describe,
    DescribeConfigs,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Create => "Create",
            Self::Describe => "Describe",
            Self::DescribeConfigs => "DescribeConfigs",
        }
    }
}

/// What a right is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Topic(String),
    Group(String),
    /// Every id with this beginning.
    TransactionalIds(String),
}

/// One operation on one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub resource: Resource,
    pub operation: Operation,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Group(name) => write!(f, "group {name}"),
            Self::TransactionalIds(prefix) => {
                write!(f, "transactional ids that begin with {prefix}")
            }
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.operation.as_str(), self.resource)
    }
}

/// What a process is going to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Settle. Every topic is read too: what a dead instance or broker has left open is looked for
    /// in all of them.
    Run,
    /// `settle verify`.
    Verify,
    /// `settle explain` and `settle dead-letters`.
    Look,
    /// `settle topics`.
    Plan,
}

/// Rights that a purpose needs on what exists, in the order of the topics. Creating topics aside:
/// see [`to_create`].
pub fn needed(config: &Config, purpose: Purpose) -> Vec<Right> {
    let mut rights = Vec::new();
    let mut need = |resource: &Resource, operation| {
        rights.push(Right {
            resource: resource.clone(),
            operation,
        });
    };
    for topic in Topic::ALL {
        let resource = Resource::Topic(topic.name_in(&config.topics).to_owned());
        let is_read = purpose != Purpose::Plan;
        let first = if is_read {
            Operation::Read
        } else {
            Operation::Describe
        };
        need(&resource, first);
        let is_written = topic != Topic::Source || config.http.generator;
        if purpose == Purpose::Run && is_written {
            need(&resource, Operation::Write);
        }
        need(&resource, Operation::DescribeConfigs);
    }
    let application_id = &config.kafka.application_id;
    let group = Resource::Group(application_id.clone());
    match purpose {
        Purpose::Run => {
            need(&group, Operation::Read);
            if config.postgres.is_some() {
                let group = Resource::Group(sink_group(application_id));
                need(&group, Operation::Read);
            }
            let prefix = transactional_id_prefix(application_id);
            need(&Resource::TransactionalIds(prefix), Operation::Write);
        }
        Purpose::Verify => need(&group, Operation::Describe),
        Purpose::Look | Purpose::Plan => {}
    }
    rights
}

/// Rights to create the topics, when the configuration says that a start may.
pub fn to_create(config: &Config) -> Vec<Right> {
    if !config.topics.create {
        return Vec::new();
    }
    let right = |topic: Topic| Right {
        resource: Resource::Topic(topic.name_in(&config.topics).to_owned()),
        operation: Operation::Create,
    };
    Topic::ALL.map(right).into()
}

/// Everything that `settle run` needs.
pub fn all(config: &Config) -> Vec<Right> {
    let mut rights = needed(config, Purpose::Run);
    rights.extend(to_create(config));
    rights.sort_by_key(|right| match &right.resource {
        Resource::Topic(name) => {
            let place = Topic::ALL.into_iter();
            let mut place = place.map(|topic| topic.name_in(&config.topics));
            place.position(|known| known == name)
        }
        Resource::Group(_) | Resource::TransactionalIds(_) => Some(Topic::ALL.len()),
    });
    rights
}

/// Who the broker takes this client for, as far as the configuration tells.
pub fn principal(config: &Config) -> Option<String> {
    let properties = &config.kafka.properties;
    let name = properties.get("sasl.username")?;
    Some(format!("User:{name}"))
}

/// How a person is told who lacks a right.
pub fn principal_hint(config: &Config) -> String {
    principal(config)
        .unwrap_or_else(|| "the principal of this client (see kafka.properties)".to_owned())
}
