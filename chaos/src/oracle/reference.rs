//! A settle of a few lines for tests of the proof: makes from messages what a perfect run leaves behind.

use std::collections::BTreeMap;

use crate::model::duplicates::{self, First, Repeat, fingerprint};
use crate::model::outgoing::{self, Exclusion, Settlement, Totals};
use crate::model::payment::{self, Message as Read, Payment};
use crate::model::{Contract, Place, Record, Rule, calendar, partition};
use crate::oracle::ledger::{Ledger, Shape};
use crate::oracle::promise::Findings;
use crate::oracle::tables::{DeadLetterRow, LogRow, SettlementRow};
use crate::workload::Message;

const PER_TRANSACTION: usize = 20;

#[derive(Debug, Clone)]
pub struct Stored {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

impl Stored {
    pub fn record(&self) -> Record<'_> {
        Record {
            partition: self.partition,
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (*name, Some(value.as_slice())))
                .collect(),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.value.clone().unwrap()).unwrap()
    }

    pub fn replace(&mut self, from: &str, to: &str) {
        let text = self.text();
        assert!(text.contains(from), "{text} lacks {from}");
        self.value = Some(text.replacen(from, to, 1).into_bytes());
    }
}

/// A topic under construction.
#[derive(Debug, Clone, Default)]
pub struct Topic {
    pub records: Vec<Stored>,
    ends: BTreeMap<i32, i64>,
}

impl Topic {
    pub fn push(
        &mut self,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> &mut Stored {
        let end = self.ends.entry(partition).or_default();
        self.records.push(Stored {
            partition,
            offset: *end,
            timestamp: 1_000_000 + *end,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        });
        *end += 1;
        self.records.last_mut().expect("just pushed")
    }

    /// The control record at the end of a transaction.
    fn mark(&mut self) {
        self.ends.values_mut().for_each(|end| *end += 1);
    }
}

/// All that a run leaves behind.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    pub source: Topic,
    pub rules: Topic,
    pub bases: Topic,
    pub settlements: Topic,
    pub exclusions: Topic,
    pub dead_letters: Topic,
    pub statistics: Topic,
    pub log_rows: Vec<LogRow>,
    pub settlement_rows: Vec<SettlementRow>,
    pub exclusion_rows: Vec<Exclusion>,
    pub dead_letter_rows: Vec<DeadLetterRow>,
    pub rule_rows: Vec<(String, Rule)>,
    pub statistics_rows: Vec<(String, Totals)>,
    pub answers: Vec<(String, Totals)>,
}

pub const SHAPE: Shape = Shape {
    keyed: 3,
    exclusions: 3,
    dead_letters: 2,
};

impl Capture {
    pub fn findings(&self, contract: &Contract) -> Findings {
        let mut ledger = Ledger::new(contract, SHAPE, &service).with_tables();
        let each = |topic: &Topic, feed: &mut dyn FnMut(&Record)| {
            topic
                .records
                .iter()
                .for_each(|stored| feed(&stored.record()));
        };
        each(&self.rules, &mut |record| ledger.rule(record));
        each(&self.settlements, &mut |record| ledger.settlement(record));
        each(&self.exclusions, &mut |record| ledger.exclusion(record));
        each(&self.dead_letters, &mut |record| ledger.dead_letter(record));
        each(&self.statistics, &mut |record| ledger.statistics(record));
        each(&self.bases, &mut |record| ledger.base(record));
        each(&self.source, &mut |record| ledger.payment(record));
        self.log_rows.iter().for_each(|row| ledger.log_row(row));
        self.settlement_rows
            .iter()
            .for_each(|row| ledger.settlement_row(row));
        self.exclusion_rows
            .iter()
            .for_each(|row| ledger.exclusion_row(row));
        self.dead_letter_rows
            .iter()
            .for_each(|row| ledger.dead_letter_row(row));
        self.rule_rows
            .iter()
            .for_each(|(key, rule)| ledger.rule_row(key, rule));
        self.statistics_rows
            .iter()
            .for_each(|(key, totals)| ledger.statistics_row(key, *totals));
        self.answers
            .iter()
            .for_each(|(key, totals)| ledger.answer(key, *totals));
        ledger.close_answers();
        ledger.close();
        ledger.findings().clone()
    }
}

