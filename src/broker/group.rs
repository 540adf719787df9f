//! The workers' group as the broker describes it to anybody: which instances are members, and what
//! each of their workers owns.

use std::collections::BTreeSet;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::groups::{GroupInfo, GroupMemberInfo};
use rdkafka::metadata::MetadataPartition;

use crate::broker::classify::{self, Error, Reaction, Stop};
use crate::broker::client::{CALL_TIMEOUT, Identity, Quiet, Settings};
use crate::broker::monitor::assigned;
use crate::broker::{Partition, Topic};

/// What a group's members consume.
const CONSUMED: [Topic; 2] = [Topic::Source, Topic::Bases];

/// One worker of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// `kafka.instance_id`.
    pub instance: String,
    /// Where its instance answers HTTP.
    pub address: String,
    pub partitions: BTreeSet<Partition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    /// As Kafka calls it: `Stable`, `PreparingRebalance`, `CompletingRebalance`, `Empty`, `Dead`.
    pub state: String,
    pub members: Vec<Member>,
    /// Every partition that must have an owner; none where a topic does not exist yet.
    pub partitions: BTreeSet<Partition>,
}

/// Asks for the group, as often as wanted.
pub struct Client {
    client: BaseConsumer<Quiet>,
    settings: Settings,
}

impl Client {
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let failed = |error| Error::new("create a client", error, Reaction::Stop(Stop::Failed));
        let config = settings.reader("status", "read_committed");
        Ok(Self {
            client: config.create_with_context(Quiet).map_err(failed)?,
            settings: settings.clone(),
        })
    }

    pub fn describe(&self) -> Result<Group, Error> {
        let name = &self.settings.application_id;
        let list = self
            .client
            .fetch_group_list(Some(name), CALL_TIMEOUT)
            .map_err(|error| classify::call("describe the consumer group", &error))?;
        let group = list.groups().first();
        let members = group.map(GroupInfo::members).unwrap_or_default();
        Ok(Group {
            name: name.clone(),
            state: group.map_or("Dead", GroupInfo::state).to_owned(),
            members: members.iter().filter_map(|of| self.member(of)).collect(),
            partitions: self.partitions()?,
        })
    }

    /// `None` for a member that is no worker.
    fn member(&self, member: &GroupMemberInfo) -> Option<Member> {
        let identity = Identity::parse(member.client_id())?;
        let assignment = member.assignment().unwrap_or_default();
        let of = |topic: Topic| {
            let numbers = assigned(assignment, self.settings.topics.of(topic)).unwrap_or_default();
            numbers
                .into_iter()
                .map(move |number| Partition::new(topic, number))
        };
        Some(Member {
            instance: identity.instance.to_owned(),
            address: identity.address.to_owned(),
            partitions: CONSUMED.into_iter().flat_map(of).collect(),
        })
    }

    fn partitions(&self) -> Result<BTreeSet<Partition>, Error> {
        // All topics: asking for one by its name would create it on a broker that allows that.
        let metadata = self
            .client
            .fetch_metadata(None, CALL_TIMEOUT)
            .map_err(|error| classify::call("count the partitions of topics", &error))?;
        let mut found = BTreeSet::new();
        for topic in metadata.topics() {
            let role = self.settings.topics.role(topic.name());
            if let Some(role) = role.filter(|role| CONSUMED.contains(role)) {
                let numbers = topic.partitions().iter().map(MetadataPartition::id);
                found.extend(numbers.map(|number| Partition::new(role, number)));
            }
        }
        Ok(found)
    }
}
