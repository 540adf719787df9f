//! Compares rows of the database with what the topics held.

use crate::model::calendar;
use crate::model::duplicates::fingerprint;
use crate::model::json::Json;
use crate::model::outgoing::{Exclusion, Settlement, Totals};
use crate::model::{Place, Rule};
use crate::oracle::ledger::{Kind, Ledger};
use crate::oracle::outputs::hash_of;
use crate::oracle::promise::Promise;

/// A row of `payment_log`.
#[derive(Debug, Clone)]
pub struct LogRow {
    pub place: Place,
    pub payment_id: Option<String>,
    pub recorded_at_ms: i64,
    pub body: Option<String>,
    pub raw: Option<Vec<u8>>,
}

/// A row of `settlement`; its local time in microseconds.
#[derive(Debug, Clone)]
pub struct SettlementRow {
    pub settlement: Settlement,
    pub payment_micros: i64,
}

/// A row of `dead_letter`.
#[derive(Debug, Clone)]
pub struct DeadLetterRow {
    pub source: Place,
    pub payment_id: Option<String>,
    pub reason: String,
    pub detail: String,
    pub payload: Vec<u8>,
}

fn settlement_print(s: &Settlement, micros: i64) -> u64 {
    hash_of((
        (&s.channel, &s.payment_type, s.amount, &s.merchant, micros),
        (
            &s.action_type,
            &s.method_type,
            &s.payout_date,
            &s.confirm_date,
        ),
        (&s.basis, &s.rule_id, s.source),
    ))
}

pub(super) fn settlement_row(settlement: &Settlement) -> u64 {
    settlement_print(
        settlement,
        calendar::local_time(&settlement.payment_date).unwrap_or(i64::MIN),
    )
}

pub(super) fn exclusion_row(e: &Exclusion) -> u64 {
    hash_of((&e.reason, e.source, e.first, &e.merchant, e.amount))
}

pub(super) fn dead_letter_row(reason: &str, detail: &str, payload: &[u8]) -> u64 {
    hash_of((reason, detail, payload))
}

/// The fingerprint of a payment id in a table; `None` for one PostgreSQL cannot hold as text.
pub(super) fn row_id(key: Option<&[u8]>) -> Option<u64> {
    let text = std::str::from_utf8(key.unwrap_or_default()).ok()?;
    (!text.contains('\0')).then(|| fingerprint(text.as_bytes()))
}

fn print_of(id: Option<&str>) -> u64 {
    fingerprint(id.unwrap_or_default().as_bytes())
}

impl Ledger<'_> {
    pub fn log_row(&mut self, row: &LogRow) {
        let Some(unlogged) = &mut self.unlogged else {
            return;
        };
        let place = row.place;
        let Some(logged) = unlogged.remove(&place) else {
            return self.findings.check(Promise::Tables, false, || {
                format!("payment_log has {place}, the topic does not")
            });
        };
        let raw = row.raw.as_deref().map(fingerprint);
        let json = row.body.as_deref().and_then(Json::read);
        let body = json.map(|json| fingerprint(json.canonical().as_bytes()));
        let content = match (body, raw) {
            (None, raw) => raw == logged.raw && !logged.is_storable,
            (Some(_), None) => body == logged.body,
            (Some(_), Some(_)) => false,
        };
        let id = logged
            .id
            .is_none_or(|id| id == print_of(row.payment_id.as_deref()));
        let holds = content && id && logged.timestamp == row.recorded_at_ms;
        self.findings.check(Promise::Tables, holds, || {
            format!("payment_log {place} differs from the topic ({logged:?}): {row:?}")
        });
    }

    pub fn settlement_row(&mut self, row: &SettlementRow) {
        let s = &row.settlement;
        // The column holds microseconds; finer times may have been rounded up.
        let prints = [0, 1].map(|rounded| settlement_print(s, row.payment_micros - rounded));
        self.outcome_row(s.source, Kind::Settlement, &prints, Some(&s.payment_id));
    }

    pub fn exclusion_row(&mut self, row: &Exclusion) {
        self.outcome_row(
            row.source,
            Kind::Exclusion,
            &[exclusion_row(row)],
            row.payment_id.as_deref(),
        );
    }

    pub fn dead_letter_row(&mut self, row: &DeadLetterRow) {
        let print = dead_letter_row(&row.reason, &row.detail, &row.payload);
        self.outcome_row(
            row.source,
            Kind::DeadLetter,
            &[print],
            row.payment_id.as_deref(),
        );
    }

    fn outcome_row(&mut self, source: Place, kind: Kind, prints: &[u64], id: Option<&str>) {
        let Some(outcome) = self
            .outcomes
            .get_mut(&source)
            .filter(|outcome| outcome.kind == kind)
        else {
            return self.findings.check(Promise::Tables, false, || {
                format!("the table of {kind}s has {source}, the topic does not")
            });
        };
        outcome.has_row = true;
        let same_id = outcome.row_id.is_none_or(|known| known == print_of(id));
        let holds = prints.contains(&outcome.row) && same_id;
        self.findings.check(Promise::Tables, holds, || {
            format!("the row of {source} in the table of {kind}s differs from {outcome}")
        });
    }

    pub fn rule_row(&mut self, rule_key: &str, rule: &Rule) {
        let in_force = self.keys.find(rule_key).and_then(|key| {
            key.has_rule_row = true;
            key.in_force.clone()
        });
        self.findings
            .check(Promise::Tables, in_force.as_ref() == Some(rule), || {
                format!("payout_rule says {rule_key} is {rule:?}, the topic says {in_force:?}")
            });
    }

    pub fn statistics_row(&mut self, rule_key: &str, totals: Totals) {
        let latest = self.keys.find(rule_key).and_then(|key| {
            key.has_statistics_row = true;
            key.latest
        });
        self.findings
            .check(Promise::Tables, latest == Some(totals), || {
                format!(
                    "the table statistics says {rule_key} is {totals}, the topic says {latest:?}"
                )
            });
    }

    pub(super) fn close_tables(&mut self) {
        let Some(unlogged) = &self.unlogged else {
            return;
        };
        let mut missing: Vec<String> = unlogged
            .keys()
            .map(|place| format!("payment_log lacks {place}"))
            .collect();
        for (source, outcome) in self.outcomes.iter().filter(|(_, outcome)| !outcome.has_row) {
            missing.push(format!("the table of {}s lacks {source}", outcome.kind));
        }
        for key in self.keys.iter() {
            if key.in_force.is_some() && !key.has_rule_row {
                missing.push(format!("payout_rule lacks {}", key.name));
            }
            if key.latest.is_some() && !key.has_statistics_row {
                missing.push(format!("the table statistics lacks {}", key.name));
            }
        }
        for found in missing {
            self.findings.breach(Promise::Tables, || found);
        }
    }
}
