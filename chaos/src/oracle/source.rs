//! Replays the source: what the contract says of each record is compared with the outcome that was read.

use crate::model::duplicates::{First, Repeat, fingerprint};
use crate::model::json::Json;
use crate::model::outgoing::{Exclusion, Settlement};
use crate::model::payment::{self, Message, Payment};
use crate::model::{Place, Record};
use crate::oracle::ledger::{Kind, Ledger, Logged, Outcome};
use crate::oracle::outputs::{core_of, exclusion_core, hash_of};
use crate::oracle::promise::Promise;
use crate::oracle::tables;

/// A dead letter may be cut only when its value is about as long as a message can be.
const SHORTEST_CUT: usize = 500_000;

/// One outcome the contract allows.
struct Expected {
    kind: Kind,
    reason: &'static str,
    content: u64,
}

impl Ledger<'_> {
    /// A record of the source topic; each partition in the order of its offsets, all outcomes are known already.
    pub fn payment(&mut self, record: &Record) {
        self.sources += 1;
        self.log(record);
        match payment::read(record) {
            Message::Dead(reason) => self.expect(record, &[dead_letter(record, reason)]),
            Message::Excluded(reason) => {
                let exclusion = Exclusion {
                    payment_id: payment::id_of(record).map(str::to_owned),
                    reason: reason.to_owned(),
                    source: record.place(),
                    first: None,
                    merchant: None,
                    amount: None,
                };
                self.expect(record, &[excluded(&exclusion, reason)]);
            }
            Message::Payment(payment) => self.well_formed(record, &payment),
        }
    }

    fn well_formed(&mut self, record: &Record, payment: &Payment) {
        let value = fingerprint(record.value.unwrap_or_default());
        let memory = self.memory.entry(record.partition).or_default();
        let repeat = memory.look(&payment.id, record.timestamp, self.contract.window_ms);
        let is_repeat = match &repeat {
            Repeat::New => false,
            Repeat::Of(_) => true,
            Repeat::OfOrNew(_) => {
                let actual = self.outcomes.get(&record.place());
                actual.is_some_and(|outcome| outcome.reason.starts_with("DUPLICATE"))
            }
        };
        if let (true, Repeat::Of(firsts) | Repeat::OfOrNew(firsts)) = (is_repeat, &repeat) {
            let allowed: Vec<Expected> = firsts
                .iter()
                .map(|first| {
                    let reason = first.reason(value);
                    let place = Place {
                        partition: record.partition,
                        offset: first.offset,
                    };
                    excluded(&exclusion_of(record, payment, reason, Some(place)), reason)
                })
                .collect();
            return self.expect(record, &allowed);
        }
        memory_of(self, record, payment, value);
        match payment.exclusion(self.contract) {
            Some(reason) => {
                self.expect(
                    record,
                    &[excluded(
                        &exclusion_of(record, payment, reason, None),
                        reason,
                    )],
                );
            }
            None => self.settled(record, payment),
        }
    }

    fn settled(&mut self, record: &Record, payment: &Payment) {
        let place = record.place();
        let number = self.key(&payment.rule_key());
        let settlement = Settlement::of(payment, place, None, "");
        let expected = [
            Expected {
                kind: Kind::Settlement,
                reason: "",
                content: core_of(&settlement),
            },
            dead_letter(record, "AMOUNT_OVERFLOW"),
        ];
        let actual = self
            .outcomes
            .get(&place)
            .map(|outcome| (outcome.kind, outcome.content, outcome.reason.clone()));
        let key = &mut self.keys[number];
        key.expected_bases += 1;
        match actual {
            Some((Kind::DeadLetter, _, reason)) if *reason == *"AMOUNT_OVERFLOW" => {
                key.overflows.push((place, payment.amount));
            }
            actual => {
                key.expected_count += 1;
                key.expected_amount += i128::from(payment.amount);
                if actual.is_none_or(|(kind, content, _)| {
                    kind != Kind::Settlement || content != expected[0].content
                }) {
                    key.is_tainted = true;
                }
            }
        }
        self.expect(record, &expected);
    }

    fn expect(&mut self, record: &Record, allowed: &[Expected]) {
        let source = record.place();
        let names = || {
            let names: Vec<_> = allowed
                .iter()
                .map(|e| format!("{} {}", e.kind, e.reason))
                .collect();
            names.join(" or ")
        };
        let Some(outcome) = self.outcomes.get_mut(&source) else {
            return self.findings.check(Promise::Outcomes, false, || {
                format!("{source} has no outcome, due is: {}", names())
            });
        };
        outcome.is_matched = true;
        let fitting = |expected: &&Expected| {
            expected.kind == outcome.kind
                && (expected.kind == Kind::Settlement || *expected.reason == *outcome.reason)
        };
        let fits: Vec<&Expected> = allowed.iter().filter(fitting).collect();
        self.findings
            .check(Promise::Outcomes, !fits.is_empty(), || {
                format!("{source} has the outcome {outcome}, due is: {}", names())
            });
        if !fits.is_empty() {
            let same = fits
                .iter()
                .any(|expected| expected.content == outcome.content)
                && same_value(outcome, record);
            self.findings.check(Promise::Content, same, || {
                let value = String::from_utf8_lossy(record.value.unwrap_or_default())
                    .chars()
                    .take(300)
                    .collect::<String>();
                format!("{source} and its {outcome} disagree; the source record is {value}")
            });
        }
    }

    fn log(&mut self, record: &Record) {
        let Some(unlogged) = &mut self.unlogged else {
            return;
        };
        let json = record
            .value
            .and_then(|value| std::str::from_utf8(value).ok())
            .and_then(Json::read);
        unlogged.insert(
            record.place(),
            Logged {
                timestamp: record.timestamp,
                id: tables::row_id(record.key),
                raw: record.value.map(fingerprint),
                is_storable: json.as_ref().is_some_and(Json::storable),
                body: json.map(|json| fingerprint(json.canonical().as_bytes())),
            },
        );
    }
}

fn memory_of(ledger: &mut Ledger, record: &Record, payment: &Payment, value: u64) {
    let first = First {
        offset: record.offset,
        timestamp: record.timestamp,
        value,
    };
    ledger
        .memory
        .entry(record.partition)
        .or_default()
        .remember(&payment.id, first);
}

fn exclusion_of(
    record: &Record,
    payment: &Payment,
    reason: &str,
    first: Option<Place>,
) -> Exclusion {
    Exclusion {
        payment_id: Some(payment.id.clone()),
        reason: reason.to_owned(),
        source: record.place(),
        first,
        merchant: Some(payment.merchant.clone()),
        amount: Some(payment.amount),
    }
}

fn excluded(exclusion: &Exclusion, reason: &'static str) -> Expected {
    Expected {
        kind: Kind::Exclusion,
        reason,
        content: exclusion_core(exclusion),
    }
}

fn dead_letter(record: &Record, reason: &'static str) -> Expected {
    Expected {
        kind: Kind::DeadLetter,
        reason,
        content: hash_of((record.key, record.value.is_some())),
    }
}

/// The original bytes, or their beginning with the original length.
fn same_value(outcome: &Outcome, record: &Record) -> bool {
    let Some((length, print, cut)) = outcome.value else {
        return true;
    };
    let value = record.value.unwrap_or_default();
    match cut {
        None => length == value.len() && print == fingerprint(value),
        Some(original) => {
            original == value.len()
                && original >= SHORTEST_CUT
                && length < original
                && print == fingerprint(&value[..length])
        }
    }
}
