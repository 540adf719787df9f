//! Reads the committed outgoing records into the ledger and checks each by itself: format, place, rule, rise.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use crate::model::calendar;
use crate::model::duplicates::fingerprint;
use crate::model::json::Json;
use crate::model::outgoing::{self, Exclusion, Settlement, Totals};
use crate::model::{Place, Record, partition};
use crate::oracle::ledger::{Kind, Ledger, Outcome};
use crate::oracle::promise::Promise;
use crate::oracle::tables;

pub(super) fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Everything of a settlement that its payment decides.
pub(super) fn core_of(s: &Settlement) -> u64 {
    hash_of((
        (&s.payment_id, &s.channel, &s.payment_type, s.amount),
        (
            &s.merchant,
            &s.payment_date,
            &s.action_type,
            &s.method_type,
            s.source,
        ),
    ))
}

pub(super) fn exclusion_core(e: &Exclusion) -> u64 {
    hash_of((&e.payment_id, e.source, e.first, &e.merchant, e.amount))
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".to_owned(), |bytes| {
        String::from_utf8_lossy(bytes).into_owned()
    })
}

impl Ledger<'_> {
    pub(super) fn key(&mut self, name: &str) -> usize {
        self.keys.number(name, self.service)
    }

    fn check_place(&mut self, topic: &str, record: &Record, expected: i32) {
        let place = record.place();
        self.findings
            .check(Promise::Placement, record.partition == expected, || {
                format!("{topic}/{place} belongs to partition {expected}")
            });
    }

    fn check_keyed_place(&mut self, topic: &str, record: &Record, rule_key: &str) {
        let expected = partition::of(rule_key.as_bytes(), self.shape.keyed);
        self.check_place(topic, record, expected);
    }

    fn check_bytes(&mut self, topic: &str, record: &Record, actual: Option<&[u8]>, expected: &str) {
        let place = record.place();
        self.findings
            .check(Promise::Format, actual == Some(expected.as_bytes()), || {
                format!(
                    "{topic}/{place} holds {} instead of {expected}",
                    text(actual)
                )
            });
    }

    fn unreadable(&mut self, topic: &str, record: &Record) {
        let place = record.place();
        self.findings.check(Promise::Format, false, || {
            format!(
                "{topic}/{place} is no such record: {} -> {}",
                text(record.key),
                text(record.value)
            )
        });
    }

    /// A record of the rules topic.
    pub fn rule(&mut self, record: &Record) {
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let Some(name) = key.filter(|name| outgoing::fields(name).is_some()) else {
            // Anyone may publish rules; what is none is ignored by contract.
            return;
        };
        let number = self.key(name);
        let Some(value) = record.value else {
            self.keys[number].in_force = None;
            return;
        };
        let Some(rule) = outgoing::read_rule(name, value) else {
            return;
        };
        self.check_keyed_place("payout-rules", record, name);
        let place = record.place();
        let key = &mut self.keys[number];
        let is_of_service = key
            .service
            .as_ref()
            .is_some_and(|known| known.id == rule.id);
        if is_of_service || !self.contract.has_foreign_rules {
            let answers = key.service.as_ref() == Some(&rule);
            self.findings.check(Promise::Rules, answers, || {
                format!(
                    "payout-rules/{place} for {name} is {rule:?}, the rule service says {:?}",
                    key.service
                )
            });
        }
        if is_of_service {
            let expected = outgoing::rule_record(name, &rule).expect("the key was split above");
            self.check_bytes("payout-rules", record, record.value, &expected);
        }
        let key = &mut self.keys[number];
        if !key.published.contains(&rule) {
            key.published.push(rule.clone());
        }
        key.in_force = Some(rule);
    }

    /// A record of the settlements topic.
    pub fn settlement(&mut self, record: &Record) {
        let Some(settlement) = record.value.and_then(Settlement::read) else {
            return self.unreadable("settlements", record);
        };
        self.check_bytes("settlements", record, record.value, &settlement.render());
        self.check_bytes("settlements", record, record.key, &settlement.payment_id);
        let name = settlement.rule_key();
        self.check_keyed_place("settlements", record, &name);
        let number = self.key(&name);
        self.check_dates(record, &settlement, number);
        let key = &mut self.keys[number];
        let sum = key.sum() + i128::from(settlement.amount);
        key.settled.push((settlement.source, sum));
        if i64::try_from(sum).is_err() {
            self.findings.breach(Promise::Totals, || {
                format!("the total of {name} leaves 64 bits: {sum}")
            });
        }
        let outcome = Outcome {
            kind: Kind::Settlement,
            reason: self.reason(&settlement.basis),
            at: record.place(),
            content: core_of(&settlement),
            value: None,
            row: tables::settlement_row(&settlement),
            row_id: Some(fingerprint(settlement.payment_id.as_bytes())),
            is_matched: false,
            has_row: false,
        };
        if !self.outcome(settlement.source, outcome) {
            self.keys[number].is_tainted = true;
        }
    }

    fn check_dates(&mut self, record: &Record, settlement: &Settlement, number: usize) {
        let key = &self.keys[number];
        let place = record.place();
        let dates = (
            settlement.payout_date.as_str(),
            settlement.confirm_date.as_str(),
        );
        let wrong = match (settlement.basis.as_str(), &settlement.rule_id) {
            ("RULE", Some(id)) => match key.published.iter().find(|rule| rule.id == *id) {
                None => Some(format!(
                    "names the rule {id}, which is not in payout-rules for {}",
                    key.name
                )),
                Some(rule) if (rule.payout_date.as_str(), rule.confirm_date.as_str()) != dates => {
                    Some(format!("has the dates {dates:?}, its rule is {rule:?}"))
                }
                Some(_) => None,
            },
            ("DEFAULT", None) => {
                let day = calendar::day(settlement.day())
                    .map(|day| day + self.contract.default_payout_days);
                let expected = day.map(calendar::iso).unwrap_or_default();
                if key.service.is_some() {
                    Some(format!(
                        "has default dates, {} has the rule {:?}",
                        key.name, key.service
                    ))
                } else if dates != (expected.as_str(), expected.as_str()) {
                    Some(format!(
                        "has the default dates {dates:?} instead of {expected}"
                    ))
                } else {
                    None
                }
            }
            (basis, id) => Some(format!("has the basis {basis} with the rule {id:?}")),
        };
        self.findings.check(Promise::Rules, wrong.is_none(), || {
            format!("settlements/{place} {}", wrong.unwrap_or_default())
        });
    }

    /// A record of the exclusions topic.
    pub fn exclusion(&mut self, record: &Record) {
        let Some(exclusion) = record.value.and_then(Exclusion::read) else {
            return self.unreadable("settlement-exclusions", record);
        };
        self.check_bytes(
            "settlement-exclusions",
            record,
            record.value,
            &exclusion.render(),
        );
        if let Some(id) = &exclusion.payment_id {
            self.check_bytes("settlement-exclusions", record, record.key, id);
        }
        let expected = exclusion.source.partition % self.shape.exclusions;
        self.check_place("settlement-exclusions", record, expected);
        let outcome = Outcome {
            kind: Kind::Exclusion,
            reason: self.reason(&exclusion.reason),
            at: record.place(),
            content: exclusion_core(&exclusion),
            value: None,
            row: tables::exclusion_row(&exclusion),
            row_id: tables::row_id(exclusion.payment_id.as_deref().map(str::as_bytes)),
            is_matched: false,
            has_row: false,
        };
        self.outcome(exclusion.source, outcome);
    }

    /// A record of the dead letter topic.
    pub fn dead_letter(&mut self, record: &Record) {
        let header = |name: &str| {
            record
                .header(name)
                .and_then(|value| std::str::from_utf8(value).ok())
        };
        let source = header("settle-source").and_then(|source| self.source_of(source));
        let (Some(reason), Some(detail), Some(source)) =
            (header("settle-reason"), header("settle-detail"), source)
        else {
            return self.unreadable("payments-dead-letter", record);
        };
        let place = record.place();
        let one_line = !detail.is_empty() && !detail.contains(['\n', '\r']);
        self.findings.check(Promise::Format, one_line, || {
            format!("payments-dead-letter/{place} has a detail that is not one line: {detail:?}")
        });
        self.check_place(
            "payments-dead-letter",
            record,
            source.partition % self.shape.dead_letters,
        );
        let value = record.value.unwrap_or_default();
        let cut = header("settle-truncated").and_then(|length| length.parse().ok());
        let outcome = Outcome {
            kind: Kind::DeadLetter,
            reason: self.reason(reason),
            at: place,
            content: hash_of((record.key, record.value.is_some())),
            value: Some((value.len(), fingerprint(value), cut)),
            row: tables::dead_letter_row(reason, detail, value),
            row_id: tables::row_id(record.key),
            is_matched: false,
            has_row: false,
        };
        self.outcome(source, outcome);
    }

    fn source_of(&self, header: &str) -> Option<Place> {
        let (partition, offset) = header
            .strip_prefix(&self.contract.source_topic)?
            .strip_prefix('/')?
            .split_once('/')?;
        Some(Place {
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }

    /// Takes note of an outcome; false when the source record already has one.
    fn outcome(&mut self, source: Place, outcome: Outcome) -> bool {
        if let Some(before) = self.outcomes.get(&source) {
            self.findings.breach(Promise::Outcomes, || {
                format!("{source} has two outcomes: {before} and {outcome}")
            });
            return false;
        }
        self.outcomes.insert(source, outcome);
        true
    }

    /// A record of the statistics topic; the settlements are known already.
    pub fn statistics(&mut self, record: &Record) {
        let json = |bytes: Option<&'_ [u8]>| {
            bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
        };
        let (Some(key_text), Some(value_text)) = (json(record.key), json(record.value)) else {
            return self.unreadable("settlement-statistics", record);
        };
        let name = Json::read(&key_text).and_then(|key| outgoing::statistics_rule_key(&key));
        let totals = Json::read(&value_text).and_then(|value| Totals::read(&value));
        let (Some(name), Some(totals)) = (name, totals) else {
            return self.unreadable("settlement-statistics", record);
        };
        self.check_bytes(
            "settlement-statistics",
            record,
            record.key,
            &outgoing::statistics_key(&name).unwrap_or_default(),
        );
        self.check_bytes(
            "settlement-statistics",
            record,
            record.value,
            &totals.render(),
        );
        self.check_keyed_place("settlement-statistics", record, &name);
        let number = self.key(&name);
        let place = record.place();
        let run = self.runs.entry(record.partition).or_default();
        if let Some(lost) = run.come_to(record) {
            self.findings.breach(Promise::Versions, || {
                format!("settlement-statistics/{place}: no marker ends the transaction before, also of {lost}")
            });
        }
        let is_new = run.seen.insert(number);
        let key = &mut self.keys[number];
        let rises = key.latest.is_none_or(|before| before.count < totals.count);
        self.findings.check(Promise::Versions, is_new && rises, || {
            let wrong = if rises {
                "comes twice in one transaction"
            } else {
                "does not rise"
            };
            format!(
                "settlement-statistics/{place}: the count {} of {name} {wrong}",
                totals.count
            )
        });
        let summed = usize::try_from(totals.count.saturating_sub(1))
            .ok()
            .and_then(|index| key.settled.get(index));
        if key.odd_version.is_none()
            && summed.is_none_or(|(_, sum)| *sum != i128::from(totals.amount))
        {
            let sum = summed.map(|(_, sum)| sum);
            let found = format!(
                "settlement-statistics/{place}: {name} is {totals}, the settlements give {sum:?}"
            );
            key.odd_version = Some((totals, found));
        }
        key.latest = Some(totals);
    }

    /// A record of the bases topic.
    pub fn base(&mut self, record: &Record) {
        let name = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let Some(name) = name.filter(|name| outgoing::fields(name).is_some()) else {
            // Keys that begin with `@` are the service's own marks.
            if name.is_none_or(|name| !name.starts_with('@')) {
                self.unreadable("settlement-bases", record);
            }
            return;
        };
        self.check_keyed_place("settlement-bases", record, name);
        let number = self.key(name);
        self.keys[number].bases += 1;
        self.bases += 1;
    }

    /// A record of the changelog; only its place is part of the contract.
    pub fn changelog(&mut self, record: &Record) {
        let name = record.key.and_then(|key| std::str::from_utf8(key).ok());
        if let Some(name) = name.filter(|name| !name.starts_with('@')) {
            self.check_keyed_place("settlement-changelog", record, name);
        }
    }
}
