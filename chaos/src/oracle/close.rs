//! The end of the reading: what must agree once everything is known.

use crate::model::Place;
use crate::model::outgoing::Totals;
use crate::oracle::ledger::{Key, Ledger};
use crate::oracle::promise::{Findings, Promise};

impl Ledger<'_> {
    /// Compares keys, outcomes and rows that are left over.
    pub fn close(&mut self) {
        for (source, outcome) in self
            .outcomes
            .iter()
            .filter(|(_, outcome)| !outcome.is_matched)
        {
            self.findings.breach(Promise::Outcomes, || {
                format!("{outcome} says it comes from {source}, which is no record")
            });
        }
        for key in self.keys.iter() {
            totals(key, &mut self.findings);
            versions(key, &mut self.findings);
            overflows(key, &mut self.findings);
            let name = &key.name;
            self.findings
                .check(Promise::AtRest, key.bases == key.expected_bases, || {
                    format!(
                        "{name} has {} bases for {} payments that passed ingest",
                        key.bases, key.expected_bases
                    )
                });
        }
        self.close_tables();
    }

    /// One entry of the answer of `/api/aggregation-data/all`.
    pub fn answer(&mut self, rule_key: &str, totals: Totals) {
        let Some(key) = self.keys.find(rule_key) else {
            return self.findings.check(Promise::Http, false, || {
                format!("HTTP knows {rule_key}, no topic does")
            });
        };
        let agrees = key.latest == Some(totals) && !key.has_answer;
        let (latest, again) = (key.latest, key.has_answer);
        key.has_answer = true;
        self.findings.check(Promise::Http, agrees, || {
            let twice = if again { ", and twice" } else { "" };
            format!("HTTP says {rule_key} is {totals}, the topic says {latest:?}{twice}")
        });
    }

    /// After all answers: no key is missing among them.
    pub fn close_answers(&mut self) {
        for key in self
            .keys
            .iter()
            .filter(|key| key.latest.is_some() && !key.has_answer)
        {
            self.findings
                .breach(Promise::Http, || format!("HTTP does not know {}", key.name));
        }
    }
}

fn totals(key: &Key, findings: &mut Findings) {
    let expected = (key.expected_count, key.expected_amount);
    let latest = key.latest.unwrap_or_default();
    findings.check(
        Promise::Totals,
        (latest.count, i128::from(latest.amount)) == expected,
        || {
            format!(
                "{}: the statistics say {latest}, the input says {} of {} payments",
                key.name, expected.1, expected.0
            )
        },
    );
}

/// The last version is a matter of the totals; a wrong outcome makes the order meaningless.
fn versions(key: &Key, findings: &mut Findings) {
    if let Some((totals, found)) = &key.odd_version
        && !key.is_tainted
        && key.latest != Some(*totals)
    {
        findings.breach(Promise::Versions, || found.clone());
    }
}

/// A payment was rightly refused for overflow if the total would have left 64 bits at some place between the
/// settlements of its own source partition that come before and after it.
fn overflows(key: &Key, findings: &mut Findings) {
    let rightly = |source: Place, amount: i64| {
        let same = |place: &Place| place.partition == source.partition;
        let after = key
            .settled
            .iter()
            .rposition(|(place, _)| same(place) && place.offset < source.offset);
        let before = key
            .settled
            .iter()
            .position(|(place, _)| same(place) && place.offset > source.offset);
        let from = after.map_or(0, |index| index + 1);
        let to = before.unwrap_or(key.settled.len());
        (from..=to.max(from)).any(|index| {
            let sum = index.checked_sub(1).map_or(0, |last| key.settled[last].1);
            i64::try_from(sum + i128::from(amount)).is_err()
        })
    };
    for &(source, amount) in &key.overflows {
        findings.check(Promise::Outcomes, rightly(source, amount), || {
            format!(
                "{source} was refused for overflow of {}, which its amount {amount} never causes",
                key.name
            )
        });
    }
}
