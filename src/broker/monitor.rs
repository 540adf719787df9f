//! Asks the cluster once a second, on a thread of its own: where the logs of the own partitions
//! end, who the members of the group are and what they own, and whether a partition has no owner.
//!
//! It hands the answers on, to people and to those who decide by them: whether the broker answers
//! (`engine/report.rs`), and which writers are gone (`engine/former.rs`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;

use crate::broker::classify::{Error, Reaction, Stop};
use crate::broker::client::{CALL_TIMEOUT, Quiet, Settings};
use crate::broker::group::{self, Members};
use crate::broker::ownerless;
use crate::broker::scan::Isolation;
use crate::broker::{Names, Partition, ends};
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
    /// Whether a person is to be told now that this end stands still; if so, takes down that it
    /// was told.
    fn mark_if_due(&mut self, partition: Partition, end: &End, now: Duration) -> bool {
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

/// What the monitor asks for and where it puts the answers.
pub struct Watch {
    pub partitions: Box<dyn Fn() -> Vec<Partition> + Send>,
    pub ends: Ends,
    pub members: Arc<Mutex<Members>>,
    /// Called with the process clock when the group was asked, and partition of the source and the
    /// bases topic → advertised address of its owner.
    pub owners: Box<dyn Fn(Duration, BTreeMap<Partition, String>) + Send>,
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
    let mut told = Told::default();
    Ok(thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let asked_at = clock::now();
            match group::owners(&client, &settings) {
                Ok((owners, transactional_ids)) => {
                    (watch.owners)(asked_at, owners);
                    let mut members = watch.members.lock().unwrap_or_else(PoisonError::into_inner);
                    *members = Members {
                        asked_at: Some(asked_at),
                        transactional_ids,
                    };
                }
                Err(error) => tracing::debug!(%error, "ask for the members of the group"),
            }
            let partitions = (watch.partitions)();
            match ends_of(&client, &settings.topics, &partitions) {
                Ok(found) => {
                    let mut ends = watch.ends.lock().unwrap_or_else(PoisonError::into_inner);
                    for partition in partitions {
                        let Some(both) = found.get(&partition) else {
                            ends.remove(&partition);
                            continue;
                        };
                        let now = clock::now();
                        let end = End::seen(ends.get(&partition).copied(), *both, now);
                        ends.insert(partition, end);
                        if told.mark_if_due(partition, &end, now) {
                            warn_of(partition, &end, &settings.topics);
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "ask for the ends of logs"),
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

/// Stable end and high watermark of each partition; those that have no leader are left out.
fn ends_of(
    client: &BaseConsumer<Quiet>,
    names: &Names,
    partitions: &[Partition],
) -> Result<BTreeMap<Partition, (i64, i64)>, KafkaError> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let of = |isolation| {
        let handle = client.client().native_ptr();
        ends::known(handle, (names, partitions), isolation, CALL_TIMEOUT)
    };
    // The stable offset first: what is written in between lies behind it for a moment.
    let stable = of(Isolation::Committed)?;
    let high = of(Isolation::Uncommitted)?;
    let both = |(partition, stable): (Partition, Result<i64, KafkaError>)| {
        let high = high.get(&partition)?.clone();
        Some((partition, (stable.ok()?, high.ok()?)))
    };
    Ok(stable.into_iter().filter_map(both).collect())
}

fn warn_of(partition: Partition, end: &End, names: &Names) {
    tracing::warn!(
        topic = names.of(partition.topic),
        partition = partition.number,
        offset = end.stable,
        behind = end.high - end.stable,
        "a transaction that has not ended keeps the records behind this offset from being read; \
         they wait. `kafka-transactions.sh describe-producers` names its writer, `abort` ends it"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Topic;

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
            told.mark_if_due(place, &end, Duration::from_secs(now))
        };
        assert!(!due(5, 100, 109));
        assert!(due(5, 100, 110));
        assert!(!due(5, 100, 169));
        assert!(due(5, 100, 170));
        assert!(!due(9, 171, 180));
        assert!(due(5, 180, 190));
    }
}
