//! What a worker does about a failure.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::broker::Topic;
use crate::broker::classify::{self, Stop};
use crate::broker::port::{Consumer as _, Port, Producer as _};
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

/// Who takes a transactional id over while a transaction is open has to initialise again when that one has ended, so one
/// takeover can fence several times within this time.
const TAKEOVER: Duration = Duration::from_secs(5);

/// Two takeovers within this time mean that another process lives with our identity.
const DUEL: Duration = Duration::from_secs(60);

impl<P: Port> Worker<P> {
    /// The one place that obeys failures.
    pub(super) fn react(&mut self, failure: &Failure) -> Result<(), Stopped> {
        self.status.set_problem(failure.to_string());
        let todo = failure.todo();
        self.metrics.failed(reaction(&todo));
        match todo {
            Todo::Wait => {
                tracing::warn!(worker = self.number, error = %failure, "waiting");
                clock::sleep(RETRY_PAUSE);
            }
            Todo::Recover { fenced } => {
                tracing::warn!(worker = self.number, error = %failure, "taking up again from the log");
                if fenced {
                    self.fenced()?;
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

    /// One takeover is weather: a late request, or a transaction that timed out. Two are a duel.
    fn fenced(&mut self) -> Result<(), Stopped> {
        let now = clock::now();
        let first = *self.fenced_at.get_or_insert(now);
        let since = now.saturating_sub(first);
        if since >= DUEL {
            self.fenced_at = Some(now);
        } else if since >= TAKEOVER {
            let message = "another live process uses this kafka.instance_id: its producer has \
                           fenced this one twice within a minute; give every live instance its own";
            let error = classify::Error::new(
                "keep the transactional id",
                message,
                classify::Reaction::Stop(Stop::Failed),
            );
            return Err(Failure::from(error).stop(Cause::Failed));
        }
        Ok(())
    }

    /// Gives every task up and joins the group with a new client, unless another live process has
    /// taken this one's place: the two would replace each other for ever.
    fn rejoin(&mut self) -> Result<(), Stopped> {
        loop {
            self.goes_on();
            match self.port.is_replaced_by_another(self.number) {
                Ok(false) => break,
                Ok(true) => {
                    let message = "another live process has joined the group with this \
                                   kafka.instance_id; give every live instance its own";
                    return Err(Stopped {
                        cause: Cause::Failed,
                        message: message.to_owned(),
                    });
                }
                Err(error) => {
                    tracing::warn!(worker = self.number, %error, "waiting");
                    clock::sleep(RETRY_PAUSE);
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
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
        self.outbox.clear();
        self.producer.retire();
        self.replacement = Replacement::Error;
        let running = self.tasks.in_life(|life| matches!(life, Life::Running));
        self.tasks.restart_all();
        self.paused.clear();
        for partition in running {
            if partition.topic == Topic::Bases {
                self.views.serve(partition.number, Served::Restoring);
            }
            if let Err(error) = self.consumer.pause(partition) {
                // Its records are dropped until the task runs again.
                tracing::debug!(%error, "pause while recovering");
            }
        }
        failpoint::hit(Point::RecoverAfter);
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

/// The name of a reaction in the metrics.
fn reaction(todo: &Todo) -> Reaction {
    match todo {
        Todo::Wait => Reaction::Wait,
        Todo::Recover { fenced: true } => Reaction::Fenced,
        Todo::Recover { fenced: false } => Reaction::Recover,
        Todo::Rejoin => Reaction::Rejoin,
        Todo::Rebuild => Reaction::Rebuild,
        Todo::Stop(_) => Reaction::Stop,
    }
}
