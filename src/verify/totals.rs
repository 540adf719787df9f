//! Judges the rule keys: totals against the settlements, rules against those who name them, bucket
//! by bucket of keys.

use std::collections::BTreeSet;
use std::io;

use crate::broker::Topic;
use crate::verify::audit::Audit;
use crate::verify::cut;
use crate::verify::facts::{Digest, KeyFact, OfKey, Place, Teller, Total};
use crate::verify::promise::Promise;

const COMPACTED: &str = "the rule may have been replaced and compacted away";
const SETTLEMENTS_GONE: &str = "settlements have left the log";
const BASES_GONE: &str = "bases have left the log";

/// A settlement as its total sees it.
#[derive(Clone, Copy)]
struct Settled {
    at: Place,
    amount: i64,
    place: Place,
    timestamp: i64,
    rule: Option<(Digest, Digest)>,
}

struct Rule {
    id: Digest,
    whole: Digest,
    timestamp: i64,
    row: Digest,
}

/// All facts of one key, each list in the order of its log.
#[derive(Default)]
struct Known {
    settled: Vec<Settled>,
    totals: Vec<Total>,
    /// `None` took the rule away.
    rules: Vec<(Place, Option<Rule>)>,
    bases: Vec<(Place, i64, Place)>,
    refused: BTreeSet<Place>,
    rule_rows: Vec<(String, Digest)>,
}

impl Audit {
    pub(super) fn judge_keys(&mut self) -> io::Result<()> {
        for bucket in self.keys.buckets() {
            let mut facts: Vec<KeyFact> = self.keys.take(bucket)?;
            facts.sort_by_key(|fact| fact.key);
            let mut facts = facts.into_iter().peekable();
            while let Some(fact) = facts.next() {
                let key = fact.key;
                let mut known = Known::default();
                known.add(fact.what);
                while let Some(fact) = facts.next_if(|fact| fact.key == key) {
                    known.add(fact.what);
                }
                known.in_order();
                self.judge_key(&known);
            }
        }
        Ok(())
    }

    fn judge_key(&mut self, known: &Known) {
        let number = known.settled.first().map(|settled| settled.at.partition);
        let is_whole = number.is_none_or(|n| self.cut.low_of(Topic::Settlements, n) == 0);
        if is_whole {
            let sums = sums(&known.settled);
            for total in &known.totals {
                self.judge_total(total, &sums);
            }
            self.judge_latest(known);
            self.judge_refused(known);
        } else {
            self.findings.skip(Promise::Totals, SETTLEMENTS_GONE);
        }
        self.judge_rising(known);
        self.judge_agreement(known);
        for settled in &known.settled {
            self.judge_rule(settled, known);
        }
        if self.with_rows {
            self.judge_key_rows(known);
        }
    }

    /// A total is the sum of as many settlements as it counts.
    fn judge_total(&mut self, total: &Total, sums: &[i128]) {
        if total.teller == Teller::Row {
            return;
        }
        let count = usize::try_from(total.count).unwrap_or(usize::MAX);
        let sum = sums.get(count).copied();
        let holds = sum == Some(i128::from(total.amount));
        self.findings.check(Promise::Totals, holds, || {
            let Total {
                at, name, amount, ..
            } = total;
            let (teller, settled) = (teller(total.teller), sums.len() - 1);
            let is = sum.map_or_else(
                || format!("only {settled} were made"),
                |sum| format!("they sum up to {sum}"),
            );
            format!("{teller} {at} tells {amount} in {count} settlements of {name}, and {is}")
        });
    }

    /// The last total counts every settlement that was there before totals were read.
    fn judge_latest(&mut self, known: &Known) {
        let made = |settled: &&Settled| {
            settled.at.offset < cut::of(&self.cut.settled, settled.at.partition)
        };
        let due = known.settled.iter().filter(made).count() as u64;
        for of in [Teller::Statistics, Teller::Changelog] {
            let last = known.last(of);
            let counted = last.map_or(0, |total| total.count);
            self.findings
                .check(Promise::Totals, counted >= due, || match last {
                    Some(total) => format!(
                        "the last {} of {} counts {counted} of {due} settlements",
                        teller(of),
                        total.name
                    ),
                    None => format!(
                        "the key of settlement {} has no {}",
                        known.settled[0].at,
                        teller(of)
                    ),
                });
        }
    }

