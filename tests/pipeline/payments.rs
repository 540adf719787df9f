//! Single payments, made to live in a chosen partition.

use chaos::cluster::rules::{self, RuleKey};
use chaos::model::partition;
use chaos::workload::Message;

use crate::line::PARTITIONS;

pub const DAY: &str = "2025-05-26";

/// A payment of this merchant that settles.
pub fn payment(id: &str, merchant: &str, amount: i64) -> Message {
    let value = format!(
        r#"{{"channel":"ONLINE","action":"PAYMENT","data":{{"paymentType":"ONLINE","amount":{amount},"merchantNumber":"{merchant}","paymentDate":"{DAY}T14:23:51.123456","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}}}}"#
    );
    message(id, value.into_bytes(), "SETTLED")
}

/// Any bytes under this payment id.
pub fn message(id: &str, value: Vec<u8>, intent: &'static str) -> Message {
    Message {
        key: Some(id.as_bytes().to_vec()),
        value: Some(value),
        partition: partition::of(id.as_bytes(), PARTITIONS),
        intent,
    }
}

/// The rule key of this merchant's payments.
pub fn rule_key(merchant: &str) -> RuleKey {
    RuleKey {
        merchant_number: merchant.to_owned(),
        payment_day: DAY.parse().unwrap(),
        action_type: "PAYMENT".to_owned(),
        method_type: "MONEY".to_owned(),
    }
}

/// Where the rule key of this merchant's payments lives.
pub fn home(merchant: &str) -> i32 {
    partition::of(rule_key(merchant).to_string().as_bytes(), PARTITIONS)
}

/// Merchants with a rule whose key lives in this partition, without end.
pub fn merchants_in(partition: i32, seed: u64) -> impl Iterator<Item = String> {
    (0..)
        .map(|number| format!("shop-{number}"))
        .filter(move |name| home(name) == partition && rules::has_rules(seed, name))
}
