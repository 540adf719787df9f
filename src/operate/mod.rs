//! Tools of an operator that write: each looks first, says what it would do, and does it only when
//! told to. What is written goes through a transaction whose transactional id only one process can
//! hold, so that two operators cannot do one thing twice.

pub mod replay;
pub mod rules;

use crate::broker::classify::{self, Reaction, Stop};
use crate::broker::client::Settings;
use crate::broker::logs;
use crate::broker::native::Outgoing;
use crate::broker::port::Producer as _;
use crate::broker::producer::Producer;
use crate::broker::transaction::{Transaction, Undone};
use crate::exit::Exit;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Look(#[from] logs::Error),
    /// What was asked for must not be done, now or at all.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Usage(String),
    #[error("nothing was written: {0}")]
    NotReady(classify::Error),
    #[error("{0}; running the same command again is safe: it looks first")]
    Undone(Undone),
}

impl From<classify::Error> for Error {
    fn from(error: classify::Error) -> Self {
        Self::Look(error.into())
    }
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Look(error) => error.exit(),
            Self::Refused(_) => Exit::Failed,
            Self::Usage(_) => Exit::Usage,
            Self::NotReady(error)
            | Self::Undone(Undone::NotWritten(error) | Undone::Unknown(error)) => {
                match error.reaction {
                    Reaction::Stop(Stop::NotAllowed(_)) => Exit::NotAllowed,
                    _ => Exit::Unavailable,
                }
            }
        }
    }
}

/// The right to write as one of the tools. Whoever takes it last has it.
struct Writer(Producer);

impl Writer {
    /// Takes the tool's transactional id over: what another process has begun with it is decided
    /// when this returns, and it can write nothing more.
    fn take(settings: &Settings, tool: &str) -> Result<Self, Error> {
        let mut producer = Producer::tool(settings, tool);
        producer.replace().map_err(Error::NotReady)?;
        Ok(Self(producer))
    }

    /// Writes one record in a transaction of its own; its offset.
    fn write(mut self, record: &Outgoing) -> Result<i64, Error> {
        let not_written = |error| Error::Undone(Undone::NotWritten(error));
        let mut transaction = Transaction::begin(&mut self.0).map_err(not_written)?;
        let record = Outgoing {
            receipt: Some(0),
            ..*record
        };
        transaction.send(&record).map_err(not_written)?;
        let committed = transaction.commit_alone().map_err(Error::Undone)?;
        Ok(committed.offset(0))
    }
}
