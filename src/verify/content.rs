//! What records say of a payment or a rule, each in one number, so that two can be compared.

use crate::codec::wire::{RuleJson, SettlementJson};
use crate::verify::facts::{self, Ink};
use crate::verify::message::{self, Payment};

const RULE_ID_BYTES_MAX: usize = 255;

pub(super) fn rule_digests(
    id: &str,
    payout: &str,
    confirm: &str,
) -> (facts::Digest, facts::Digest) {
    let whole = Ink::default().text(id).text(payout).text(confirm);
    (Ink::default().text(id).digest(), whole.digest())
}

/// The rule in a record of the rules topic; none when it is no rule of its key.
pub(super) fn rule_of<'a>(key: &str, value: &'a [u8]) -> Option<RuleJson<'a>> {
    // serde also reads a struct from an array.
    let is_object = value.trim_ascii_start().starts_with(b"{");
    let json = serde_json::from_slice(value).ok().filter(|_| is_object)?;
    is_rule_of(key, &json).then_some(json)
}

fn is_rule_of(key: &str, json: &RuleJson) -> bool {
    let RuleJson {
        rule_id,
        payout_date,
        confirm_date,
        merchant_number,
        payment_date,
        payment_action_type,
        payment_method_type,
    } = json;
    let Some((day, time)) = payment_date.split_once('T') else {
        return false;
    };
    let own = format!("{merchant_number}/{day}/{payment_action_type}/{payment_method_type}");
    let is_named = !rule_id.is_empty()
        && rule_id.len() <= RULE_ID_BYTES_MAX
        && !rule_id.chars().any(char::is_control);
    let is_dated = message::is_date(payout_date) && message::is_date(confirm_date);
    own == key && is_midnight(time) && is_named && is_dated
}

/// `00:00`, perhaps the seconds, perhaps one to nine digits of a fraction; all zero.
fn is_midnight(time: &str) -> bool {
    let (clock, fraction) = match time.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (time, None),
    };
    match (clock, fraction) {
        ("00:00" | "00:00:00", None) => true,
        ("00:00:00", Some(digits)) => {
            (1..=9).contains(&digits.len()) && digits.bytes().all(|digit| digit == b'0')
        }
        _ => false,
    }
}

pub(super) fn rule_key(json: &SettlementJson) -> String {
    let day = json.payment_date.get(..10).unwrap_or_default();
    let (action, method) = (json.payment_action_type, json.payment_method_type);
    format!("{}/{day}/{action}/{method}", json.merchant_number)
}

/// What a settlement takes from its payment, the id aside.
pub(super) struct Fields<'a> {
    pub(super) channel: &'a str,
    pub(super) payment_type: &'a str,
    pub(super) amount: i64,
    pub(super) merchant: &'a str,
    pub(super) date: &'a str,
    pub(super) action: &'a str,
    pub(super) method: &'a str,
}

pub(super) fn fields_of<'a>(json: &'a SettlementJson) -> Fields<'a> {
    Fields {
        channel: json.channel,
        payment_type: json.payment_type,
        amount: json.amount,
        merchant: &json.merchant_number,
        date: &json.payment_date,
        action: json.payment_action_type,
        method: json.payment_method_type,
    }
}

pub(super) fn fields_of_payment<'a>(payment: &'a Payment) -> Fields<'a> {
    Fields {
        channel: &payment.channel,
        payment_type: &payment.r#type,
        amount: payment.amount,
        merchant: &payment.merchant,
        date: &payment.date,
        action: &payment.action,
        method: &payment.method,
    }
}

pub(super) fn settlement_content(id: &str, fields: &Fields) -> facts::Digest {
    let ink = Ink::default()
        .text(id)
        .text(fields.channel)
        .text(fields.payment_type);
    let ink = ink
        .number(fields.amount)
        .text(fields.merchant)
        .text(fields.date);
    ink.text(fields.action).text(fields.method).digest()
}

pub(super) fn exclusion_content(
    id: Option<&str>,
    merchant: Option<&str>,
    amount: Option<i64>,
) -> facts::Digest {
    let amount = amount.map(|amount| amount.to_string());
    let ink = Ink::default()
        .maybe(id.map(str::as_bytes))
        .maybe(merchant.map(str::as_bytes));
    ink.maybe(amount.as_deref().map(str::as_bytes)).digest()
}

#[cfg(test)]
mod tests {
    use super::rule_of;

    const KEY: &str = "m-1/2025-05-26/PAYMENT/MONEY";
    const RULE: &str = r#"{"ruleId":"r-1","payoutDate":"2025-06-10","confirmDate":"2025-06-09","merchantNumber":"m-1","paymentDate":"2025-05-26T00:00:00","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}"#;

    const VALUES: &str =
        r#"["r-1","2025-06-10","2025-06-09","m-1","2025-05-26T00:00:00","PAYMENT","MONEY"]"#;

    fn key() -> crate::domain::rule::RuleKey {
        crate::domain::rule::RuleKey::parse(KEY).unwrap()
    }

    #[test]
    fn the_rules_are_those_that_the_service_takes() {
        let is_rule = |old: &str, new: &str| {
            let json = RULE.replace(old, new);
            let by_the_service = crate::codec::rule::read(&key(), json.as_bytes()).is_ok();
            assert_eq!(
                rule_of(KEY, json.as_bytes()).is_some(),
                by_the_service,
                "{json}"
            );
            by_the_service
        };
        for (old, new) in [
            ("", ""),
            ("{", " {\"a\":[],"),
            ("T00:00:00", "T00:00"),
            ("T00:00:00", "T00:00:00.000"),
            ("2025-06-10", "9999-12-31"),
            ("2025-06-09", "0001-01-01"),
        ] {
            assert!(is_rule(old, new), "{new}");
        }
        for (old, new) in [
            (RULE, ""),
            (RULE, "[]"),
            (RULE, VALUES),
            ("T00:00:00", "T00:00:"),
            ("T00:00:00", "T00:00.0"),
            ("T00:00:00", "T00:00:00."),
            ("T00:00:00", "T00:00:01"),
            ("05-26T", "05-27T"),
            ("2025-06-10", "0000-01-01"),
            ("2025-06-10", "2025-06-31"),
            ("r-1", ""),
            ("r-1", "a\\nb"),
            ("m-1", "m-2"),
            ("MONEY", "CARD"),
        ] {
            assert!(!is_rule(old, new), "{new}");
        }
    }
}
