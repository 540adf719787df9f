//! Watches the group from the side: where the logs of the own partitions end, and who owns the
//! others. Nothing here decides anything; the numbers are for people and for queries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::groups::{GroupInfo, GroupList};

use crate::broker::classify::{self, Error, Reaction, Stop};
use crate::broker::client::{CALL_TIMEOUT, Identity, Quiet, Settings};
use crate::broker::ownerless;
use crate::broker::port::Holder;
use crate::broker::{Partition, Topic};
use crate::clock;

/// How often the broker is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// A stable offset that stands still for so long is told of: as long as a dead instance's
/// transaction lasts.
const STUCK: Duration = Duration::from_secs(10);

/// And told of again after so long.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The ends of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// A read-committed reader can come this far.
    pub stable: i64,
    /// Everything that is written.
    pub high: i64,
    /// Process clock since when the stable offset stands where it stands, or since when nothing
    /// lies behind it.
    pub since: Duration,
}

impl End {
    /// What is known after the broker was asked at `now`.
    fn seen(before: Option<Self>, (stable, high): (i64, i64), now: Duration) -> Self {
        let high = high.max(stable);
        let since = match before {
            Some(before) if before.stable == stable && before.high > stable => before.since,
            _ => now,
        };
        Self {
            stable,
            high,
            since,
        }
    }

    /// For how long the stable offset has not moved although records lie behind it.
    pub fn stuck(&self, now: Duration) -> Duration {
        if self.high > self.stable {
            now.saturating_sub(self.since)
        } else {
            Duration::ZERO
        }
    }
}

/// Stable offsets that stand still, and when each was last told of (process clock).
#[derive(Default)]
struct Told(BTreeMap<Partition, Duration>);

impl Told {
    /// Whether a person is to be told that this end stands still.
    fn is_due(&mut self, partition: Partition, end: &End, now: Duration) -> bool {
        if end.stuck(now) < STUCK {
            self.0.remove(&partition);
            return false;
        }
        let last = self.0.get(&partition);
        let is_due = last.is_none_or(|last| now.saturating_sub(*last) >= TELL_AGAIN);
        if is_due {
            self.0.insert(partition, now);
        }
        is_due
    }
}

/// Ends of the watched partitions.
pub type Ends = Arc<Mutex<BTreeMap<Partition, End>>>;

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
    pub ends: Ends,
    pub members: Arc<Mutex<Members>>,
    /// Called with partition of the source and the bases topic → advertised address of its owner.
    pub owners: Box<dyn Fn(BTreeMap<Partition, String>) + Send>,
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
    let reader = |name, isolation| settings.reader(name, isolation).create_with_context(Quiet);
    let client: BaseConsumer<Quiet> = reader("monitor", "read_committed").map_err(failed)?;
    let uncommitted: BaseConsumer<Quiet> =
        reader("watermarks", "read_uncommitted").map_err(failed)?;
    let settings = settings.clone();
    let mut told = Told::default();
    Ok(thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            for partition in (watch.partitions)() {
                let name = settings.topics.of(partition.topic);
                let end_for = |client: &BaseConsumer<Quiet>| {
                    let bounds = client.fetch_watermarks(name, partition.number, CALL_TIMEOUT);
                    bounds.map(|(_, end)| end)
                };
                // The stable offset first: what is written in between lies behind it for a moment.
                let both = end_for(&client)
                    .and_then(|stable| end_for(&uncommitted).map(|high| (stable, high)));
                match both {
                    Ok(both) => {
                        let mut ends = watch.ends.lock().unwrap_or_else(PoisonError::into_inner);
                        let now = clock::now();
                        let end = End::seen(ends.get(&partition).copied(), both, now);
                        ends.insert(partition, end);
                        drop(ends);
                        if told.is_due(partition, &end, now) {
                            tracing::warn!(
                                topic = name,
                                partition = partition.number,
                                offset = end.stable,
                                behind = end.high - end.stable,
                                "a transaction that has not ended keeps the records behind this \
                                 offset from being read; they wait. `kafka-transactions.sh \
                                 describe-producers` names its writer, `abort` ends it"
                            );
                        }
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
            let _ = uncommitted.poll(Duration::ZERO);
            let _ = client.poll(INTERVAL);
        }
    }))
}

