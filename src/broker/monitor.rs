//! Watches the group from the side: where the logs of the own partitions end, and who owns the
//! others. Nothing here decides anything; the numbers are for people and for queries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::groups::GroupInfo;

use crate::broker::classify::{self, Error, Reaction, Stop};
use crate::broker::client::{CALL_TIMEOUT, Identity, Quiet, Settings};
use crate::broker::ownerless;
use crate::broker::{Partition, Topic};
use crate::clock;

/// How often the broker is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Stable offsets (a read-committed reader can come this far) of the watched partitions.
pub type StableEnds = Arc<Mutex<BTreeMap<Partition, i64>>>;

/// Transactional ids of the workers that are members of the group.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// Process clock when the group was asked; nothing is known before the first answer.
    pub asked_at: Option<Duration>,
    pub transactional_ids: BTreeSet<String>,
}

/// What the monitor asks for and where it puts the answers.
pub struct Watch {
    pub partitions: Box<dyn Fn() -> Vec<Partition> + Send>,
    pub stable_ends: StableEnds,
    pub members: Arc<Mutex<Members>>,
    /// Called with partition of the bases topic → advertised address of its owner.
    pub owners: Box<dyn Fn(BTreeMap<i32, String>) + Send>,
    /// The groups whose partitions must all have an owner.
    pub groups: Vec<ownerless::Watch>,
}

/// Starts the monitor; it ends soon after `stop` is set.
pub fn spawn(
    settings: &Settings,
    mut watch: Watch,
    stop: Arc<AtomicBool>,
) -> Result<JoinHandle<()>, Error> {
    let failed = |error| Error::new("create the monitor", error, Reaction::Stop(Stop::Failed));
    let client: BaseConsumer<Quiet> = settings
        .reader("monitor", "read_committed")
        .create_with_context(Quiet)
        .map_err(failed)?;
    let settings = settings.clone();
    Ok(thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            for partition in (watch.partitions)() {
                let name = settings.topics.of(partition.topic);
                match client.fetch_watermarks(name, partition.number, CALL_TIMEOUT) {
                    Ok((_, end)) => {
                        let mut ends = watch
                            .stable_ends
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner);
                        ends.insert(partition, end);
                    }
                    Err(error) => tracing::debug!(%error, "ask for the end of a log"),
                }
            }
            let asked_at = Some(clock::now());
            match describe(&client, &settings) {
                Ok((owners, transactional_ids)) => {
                    (watch.owners)(owners);
                    let mut members = watch.members.lock().unwrap_or_else(PoisonError::into_inner);
                    *members = Members {
                        asked_at,
                        transactional_ids,
                    };
                }
                Err(error) => tracing::debug!(%error, "ask for the members of the group"),
            }
            for group in &mut watch.groups {
                if let Err(error) = group.look(&client, &settings) {
                    tracing::debug!(%error, "look for partitions without an owner");
                }
            }
            // Serves the client's log and error queue and waits.
            let _ = client.poll(INTERVAL);
        }
    }))
}

/// Owners of the bases partitions, and the transactional ids of all members.
fn describe(
    client: &BaseConsumer<Quiet>,
    settings: &Settings,
) -> Result<(BTreeMap<i32, String>, BTreeSet<String>), Error> {
    let list = client
        .fetch_group_list(Some(&settings.application_id), CALL_TIMEOUT)
        .map_err(|error| classify::call("describe the consumer group", &error))?;
    let bases = settings.topics.of(Topic::Bases);
    let (mut owners, mut ids) = (BTreeMap::new(), BTreeSet::new());
    for member in list.groups().iter().flat_map(GroupInfo::members) {
        let Some(identity) = Identity::parse(member.client_id()) else {
            continue;
        };
        ids.insert(settings.transactional_id_of(&identity));
        let assignment = member.assignment().unwrap_or_default();
        for partition in assigned(assignment, bases).unwrap_or_default() {
            owners.insert(partition, identity.address.to_owned());
        }
    }
    Ok((owners, ids))
}

/// Whether another process is the member of `group` that this process has been in `role`. Asked
/// when the group has replaced our member: a request to join that was repeated while the broker did
/// not answer replaces its own sender, and that is no duel.
pub fn is_replaced_by_another(settings: &Settings, group: &str, role: &str) -> Result<bool, Error> {
    let failed = |error| Error::new("create a client", error, Reaction::Stop(Stop::Failed));
    let config = settings.reader("identity", "read_committed");
    let client: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(failed)?;
    let list = client
        .fetch_group_list(Some(group), CALL_TIMEOUT)
        .map_err(|error| classify::call("describe the consumer group", &error))?;
    let members = list.groups().iter().flat_map(GroupInfo::members);
    let mut identities = members.filter_map(|member| Identity::parse(member.client_id()));
    Ok(identities.any(|identity| {
        let is_ours = identity.instance == settings.instance_id && identity.role == role;
        is_ours && !identity.is_this_process()
    }))
}

/// Partitions of `topic` in a member's assignment as the consumer protocol encodes it: version,
/// array of (topic, array of partitions), user data.
pub(super) fn assigned(bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
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
