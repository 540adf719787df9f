//! What a worker tells others about its tasks.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use crate::broker::Topic;
use crate::broker::port::{Port, Producer as _};
use crate::clock;
use crate::engine::settle;
use crate::engine::status::{self, Kind, Phase};
use crate::engine::tasks::Life;
use crate::engine::worker::Worker;

/// A broker that has not answered the monitor for so long counts as gone.
const SILENCE: Duration = Duration::from_secs(5);

impl<P: Port> Worker<P> {
    /// Tells others how things stand.
    pub(super) fn report(&self) {
        self.status
            .turn(u64::try_from(clock::now().as_millis()).unwrap_or(u64::MAX));
        let ends = self
            .stable_ends
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut tasks = BTreeMap::new();
        for (partition, life) in &self.tasks.lives {
            let number = partition.number;
            let (kind, position, waiting) = if partition.topic == Topic::Source {
                let task = self.tasks.ingest.get(&number);
                let position = task.map(|task| task.store.positions().source);
                (Kind::Ingest, position, false)
            } else {
                let task = self.tasks.settle.get(&number);
                let position = task.map(|task| task.store.positions().source);
                let waiting = task.is_some_and(settle::Task::is_waiting);
                (Kind::Settle, position, waiting)
            };
            let phase = match life {
                Life::New => Phase::Restoring { remaining: 0 },
                Life::Restoring(_) => Phase::Restoring {
                    remaining: self.remaining(*partition),
                },
                Life::Running if waiting => Phase::WaitingForRule,
                Life::Running => Phase::Running,
            };
            let position = position.unwrap_or(-1);
            let lag = ends
                .get(partition)
                .map(|end| (end - position.max(0)).max(0));
            tasks.insert(
                (kind, number),
                status::Task {
                    phase,
                    position,
                    lag,
                },
            );
        }
        drop(ends);
        let answered_at = self.former_writers.members_asked_at();
        let is_answered = answered_at.is_some_and(|at| clock::now().saturating_sub(at) < SILENCE);
        self.status
            .set_connected(is_answered && self.producer.is_trusted());
        self.status.set_tasks(tasks);
    }
}
