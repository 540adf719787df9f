//! `settle verify`: proves from the committed topics, and the database, that the promises hold.
//!
//! Reads what everyone can read, and computes again from the source what must have come out. It
//! shares with the pipeline what reads bytes, and no line that decides: this module sees neither
//! `domain` nor `engine`, and nothing of `state`. What may be judged beside live instances says
//! [`cut`].
//!
//! ```text
//! topics, tables ──reading──► audit: facts by place and by key, spilled ──► outcomes · totals ──► report
//! ```
//!
//! # Memory
//!
//! Facts lie in buckets of a temporary directory: 65536 offsets of one source partition, about half
//! a million facts of rule keys, about half a million payment ids. One bucket is judged at a time,
//! beside at most 24 MiB of each kind that wait to be written and 16 MiB that the client has
//! fetched: some 250 MiB in all, whatever the number of payments. Three things grow: a rule key
//! with more facts than a bucket is held whole (about 80 bytes for each settlement), so is each cut
//! dead letter (64 bytes). The directory takes about 300 bytes for each payment.

pub mod audit;
mod content;
pub mod cut;
mod facts;
pub mod message;
mod outcomes;
mod partitioner;
pub mod print;
pub mod promise;
mod reading;
mod repeats;
mod rows;
mod source;
mod spill;
pub mod terms;
mod totals;

use std::collections::BTreeMap;
use std::io;

use crate::broker::Bounds;
use crate::broker::logs;
use crate::config::Config;
use crate::exit::Exit;
use crate::sink::connection;
use crate::verify::audit::Audit;
use crate::verify::outcomes::UnderWay;
use crate::verify::promise::{Findings, Promise};
use crate::verify::terms::Scope;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Logs(#[from] logs::Error),
    #[error(transparent)]
    Database(#[from] connection::Error),
    #[error("the temporary directory: {0}")]
    Scratch(#[from] io::Error),
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Logs(error) => error.exit(),
            Self::Database(error) => error.exit(),
            Self::Scratch(_) => Exit::Failed,
        }
    }
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Report {
    pub findings: Findings,
    /// Source records that were read.
    pub sources: u64,
    /// Outcomes by kind and reason; of settlements the basis.
    pub outcomes: BTreeMap<(&'static str, String), u64>,
    pub under_way: UnderWay,
    /// Up to where each source partition was judged for sure, and up to where at most.
    pub positions: BTreeMap<i32, (i64, i64)>,
    pub with_database: bool,
}

/// Verifies what is committed, with `at_rest` also that nothing is left to do.
pub fn run(config: &Config, scope: Scope, at_rest: bool) -> Result<Report, Error> {
    reading::run(config, scope, at_rest)
}

impl Audit {
    /// At rest everything of the source has been processed.
    fn judge_rest(&mut self, partition: i32, position: i64, bounds: &Bounds) {
        // Behind the last record may stand markers that no position has passed yet.
        let holds = position >= bounds.low && position + 1 >= bounds.high;
        self.findings.check(Promise::Outcomes, holds, || {
            let end = bounds.high;
            format!("source partition {partition} is processed up to {position} of {end}")
        });
    }

    /// Judges everything that was taken.
    pub fn judge(mut self) -> Result<Report, Error> {
        self.find_repeats()?;
        let under_way = self.judge_places()?;
        self.judge_keys()?;
        let before = self.cut.before.source;
        let after = &self.cut.after.source;
        let positions = after
            .iter()
            .map(|(partition, after)| {
                let before = before.get(partition).copied().unwrap_or(0);
                (*partition, (before, *after))
            })
            .collect();
        let outcomes = self.tally.into_iter();
        Ok(Report {
            findings: self.findings,
            sources: self.sources,
            outcomes: outcomes
                .map(|((kind, reason), count)| ((outcomes::name(kind), reason), count))
                .collect(),
            under_way,
            positions,
            with_database: self.with_rows,
        })
    }
}
