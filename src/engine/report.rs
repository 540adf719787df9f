//! What a worker tells others about its tasks.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use crate::broker::Topic;
use crate::broker::port::{Port, Producer as _};
use crate::clock;
use crate::engine::status::{self, Kind, Phase};
use crate::engine::tasks::Life;
use crate::engine::worker::Worker;

/// A broker that has not answered the monitor for so long counts as gone.
const SILENCE: Duration = Duration::from_secs(5);

impl<P: Port> Worker<P> {
    /// Says that the loop is not stuck. A turn says so at its end; one that asks others for several
    /// things, each of which may take them until its time-out, also in between.
    pub(super) fn goes_on(&self) {
        let now = clock::now().as_millis();
        self.status.turn(u64::try_from(now).unwrap_or(u64::MAX));
    }

    /// Tells others how things stand.
    pub(super) fn report(&mut self) {
        self.goes_on();
        let now = clock::now();
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tasks = BTreeMap::new();
        for (partition, life) in &self.tasks.lives {
            let number = partition.number;
            let mut done_until = None;
            let (kind, position, waiting) = if partition.topic == Topic::Source {
                let positions = self.tasks.ingest.get(&number);
                let positions = positions.map(|task| task.store.positions());
                done_until = positions.map(|positions| positions.time);
                let position = positions.map(|positions| positions.source);
                (Kind::Ingest, position, None)
            } else {
                let task = self.tasks.settle.get_mut(&number);
                let position = task.as_ref().map(|task| task.store.positions().source);
                let waiting = task.filter(|task| task.is_waiting());
                (
                    Kind::Settle,
                    position,
                    waiting.map(|task| task.waiting(now)),
                )
            };
            let phase = match life {
                Life::New => Phase::Restoring { remaining: 0 },
                Life::Restoring(_) => Phase::Restoring {
                    remaining: self.remaining(*partition),
                },
                Life::Running if waiting.is_some() => Phase::WaitingForRule,
                Life::Running => Phase::Running,
            };
            let position = position.unwrap_or(-1);
            let lag = ends
                .get(partition)
                .map(|end| (end.stable - position.max(0)).max(0));
            let waiting = waiting.unwrap_or_default();
            let oldest = match (lag, waiting.oldest.or(done_until)) {
                (Some(0), _) if waiting.oldest.is_none() => Some(Duration::ZERO),
                (_, Some(since)) if since > 0 => Some(age(since)),
                _ => None,
            };
            let unstable = ends.get(partition).map(|end| status::Unstable {
                records: end.high - end.stable,
                stuck: end.stuck(now),
            });
            tasks.insert(
                (kind, number),
                status::Task {
                    phase,
                    position,
                    lag,
                    waiting,
                    unstable: unstable.unwrap_or_default(),
                    oldest,
                },
            );
        }
        drop(ends);
        let answered_at = self.former_writers.members_asked_at();
        let is_answered = answered_at.is_some_and(|at| now.saturating_sub(at) < SILENCE);
        self.status
            .set_connected(is_answered && self.producer.is_trusted());
        self.status.set_tasks(tasks);
    }
}

/// How long ago a record with this timestamp came.
fn age(timestamp: i64) -> Duration {
    let millis = clock::wall_millis().saturating_sub(timestamp);
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
