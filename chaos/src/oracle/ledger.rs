//! What the proof remembers while it reads: one small entry per source record, one state per rule key. Millions of
//! payments fit, because contents are kept as fingerprints.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use crate::model::duplicates;
use crate::model::outgoing::Totals;
use crate::model::{Contract, Place, Record, Rule};
use crate::oracle::promise::Findings;

/// Partition counts that placement depends on.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub keyed: i32,
    pub exclusions: i32,
    pub dead_letters: i32,
}

/// Where the outcomes of a run are read from, in the order of the reading.
///
/// Feed rules, settlements, exclusions, dead letters, statistics and bases; then the source; then tables and HTTP;
/// then close.
pub struct Ledger<'a> {
    pub(super) contract: &'a Contract,
    pub(super) shape: Shape,
    /// The answer of the rule service for a rule key.
    pub(super) service: &'a dyn Fn(&str) -> Option<Rule>,
    pub(super) findings: Findings,
    pub(super) keys: Keys,
    pub(super) outcomes: HashMap<Place, Outcome>,
    pub(super) memory: BTreeMap<i32, duplicates::Partition>,
    /// Records of the source whose row in `payment_log` was not seen yet; `None` when there is no database.
    pub(super) unlogged: Option<HashMap<Place, Logged>>,
    pub(super) runs: BTreeMap<i32, Run>,
    /// Each reason once, however many outcomes share it.
    pub(super) reasons: BTreeSet<Rc<str>>,
    pub(super) sources: u64,
    pub(super) bases: u64,
}

impl<'a> Ledger<'a> {
    pub fn new(
        contract: &'a Contract,
        shape: Shape,
        service: &'a dyn Fn(&str) -> Option<Rule>,
    ) -> Self {
        Self {
            contract,
            shape,
            service,
            findings: Findings::default(),
            keys: Keys::default(),
            outcomes: HashMap::new(),
            memory: BTreeMap::new(),
            unlogged: None,
            runs: BTreeMap::new(),
            reasons: BTreeSet::new(),
            sources: 0,
            bases: 0,
        }
    }

    /// Says that the tables will be fed too.
    #[must_use]
    pub fn with_tables(mut self) -> Self {
        self.unlogged = Some(HashMap::new());
        self
    }

    pub fn findings(&mut self) -> &mut Findings {
        &mut self.findings
    }

    pub(super) fn reason(&mut self, text: &str) -> Rc<str> {
        if let Some(known) = self.reasons.get(text) {
            return Rc::clone(known);
        }
        let new: Rc<str> = text.into();
        self.reasons.insert(Rc::clone(&new));
        new
    }

    /// Outcomes by kind and reason.
    pub fn tally(&self) -> BTreeMap<(Kind, String), u64> {
        let mut tally = BTreeMap::new();
        for outcome in self.outcomes.values() {
            *tally
                .entry((outcome.kind, outcome.reason.to_string()))
                .or_default() += 1;
        }
        tally
    }

    /// The keys with the largest counts, with their statistics.
    pub fn largest(&self, count: usize) -> Vec<(String, Totals)> {
        let mut all: Vec<_> = self
            .keys
            .iter()
            .filter_map(|key| Some((key.name.clone(), key.latest?)))
            .collect();
        all.sort_by(|(a_name, a), (b_name, b)| {
            b.count.cmp(&a.count).then_with(|| a_name.cmp(b_name))
        });
        all.truncate(count);
        all
    }

    /// Number of source records.
    pub fn sources(&self) -> u64 {
        self.sources
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Settlement,
    Exclusion,
    DeadLetter,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Settlement => "settlement",
            Self::Exclusion => "exclusion",
            Self::DeadLetter => "dead letter",
        })
    }
}

/// One committed outcome.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub kind: Kind,
    /// Of an exclusion or a dead letter, the basis of a settlement.
    pub reason: Rc<str>,
    /// Partition and offset of the record that is the outcome.
    pub at: Place,
    /// What must agree with the source record.
    pub content: u64,
    /// Length and fingerprint of a dead letter's value, and the original length when it was cut.
    pub value: Option<(usize, u64, Option<usize>)>,
    /// What must agree with the row in the database.
    pub row: u64,
    /// The payment id of that row, where PostgreSQL can hold it.
    pub row_id: Option<u64>,
    pub is_matched: bool,
    pub has_row: bool,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} at {}", self.kind, self.reason, self.at)
    }
}

