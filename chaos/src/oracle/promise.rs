//! The promises that are checked, how often each was, and what was found against it.

use std::fmt;

const EXAMPLES: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    Outcomes,
    Content,
    AtRest,
    Rules,
    Totals,
    Versions,
    Placement,
    Format,
    Tables,
    Http,
}

impl Promise {
    pub const ALL: [Self; 10] = [
        Self::Outcomes,
        Self::Content,
        Self::AtRest,
        Self::Rules,
        Self::Totals,
        Self::Versions,
        Self::Placement,
        Self::Format,
        Self::Tables,
        Self::Http,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Outcomes => "every source record has exactly one outcome, the right one",
            Self::Content => "each outcome says what its source record said",
            Self::AtRest => "nothing is on its way, all offsets stand at the end",
            Self::Rules => {
                "payout dates are those of a published rule, or the default where there is none"
            }
            Self::Totals => "latest statistics of each key equal the sums of the raw input",
            Self::Versions => {
                "statistics rise record by record with the settlements, once per transaction"
            }
            Self::Placement => "each record is in the partition of its key",
            Self::Format => "keys and values are byte for byte as agreed",
            Self::Tables => "PostgreSQL holds what the topics hold, row by row",
            Self::Http => "HTTP answers what the topics say",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was found about one promise.
#[derive(Debug, Clone)]
pub struct Finding {
    pub promise: Promise,
    pub checked: u64,
    pub breaches: u64,
    /// The first breaches, in words.
    pub examples: Vec<String>,
}

/// All findings, in the order of [`Promise::ALL`].
#[derive(Debug, Clone)]
pub struct Findings(Vec<Finding>);

impl Default for Findings {
    fn default() -> Self {
        let nothing = |promise| Finding {
            promise,
            checked: 0,
            breaches: 0,
            examples: Vec::new(),
        };
        Self(Promise::ALL.map(nothing).to_vec())
    }
}

impl Findings {
    pub fn all(&self) -> &[Finding] {
        &self.0
    }

    pub fn of(&self, promise: Promise) -> &Finding {
        &self.0[promise as usize]
    }

    /// The promises that are broken.
    pub fn broken(&self) -> Vec<Promise> {
        self.0
            .iter()
            .filter(|finding| finding.breaches > 0)
            .map(|finding| finding.promise)
            .collect()
    }

    pub fn hold(&self) -> bool {
        self.broken().is_empty()
    }

    /// Counts one check; `found` tells the breach when it fails.
    pub fn check(&mut self, promise: Promise, holds: bool, found: impl FnOnce() -> String) {
        self.0[promise as usize].checked += 1;
        if !holds {
            self.breach(promise, found);
        }
    }

    /// Counts a breach of a check that is counted elsewhere.
    pub fn breach(&mut self, promise: Promise, found: impl FnOnce() -> String) {
        let finding = &mut self.0[promise as usize];
        finding.breaches += 1;
        if finding.examples.len() < EXAMPLES {
            finding.examples.push(found());
        }
    }
}
