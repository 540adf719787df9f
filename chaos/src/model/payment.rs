//! Reads a message of the source topic: a payment, an exclusion that needs no memory, or a dead letter. The checks
//! run in the order of the contract; the first that applies decides.

use super::calendar;
use super::json::Json;
use super::{Contract, Record};

const CHANNELS: [&str; 2] = ["ONLINE", "OFFLINE"];
const ACTIONS: [&str; 2] = ["PAYMENT", "FINISH"];
const ACTION_TYPES: [&str; 4] = ["PAYMENT", "CANCEL", "PARTIAL_CANCEL", "FULL_CANCEL"];
const METHOD_TYPES: [&str; 4] = ["CARD", "MONEY", "PAY", "POINT"];
const TOP_FIELDS: [&str; 3] = ["channel", "action", "data"];
const DATA_FIELDS: [&str; 11] = [
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

/// A message that is a payment.
#[derive(Debug, Clone, PartialEq)]
pub struct Payment {
    pub id: String,
    pub channel: &'static str,
    pub payment_type: &'static str,
    pub amount: i64,
    pub merchant: String,
    /// As received.
    pub payment_date: String,
    pub action_type: &'static str,
    pub method_type: &'static str,
    pub is_test: bool,
    pub is_network_cancel: bool,
    pub is_unconfirmed: bool,
}

impl Payment {
    pub fn day(&self) -> &str {
        &self.payment_date[..10]
    }

    pub fn rule_key(&self) -> String {
        format!(
            "{}/{}/{}/{}",
            self.merchant,
            self.day(),
            self.action_type,
            self.method_type
        )
    }

    /// The reason that excludes it apart from being a duplicate.
    pub fn exclusion(&self, contract: &Contract) -> Option<&'static str> {
        let listed = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => self.merchant.starts_with(prefix),
            None => *pattern == self.merchant,
        };
        if self.is_test || contract.test_merchants.contains(&self.merchant) {
            Some("TEST_PAYMENT")
        } else if contract.excluded_merchants.iter().any(listed) {
            Some("NON_SETTLEMENT_MERCHANT")
        } else if self.is_network_cancel {
            Some("NETWORK_CANCEL")
        } else if self.is_unconfirmed {
            Some("UNCONFIRMED")
        } else {
            None
        }
    }
}

/// What a message is, by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    Payment(Payment),
    /// `FINISH` or `NO_DATA`.
    Excluded(&'static str),
    /// The reason of the dead letter.
    Dead(&'static str),
}

pub fn read(record: &Record) -> Message {
    match check(record) {
        Ok(payment) => Message::Payment(payment),
        Err(Other::Excluded(reason)) => Message::Excluded(reason),
        Err(Other::Dead(reason)) => Message::Dead(reason),
    }
}

/// The payment id of a record for its exclusion: the key, if there is one that is UTF-8.
pub fn id_of<'a>(record: &Record<'a>) -> Option<&'a str> {
    record.key.and_then(|key| std::str::from_utf8(key).ok())
}

