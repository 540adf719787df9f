//! Judges the outcomes: everything that is known of one source record, side by side.

use std::io;

use crate::broker::Topic;
use crate::verify::audit::{Audit, bucket_of, partition_of};
use crate::verify::cut;
use crate::verify::facts::{Digest, Expected, Kind, Outcome, Place, PlaceFact, Table, What};
use crate::verify::promise::Promise;

const GONE: &str = "the source record has left the log";
const FIRST_GONE: &str = "the first of the payment id has left the log";

/// All facts of one place.
#[derive(Default)]
struct Known<'a> {
    source: Option<&'a Expected>,
    repeats: Vec<(Option<i64>, bool)>,
    outcomes: Vec<&'a Outcome>,
    bases: Vec<(Place, Digest)>,
    rows: Vec<(Table, Digest)>,
}

/// What was still under way, and how much could not be looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnderWay {
    pub bases: u64,
    pub sources: u64,
}

impl Audit {
    pub(super) fn judge_places(&mut self) -> io::Result<UnderWay> {
        let mut under_way = UnderWay::default();
        for bucket in self.places.buckets() {
            let mut facts: Vec<PlaceFact> = self.places.take(bucket)?;
            facts.sort_by_key(|fact| fact.offset);
            let partition = partition_of(bucket);
            for of_place in facts.chunk_by(|a, b| a.offset == b.offset) {
                let offset = of_place[0].offset;
                let place = Place { partition, offset };
                debug_assert_eq!(bucket_of(place), bucket, "facts lie in their bucket");
                self.judge_place(place, &Known::of(of_place), &mut under_way);
            }
        }
        Ok(under_way)
    }

    fn judge_place(&mut self, place: Place, known: &Known, under_way: &mut UnderWay) {
        let Some(expected) = known.source else {
            self.judge_orphan(place, known);
            return;
        };
        if !expected.is_judged {
            return;
        }
        self.judge_count(place, expected, known, under_way);
        for outcome in &known.outcomes {
            *self
                .tally
                .entry((outcome.kind, outcome.reason.clone()))
                .or_default() += 1;
            self.judge_outcome(place, expected, known, outcome);
        }
        self.judge_bases(place, expected, known);
        if self.with_rows {
            self.judge_rows(place, known);
        }
    }

    /// Outcomes of a place that holds no source record, as far as the positions reach.
    fn judge_orphan(&mut self, place: Place, known: &Known) {
        let low = self.cut.low_of(Topic::Source, place.partition);
        if place.offset < low {
            for _ in &known.outcomes {
                self.findings.skip(Promise::Outcomes, GONE);
            }
            let holds = known.outcomes.len() <= 1 && known.bases.len() <= 1;
            self.findings.check(Promise::Outcomes, holds, || {
                format!("source record {place} has {}", known.told())
            });
        } else if !known.outcomes.is_empty() || !known.bases.is_empty() {
            let end = cut::of(&self.cut.after.source, place.partition);
            if place.offset >= end {
                self.above(place, end, known);
            } else {
                self.findings.check(Promise::Outcomes, false, || {
                    let told = known.told();
                    format!("source record {place} is no committed record and has {told}")
                });
            }
        }
        if self.with_rows {
            self.judge_rows(place, known);
        }
    }

    fn above(&mut self, place: Place, end: i64, known: &Known) {
        self.findings.check(Promise::Outcomes, false, || {
            let told = known.told();
            format!("source record {place}, above the committed position {end}, has {told}")
        });
    }

