//! The handles of one worker, resolved once, so that counting costs an atomic addition.

use std::time::Duration;

use ::metrics::{Counter, Histogram};

use crate::domain::classify::{Defect, Exclusion};
use crate::metrics::{
    AMOUNT, BASES, CHECKPOINT_DURATION, COMMIT_DURATION, CONSUMED, DUPLICATE_CHECKS, END_TO_END,
    FAILURES, POSITIONS_REPAIRED, PRODUCER_REPLACEMENTS, REBALANCES, RECORDS, RESTORE_READ,
    RESTORES, RULE_LOOKUPS, TRANSACTION_SENT, TRANSACTIONS,
};

/// Why a producer was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    Start,
    /// A request of the last transaction was answered with an error or not at all, although the
    /// call that sent it succeeded; or a connection broke.
    Suspect,
    Error,
}

/// What the group asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebalance {
    Assigned,
    Revoked,
    Lost,
}

/// How a needed rule was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    Known,
    Asked,
    Absent,
}

/// What was done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    Wait,
    Recover,
    /// Recovered from a producer that another one has fenced.
    Fenced,
    Rejoin,
    Rebuild,
    Stop,
}

impl Reaction {
    const NAMES: [&str; 6] = ["wait", "recover", "fenced", "rejoin", "rebuild", "stop"];
}

/// What became of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Settlement,
    Exclusion,
    DeadLetter,
}

impl Outcome {
    const NAMES: [&str; 3] = ["settlement", "exclusion", "dead_letter"];
}

/// Amounts of one batch, each sign by itself: a counter never goes back.
#[derive(Debug, Default, Clone, Copy)]
pub struct Amounts {
    positive: u64,
    negative: u64,
}

impl Amounts {
    pub fn add(&mut self, amount: i64) {
        let sum = if amount < 0 {
            &mut self.negative
        } else {
            &mut self.positive
        };
        *sum = sum.saturating_add(amount.unsigned_abs());
    }
}

/// Metrics of one worker. Records are counted when their transaction has committed.
#[derive(Debug, Clone)]
pub struct Worker {
    pub settled: Counter,
    pub ingested: Counter,
    /// Bases that were settled or refused.
    pub bases_done: Counter,
    pub bases: Counter,
    pub duplicates_checked: Counter,
    pub transactions_committed: Counter,
    /// The transaction was ended by the producer that replaced the one that had begun it.
    pub transactions_replaced: Counter,
    pub transaction_records: Histogram,
    /// Seconds from begin to the return of commit.
    pub commit_duration: Histogram,
    pub positions_repaired: Counter,
    pub restores: Counter,
    pub restore_records: Counter,
    /// Seconds.
    pub checkpoint_duration: Histogram,
    end_to_end: Histogram,
    excluded: [Counter; Exclusion::ALL.len()],
    dead_letters: [Counter; Defect::ALL.len()],
    replacements: [Counter; 3],
    rebalances: [Counter; 3],
    lookups: [Counter; 3],
    failures: [Counter; Reaction::NAMES.len()],
    /// Positive, negative.
    amounts: [[Counter; 2]; Outcome::NAMES.len()],
}

impl Worker {
    /// The handles of the worker with this number; all its counters exist from now on, at 0.
    pub fn new(worker: usize) -> Self {
        let worker = worker.to_string();
        let of = |value| [worker.as_str(), value];
        Self {
            settled: RECORDS.counter(&["settlement", ""]),
            ingested: CONSUMED.counter(&["ingest"]),
            bases_done: CONSUMED.counter(&["settle"]),
            bases: BASES.counter(&[]),
            duplicates_checked: DUPLICATE_CHECKS.counter(&[]),
            transactions_committed: TRANSACTIONS.counter(&of("committed")),
            transactions_replaced: TRANSACTIONS.counter(&of("replaced")),
            transaction_records: TRANSACTION_SENT.histogram(&[]),
            commit_duration: COMMIT_DURATION.histogram(&[]),
            positions_repaired: POSITIONS_REPAIRED.counter(&[]),
            restores: RESTORES.counter(&[]),
            restore_records: RESTORE_READ.counter(&[]),
            checkpoint_duration: CHECKPOINT_DURATION.histogram(&[]),
            end_to_end: END_TO_END.histogram(&[]),
            excluded: Exclusion::ALL.map(|why| RECORDS.counter(&["exclusion", why.as_str()])),
            dead_letters: Defect::ALL.map(|why| RECORDS.counter(&["dead_letter", why.as_str()])),
            replacements: ["start", "suspect", "error"]
                .map(|cause| PRODUCER_REPLACEMENTS.counter(&of(cause))),
            rebalances: ["assigned", "revoked", "lost"].map(|kind| REBALANCES.counter(&of(kind))),
            lookups: ["known", "asked", "absent"].map(|result| RULE_LOOKUPS.counter(&[result])),
            failures: Reaction::NAMES.map(|reaction| FAILURES.counter(&of(reaction))),
            amounts: Outcome::NAMES.map(|outcome| {
                ["positive", "negative"].map(|sign| AMOUNT.counter(&[outcome, sign]))
            }),
        }
    }

    /// One committed exclusion.
    pub fn excluded(&self, reason: Exclusion) {
        self.excluded[reason as usize].increment(1);
    }

    /// One committed dead letter.
    pub fn dead_letter(&self, defect: Defect) {
        self.dead_letters[defect as usize].increment(1);
    }

