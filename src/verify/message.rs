//! Reads a source record again, in the order of checks of `docs/contract.md`, without a line of the
//! service's own reading.

use std::borrow::Cow;
use std::fmt;

use jiff::civil::Date;
use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

const NOT_UTF8: &str = "NOT_UTF8";
const NOT_JSON: &str = "NOT_JSON";
const MISSING_KEY: &str = "MISSING_KEY";
const MISSING_FIELD: &str = "MISSING_FIELD";
const INVALID_VALUE: &str = "INVALID_VALUE";

const CHANNELS: &[&str] = &["ONLINE", "OFFLINE"];
const ACTIONS: &[&str] = &["PAYMENT", "CANCEL", "PARTIAL_CANCEL", "FULL_CANCEL"];
const METHODS: &[&str] = &["CARD", "MONEY", "PAY", "POINT"];

const MERCHANT_BYTES_MAX: usize = 64;
const ID_BYTES_MAX: usize = 255;

/// What a record of the source topic says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading<'a> {
    Finish,
    NoData,
    /// No payment, with the reason of the dead letter.
    Dead(&'static str),
    Payment(Box<Payment<'a>>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment<'a> {
    pub id: &'a str,
    pub channel: Cow<'a, str>,
    /// `paymentType`: the channel again.
    pub r#type: Cow<'a, str>,
    pub amount: i64,
    pub merchant: Cow<'a, str>,
    pub date: Cow<'a, str>,
    pub action: Cow<'a, str>,
    pub method: Cow<'a, str>,
    pub is_test: bool,
    pub is_network_cancel: bool,
    pub is_unconfirmed: bool,
}

impl Payment<'_> {
    pub fn day(&self) -> &str {
        &self.date[..10]
    }

    pub fn rule_key(&self) -> String {
        let (action, method) = (&self.action, &self.method);
        format!("{}/{}/{action}/{method}", self.merchant, self.day())
    }
}

pub fn read<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Reading<'a> {
    match value {
        None => Reading::NoData,
        Some(value) => judge(key, value).unwrap_or_else(Reading::Dead),
    }
}

type Verdict<T> = Result<T, &'static str>;

fn judge<'a>(key: Option<&'a [u8]>, value: &'a [u8]) -> Verdict<Reading<'a>> {
    let text = std::str::from_utf8(value).map_err(|_| NOT_UTF8)?;
    let begins = text.trim_start_matches([' ', '\n', '\r', '\t']);
    if !begins.starts_with('{') {
        let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        return Err(if is_json { INVALID_VALUE } else { NOT_JSON });
    }
    let message = object(text, &["channel", "action", "data"])?;
    let [channel, action, data] = message[..] else {
        unreachable!("as many values as names")
    };
    let fields = match data {
        Some(data) if data.starts_with('{') => Some(object(data, FIELDS)?),
        _ => None,
    };
    let channel = one_of(channel, CHANNELS)?;
    let action = one_of(action, &["PAYMENT", "FINISH"])?;
    if action == "FINISH" {
        return Ok(Reading::Finish);
    }
    if data.is_none() {
        return Ok(Reading::NoData);
    }
    let fields = fields.ok_or(INVALID_VALUE)?;
    let id = payment_id(key)?;
    payment(id, channel, &fields).map(|payment| Reading::Payment(Box::new(payment)))
}

fn payment_id(key: Option<&[u8]>) -> Verdict<&str> {
    let key = key.filter(|key| !key.is_empty()).ok_or(MISSING_KEY)?;
    let id = std::str::from_utf8(key).map_err(|_| INVALID_VALUE)?;
    let fits = id.len() <= ID_BYTES_MAX && !id.chars().any(char::is_control);
    fits.then_some(id).ok_or(INVALID_VALUE)
}

/// In the order in which they are checked.
const FIELDS: &[&str] = &[
    "paymentType",
    "amount",
    "payoutDate",
    "confirmDate",
    "merchantNumber",
    "paymentDate",
    "paymentActionType",
    "paymentMethodType",
    "testPayment",
    "networkCancel",
    "unconfirmed",
];

fn payment<'a>(
    id: &'a str,
    channel: Cow<'a, str>,
    fields: &[Option<&'a str>],
) -> Verdict<Payment<'a>> {
    let r#type = one_of(fields[0], CHANNELS)?;
    let amount = amount(fields[1])?;
    for day in [fields[2], fields[3]].into_iter().flatten() {
        is_day(&string(day)?).then_some(()).ok_or(INVALID_VALUE)?;
    }
    let merchant = string(fields[4].ok_or(MISSING_FIELD)?)?;
    let is_named = !merchant.is_empty()
        && merchant.len() <= MERCHANT_BYTES_MAX
        && !merchant.contains('/')
        && !merchant.chars().any(char::is_control);
    is_named.then_some(()).ok_or(INVALID_VALUE)?;
    let date = string(fields[5].ok_or(MISSING_FIELD)?)?;
    is_date_time(&date).then_some(()).ok_or(INVALID_VALUE)?;
    Ok(Payment {
        id,
        channel,
        r#type,
        amount,
        merchant,
        date,
        action: one_of(fields[6], ACTIONS)?,
        method: one_of(fields[7], METHODS)?,
        is_test: flag(fields[8])?,
        is_network_cancel: flag(fields[9])?,
        is_unconfirmed: flag(fields[10])?,
    })
}

fn one_of<'a>(raw: Option<&'a str>, allowed: &[&str]) -> Verdict<Cow<'a, str>> {
    let text = string(raw.ok_or(MISSING_FIELD)?)?;
    let is_known = allowed.contains(&text.as_ref());
    is_known.then_some(text).ok_or(INVALID_VALUE)
}