/// What a message is instead of a payment.
enum Other {
    Excluded(&'static str),
    Dead(&'static str),
}

fn dead<T>(reason: &'static str) -> Result<T, Other> {
    Err(Other::Dead(reason))
}

fn check(record: &Record) -> Result<Payment, Other> {
    let Some(value) = record.value else {
        return Err(Other::Excluded("NO_DATA"));
    };
    let Ok(text) = std::str::from_utf8(value) else {
        return dead("NOT_UTF8");
    };
    let Some(message) = Json::read(text).filter(|message| !has_field_twice(message)) else {
        return dead("NOT_JSON");
    };
    if !matches!(message, Json::Object(_)) {
        return dead("INVALID_VALUE");
    }
    let channel = one_of(&message, "channel", &CHANNELS)?;
    if one_of(&message, "action", &ACTIONS)? == "FINISH" {
        return Err(Other::Excluded("FINISH"));
    }
    let data = match message.get("data") {
        None | Some(Json::Null) => return Err(Other::Excluded("NO_DATA")),
        Some(data @ Json::Object(_)) => data,
        Some(_) => return dead("INVALID_VALUE"),
    };
    let id = check_key(record.key)?;
    let payment_type = one_of(data, "paymentType", &CHANNELS)?;
    let amount = amount(data)?;
    optional_date(data, "payoutDate")?;
    optional_date(data, "confirmDate")?;
    let merchant = required_text(data, "merchantNumber")?.to_owned();
    if merchant.is_empty()
        || merchant.len() > 64
        || merchant.contains('/')
        || has_control(&merchant)
    {
        return dead("INVALID_VALUE");
    }
    let payment_date = required_text(data, "paymentDate")?.to_owned();
    if calendar::local_time(&payment_date).is_none() {
        return dead("INVALID_VALUE");
    }
    Ok(Payment {
        id,
        channel,
        payment_type,
        amount,
        merchant,
        payment_date,
        action_type: one_of(data, "paymentActionType", &ACTION_TYPES)?,
        method_type: one_of(data, "paymentMethodType", &METHOD_TYPES)?,
        is_test: flag(data, "testPayment")?,
        is_network_cancel: flag(data, "networkCancel")?,
        is_unconfirmed: flag(data, "unconfirmed")?,
    })
}

/// A control character: U+0000 to U+001F, U+007F to U+009F.
fn has_control(text: &str) -> bool {
    text.chars()
        .any(|c| matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'))
}

fn has_field_twice(message: &Json) -> bool {
    let twice = |object: &Json, names: &[&str]| match object {
        Json::Object(fields) => names
            .iter()
            .any(|name| fields.iter().filter(|(key, _)| key == name).count() > 1),
        _ => false,
    };
    twice(message, &TOP_FIELDS)
        || message
            .get("data")
            .is_some_and(|data| twice(data, &DATA_FIELDS))
}

fn check_key(key: Option<&[u8]>) -> Result<String, Other> {
    let key = match key {
        None | Some([]) => return dead("MISSING_KEY"),
        Some(key) => key,
    };
    match std::str::from_utf8(key) {
        Ok(id) if key.len() <= 255 && !has_control(id) => Ok(id.to_owned()),
        _ => dead("INVALID_VALUE"),
    }
}

fn required<'a, 'b>(object: &'b Json<'a>, name: &str) -> Result<&'b Json<'a>, Other> {
    match object.get(name) {
        None | Some(Json::Null) => dead("MISSING_FIELD"),
        Some(value) => Ok(value),
    }
}

fn required_text<'b>(object: &'b Json<'_>, name: &str) -> Result<&'b str, Other> {
    required(object, name)?
        .text()
        .map_or_else(|| dead("INVALID_VALUE"), Ok)
}

fn one_of(object: &Json, name: &str, known: &[&'static str]) -> Result<&'static str, Other> {
    let text = required_text(object, name)?;
    known
        .iter()
        .find(|value| **value == text)
        .map_or_else(|| dead("INVALID_VALUE"), |value| Ok(*value))
}

fn amount(data: &Json) -> Result<i64, Other> {
    required(data, "amount")?
        .integer()
        .map_or_else(|| dead("INVALID_VALUE"), Ok)
}

fn optional_date(data: &Json, name: &str) -> Result<(), Other> {
    match data.get(name) {
        None | Some(Json::Null) => Ok(()),
        Some(Json::String(text)) if calendar::day(text).is_some() => Ok(()),
        Some(_) => dead("INVALID_VALUE"),
    }
}

fn flag(data: &Json, name: &str) -> Result<bool, Other> {
    match data.get(name) {
        None | Some(Json::Null) => Ok(false),
        Some(Json::Bool(value)) => Ok(*value),
        Some(_) => dead("INVALID_VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = r#""paymentType":"ONLINE","amount":12500,"payoutDate":"2025-05-28","confirmDate":"2025-05-27","merchantNumber":"merchant-4436","paymentDate":"2025-05-26T14:23:51.123456","paymentActionType":"PAYMENT","paymentMethodType":"MONEY""#;

    fn message(key: Option<&[u8]>, value: Option<&[u8]>) -> Message {
        read(&Record {
            partition: 0,
            offset: 0,
            timestamp: 0,
            key,
            value,
            headers: Vec::new(),
        })
    }

    fn with_data(data: &str) -> Message {
        let value = format!(r#"{{"channel":"ONLINE","action":"PAYMENT","data":{{{data}}}}}"#);
        message(Some(b"p-1"), Some(value.as_bytes()))
    }

    #[test]
    fn the_payment_of_the_contract_is_read() {
        let Message::Payment(payment) = with_data(DATA) else {
            panic!("not a payment")
        };
        assert_eq!(payment.rule_key(), "merchant-4436/2025-05-26/PAYMENT/MONEY");
        assert_eq!((payment.id.as_str(), payment.amount), ("p-1", 12_500));
        assert!(!payment.is_test && !payment.is_network_cancel && !payment.is_unconfirmed);
    }

    #[test]
    fn each_wrong_field_has_its_reason() {
        for (from, to, reason) in [
            ("12500", "12500.0", "INVALID_VALUE"),
            ("12500", "1e3", "INVALID_VALUE"),
            ("12500", "9223372036854775808", "INVALID_VALUE"),
            ("12500", "\"1\"", "INVALID_VALUE"),
            ("12500", "null", "MISSING_FIELD"),
            ("12500", "012", "NOT_JSON"),
            ("\"ONLINE\"", "\"online\"", "INVALID_VALUE"),
            ("\"2025-05-28\"", "\"2025-02-30\"", "INVALID_VALUE"),
            ("\"2025-05-28\"", "5", "INVALID_VALUE"),
            ("merchant-4436", "a/b", "INVALID_VALUE"),
            ("merchant-4436", "a\\u0000", "INVALID_VALUE"),
            ("merchant-4436", "", "INVALID_VALUE"),
            ("\"merchantNumber\":\"merchant-4436\",", "", "MISSING_FIELD"),
            ("51.123456", "51Z", "INVALID_VALUE"),
            ("\"MONEY\"", "\"MONEY\",\"testPayment\":1", "INVALID_VALUE"),
            ("\"MONEY\"", "\"MONEY\",\"am\\u006funt\":1", "NOT_JSON"),
            ("\"MONEY\"", "\"MONEY\",", "NOT_JSON"),
        ] {
            assert_eq!(
                with_data(&DATA.replacen(from, to, 1)),
                Message::Dead(reason),
                "{from} -> {to}"
            );
        }
    }

    #[test]
    fn null_options_unknown_fields_and_a_negative_zero_are_payments() {
        for (from, to) in [
            ("\"2025-05-28\"", "null"),
            ("\"payoutDate\":\"2025-05-28\",", ""),
            ("\"MONEY\"", "\"MONEY\",\"unconfirmed\":null"),
            ("\"MONEY\"", "\"MONEY\",\"x\":{\"a\":1,\"a\":2e999}"),
            ("12500", "-0"),
        ] {
            let read = with_data(&DATA.replacen(from, to, 1));
            assert!(
                matches!(read, Message::Payment(_)),
                "{from} -> {to}: {read:?}"
            );
        }
    }

    fn judged(key: Option<&[u8]>, value: &str) -> Message {
        message(key, Some(value.as_bytes()))
    }

    #[test]
    fn the_key_is_looked_at_once_there_is_data() {
        let all = format!(r#"{{"channel":"ONLINE","action":"PAYMENT","data":{{{DATA}}}}}"#);
        let long = [b'x'; 256];
        for (key, reason) in [
            (None, "MISSING_KEY"),
            (Some(&b""[..]), "MISSING_KEY"),
            (Some(&b"\xff"[..]), "INVALID_VALUE"),
            (Some(&b"a\xc2\x80"[..]), "INVALID_VALUE"),
            (Some(&long[..]), "INVALID_VALUE"),
        ] {
            assert_eq!(judged(key, &all), Message::Dead(reason), "{key:?}");
        }
        let no_fields = r#"{"channel":"ONLINE","action":"PAYMENT","data":{}}"#;
        assert_eq!(judged(None, no_fields), Message::Dead("MISSING_KEY"));
        assert_eq!(
            judged(Some(b"k"), no_fields),
            Message::Dead("MISSING_FIELD")
        );
    }

    #[test]
    fn the_first_check_that_applies_decides() {
        assert_eq!(message(None, None), Message::Excluded("NO_DATA"));
        let not_utf8 = message(None, Some(b"{\"a\":\"\xff\"}"));
        assert_eq!(not_utf8, Message::Dead("NOT_UTF8"));
        for (value, expected) in [
            ("[]", Message::Dead("INVALID_VALUE")),
            ("nope", Message::Dead("NOT_JSON")),
            (r#"{"action":"FINISH"}"#, Message::Dead("MISSING_FIELD")),
            (
                r#"{"channel":"X","action":"FINISH"}"#,
                Message::Dead("INVALID_VALUE"),
            ),
            (
                r#"{"channel":"ONLINE","action":"FINISH","data":7}"#,
                Message::Excluded("FINISH"),
            ),
            (
                r#"{"channel":"ONLINE","action":"PAYMENT","data":null}"#,
                Message::Excluded("NO_DATA"),
            ),
            (
                r#"{"channel":"ONLINE","action":"PAYMENT"}"#,
                Message::Excluded("NO_DATA"),
            ),
            (
                r#"{"channel":null,"action":5}"#,
                Message::Dead("MISSING_FIELD"),
            ),
        ] {
            assert_eq!(judged(None, value), expected, "{value}");
        }
    }
}
