//! Everything that can go wrong in a turn of the loop, and what the loop does about it.

use thiserror::Error;

use crate::broker::Partition;
use crate::broker::classify::{self, Denial, Reaction, Stop};
use crate::engine::settle;
use crate::engine::start::Refusal;
use crate::failpoint::Injected;
use crate::state;

#[derive(Debug, Error)]
pub enum Failure {
    #[error(transparent)]
    Broker(#[from] classify::Error),
    #[error(transparent)]
    State(#[from] state::Error),
    #[error("{topic}/{}: {refusal}. {}", task.number, refusal.advice(task.topic, topic, task.number))]
    Refused {
        task: Partition,
        /// Name of the task's topic.
        topic: String,
        refusal: Refusal,
    },
    #[error("{0}")]
    Broken(String),
}

impl From<settle::Error> for Failure {
    fn from(error: settle::Error) -> Self {
        match error {
            settle::Error::State(error) => Self::State(error),
            settle::Error::ForeignBase { .. } => Self::Broken(error.to_string()),
        }
    }
}

impl Injected for Failure {
    fn injected() -> Self {
        classify::Error::new("reach the broker", "injected", Reaction::Wait).into()
    }
}

/// Why a worker ended; decides the exit code of the process.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct Stopped {
    pub cause: Cause,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Failed,
    PromiseBroken,
    StateDirectory,
    NotAllowed(Denial),
}

/// What the loop does about a failure.
#[derive(Debug, PartialEq, Eq)]
pub enum Todo {
    /// Try again in a moment.
    Wait,
    /// The same, for as long as a new topic or leader may take to be known.
    WaitForTopic,
    /// Replace the producer and take up every task again from the log.
    Recover {
        fenced: bool,
    },
    /// The consumer is over: join the group again, unless another process has our place.
    Rejoin,
    /// Set the damaged file aside and rebuild its task, with all others.
    Rebuild,
    Stop(Cause),
}

impl Failure {
    pub fn todo(&self) -> Todo {
        match self {
            Self::Broker(error) => match error.reaction {
                Reaction::Wait => Todo::Wait,
                Reaction::Missing => Todo::WaitForTopic,
                Reaction::Recover => Todo::Recover { fenced: false },
                Reaction::Fenced => Todo::Recover { fenced: true },
                Reaction::Rejoin => Todo::Rejoin,
                Reaction::Stop(Stop::Failed) => Todo::Stop(Cause::Failed),
                Reaction::Stop(Stop::Broken) => Todo::Stop(Cause::PromiseBroken),
                Reaction::Stop(Stop::NotAllowed(denial)) => Todo::Stop(Cause::NotAllowed(denial)),
            },
            Self::State(state::Error::Damaged { .. }) => Todo::Rebuild,
            Self::State(state::Error::Busy { .. }) => Todo::Wait,
            Self::State(state::Error::Unusable { .. }) => Todo::Stop(Cause::StateDirectory),
            Self::Refused { .. } | Self::Broken(_) => Todo::Stop(Cause::PromiseBroken),
        }
    }

    /// The same, where waiting is not enough.
    #[must_use]
    pub fn instead_of_waiting(self) -> Self {
        match self {
            Self::Broker(error) if error.reaction == Reaction::Wait => {
                Self::Broker(classify::Error {
                    reaction: Reaction::Recover,
                    ..error
                })
            }
            other => other,
        }
    }

    pub fn stop(&self, cause: Cause) -> Stopped {
        Stopped {
            cause,
            message: self.to_string(),
        }
    }
}