    /// Along a partition the count of a key strictly rises.
    fn judge_rising(&mut self, known: &Known) {
        for of in [Teller::Statistics, Teller::Changelog] {
            let totals: Vec<&Total> = known.of(of).collect();
            for pair in totals.windows(2) {
                let holds = pair[0].count < pair[1].count;
                self.findings.check(Promise::Totals, holds, || {
                    format!(
                        "{} {} of {} does not rise: {} after {}",
                        teller(of),
                        pair[1].at,
                        pair[1].name,
                        pair[1].count,
                        pair[0].count
                    )
                });
            }
        }
    }

    /// Statistics and changelog of a key are written in the same transactions: whatever count both
    /// tell, they tell the same amount.
    fn judge_agreement(&mut self, known: &Known) {
        let mut told = known.of(Teller::Changelog).peekable();
        for total in known.of(Teller::Statistics) {
            while told.next_if(|other| other.count < total.count).is_some() {}
            if let Some(other) = told.next_if(|other| other.count == total.count) {
                let holds = other.amount == total.amount;
                self.findings.check(Promise::Atomicity, holds, || {
                    let (at, name) = (total.at, &total.name);
                    format!(
                        "statistics record {at} and changelog record {} of {name} differ",
                        other.at
                    )
                });
            }
        }
    }

    /// A settlement by rule names one of its key that was committed with it or before.
    fn judge_rule(&mut self, settled: &Settled, known: &Known) {
        let Some((id, whole)) = settled.rule else {
            return;
        };
        let latest = settled
            .timestamp
            .saturating_add(self.terms.rule_lead_millis);
        let mut named = known.rules();
        let is_there = named.clone().any(|rule| rule.whole == whole);
        let is_in_time = named.any(|rule| rule.whole == whole && rule.timestamp <= latest);
        // A rule that is there since long before the settlement was in force for it: it cannot
        // have replaced the one that is looked for.
        let long_before = settled
            .timestamp
            .saturating_sub(self.terms.rule_lead_millis);
        let is_settled_matter = known.rules().any(|rule| rule.timestamp < long_before);
        let compacted = self.cut.rules_compacted.contains_key(&settled.at.partition);
        if !is_in_time && compacted && !is_settled_matter {
            self.findings.skip(Promise::Rules, COMPACTED);
            return;
        }
        self.findings.check(Promise::Rules, is_in_time, || {
            let (at, place) = (settled.at, settled.place);
            let why = if is_there {
                "a rule that was committed later"
            } else if known.rules().any(|rule| rule.id == id) {
                "other dates than its rule"
            } else {
                "a rule that was never committed"
            };
            format!("settlement {at} of source record {place} has {why}")
        });
    }

    /// A payment is refused exactly when its total would leave 64 bits.
    fn judge_refused(&mut self, known: &Known) {
        if known.refused.is_empty() {
            return;
        }
        let number = known.bases.first().map_or(0, |(at, ..)| at.partition);
        if known.bases.is_empty() || self.cut.low_of(Topic::Bases, number) > 0 {
            self.findings.skip(Promise::Totals, BASES_GONE);
            return;
        }
        let settled: BTreeSet<Place> = known.settled.iter().map(|settled| settled.place).collect();
        let mut sum = 0_i64;
        for (at, amount, place) in &known.bases {
            let (is_settled, is_refused) = (settled.contains(place), known.refused.contains(place));
            if !is_settled && !is_refused {
                continue;
            }
            let fits = sum.checked_add(*amount);
            let holds = fits.is_some() == is_settled;
            self.findings.check(Promise::Totals, holds, || {
                let became = if is_settled { "settled" } else { "refused" };
                format!("base {at} of source record {place} was {became} at a total of {sum}")
            });
            if is_settled {
                sum = fits.unwrap_or(sum);
            }
        }
    }

