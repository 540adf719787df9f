//! Partitions come and go: opens and closes tasks as the group decides.

use crate::broker::port::{Consumer as _, Port, Reader as _, Rebalance};
use crate::broker::{Partition, Topic};
use crate::engine::failure::Failure;
use crate::engine::ingest;
use crate::engine::settle;
use crate::engine::tasks::Life;
use crate::engine::worker::Worker;
use crate::failpoint::{self, Point};
use crate::metrics::Rebalance as Kind;
use crate::state::view::Served;

impl<P: Port> Worker<P> {
    /// Answers a change of the assignment. No transaction is open here, and nothing is staged.
    pub(super) fn rebalance(&mut self, change: &Rebalance) -> Result<(), Failure> {
        match change {
            Rebalance::Assigned(partitions) => {
                tracing::info!(worker = self.number, ?partitions, "partitions assigned");
                self.metrics.rebalanced(Kind::Assigned);
                failpoint::hit(Point::AssignedBefore);
                let places: Vec<(Partition, i64)> = partitions
                    .iter()
                    // The group waits for the answer, and the place counts only until the start.
                    .inspect(|_| self.goes_on())
                    .map(|partition| (*partition, self.reader.bounds(*partition)))
                    .map(|(partition, bounds)| (partition, bounds.map_or(0, |bounds| bounds.low)))
                    .collect();
                self.consumer.assign(&places)?;
                for partition in partitions {
                    if self.is_new(*partition) {
                        continue;
                    }
                    self.tasks.lives.insert(*partition, Life::New);
                    if partition.topic == Topic::Bases {
                        self.views.serve(partition.number, Served::Restoring);
                    }
                }
                failpoint::hit(Point::AssignedAfter);
            }
            Rebalance::Revoked { partitions, lost } => {
                tracing::info!(
                    worker = self.number,
                    ?partitions,
                    lost,
                    "partitions revoked"
                );
                self.metrics
                    .rebalanced(if *lost { Kind::Lost } else { Kind::Revoked });
                failpoint::hit(Point::RevokedBefore);
                if *lost {
                    failpoint::hit(Point::Lost);
                    self.was_away = true;
                }
                let mut closed = Ok(());
                for partition in partitions {
                    self.goes_on();
                    let result = self.close(*partition);
                    if result.is_err() {
                        self.paused.remove(partition);
                        self.tasks.remove(*partition, self.desk.as_mut());
                    }
                    closed = closed.and(result);
                }
                // Whatever has failed: the group waits for the answer.
                self.consumer.unassign(partitions)?;
                closed?;
                failpoint::hit(Point::RevokedAfter);
            }
        }
        // Who asks must not find an assignment without the tasks that have yet to be restored.
        self.report();
        self.status.set_assigned(true);
        Ok(())
    }

    /// Whether a partition was added to its topic while this process runs. It is left alone: rule
    /// keys stay where they are, and a task needs a changelog of its own.
    fn is_new(&self, partition: Partition) -> bool {
        let counts = self.fixed.partitions;
        let (count, log) = match partition.topic {
            Topic::Source => (counts.source, Topic::IngestChangelog),
            _ => (counts.bases, Topic::Changelog),
        };
        if partition.number < count {
            return false;
        }
        let (topic, log) = (
            self.fixed.names.of(partition.topic),
            self.fixed.names.of(log),
        );
        let advice = if partition.topic == Topic::Source {
            format!(
                "its payments wait until {log} has as many partitions \
                 (`kafka-topics.sh --alter --topic {log} --partitions {}`) and the instances were \
                 restarted",
                partition.number + 1
            )
        } else {
            "nothing of this service is in it. Do not stop the instances before the other \
             partitions are settled: the next start refuses the topic"
                .to_owned()
        };
        tracing::error!(
            topic,
            partition = partition.number,
            partitions = count,
            "a partition was added while this process runs, and is left alone: {advice}"
        );
        true
    }

    /// Makes a task's committed state durable and gives it up.
    pub(super) fn close(&mut self, partition: Partition) -> Result<(), Failure> {
        if partition.topic == Topic::Bases {
            self.views.withdraw(partition.number);
        }
        self.stop_reading(partition)?;
        failpoint::hit(Point::CloseBefore);
        match partition.topic {
            Topic::Source => {
                if let Some(task) = self.tasks.ingest.get_mut(&partition.number) {
                    task.store.checkpoint()?;
                }
            }
            _ => {
                if let Some(task) = self.tasks.settle.get_mut(&partition.number) {
                    task.store.checkpoint()?;
                }
            }
        }
        failpoint::hit(Point::CloseSaved);
        self.paused.remove(&partition);
        self.tasks.remove(partition, self.desk.as_mut());
        Ok(())
    }

    /// Opens the file of a task, unless it is open.
    pub(super) fn open(&mut self, partition: Partition) -> Result<(), Failure> {
        let number = partition.number;
        match partition.topic {
            Topic::Source if !self.tasks.ingest.contains_key(&number) => {
                let path = self.directory.file(&format!("ingest-{number}.redb"));
                let task = ingest::Task::open(&path, &self.fixed, number, self.window)?;
                self.tasks.ingest.insert(number, task);
            }
            Topic::Bases if !self.tasks.settle.contains_key(&number) => {
                let path = self.directory.file(&format!("settle-{number}.redb"));
                let task = settle::Task::open(&path, &self.fixed, number)?;
                self.tasks.settle.insert(number, task);
            }
            _ => {}
        }
        Ok(())
    }
}
