//! Partitions that a group has given to nobody.
//!
//! In the cooperative protocol a partition moves in two rounds: its owner gives it up, and by
//! joining anew begins the round that hands it on. A static member that dies in between and is back
//! within its session gets its last assignment without any round, so nobody begins the second one,
//! and the partition stays without an owner for as long as nothing else happens in the group. What
//! happens then is a guest: a member that comes for a moment and takes nothing from anybody.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::groups::{GroupInfo, GroupMemberInfo};

use crate::broker::classify::{self, Error, Reaction, Stop};
use crate::broker::client::{CALL_TIMEOUT, Identity, Quiet, Settings};
use crate::broker::group;
use crate::broker::{Names, Topic};
use crate::clock;

/// A move between two members takes less: the old owner only writes its state down.
const PATIENCE: Duration = Duration::from_secs(3);

/// Doubled after each guest that changed nothing, up to this: every rebalance has its price.
const PATIENCE_MAX: Duration = Duration::from_secs(300);

/// Longest stay of a guest.
const STAY: Duration = Duration::from_secs(10);

/// Watches one group.
pub struct Watch {
    group: String,
    topics: Vec<Topic>,
    /// Partitions of all topics; not known before the first look.
    count: Option<usize>,
    /// Process clock when a partition was first seen without an owner.
    since: Option<Duration>,
    patience: Duration,
    guest: Option<JoinHandle<()>>,
}

impl Watch {
    /// A group whose members own all partitions of these topics among them.
    pub fn new(group: String, topics: &[Topic]) -> Self {
        Self {
            group,
            topics: topics.to_vec(),
            count: None,
            since: None,
            patience: PATIENCE,
            guest: None,
        }
    }

    /// Looks once, and sends a guest when a partition has had no owner for too long.
    pub(super) fn look(
        &mut self,
        client: &BaseConsumer<Quiet>,
        settings: &Settings,
    ) -> Result<(), Error> {
        let list = group::fetch(client, settings, &self.group)?;
        let owned = list
            .groups()
            .iter()
            .find(|group| group.state() == "Stable" && is_ours_to_mend(group, settings))
            .map(|group| self.owned(group, &settings.topics));
        let expected = self.expected(client, &settings.topics)?;
        if owned.is_none_or(|owned| owned >= expected) {
            self.since = None;
            if owned.is_some() {
                self.patience = PATIENCE;
            }
            return Ok(());
        }
        let now = clock::now();
        let is_old = now.saturating_sub(*self.since.get_or_insert(now)) >= self.patience;
        if is_old && self.guest.as_ref().is_none_or(JoinHandle::is_finished) {
            self.since = None;
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
            tracing::warn!(
                group = self.group,
                "the group has given partitions to nobody: making it rebalance"
            );
            self.guest = Some(send_guest(settings, &self.group)?);
        }
        Ok(())
    }

    fn owned(&self, group: &GroupInfo, names: &Names) -> usize {
        let members = group.members().iter();
        members
            .map(|member| group::owned(member, names, &self.topics).len())
            .sum()
    }

    fn expected(&mut self, client: &BaseConsumer<Quiet>, names: &Names) -> Result<usize, Error> {
        if let Some(count) = self.count {
            return Ok(count);
        }
        let mut count = 0;
        for topic in &self.topics {
            let metadata = client
                .fetch_metadata(Some(names.of(*topic)), CALL_TIMEOUT)
                .map_err(|error| classify::call("count the partitions of a topic", &error))?;
            let topics = metadata.topics().iter();
            count += topics.map(|topic| topic.partitions().len()).sum::<usize>();
        }
        self.count = Some(count);
        Ok(count)
    }
}

/// All instances see the same: the first of them by name acts.
fn is_ours_to_mend(group: &GroupInfo, settings: &Settings) -> bool {
    let identities = group.members().iter().map(GroupMemberInfo::client_id);
    let instances = identities.filter_map(|id| Some(Identity::parse(id)?.instance));
    instances.min() == Some(settings.instance_id.as_str())
}

/// Joins with a subscription that nobody else has, so that every partition stays where it is and
/// those without an owner find one; leaves when it has its assignment.
fn send_guest(settings: &Settings, group: &str) -> Result<JoinHandle<()>, Error> {
    let attempt = "send a guest to the group";
    let guest: BaseConsumer<Quiet> = settings
        .guest(group)
        .create_with_context(Quiet)
        .map_err(|error| Error::new(attempt, error, Reaction::Stop(Stop::Failed)))?;
    guest
        .subscribe(&[settings.topics.of(Topic::IngestChangelog)])
        .map_err(|error| classify::call(attempt, &error))?;
    Ok(thread::spawn(move || {
        let deadline = clock::now() + STAY;
        let has_joined = |guest: &BaseConsumer<Quiet>| {
            let assignment = guest.assignment();
            assignment.is_ok_and(|partitions| partitions.count() > 0)
        };
        while clock::now() < deadline && !has_joined(&guest) {
            // Serves the rebalance; what it reads is of no interest.
            let _ = guest.poll(Duration::from_millis(100));
        }
    }))
}