    /// Exactly one outcome, or one base on its way.
    fn judge_count(
        &mut self,
        place: Place,
        expected: &Expected,
        known: &Known,
        under_way: &mut UnderWay,
    ) {
        let is_required = place.offset < cut::of(&self.cut.before.source, place.partition);
        let end = cut::of(&self.cut.after.source, place.partition);
        let has_any = !known.outcomes.is_empty() || !known.bases.is_empty();
        if place.offset >= end && has_any {
            self.above(place, end, known);
            return;
        }
        let holds = match known.outcomes.len() {
            0 if !is_required && known.bases.is_empty() => {
                under_way.sources += 1;
                !self.at_rest
            }
            0 => {
                let base = known.bases.first();
                let is_left = base.is_some_and(|(at, _)| {
                    at.offset >= cut::of(&self.cut.before.bases, at.partition)
                });
                if is_left {
                    under_way.bases += 1;
                }
                is_left && expected.kind == Kind::Settlement && !self.at_rest
            }
            1 => true,
            _ => false,
        };
        self.findings.check(Promise::Outcomes, holds, || {
            format!("source record {place} has {}", known.told())
        });
    }

    fn judge_outcome(
        &mut self,
        place: Place,
        expected: &Expected,
        known: &Known,
        outcome: &Outcome,
    ) {
        if self.is_unsure(place, known, outcome) {
            self.findings.skip(Promise::Outcomes, FIRST_GONE);
            return;
        }
        let says = match outcome.kind {
            Kind::Settlement => expected.settlement == outcome.content,
            Kind::Exclusion => expected.exclusion == outcome.content,
            Kind::Letter => outcome.is_cut || expected.bytes == outcome.content,
        };
        self.findings.check(Promise::Outcomes, says, || {
            format!(
                "{} {} says something else than its source record {place}",
                name(outcome.kind),
                outcome.at
            )
        });
        let right = is_right(place, expected, known, outcome);
        self.findings.check(Promise::Outcomes, right, || {
            let due = if known.repeats.is_empty() {
                told(expected.kind, &expected.reason)
            } else {
                format!("a duplicate of one of {:?}", known.firsts())
            };
            let became = told(outcome.kind, &outcome.reason);
            format!(
                "source record {place} became {became} ({}) and is {due}",
                outcome.at
            )
        });
    }

    /// Where the log begins, a duplicate may name a first that is gone, and a repeat of it may be
    /// judged no more.
    fn is_unsure(&self, place: Place, known: &Known, outcome: &Outcome) -> bool {
        let low = self.cut.low_of(Topic::Source, place.partition);
        let first = outcome.first.filter(|first| {
            first.partition == place.partition && first.offset < low && first.offset >= 0
        });
        first.is_some() || known.repeats.iter().any(|(first, _)| first.is_none())
    }

    fn judge_bases(&mut self, place: Place, expected: &Expected, known: &Known) {
        let holds = match known.bases[..] {
            [] => true,
            [(_, content)] => {
                expected.kind == Kind::Settlement && expected.settlement == content
                    || known.repeats.iter().any(|(first, _)| first.is_none())
            }
            _ => false,
        };
        self.findings.check(Promise::Outcomes, holds, || {
            format!(
                "source record {place} has {} bases, or one that says something else",
                known.bases.len()
            )
        });
        let Some((at, _)) = known.bases.first() else {
            return;
        };
        let end = cut::of(&self.cut.after.bases, at.partition);
        let is_settled = known
            .outcomes
            .iter()
            .any(|outcome| outcome.kind != Kind::Exclusion);
        let holds = !is_settled || at.offset < end;
        self.findings.check(Promise::Atomicity, holds, || {
            format!(
                "base {at} of source record {place} has an outcome above the committed position {end}"
            )
        });
    }

    fn judge_rows(&mut self, place: Place, known: &Known) {
        let kinds = [
            (Kind::Settlement, Table::Settlement, Topic::Settlements),
            (Kind::Exclusion, Table::Exclusion, Topic::Exclusions),
            (Kind::Letter, Table::DeadLetter, Topic::DeadLetter),
        ];
        for (kind, table, topic) in kinds {
            let due: Vec<Digest> = known
                .outcomes
                .iter()
                .filter(|outcome| outcome.kind == kind)
                .filter(|outcome| {
                    self.cut
                        .has_row(topic, outcome.at.partition, outcome.at.offset)
                })
                .map(|outcome| outcome.row)
                .collect();
            self.judge_table(place, table, &due, known);
        }
        let is_logged = self
            .cut
            .has_row(Topic::Source, place.partition, place.offset);
        // A row outlives the record that the source no longer holds.
        if place.offset >= self.cut.low_of(Topic::Source, place.partition) {
            let due: Vec<Digest> = known
                .source
                .filter(|_| is_logged)
                .map(|expected| expected.row)
                .into_iter()
                .collect();
            self.judge_table(place, Table::PaymentLog, &due, known);
        }
    }