    /// `count` settlements were committed `latency` after their payments' record timestamps.
    pub fn end_to_end(&self, latency: Duration, count: u64) {
        let count = usize::try_from(count).expect("a batch fits into memory");
        self.end_to_end.record_many(latency, count);
    }

    /// So much money was committed with this outcome.
    pub fn amount(&self, outcome: Outcome, amounts: Amounts) {
        let [positive, negative] = &self.amounts[outcome as usize];
        positive.increment(amounts.positive);
        negative.increment(amounts.negative);
    }

    pub fn failed(&self, reaction: Reaction) {
        self.failures[reaction as usize].increment(1);
    }

    pub fn producer_replaced(&self, cause: Replacement) {
        self.replacements[cause as usize].increment(1);
    }

    pub fn rebalanced(&self, kind: Rebalance) {
        self.rebalances[kind as usize].increment(1);
    }

    pub fn looked_up(&self, result: Lookup, count: u64) {
        self.lookups[result as usize].increment(count);
    }
}

#[cfg(test)]
mod tests {
    use ::metrics::with_local_recorder;

    use super::*;
    use crate::metrics::exporter::recorder;

    /// What is rendered after `count` has been called with a fresh worker.
    fn counted(count: impl FnOnce(&Worker)) -> String {
        let recorder = recorder();
        with_local_recorder(&recorder, || count(&Worker::new(7)));
        recorder.handle().render()
    }

    fn assert_counted(text: &str, series: &str) {
        let mut ones = text.lines().filter(|line| line.ends_with("} 1"));
        assert_eq!(ones.next(), Some(format!("{series} 1").as_str()), "{text}");
        assert_eq!(ones.next(), None, "{text}");
    }

    #[test]
    fn every_reason_counts_under_its_own_name() {
        let series = |outcome, reason| {
            format!("settle_records_total{{outcome=\"{outcome}\",reason=\"{reason}\"}}")
        };
        for why in Exclusion::ALL {
            let text = counted(|worker| worker.excluded(why));
            assert_counted(&text, &series("exclusion", why.as_str()));
        }
        for why in Defect::ALL {
            let text = counted(|worker| worker.dead_letter(why));
            assert_counted(&text, &series("dead_letter", why.as_str()));
        }
    }

    #[test]
    fn every_cause_kind_and_result_counts_under_its_own_name() {
        for (cause, name) in [
            (Replacement::Start, "start"),
            (Replacement::Suspect, "suspect"),
            (Replacement::Error, "error"),
        ] {
            let text = counted(|worker| worker.producer_replaced(cause));
            let labels = format!("{{worker=\"7\",cause=\"{name}\"}}");
            assert_counted(
                &text,
                &format!("settle_producer_replacements_total{labels}"),
            );
        }
        for (kind, name) in [
            (Rebalance::Assigned, "assigned"),
            (Rebalance::Revoked, "revoked"),
            (Rebalance::Lost, "lost"),
        ] {
            let text = counted(|worker| worker.rebalanced(kind));
            let labels = format!("{{worker=\"7\",kind=\"{name}\"}}");
            assert_counted(&text, &format!("settle_rebalances_total{labels}"));
        }
        for (result, name) in [
            (Lookup::Known, "known"),
            (Lookup::Asked, "asked"),
            (Lookup::Absent, "absent"),
        ] {
            let text = counted(|worker| worker.looked_up(result, 1));
            assert_counted(
                &text,
                &format!("settle_rule_lookups_total{{result=\"{name}\"}}"),
            );
        }
    }

    #[test]
    fn every_reaction_and_every_outcome_of_money_counts_under_its_own_name() {
        for (reaction, name) in [
            (Reaction::Wait, "wait"),
            (Reaction::Recover, "recover"),
            (Reaction::Fenced, "fenced"),
            (Reaction::Rejoin, "rejoin"),
            (Reaction::Rebuild, "rebuild"),
            (Reaction::Stop, "stop"),
        ] {
            let text = counted(|worker| worker.failed(reaction));
            let labels = format!("{{worker=\"7\",reaction=\"{name}\"}}");
            assert_counted(&text, &format!("settle_failures_total{labels}"));
        }
        for (outcome, name) in [
            (Outcome::Settlement, "settlement"),
            (Outcome::Exclusion, "exclusion"),
            (Outcome::DeadLetter, "dead_letter"),
        ] {
            for (amount, sign) in [(1, "positive"), (-1, "negative")] {
                let mut amounts = Amounts::default();
                amounts.add(amount);
                let text = counted(|worker| worker.amount(outcome, amounts));
                let labels = format!("{{outcome=\"{name}\",sign=\"{sign}\"}}");
                assert_counted(&text, &format!("settle_amount_total{labels}"));
            }
        }
    }

    #[test]
    fn the_amounts_of_a_batch_end_at_the_largest_number() {
        let mut amounts = Amounts::default();
        for _ in 0..3 {
            amounts.add(i64::MAX);
            amounts.add(i64::MIN);
        }
        assert_eq!((amounts.positive, amounts.negative), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_group_of_settlements_counts_as_many() {
        let text = counted(|worker| worker.end_to_end(Duration::from_millis(50), 40));
        assert!(
            text.contains("settle_end_to_end_seconds_bucket{le=\"0.045\"} 0\n"),
            "{text}"
        );
        assert!(
            text.contains("settle_end_to_end_seconds_bucket{le=\"0.075\"} 40\n"),
            "{text}"
        );
    }
}