/// What `payment_log` must hold of a source record.
#[derive(Debug, Clone)]
pub struct Logged {
    pub timestamp: i64,
    pub id: Option<u64>,
    /// Of the bytes; `None` for a tombstone.
    pub raw: Option<u64>,
    /// Of the JSON, when it is JSON.
    pub body: Option<u64>,
    pub is_storable: bool,
}

/// The header on the first record that a transaction writes to a partition: `<transactional id>/<when it began>`.
const TRANSACTION_HEADER: &str = "settle-transaction";

/// Records of a partition without a gap between their offsets: parts of one transaction, or of several writers that
/// came one after the other before the first one's marker did.
#[derive(Debug, Default)]
pub struct Run {
    next: i64,
    /// Those without a gap.
    writers: BTreeSet<String>,
    /// Keys of the present transaction.
    pub seen: BTreeSet<usize>,
}

impl Run {
    /// Goes on with a record. The writer of its transaction, when no marker stands between this and an earlier one: then
    /// the end of one has decided the other too.
    pub fn come_to(&mut self, record: &Record) -> Option<String> {
        if self.next != record.offset {
            self.writers.clear();
            self.seen.clear();
        }
        self.next = record.offset + 1;
        let mark = record.header(TRANSACTION_HEADER)?;
        self.seen.clear();
        let mark = String::from_utf8_lossy(mark);
        let writer = mark.rsplit_once('/').map_or(&*mark, |(writer, _)| writer);
        let is_new = self.writers.insert(writer.to_owned());
        (!is_new).then(|| writer.to_owned())
    }
}

/// All that is known of one rule key.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a mark of its own")]
pub struct Key {
    pub name: String,
    pub service: Option<Rule>,
    /// Each record of the rules topic.
    pub published: Vec<Rule>,
    /// The rule in force at the end of the topic.
    pub in_force: Option<Rule>,
    /// In the order of the settlements topic: the source, and the sum up to here.
    pub settled: Vec<(Place, i128)>,
    pub latest: Option<Totals>,
    /// The first statistics record that is not the sum of the settlements before it.
    pub odd_version: Option<(Totals, String)>,
    pub expected_count: i64,
    pub expected_amount: i128,
    pub expected_bases: i64,
    pub bases: i64,
    /// Payments dead-lettered because the total would overflow.
    pub overflows: Vec<(Place, i64)>,
    /// An outcome of this key is wrong: its order says nothing.
    pub is_tainted: bool,
    pub has_rule_row: bool,
    pub has_statistics_row: bool,
    pub has_answer: bool,
}

impl Key {
    pub fn sum(&self) -> i128 {
        self.settled.last().map_or(0, |(_, sum)| *sum)
    }
}

/// The keys, by name and by number.
#[derive(Debug, Default)]
pub struct Keys {
    numbers: HashMap<String, usize>,
    keys: Vec<Key>,
}

impl Keys {
    /// The number of a key, new if need be.
    pub fn number(&mut self, name: &str, service: &dyn Fn(&str) -> Option<Rule>) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.keys.len();
        self.numbers.insert(name.to_owned(), number);
        self.keys.push(Key {
            name: name.to_owned(),
            service: service(name),
            published: Vec::new(),
            in_force: None,
            settled: Vec::new(),
            latest: None,
            odd_version: None,
            expected_count: 0,
            expected_amount: 0,
            expected_bases: 0,
            bases: 0,
            overflows: Vec::new(),
            is_tainted: false,
            has_rule_row: false,
            has_statistics_row: false,
            has_answer: false,
        });
        number
    }

    pub fn find(&mut self, name: &str) -> Option<&mut Key> {
        self.numbers.get(name).map(|number| &mut self.keys[*number])
    }

    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

impl std::ops::Index<usize> for Keys {
    type Output = Key;

    fn index(&self, number: usize) -> &Key {
        &self.keys[number]
    }
}

impl std::ops::IndexMut<usize> for Keys {
    fn index_mut(&mut self, number: usize) -> &mut Key {
        &mut self.keys[number]
    }
}