    fn judge_key_rows(&mut self, known: &Known) {
        let is_sunk = |topic, at: Place| self.cut.has_row(topic, at.partition, at.offset);
        let told = known.of(Teller::Statistics);
        let due = told
            .filter(|total| is_sunk(Topic::Statistics, total.at))
            .last();
        let row = known.of(Teller::Row).last();
        let newer = known.last(Teller::Statistics);
        let holds = match (row, due) {
            (None, None) => true,
            (Some(row), Some(due)) => (row.count, row.amount) == (due.count, due.amount),
            // The record of the row has been compacted away under a newer one.
            (Some(row), None) => newer.is_some_and(|newer| row.count < newer.count),
            (None, Some(_)) => false,
        };
        if row.is_some() || due.is_some() {
            self.findings.check(Promise::Database, holds, || {
                let name = row.or(due).map_or("", |total| total.name.as_str());
                format!("the row of statistics for {name} is not the latest record")
            });
        }
        let is_due = |at: &Place| self.cut.has_row(Topic::Rules, at.partition, at.offset);
        let due = known.rules.iter().rfind(|(at, _)| is_due(at));
        let newer = known.rules.len() > usize::from(due.is_some());
        let due = due.and_then(|(_, rule)| rule.as_ref()).map(|rule| rule.row);
        let row = known.rule_rows.first();
        if row.is_none() && due.is_none() {
            return;
        }
        let compacted = due.is_none() && newer;
        let holds = row.map(|(_, digest)| *digest) == due || compacted;
        self.findings.check(Promise::Database, holds, || {
            let name = row.map_or("a key", |(name, _)| name.as_str());
            format!("the row of payout_rule for {name} is not the latest rule")
        });
    }
}

impl Known {
    fn add(&mut self, what: OfKey) {
        match what {
            OfKey::Settled {
                at,
                amount,
                place,
                timestamp,
                rule,
            } => self.settled.push(Settled {
                at,
                amount,
                place,
                timestamp,
                rule,
            }),
            OfKey::Total(total) => self.totals.push(total),
            OfKey::Rule {
                at,
                id,
                whole,
                timestamp,
                row,
            } => self.rules.push((
                at,
                Some(Rule {
                    id,
                    whole,
                    timestamp,
                    row,
                }),
            )),
            OfKey::NoRule { at } => self.rules.push((at, None)),
            OfKey::Base { at, amount, place } => self.bases.push((at, amount, place)),
            OfKey::Refused { place } => {
                self.refused.insert(place);
            }
            OfKey::RuleRow { name, row } => self.rule_rows.push((name, row)),
        }
    }

    fn in_order(&mut self) {
        self.settled.sort_by_key(|settled| settled.at);
        self.totals.sort_by_key(|total| (total.teller, total.at));
        self.rules.sort_by_key(|(at, _)| *at);
        self.bases.sort_by_key(|(at, ..)| *at);
    }

    fn of(&self, teller: Teller) -> impl Iterator<Item = &Total> {
        self.totals
            .iter()
            .filter(move |total| total.teller == teller)
    }

    fn last(&self, teller: Teller) -> Option<&Total> {
        self.of(teller).last()
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> + Clone {
        self.rules.iter().filter_map(|(_, rule)| rule.as_ref())
    }
}

/// The sum of the first `n` settlements at place `n`.
fn sums(settled: &[Settled]) -> Vec<i128> {
    let mut sums = vec![0];
    for settled in settled {
        let before = sums.last().copied().unwrap_or(0);
        sums.push(before + i128::from(settled.amount));
    }
    sums
}

const fn teller(teller: Teller) -> &'static str {
    match teller {
        Teller::Statistics => "statistics record",
        Teller::Changelog => "changelog record",
        Teller::Row => "row of statistics",
    }
}
