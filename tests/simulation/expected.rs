//! What must become of each record of a source partition, by the contract and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::log::Payload;
use crate::payments::{EXCLUDED_MERCHANT, TEST_MERCHANT};

/// The outcome of ingest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    Base { key: String, amount: i64 },
    Excluded { reason: String, first: Option<i64> },
    Dead { reason: String },
}

/// The first payments of an id: timestamp, offset, value.
type Firsts<'a> = BTreeMap<&'a [u8], Vec<(i64, i64, &'a [u8])>>;

/// The outcomes of a partition's records, given as offset, timestamp and payload.
pub fn expect(
    records: &[(i64, i64, &Payload)],
    window: Duration,
) -> impl Iterator<Item = (i64, Expected)> {
    let mut firsts = Firsts::new();
    records
        .iter()
        .map(move |record| (record.0, outcome(*record, window, &mut firsts)))
}

fn excluded(reason: &str) -> Expected {
    Expected::Excluded {
        reason: reason.to_owned(),
        first: None,
    }
}

fn dead(reason: &str) -> Expected {
    Expected::Dead {
        reason: reason.to_owned(),
    }
}

fn outcome<'a>(
    (offset, timestamp, payload): (i64, i64, &'a Payload),
    window: Duration,
    firsts: &mut Firsts<'a>,
) -> Expected {
    let Some(value) = payload.value.as_deref() else {
        return excluded("NO_DATA");
    };
    let Ok(message) = serde_json::from_slice::<Value>(value) else {
        return dead("NOT_JSON");
    };
    let data = &message["data"];
    if message["action"] == "FINISH" {
        return excluded("FINISH");
    }
    if data.is_null() {
        return excluded("NO_DATA");
    }
    let Some(id) = payload.key.as_deref() else {
        return dead("MISSING_KEY");
    };
    let (Some(amount), Some(merchant)) = (data["amount"].as_i64(), data["merchantNumber"].as_str())
    else {
        return dead("MISSING_FIELD");
    };
    let window = i64::try_from(window.as_millis()).expect("days");
    let known = firsts.entry(id).or_default();
    let inside = |first: &&(i64, i64, &[u8])| (first.0 - timestamp).abs() <= window;
    if let Some((_, first, bytes)) = known.iter().rev().find(inside) {
        let reason = if *bytes == value {
            "DUPLICATE"
        } else {
            "DUPLICATE_CONFLICT"
        };
        return Expected::Excluded {
            reason: reason.to_owned(),
            first: Some(*first),
        };
    }
    known.push((timestamp, offset, value));
    if merchant == TEST_MERCHANT || data["testPayment"] == true {
        return excluded("TEST_PAYMENT");
    }
    if merchant == EXCLUDED_MERCHANT {
        return excluded("NON_SETTLEMENT_MERCHANT");
    }
    if data["networkCancel"] == true {
        return excluded("NETWORK_CANCEL");
    }
    if data["unconfirmed"] == true {
        return excluded("UNCONFIRMED");
    }
    let text = |name: &str| data[name].as_str().unwrap_or_default();
    let day = text("paymentDate").get(..10).unwrap_or_default();
    let (action, method) = (text("paymentActionType"), text("paymentMethodType"));
    Expected::Base {
        key: format!("{merchant}/{day}/{action}/{method}"),
        amount,
    }
}
