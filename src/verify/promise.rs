//! What was checked of each promise, and what broke it.

use std::collections::BTreeMap;
use std::fmt;

/// Examples that are kept of one promise; more are only counted.
const EXAMPLES_MAX: usize = 10;

/// The promises, by their numbers in `docs/contract.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    Outcomes = 1,
    Totals = 2,
    Atomicity = 3,
    Rules = 4,
    State = 5,
    Database = 6,
}

impl Promise {
    pub const ALL: [Self; 6] = [
        Self::Outcomes,
        Self::Totals,
        Self::Atomicity,
        Self::Rules,
        Self::State,
        Self::Database,
    ];

    pub const fn number(self) -> u8 {
        self as u8
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Outcomes => "Outcomes",
            Self::Totals => "Totals",
            Self::Atomicity => "Atomicity",
            Self::Rules => "Rules",
            Self::State => "State",
            Self::Database => "PostgreSQL",
        }
    }

    /// What is looked at for it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Outcomes => "every source record has one outcome, the right one, in its place",
            Self::Totals => "statistics and changelog equal count and sum of the settlements",
            Self::Atomicity => "positions, outcomes and offsets were committed together",
            Self::Rules => "dates are those of a rule committed before, or the default",
            Self::State => "the logs from which local state is rebuilt can be read",
            Self::Database => "the tables hold what the topics hold, once",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.name())
    }
}

/// What was found of one promise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    pub checked: u64,
    pub breaches: u64,
    pub examples: Vec<String>,
    /// Items that the logs no longer allow to judge, by the reason.
    pub unjudged: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings(BTreeMap<Promise, Finding>);

impl Findings {
    pub fn of(&self, promise: Promise) -> Finding {
        self.0.get(&promise).cloned().unwrap_or_default()
    }

    /// Counts an item; `example` tells what is wrong with one that does not hold.
    pub fn check(&mut self, promise: Promise, holds: bool, example: impl FnOnce() -> String) {
        self.0.entry(promise).or_default().checked += 1;
        if !holds {
            self.breach(promise, example);
        }
    }

    /// A breach of an item that is counted elsewhere.
    pub fn breach(&mut self, promise: Promise, example: impl FnOnce() -> String) {
        let finding = self.0.entry(promise).or_default();
        finding.breaches += 1;
        if finding.examples.len() < EXAMPLES_MAX {
            finding.examples.push(example());
        }
    }

    pub fn skip(&mut self, promise: Promise, reason: &'static str) {
        let finding = self.0.entry(promise).or_default();
        *finding.unjudged.entry(reason).or_default() += 1;
    }

    pub fn hold(&self) -> bool {
        self.0.values().all(|finding| finding.breaches == 0)
    }

    /// The promises that are broken.
    pub fn broken(&self) -> Vec<Promise> {
        let broken = self.0.iter().filter(|(_, finding)| finding.breaches > 0);
        broken.map(|(promise, _)| *promise).collect()
    }
}