/// The rule service of these tests: some merchants have no rule.
pub fn service(rule_key: &str) -> Option<Rule> {
    let hash = fingerprint(rule_key.as_bytes());
    (!hash.is_multiple_of(5)).then(|| Rule {
        id: format!("{hash:016x}"),
        payout_date: format!("2025-06-{:02}", 2 + hash % 20),
        confirm_date: format!("2025-06-{:02}", 1 + hash % 20),
    })
}

struct Reference<'a> {
    contract: &'a Contract,
    capture: Capture,
    memory: BTreeMap<i32, duplicates::Partition>,
    totals: BTreeMap<String, Totals>,
    changed: BTreeMap<String, Totals>,
}

/// Runs messages through; the source is part of what comes back.
pub fn run(contract: &Contract, messages: impl Iterator<Item = Message>) -> Capture {
    let mut source = Topic::default();
    for message in messages {
        source.push(
            message.partition,
            message.key.as_deref(),
            message.value.as_deref(),
        );
    }
    settle(contract, source)
}

/// Runs a source through.
pub fn settle(contract: &Contract, source: Topic) -> Capture {
    let mut reference = Reference {
        contract,
        capture: Capture::default(),
        memory: BTreeMap::new(),
        totals: BTreeMap::new(),
        changed: BTreeMap::new(),
    };
    for (number, stored) in source.records.iter().enumerate() {
        reference.settle(stored);
        if number % PER_TRANSACTION == PER_TRANSACTION - 1 {
            reference.end_transaction();
        }
    }
    reference.end_transaction();
    reference.capture.source = source;
    reference.finish()
}

