//! The source once more: what must have become of each record, and which of them could be firsts.

use std::io;

use crate::broker::Record;
use crate::verify::audit::Audit;
use crate::verify::content::{exclusion_content, fields_of_payment, settlement_content};
use crate::verify::facts::{self, Expected, Kind, Place, Sighting, What};
use crate::verify::message::{self, Payment, Reading};
use crate::verify::promise::Promise;
use crate::verify::rows;
use crate::verify::terms::Terms;

/// The exclusion of a message with a longer key has neither key nor `paymentId`.
const EXCLUDED_KEY_BYTES_MAX: usize = 65_536;

impl Audit {
    /// A record of the source, after all outcomes.
    pub fn source(&mut self, record: &Record) -> io::Result<()> {
        let place = Place {
            partition: record.partition.number,
            offset: record.offset,
        };
        if !self.scope.has_partition(place.partition) {
            return Ok(());
        }
        self.sources += 1;
        let begins = self.log_begins.entry(place.partition);
        begins.or_insert(record.timestamp);
        let reading = message::read(record.key, record.value);
        let payment = match &reading {
            Reading::Payment(payment) => Some(payment.as_ref()),
            _ => None,
        };
        if let Some(payment) = payment {
            self.sighting(&Sighting {
                partition: place.partition,
                id: facts::name(payment.id.as_bytes()),
                offset: place.offset,
                timestamp: record.timestamp,
                value: facts::bytes(None, record.value),
            })?;
        }
        self.compare_shortened(place, record);
        let (kind, reason) = verdict(&reading, &self.terms);
        let key = record.key.filter(|key| key.len() <= EXCLUDED_KEY_BYTES_MAX);
        let id = key.and_then(|key| std::str::from_utf8(key).ok());
        let (merchant, amount) = match payment {
            Some(payment) => (Some(payment.merchant.as_ref()), Some(payment.amount)),
            None => (None, None),
        };
        let scoped = payment.map(|payment| (payment.merchant.as_ref(), payment.day()));
        let settlement =
            payment.map(|payment| settlement_content(payment.id, &fields_of_payment(payment)));
        let expected = Expected {
            kind,
            reason: reason.to_owned(),
            is_payment: payment.is_some(),
            is_judged: self.scope.has_payment(scoped),
            settlement: settlement.unwrap_or_default(),
            exclusion: exclusion_content(id, merchant, amount),
            bytes: facts::bytes(record.key, Some(record.value.unwrap_or_default())),
            row: if self.with_rows {
                rows::payment(record)
            } else {
                0
            },
        };
        self.place_fact(place, What::Source(expected))
    }

    /// What was kept of a letter must be the beginning of its message.
    fn compare_shortened(&mut self, place: Place, record: &Record) {
        let Some(short) = self.shortened.remove(&place) else {
            return;
        };
        let value = record.value.unwrap_or_default();
        let kept = value.get(..short.kept);
        let holds = short.length == value.len() as u64
            && kept.is_some_and(|kept| facts::bytes(record.key, Some(kept)) == short.bytes);
        self.findings.check(Promise::Outcomes, holds, || {
            format!("the cut dead letter of {place} is not the beginning of its message")
        });
    }
}

/// The outcome and its reason, if it were no repeat; a payment that settles has none.
fn verdict(reading: &Reading, terms: &Terms) -> (Kind, &'static str) {
    match reading {
        Reading::Finish => (Kind::Exclusion, "FINISH"),
        Reading::NoData => (Kind::Exclusion, "NO_DATA"),
        Reading::Dead(reason) => (Kind::Letter, reason),
        Reading::Payment(payment) => match exclusion(payment, terms) {
            Some(reason) => (Kind::Exclusion, reason),
            None => (Kind::Settlement, ""),
        },
    }
}

fn exclusion(payment: &Payment, terms: &Terms) -> Option<&'static str> {
    let merchant = payment.merchant.as_ref();
    let is_listed = |entry: &String| match entry.strip_suffix('*') {
        Some(beginning) => merchant.starts_with(beginning),
        None => merchant == entry,
    };
    let is_test_merchant = terms.test_merchants.iter().any(|entry| entry == merchant);
    let reasons = [
        (payment.is_test || is_test_merchant, "TEST_PAYMENT"),
        (
            terms.merchants.iter().any(is_listed),
            "NON_SETTLEMENT_MERCHANT",
        ),
        (payment.is_network_cancel, "NETWORK_CANCEL"),
        (payment.is_unconfirmed, "UNCONFIRMED"),
    ];
    let first = reasons.into_iter().find(|(applies, _)| *applies);
    first.map(|(_, reason)| reason)
}
