//! Consumer groups as the broker describes them to anybody: who their members are, what each of them
//! owns, and who holds the places of this process.
//!
//! Others decide by it: whether the transaction of a writer that is no member may be ended
//! (`engine/former.rs`), and whether a replaced member joins again or its process ends
//! (`engine/react.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::groups::{GroupInfo, GroupList, GroupMemberInfo};
use rdkafka::metadata::MetadataPartition;

use crate::broker::classify::{self, Error, Reaction, Stop};
use crate::broker::client::{CALL_TIMEOUT, Identity, Quiet, Settings};
use crate::broker::port::Holder;
use crate::broker::{Names, Partition, Topic, wait};

/// Transactional ids of the workers that are members of the group.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// Process clock when the group was asked; nothing is known before the first answer.
    pub asked_at: Option<Duration>,
    pub transactional_ids: BTreeSet<String>,
}

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
        Ok(Self {
            client: connect(settings, "status")?,
            settings: settings.clone(),
        })
    }

    pub fn describe(&self) -> Result<Group, Error> {
        let name = &self.settings.application_id;
        let list = fetch(&self.client, &self.settings, name)?;
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
        let owned = owned(member, &self.settings.topics, &Topic::CONSUMED);
        Some(Member {
            instance: identity.instance.to_owned(),
            address: identity.address.to_owned(),
            partitions: owned.into_iter().collect(),
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
            if let Some(role) = role.filter(|role| Topic::CONSUMED.contains(role)) {
                let numbers = topic.partitions().iter().map(MetadataPartition::id);
                found.extend(numbers.map(|number| Partition::new(role, number)));
            }
        }
        Ok(found)
    }
}

/// Owners of the partitions of source and bases, by the address that they advertise, and the
/// transactional ids of all members.
pub(super) fn owners(
    client: &BaseConsumer<Quiet>,
    settings: &Settings,
) -> Result<(BTreeMap<Partition, String>, BTreeSet<String>), Error> {
    let list = fetch(client, settings, &settings.application_id)?;
    let (mut owners, mut ids) = (BTreeMap::new(), BTreeSet::new());
    for member in list.groups().iter().flat_map(GroupInfo::members) {
        let Some(identity) = Identity::parse(member.client_id()) else {
            continue;
        };
        ids.insert(settings.transactional_id_of(&identity));
        // A static member keeps the client id of its first process.
        let is_own = identity.instance == settings.instance_id;
        let address = if is_own {
            &settings.advertise
        } else {
            identity.address
        };
        for partition in owned(member, &settings.topics, &Topic::CONSUMED) {
            owners.insert(partition, address.to_owned());
        }
    }
    Ok((owners, ids))
}

/// Instances that are members of the group of the workers; whoever names none stands with its
/// client id.
pub fn instances(settings: &Settings) -> Result<Vec<String>, Error> {
    let client = connect(settings, "members")?;
    let list = fetch(&client, settings, &settings.application_id)?;
    let members = list.groups().iter().flat_map(GroupInfo::members);
    let name = |client_id: &str| {
        let identity = Identity::parse(client_id);
        identity.map_or(client_id, |it| it.instance).to_owned()
    };
    let names: BTreeSet<String> = members.map(|member| name(member.client_id())).collect();
    Ok(names.into_iter().collect())
}

/// Who is the member of `group` that this process has been in `role`. Asked when the group has
/// replaced our member: a request to join that was repeated while the broker did not answer
/// replaces its own sender, and that is no duel.
pub fn holder(settings: &Settings, group: &str, role: &str) -> Result<Holder, Error> {
    let attempt = "ask who holds a place in a consumer group";
    let (asking, group, role) = (settings.clone(), group.to_owned(), role.to_owned());
    let holder = wait::call(&settings.stop, move || ask_holder(&asking, &group, &role));
    holder.unwrap_or_else(|| Err(wait::given_up(attempt)))
}

fn ask_holder(settings: &Settings, group: &str, role: &str) -> Result<Holder, Error> {
    let client = connect(settings, "identity")?;
    let list = fetch(&client, settings, group)?;
    let members = list.groups().iter().flat_map(GroupInfo::members);
    let mut identities = members.filter_map(|member| Identity::parse(member.client_id()));
    let ours = identities
        .find(|identity| identity.instance == settings.instance_id && identity.role == role);
    Ok(ours.map_or(Holder::Us, |identity| settings.holder(group, &identity)))
}

fn connect(settings: &Settings, name: &str) -> Result<BaseConsumer<Quiet>, Error> {
    settings
        .reader(name, "read_committed")
        .create_with_context(Quiet)
        .map_err(|error| Error::new("create a client", error, Reaction::Stop(Stop::Failed)))
}

/// Asks for one group. Takes down who holds our places.
pub(super) fn fetch(
    client: &BaseConsumer<Quiet>,
    settings: &Settings,
    group: &str,
) -> Result<GroupList, Error> {
    let list = client
        .fetch_group_list(Some(group), CALL_TIMEOUT)
        .map_err(|error| classify::call("describe a consumer group", &error))?;
    let identities = list.groups().iter().flat_map(GroupInfo::members);
    settings.see(
        group,
        identities.filter_map(|member| Identity::parse(member.client_id())),
    );
    Ok(list)
}

/// Partitions of these topics that the group has given to a member.
pub(super) fn owned(member: &GroupMemberInfo, names: &Names, topics: &[Topic]) -> Vec<Partition> {
    let assignment = member.assignment().unwrap_or_default();
    let of = |&topic: &Topic| {
        let numbers = assigned(assignment, names.of(topic)).unwrap_or_default();
        let partition = move |number| Partition::new(topic, number);
        numbers.into_iter().map(partition)
    };
    topics.iter().flat_map(of).collect()
}

/// Partitions of `topic` in a member's assignment as the consumer protocol encodes it: version,
/// array of (topic, array of partitions), user data.
fn assigned(bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
    let mut rest = bytes;
    let _version: [u8; 2] = take(&mut rest)?;
    let topics = i32::from_be_bytes(take(&mut rest)?);
    let mut found = Vec::new();
    for _ in 0..topics {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        let partitions = i32::from_be_bytes(take(&mut rest)?);
        for _ in 0..partitions {
            let partition = i32::from_be_bytes(take(&mut rest)?);
            if name == topic.as_bytes() {
                found.push(partition);
            }
        }
    }
    Some(found)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_topic_by_topic() {
        let bytes = b"\x00\x01\x00\x00\x00\x02\x00\x01a\x00\x00\x00\x01\x00\x00\x00\x07\x00\x01b\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x02";
        assert_eq!(assigned(bytes, "b"), Some(vec![1, 2]));
        assert_eq!(assigned(bytes, "c"), Some(vec![]));
        assert_eq!(assigned(&bytes[..20], "b"), None);
    }
}