impl Reference<'_> {
    fn settle(&mut self, stored: &Stored) {
        let record = stored.record();
        self.log(&record);
        match payment::read(&record) {
            Read::Dead(reason) => self.dead_letter(&record, reason),
            Read::Excluded(reason) => self.exclude(&record, None, reason, None),
            Read::Payment(payment) => self.payment(&record, &payment),
        }
    }

    fn payment(&mut self, record: &Record, payment: &Payment) {
        let value = fingerprint(record.value.unwrap());
        let memory = self.memory.entry(record.partition).or_default();
        match memory.look(&payment.id, record.timestamp, self.contract.window_ms) {
            Repeat::New => {}
            Repeat::Of(firsts) | Repeat::OfOrNew(firsts) => {
                let first = Place {
                    partition: record.partition,
                    offset: firsts[0].offset,
                };
                return self.exclude(record, Some(payment), firsts[0].reason(value), Some(first));
            }
        }
        memory.remember(
            &payment.id,
            First {
                offset: record.offset,
                timestamp: record.timestamp,
                value,
            },
        );
        if let Some(reason) = payment.exclusion(self.contract) {
            return self.exclude(record, Some(payment), reason, None);
        }
        self.base(record, payment);
    }

    fn base(&mut self, record: &Record, payment: &Payment) {
        let name = payment.rule_key();
        let home = partition::of(name.as_bytes(), SHAPE.keyed);
        self.capture
            .bases
            .push(home, Some(name.as_bytes()), Some(b"internal"));
        let totals = self.totals.entry(name.clone()).or_default();
        let Some(amount) = totals.amount.checked_add(payment.amount) else {
            return self.dead_letter(record, "AMOUNT_OVERFLOW");
        };
        *totals = Totals {
            amount,
            count: totals.count + 1,
        };
        self.changed.insert(name.clone(), *totals);
        let rule = service(&name);
        if let Some(rule) = rule.as_ref().filter(|_| totals.count == 1) {
            let value = outgoing::rule_record(&name, rule).unwrap();
            self.capture
                .rules
                .push(home, Some(name.as_bytes()), Some(value.as_bytes()));
            self.capture.rule_rows.push((name.clone(), rule.clone()));
        }
        let day = calendar::iso(
            calendar::day(payment.day()).unwrap() + self.contract.default_payout_days,
        );
        let settlement = Settlement::of(payment, record.place(), rule.as_ref(), &day);
        let value = settlement.render();
        self.capture
            .settlements
            .push(home, Some(payment.id.as_bytes()), Some(value.as_bytes()));
        let payment_micros = calendar::local_time(&payment.payment_date).unwrap();
        self.capture.settlement_rows.push(SettlementRow {
            settlement,
            payment_micros,
        });
    }

    fn log(&mut self, record: &Record) {
        let text = record
            .value
            .and_then(|value| std::str::from_utf8(value).ok());
        let json = text
            .and_then(crate::model::json::Json::read)
            .filter(crate::model::json::Json::storable);
        self.capture.log_rows.push(LogRow {
            place: record.place(),
            payment_id: id_of(record),
            recorded_at_ms: record.timestamp,
            body: json.and(text).map(str::to_owned),
            raw: if text
                .and_then(crate::model::json::Json::read)
                .is_some_and(|json| json.storable())
            {
                None
            } else {
                record.value.map(<[u8]>::to_vec)
            },
        });
    }

    fn dead_letter(&mut self, record: &Record, reason: &str) {
        let home = record.partition % SHAPE.dead_letters;
        let source = format!("{}/{}", self.contract.source_topic, record.place());
        let stored = self
            .capture
            .dead_letters
            .push(home, record.key, record.value);
        stored.headers = vec![
            ("settle-reason", reason.as_bytes().to_vec()),
            ("settle-detail", b"why".to_vec()),
            ("settle-source", source.into_bytes()),
        ];
        self.capture.dead_letter_rows.push(DeadLetterRow {
            source: record.place(),
            payment_id: id_of(record),
            reason: reason.to_owned(),
            detail: "why".to_owned(),
            payload: record.value.unwrap().to_vec(),
        });
    }

    fn exclude(
        &mut self,
        record: &Record,
        payment: Option<&Payment>,
        reason: &str,
        first: Option<Place>,
    ) {
        let exclusion = Exclusion {
            payment_id: payment::id_of(record).map(str::to_owned),
            reason: reason.to_owned(),
            source: record.place(),
            first,
            merchant: payment.map(|payment| payment.merchant.clone()),
            amount: payment.map(|payment| payment.amount),
        };
        let home = record.partition % SHAPE.exclusions;
        self.capture
            .exclusions
            .push(home, record.key, Some(exclusion.render().as_bytes()));
        self.capture.exclusion_rows.push(exclusion);
    }

    fn end_transaction(&mut self) {
        for (name, totals) in std::mem::take(&mut self.changed) {
            let home = partition::of(name.as_bytes(), SHAPE.keyed);
            let key = outgoing::statistics_key(&name).unwrap();
            self.capture.statistics.push(
                home,
                Some(key.as_bytes()),
                Some(totals.render().as_bytes()),
            );
        }
        let capture = &mut self.capture;
        for topic in [
            &mut capture.bases,
            &mut capture.rules,
            &mut capture.settlements,
            &mut capture.statistics,
        ] {
            topic.mark();
        }
    }

    fn finish(mut self) -> Capture {
        let all: Vec<_> = self
            .totals
            .into_iter()
            .filter(|(_, totals)| totals.count > 0)
            .collect();
        self.capture.statistics_rows.clone_from(&all);
        self.capture.answers = all;
        self.capture
    }
}

fn id_of(record: &Record) -> Option<String> {
    payment::id_of(record)
        .filter(|id| !id.contains('\0'))
        .map(str::to_owned)
}