fn string(raw: &str) -> Verdict<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let text = serde_json::from_str::<Text<'_>>(raw);
    text.map(|text| text.0).map_err(|_| INVALID_VALUE)
}

fn amount(raw: Option<&str>) -> Verdict<i64> {
    raw.ok_or(MISSING_FIELD)?.parse().map_err(|_| INVALID_VALUE)
}

fn flag(raw: Option<&str>) -> Verdict<bool> {
    raw.map_or(Ok(false), |raw| raw.parse().map_err(|_| INVALID_VALUE))
}

/// The day of a payment: `2025-05-26`, years 0001 to 9998.
fn is_day(text: &str) -> bool {
    is_date(text) && !text.starts_with("9999")
}

/// `2025-05-26`, years 0001 to 9999.
pub fn is_date(text: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| -> Option<i16> {
        let part = text.get(range)?;
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse().ok()).flatten()
    };
    let dashes = text.len() == 10 && text.get(4..5) == Some("-") && text.get(7..8) == Some("-");
    let date = || {
        let year = digits(0..4).filter(|year| *year >= 1)?;
        let month = i8::try_from(digits(5..7)?).ok()?;
        Date::new(year, month, i8::try_from(digits(8..10)?).ok()?).ok()
    };
    dashes && date().is_some()
}

/// A day, `T`, hours and minutes, perhaps seconds, perhaps one to nine digits of a fraction.
fn is_date_time(text: &str) -> bool {
    let Some((day, time)) = text.split_once('T') else {
        return false;
    };
    let (clock, fraction) = match time.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (time, None),
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let within = |part: &str, end: u8| {
        let is_number = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number && part.parse::<u8>().is_ok_and(|number| number < end)
    };
    let is_clock = match parts[..] {
        [hour, minute] => within(hour, 24) && within(minute, 60) && fraction.is_none(),
        [hour, minute, second] => within(hour, 24) && within(minute, 60) && within(second, 60),
        _ => false,
    };
    let is_fraction = fraction.is_none_or(|digits| {
        (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    is_day(day) && is_clock && is_fraction
}

/// The raw values of these fields of an object; JSON's null is absence, a field that stands twice
/// is no JSON.
fn object<'a>(text: &'a str, names: &'static [&'static str]) -> Verdict<Vec<Option<&'a str>>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let values = deserializer.deserialize_map(Known(names));
    let values = values.and_then(|values| deserializer.end().map(|()| values));
    let values = values.map_err(|_| NOT_JSON)?;
    let present = |raw: Option<&'a RawValue>| raw.map(RawValue::get).filter(|raw| *raw != "null");
    Ok(values.into_iter().map(present).collect())
}

struct Known(&'static [&'static str]);

impl<'de> Visitor<'de> for Known {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![None; self.0.len()];
        while let Some(name) = map.next_key::<&RawValue>()? {
            // What is JSON but no text, by a lone surrogate, is no known name.
            let name: Option<String> = serde_json::from_str(name.get()).ok();
            match self
                .0
                .iter()
                .position(|known| name.as_deref() == Some(*known))
            {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(index) if values[index].is_some() => {
                    return Err(A::Error::custom("a field stands twice"));
                }
                Some(index) => values[index] = Some(map.next_value()?),
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYMENT: &str = r#"{"channel":"ONLINE","action":"PAYMENT","data":{"paymentType":"ONLINE","amount":12500,"merchantNumber":"m-1","paymentDate":"2025-05-26T14:23:51.123456","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}}"#;

    fn reason(text: &str) -> &'static str {
        match read(Some(b"id"), Some(text.as_bytes())) {
            Reading::Dead(reason) => reason,
            Reading::Finish => "finish",
            Reading::NoData => "no data",
            Reading::Payment(_) => "payment",
        }
    }

    #[test]
    fn the_first_check_that_fails_names_the_reason() {
        let with = |from: &str, to: &str| reason(&PAYMENT.replacen(from, to, 1));
        assert_eq!(with("", ""), "payment");
        assert_eq!(with("12500", "12500.0"), INVALID_VALUE);
        assert_eq!(with("12500", "9223372036854775808"), INVALID_VALUE);
        assert_eq!(with("12500", "\"1\""), INVALID_VALUE);
        assert_eq!(with("\"amount\":12500,", ""), MISSING_FIELD);
        assert_eq!(with("12500", "null"), MISSING_FIELD);
        assert_eq!(with("\"amount\"", "\"amount\":1,\"amount\""), NOT_JSON);
        assert_eq!(with("T14:23", " 14:23"), INVALID_VALUE);
        assert_eq!(with("05-26", "02-30"), INVALID_VALUE);
        assert_eq!(with("m-1", "m/1"), INVALID_VALUE);
        assert_eq!(
            with("\"PAYMENT\",\"data\"", "\"FINISH\",\"data\""),
            "finish"
        );
        assert_eq!(
            with("\"ONLINE\",\"action\"", "null,\"action\""),
            MISSING_FIELD
        );
        assert_eq!(reason("[1]"), INVALID_VALUE);
        assert_eq!(reason(" {"), NOT_JSON);
        assert_eq!(reason(""), NOT_JSON);
        assert_eq!(
            reason(r#"{"channel":"ONLINE","action":"PAYMENT"}"#),
            "no data"
        );
        let data = r#"{"channel":"ONLINE","action":"PAYMENT","data":5}"#;
        assert_eq!(reason(data), INVALID_VALUE);
        let unkeyed = read(None, Some(PAYMENT.as_bytes()));
        assert_eq!(unkeyed, Reading::Dead(MISSING_KEY));
    }
}
