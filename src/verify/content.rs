//! What records say of a payment or a rule, each in one number, so that two can be compared.

use crate::codec::wire::{RuleJson, SettlementJson};
use crate::verify::facts::{self, Ink};
use crate::verify::message::{self, Payment};

pub(super) fn rule_digests(
    id: &str,
    payout: &str,
    confirm: &str,
) -> (facts::Digest, facts::Digest) {
    let whole = Ink::default().text(id).text(payout).text(confirm);
    (Ink::default().text(id).digest(), whole.digest())
}

/// Whether a record of the rules topic is a rule of its own key.
pub(super) fn is_rule_of(key: &str, json: &RuleJson) -> bool {
    let RuleJson {
        merchant_number,
        payment_date,
        payment_action_type,
        payment_method_type,
        ..
    } = json;
    let Some((day, midnight)) = payment_date.split_once('T') else {
        return false;
    };
    let own = format!("{merchant_number}/{day}/{payment_action_type}/{payment_method_type}");
    let is_midnight =
        midnight.starts_with("00:00") && midnight.chars().all(|c| matches!(c, '0' | ':' | '.'));
    own == key
        && is_midnight
        && message::is_day(&json.payout_date)
        && message::is_day(&json.confirm_date)
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
