//! What a worker does about a failure.

use std::fmt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::broker::port::{Consumer as _, Holder, Port, Producer as _};
use crate::broker::{Partition, Topic};
use crate::clock;
use crate::engine::failure::{Cause, Failure, Stopped, Todo};
use crate::engine::ingest;
use crate::engine::settle;
use crate::engine::tasks::Life;
use crate::engine::worker::Worker;
use crate::failpoint::{self, Point};
use crate::metrics::{Reaction, Replacement};
use crate::state::view::Served;
use crate::state::{self, file};

/// Pause after a failure that only time can cure.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

const PLACE_TAKEN: &str = "it has joined the group in this one's place";

/// Longer than the client library takes to learn of a topic again.
const MISSING_AT_MOST: Duration = Duration::from_secs(30);

impl<P: Port> Worker<P> {
    /// The one place that obeys failures.
    pub(super) fn react(&mut self, failure: &Failure) -> Result<(), Stopped> {
        self.status.set_problem(failure.to_string());
        let todo = failure.todo();
        self.metrics.failed(reaction(&todo));
        match todo {
            Todo::Wait => self.try_again_later(failure),
            Todo::WaitForTopic => self.wait_for_topic(failure)?,
            Todo::Recover { fenced } => {
                tracing::warn!(worker = self.number, error = %failure, "taking up again from the log");
                if fenced && !self.was_away && self.fencings.record(clock::now()) {
                    return Err(duel("its producer has fenced this one again and again"));
                }
                self.recover();
            }
            Todo::Rejoin => {
                tracing::warn!(worker = self.number, error = %failure, "joining the group again");
                self.rejoin()?;
            }
            Todo::Rebuild => {
                if let Failure::State(state::Error::Damaged { path, reason }) = failure {
                    self.set_aside(path, reason)?;
                }
                self.recover();
            }
            Todo::Stop(cause) => {
                tracing::error!(worker = self.number, error = %failure, "stopping");
                return Err(failure.stop(cause));
            }
        }
        Ok(())
    }

    /// A topic that was just made, or whose leader moves, may be unknown for a moment. One that
    /// stays away was deleted: the next start makes it anew or refuses, and says what to do.
    fn wait_for_topic(&mut self, failure: &Failure) -> Result<(), Stopped> {
        let now = clock::now();
        let since = *self.missing_since.get_or_insert(now);
        if now.saturating_sub(since) >= MISSING_AT_MOST {
            let message = format!(
                "{failure}: a topic or partition of this service is gone. `settle topics plan` \
                 names it, `settle positions show` tells what depends on it"
            );
            tracing::error!(worker = self.number, error = message, "stopping");
            return Err(Stopped {
                cause: Cause::Failed,
                message,
            });
        }
        self.try_again_later(failure);
        Ok(())
    }

    fn try_again_later(&self, failure: &dyn fmt::Display) {
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        tracing::warn!(
            worker = self.number,
            error = %failure,
            "nothing changed; trying again in {} ms",
            RETRY_PAUSE.as_millis()
        );
        clock::sleep(RETRY_PAUSE);
    }

    /// Gives every task up and joins the group with a new client, unless another live process has
    /// taken this one's place: the two would replace each other for ever.
    fn rejoin(&mut self) -> Result<(), Stopped> {
        while !self.stop.load(Ordering::Relaxed) {
            self.goes_on();
            match self.port.holder(self.number) {
                Ok(Holder::Us) => break,
                Ok(Holder::Unclear) => {
                    let is_duel = self.replacements.record(clock::now());
                    if is_duel {
                        return Err(duel(PLACE_TAKEN));
                    }
                    break;
                }
                Ok(Holder::Another) => return Err(duel(PLACE_TAKEN)),
                Err(error) => self.try_again_later(&error),
            }
        }
        if self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        // It may have happened inside a transaction, which this membership can never end.
        self.recover();
        self.close_all()?;
        self.status.set_assigned(false);
        let consumer = self
            .port
            .join(self.number)
            .map_err(|error| Failure::from(error).stop(Cause::Failed))?;
        let old = std::mem::replace(&mut self.consumer, consumer);
        // Closing it may wait for the broker.
        self.port.aside(move || drop(old));
        Ok(())
    }

    /// Forgets everything that is not committed. The new producer decides the open transaction,
    /// and every task reads from the log what became of it.
    pub(super) fn recover(&mut self) {
        failpoint::hit(Point::RecoverBefore);
        self.metrics.transactions_replaced.increment(1);
        self.status.set_in_doubt();
        self.producer.retire();
        self.replacement = Replacement::Error;
        self.outbox.clear();
        self.paused.clear();
        let running = self.running();
        self.tasks.restart_all();
        self.hold(&running);
        failpoint::hit(Point::RecoverAfter);
    }

    /// The tasks that run begin anew from the log, with the committed state that they have.
    pub(super) fn read_anew(&mut self) {
        let running = self.running();
        for partition in &running {
            self.paused.remove(partition);
            self.tasks.restart(*partition);
        }
        self.hold(&running);
    }

    fn running(&self) -> Vec<Partition> {
        self.tasks.in_life(|life| matches!(life, Life::Running))
    }

    /// Nothing comes in, and nothing is answered, until these tasks run again.
    fn hold(&self, partitions: &[Partition]) {
        for partition in partitions {
            if partition.topic == Topic::Bases {
                self.views.serve(partition.number, Served::Restoring);
            }
            if let Err(error) = self.consumer.pause(*partition) {
                // Its records are dropped until the task runs again.
                tracing::debug!(%error, "pause while recovering");
            }
        }
    }

    fn set_aside(&mut self, path: &Path, reason: &str) -> Result<(), Stopped> {
        let ingest = self
            .tasks
            .ingest
            .values()
            .find(|task| task.store.path() == path);
        let settle = self
            .tasks
            .settle
            .values()
            .find(|task| task.store.path() == path);
        let partition = ingest
            .map(ingest::Task::partition)
            .or_else(|| settle.map(settle::Task::partition));
        if let Some(partition) = partition {
            self.tasks.drop_state(partition, self.desk.as_mut());
        }
        file::set_aside(path, reason)
            .map_err(|error| Failure::from(error).stop(Cause::StateDirectory))
    }
}

fn duel(what: &str) -> Stopped {
    Stopped {
        cause: Cause::Failed,
        message: format!(
            "another live process uses this kafka.instance_id: {what}; give every live instance \
             its own"
        ),
    }
}

/// The name of a reaction in the metrics.
fn reaction(todo: &Todo) -> Reaction {
    match todo {
        Todo::Wait | Todo::WaitForTopic => Reaction::Wait,
        Todo::Recover { fenced: true } => Reaction::Fenced,
        Todo::Recover { fenced: false } => Reaction::Recover,
        Todo::Rejoin => Reaction::Rejoin,
        Todo::Rebuild => Reaction::Rebuild,
        Todo::Stop(_) => Reaction::Stop,
    }
}