/// Owners of the partitions of source and bases, and the transactional ids of all members.
fn describe(
    client: &BaseConsumer<Quiet>,
    settings: &Settings,
) -> Result<(BTreeMap<Partition, String>, BTreeSet<String>), Error> {
    let list = members(client, settings, &settings.application_id)?;
    let (mut owners, mut ids) = (BTreeMap::new(), BTreeSet::new());
    for member in list.groups().iter().flat_map(GroupInfo::members) {
        let Some(identity) = Identity::parse(member.client_id()) else {
            continue;
        };
        ids.insert(settings.transactional_id_of(&identity));
        let assignment = member.assignment().unwrap_or_default();
        for topic in [Topic::Source, Topic::Bases] {
            let assigned = assigned(assignment, settings.topics.of(topic));
            for number in assigned.unwrap_or_default() {
                owners.insert(Partition::new(topic, number), identity.address.to_owned());
            }
        }
    }
    Ok((owners, ids))
}

/// Instances that are members of the group of the workers; whoever names none stands with its
/// client id.
pub fn instances(settings: &Settings) -> Result<Vec<String>, Error> {
    let failed = |error| Error::new("create a client", error, Reaction::Stop(Stop::Failed));
    let config = settings.reader("members", "read_committed");
    let client: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(failed)?;
    let list = members(&client, settings, &settings.application_id)?;
    let members = list.groups().iter().flat_map(GroupInfo::members);
    let name = |client_id: &str| {
        let identity = Identity::parse(client_id);
        identity.map_or(client_id, |it| it.instance).to_owned()
    };
    let names: BTreeSet<String> = members.map(|member| name(member.client_id())).collect();
    Ok(names.into_iter().collect())
}

/// The members of a group. Takes down who holds our places.
pub(super) fn members(
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

/// Who is the member of `group` that this process has been in `role`. Asked when the group has
/// replaced our member: a request to join that was repeated while the broker did not answer
/// replaces its own sender, and that is no duel.
pub fn holder(settings: &Settings, group: &str, role: &str) -> Result<Holder, Error> {
    let failed = |error| Error::new("create a client", error, Reaction::Stop(Stop::Failed));
    let config = settings.reader("identity", "read_committed");
    let client: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(failed)?;
    let list = members(&client, settings, group)?;
    let members = list.groups().iter().flat_map(GroupInfo::members);
    let mut identities = members.filter_map(|member| Identity::parse(member.client_id()));
    let ours = identities
        .find(|identity| identity.instance == settings.instance_id && identity.role == role);
    Ok(ours.map_or(Holder::Us, |identity| settings.holder(group, &identity)))
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
    fn a_stable_offset_is_stuck_only_while_something_lies_behind_it() {
        let at = Duration::from_secs;
        let mut end = None;
        let mut seen = |stable, high, now| {
            end = Some(End::seen(end, (stable, high), at(now)));
            end.map(|end| end.stuck(at(now)))
        };
        assert_eq!(seen(5, 5, 10), Some(at(0)));
        // Nothing lay behind it until now.
        assert_eq!(seen(5, 9, 20), Some(at(0)));
        assert_eq!(seen(5, 9, 23), Some(at(3)));
        assert_eq!(seen(5, 12, 25), Some(at(5)));
        assert_eq!(seen(6, 12, 26), Some(at(0)));
        assert_eq!(seen(6, 12, 27), Some(at(1)));
        assert_eq!(seen(12, 12, 28), Some(at(0)));
        // Written between the two questions.
        assert_eq!(seen(14, 13, 29), Some(at(0)));
    }

    #[test]
    fn what_stands_still_is_told_of_once_a_minute() {
        let place = Partition::new(Topic::Source, 0);
        let mut told = Told::default();
        let mut due = |stable, since, now| {
            let since = Duration::from_secs(since);
            let end = End {
                stable,
                high: 9,
                since,
            };
            told.is_due(place, &end, Duration::from_secs(now))
        };
        assert!(!due(5, 100, 109));
        assert!(due(5, 100, 110));
        assert!(!due(5, 100, 169));
        assert!(due(5, 100, 170));
        assert!(!due(9, 171, 180));
        assert!(due(5, 180, 190));
    }

    #[test]
    fn an_assignment_is_read_topic_by_topic() {
        let bytes = b"\x00\x01\x00\x00\x00\x02\x00\x01a\x00\x00\x00\x01\x00\x00\x00\x07\x00\x01b\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x02";
        assert_eq!(assigned(bytes, "b"), Some(vec![1, 2]));
        assert_eq!(assigned(bytes, "c"), Some(vec![]));
        assert_eq!(assigned(&bytes[..20], "b"), None);
    }
}