    fn judge_table(&mut self, place: Place, table: Table, due: &[Digest], known: &Known) {
        let rows: Vec<Digest> = known
            .rows
            .iter()
            .filter(|(of, _)| *of == table)
            .map(|(_, row)| *row)
            .collect();
        if due.is_empty() && rows.is_empty() {
            return;
        }
        // Two outcomes of one place share one row; that they are two is told by promise 1.
        let holds = match rows[..] {
            [] => due.is_empty(),
            [row] => due.contains(&row),
            _ => false,
        };
        self.findings.check(Promise::Database, holds, || {
            let what = match (due.len(), rows.len()) {
                (0, _) => "too much",
                (_, 0) => "missing",
                _ => "different from its record",
            };
            format!("the row of {table:?} for source record {place} is {what}")
        });
    }
}

impl<'a> Known<'a> {
    fn of(facts: &'a [PlaceFact]) -> Self {
        let mut known = Self::default();
        for fact in facts {
            match &fact.what {
                What::Source(expected) => known.source = Some(expected),
                What::Repeat { first, is_same } => known.repeats.push((*first, *is_same)),
                What::Outcome(outcome) => known.outcomes.push(outcome),
                What::Base { at, content } => known.bases.push((*at, *content)),
                What::Row(table, row) => known.rows.push((*table, *row)),
            }
        }
        known
    }

    fn firsts(&self) -> Vec<i64> {
        self.repeats
            .iter()
            .filter_map(|(first, _)| *first)
            .collect()
    }

    /// Outcomes and bases, as an example tells them.
    fn told(&self) -> String {
        let mut parts: Vec<String> = self
            .outcomes
            .iter()
            .map(|outcome| format!("{} {}", told(outcome.kind, &outcome.reason), outcome.at))
            .collect();
        parts.extend(self.bases.iter().map(|(at, _)| format!("base {at}")));
        if self.outcomes.is_empty() {
            parts.insert(0, "no outcome".to_owned());
        }
        parts.join(", ")
    }
}

/// Whether the outcome is of the right kind, for the right reason, and names the right first.
fn is_right(place: Place, expected: &Expected, known: &Known, outcome: &Outcome) -> bool {
    if known.repeats.is_empty() {
        let is_overflow = outcome.kind == Kind::Letter && outcome.reason == "AMOUNT_OVERFLOW";
        return match expected.kind {
            // Whether a total would overflow is judged with its key, the dates with the rules.
            Kind::Settlement => outcome.kind == Kind::Settlement || is_overflow,
            kind => {
                outcome.kind == kind && outcome.reason == expected.reason && outcome.first.is_none()
            }
        };
    }
    let Some(named) = outcome.first.filter(|_| outcome.kind == Kind::Exclusion) else {
        return false;
    };
    known.repeats.iter().any(|(first, is_same)| {
        let reason = if *is_same {
            "DUPLICATE"
        } else {
            "DUPLICATE_CONFLICT"
        };
        let is_named = *first == Some(named.offset) && named.partition == place.partition;
        is_named && outcome.reason == reason
    })
}

pub(super) const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Settlement => "settlement",
        Kind::Exclusion => "exclusion",
        Kind::Letter => "dead letter",
    }
}

fn told(kind: Kind, reason: &str) -> String {
    format!("{} {reason}", name(kind)).trim_end().to_owned()
}
