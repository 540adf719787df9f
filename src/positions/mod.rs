//! `settle positions`: where each partition of payments and bases goes on, and what only a person
//! may decide about it. A task refuses to run where going on could lose or repeat a payment; these
//! are the commands that its message names ([`crate::engine::start::Refusal::advice`]).
//!
//! Everything is written in one transaction for each partition, as a task would: position record,
//! totals and the group's offset. No instance may be in the group.

mod read;
mod write;

use std::fmt;

use crate::broker::admin;
use crate::broker::classify::{self, Reaction, Stop};
use crate::broker::client::Settings;
use crate::broker::group;
use crate::broker::port::Port as _;
use crate::broker::reader::Reader;
use crate::broker::{Partition, Topic};
use crate::config::Config;
use crate::exit::Exit;
use crate::topics;

pub use read::Row;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Topics(#[from] topics::Error),
    #[error(transparent)]
    Admin(#[from] admin::Error),
    #[error("Kafka: {0}")]
    Kafka(#[from] classify::Error),
    /// Nothing was changed for this partition.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Topics(error) => error.exit(),
            Self::Admin(error) => error.exit(),
            Self::Kafka(error) => match error.reaction {
                Reaction::Stop(Stop::NotAllowed(_)) => Exit::NotAllowed,
                _ => Exit::Unavailable,
            },
            Self::Refused(_) => Exit::Failed,
        }
    }
}

/// Where a partition is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The first record that its log still holds.
    Earliest,
    Offset(i64),
}

/// What was written for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `payments/3`.
    pub place: String,
    pub before: Option<i64>,
    pub next: i64,
    /// Rule keys whose totals were written.
    pub keys: usize,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            before,
            next,
            keys,
        } = self;
        match before {
            Some(before) if next > before => {
                let skipped = next - before;
                write!(
                    f,
                    "{place}: goes on at {next}, not at {before}: {skipped} offsets are given up"
                )
            }
            Some(before) => write!(f, "{place}: goes on at {next}, not at {before}"),
            None => write!(
                f,
                "{place}: goes on at {next}, with the totals of {keys} rule keys"
            ),
        }
    }
}

/// A look at the positions, and the hand that changes them.
struct Session {
    settings: Settings,
    reader: Reader,
    source: i32,
    bases: i32,
}

impl Session {
    fn open(config: &Config) -> Result<Self, Error> {
        let settings = Settings::new(config);
        let found = topics::existing(config)?;
        let count = |topic: Topic| {
            let name = topic.name_in(&config.topics);
            found.get(name).copied().ok_or_else(|| {
                Error::Refused(format!("there is no topic {name}: nothing has run here"))
            })
        };
        Ok(Self {
            source: count(Topic::Source)?,
            bases: count(Topic::Bases)?,
            reader: settings.reader("positions")?,
            settings,
        })
    }

    fn tasks(&self) -> Vec<Partition> {
        Partition::all(&[(Topic::Source, self.source), (Topic::Bases, self.bases)])
    }

    fn place(&self, partition: Partition) -> String {
        let topic = self.settings.topics.of(partition.topic);
        format!("{topic}/{}", partition.number)
    }

    /// Instances would go on from what they know.
    fn nobody_runs(&self) -> Result<(), Error> {
        let members = group::instances(&self.settings)?;
        if members.is_empty() {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "the group {} still has members: {}. Stop all instances; the group forgets a stopped \
             one after its session time-out ({:?})",
            self.settings.application_id,
            members.join(", "),
            self.settings.properties.session_timeout()
        )))
    }
}

/// Every partition of payments and bases, with the positions that are known of it.
pub fn show(config: &Config) -> Result<Vec<Row>, Error> {
    let session = Session::open(config)?;
    session.rows()
}

/// Lets one partition of payments or bases go on elsewhere. Forward gives up what lies between;
/// back only where the log of the bases was made anew.
pub fn set(config: &Config, topic: &str, number: i32, target: Target) -> Result<Change, Error> {
    let session = Session::open(config)?;
    session.nobody_runs()?;
    session.set(topic, number, target)
}

/// Writes changelogs that were deleted again: positions from the group's offsets, totals from the
/// settlements, which must agree with the statistics. Partitions that have a position are left as
/// they are; `unknown` is told of those of which the group knows none either.
pub fn rebuild(
    config: &Config,
    each: impl FnMut(&Change),
    unknown: impl FnMut(&str),
) -> Result<(), Error> {
    let plan = topics::apply(config)?;
    if !plan.violations.is_empty() {
        return Err(topics::Error::Violations(plan.violations).into());
    }
    let session = Session::open(config)?;
    session.nobody_runs()?;
    session.rebuild(each, unknown)
}
