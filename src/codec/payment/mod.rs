//! Reads a record of the source topic: a payment, a message without one, or a dead letter with
//! the first check that failed.
//!
//! Reading is deterministic: the duplicate window is rebuilt by reading the same records again.
//! Most records are payments, so a strict reading of one pass is tried first. Whatever it refuses
//! is read a second time, field by field in the order of `docs/contract.md`, to name the reason.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::codec::object::Object;
use crate::domain::classify::{DeadLetter, Defect};
use crate::domain::payment::{
    ActionType, Channel, MethodType, Payment, day, is_merchant_number, is_payment_id, local_day,
};

/// What a record of the source topic says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    Payment {
        id: &'a str,
        payment: Payment<'a>,
    },
    /// One channel's batch has ended.
    Finish,
    /// A tombstone, or a payment message without data.
    NoData,
    DeadLetter(DeadLetter),
}

/// Reads a source record.
pub fn read<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Message<'a> {
    let Some(value) = value else {
        return Message::NoData;
    };
    let Ok(text) = std::str::from_utf8(value) else {
        return dead(Defect::NotUtf8, "the value is not UTF-8");
    };
    if let Some(message) = read_payment(key, text) {
        return message;
    }
    explain(key, text).unwrap_or_else(Message::DeadLetter)
}

fn dead(defect: Defect, detail: impl Into<String>) -> Message<'static> {
    Message::DeadLetter(dead_letter(defect, detail))
}

fn dead_letter(defect: Defect, detail: impl Into<String>) -> DeadLetter {
    DeadLetter {
        defect,
        detail: detail.into(),
    }
}

/// The id of a payment with data, from the key of its record.
fn payment_id(key: Option<&[u8]>) -> Result<&str, DeadLetter> {
    let key = key.unwrap_or_default();
    if key.is_empty() {
        return Err(dead_letter(
            Defect::MissingKey,
            "a payment needs its id as record key",
        ));
    }
    let Ok(id) = std::str::from_utf8(key) else {
        return Err(dead_letter(
            Defect::InvalidValue,
            "the payment id is not UTF-8",
        ));
    };
    if is_payment_id(id) {
        Ok(id)
    } else {
        let detail = "the payment id is over 255 bytes or holds a control character";
        Err(dead_letter(Defect::InvalidValue, detail))
    }
}

// ---- the strict reading -------------------------------------------------------------------

#[derive(Deserialize)]
struct StrictMessage<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    data: Object<StrictData<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StrictData<'a> {
    #[serde(borrow)]
    payment_type: Cow<'a, str>,
    amount: i64,
    #[serde(borrow, default)]
    payout_date: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    confirm_date: Option<Cow<'a, str>>,
    #[serde(borrow)]
    merchant_number: Cow<'a, str>,
    #[serde(borrow)]
    payment_date: Cow<'a, str>,
    #[serde(borrow)]
    payment_action_type: Cow<'a, str>,
    #[serde(borrow)]
    payment_method_type: Cow<'a, str>,
    #[serde(default)]
    test_payment: Option<bool>,
    #[serde(default)]
    network_cancel: Option<bool>,
    #[serde(default)]
    unconfirmed: Option<bool>,
}

/// The payment, when every check passes; `None` leaves the verdict to [`explain`].
fn read_payment<'a>(key: Option<&'a [u8]>, text: &'a str) -> Option<Message<'a>> {
    let Object(message) = serde_json::from_str::<Object<StrictMessage>>(text).ok()?;
    let Object(data) = message.data;
    let channel = Channel::parse(&message.channel)?;
    if message.action != "PAYMENT" {
        return None;
    }
    let id = payment_id(key).ok()?;
    for date in [&data.payout_date, &data.confirm_date]
        .into_iter()
        .flatten()
    {
        day(date)?;
    }
    if !is_merchant_number(&data.merchant_number) {
        return None;
    }
    local_day(&data.payment_date)?;
    let payment = Payment {
        channel,
        payment_type: Channel::parse(&data.payment_type)?,
        amount: data.amount,
        merchant: data.merchant_number,
        date: data.payment_date,
        action: ActionType::parse(&data.payment_action_type)?,
        method: MethodType::parse(&data.payment_method_type)?,
        test_payment: data.test_payment.unwrap_or(false),
        network_cancel: data.network_cancel.unwrap_or(false),
        unconfirmed: data.unconfirmed.unwrap_or(false),
    };
    Some(Message::Payment { id, payment })
}

// ---- the reading that names the reason ----------------------------------------------------

const MESSAGE_FIELDS: [&str; 3] = ["channel", "action", "data"];
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

/// The known fields of an object, unread; in the order of their table.
struct Fields<'a, const N: usize> {
    names: &'static [&'static str; N],
    values: [Option<&'a RawValue>; N],
}

/// Reads an object's known fields; a known field that stands twice is an error.
struct FieldsVisitor<const N: usize>(&'static [&'static str; N]);

impl<'de, const N: usize> Visitor<'de> for FieldsVisitor<N> {
    type Value = Fields<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        while let Some(name) = map.next_key::<&RawValue>()? {
            let name = field_name(name);
            let index = self
                .0
                .iter()
                .position(|known| name.as_deref() == Some(*known));
            let Some(index) = index else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if values[index]
                .replace(map.next_value::<&RawValue>()?)
                .is_some()
            {
                return Err(A::Error::duplicate_field(self.0[index]));
            }
        }
        Ok(Fields {
            names: self.0,
            values,
        })
    }
}

/// The name of a field; none where a lone surrogate makes it JSON but no text, so that nobody knows it.
fn field_name(raw: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = raw.get();
    let plain = quoted.get(1..quoted.len() - 1)?;
    if !plain.contains('\\') {
        return Some(Cow::Borrowed(plain));
    }
    serde_json::from_str(quoted).ok().map(Cow::Owned)
}

fn read_fields<'a, const N: usize>(
    text: &'a str,
    names: &'static [&'static str; N],
) -> Result<Fields<'a, N>, DeadLetter> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer
        .deserialize_map(FieldsVisitor(names))
        .and_then(|fields| deserializer.end().map(|()| fields))
        .map_err(|error| not_json(&error))
}

/// serde's own message may repeat text of the payload: only the place is told.
fn not_json(error: &serde_json::Error) -> DeadLetter {
    let place = format!("line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let detail = if text.starts_with("duplicate field") {
        format!("a field of the message stands twice, up to {place}")
    } else if error.is_eof() {
        format!("the JSON ends too early, at {place}")
    } else {
        format!("not JSON at {place}")
    };
    dead_letter(Defect::NotJson, detail)
}

impl<'a, const N: usize> Fields<'a, N> {
    /// The value of a field; JSON's null counts as absent.
    fn get(&self, name: &str) -> Option<&'a str> {
        let index = self.names.iter().position(|known| *known == name);
        let value = index.and_then(|index| self.values[index]);
        value.map(RawValue::get).filter(|text| *text != "null")
    }

    fn required(&self, name: &str) -> Result<&'a str, DeadLetter> {
        let missing = || dead_letter(Defect::MissingField, format!("{name} is missing"));
        self.get(name).ok_or_else(missing)
    }

    fn text(&self, name: &str) -> Result<Cow<'a, str>, DeadLetter> {
        string(name, self.required(name)?)
    }

    fn one_of<T>(&self, name: &str, parse: fn(&str) -> Option<T>) -> Result<T, DeadLetter> {
        parse(&self.text(name)?).ok_or_else(|| invalid(name, "is not one of its values"))
    }

    fn optional_day(&self, name: &str) -> Result<(), DeadLetter> {
        let Some(raw) = self.get(name) else {
            return Ok(());
        };
        match day(&string(name, raw)?) {
            Some(_) => Ok(()),
            None => Err(invalid(name, "is no date of the years 0001 to 9998")),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, DeadLetter> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(name, "is not a boolean")),
        }
    }
}

fn invalid(name: &str, what: &str) -> DeadLetter {
    dead_letter(Defect::InvalidValue, format!("{name} {what}"))
}

fn string<'a>(name: &str, raw: &'a str) -> Result<Cow<'a, str>, DeadLetter> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    if !raw.starts_with('"') {
        return Err(invalid(name, "is not a string"));
    }
    // A lone surrogate is JSON by its grammar, but no text.
    serde_json::from_str::<Text>(raw)
        .map(|text| text.0)
        .map_err(|_| invalid(name, "is not a text"))
}

/// A whole number of 64 bits, written without fraction and exponent.
fn whole_number(name: &str, raw: &str) -> Result<i64, DeadLetter> {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(invalid(name, "is not a number"));
    }
    raw.parse()
        .map_err(|_| invalid(name, "is not a whole number of 64 bits"))
}

fn explain<'a>(key: Option<&'a [u8]>, text: &'a str) -> Result<Message<'a>, DeadLetter> {
    let json: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    if !json.get().starts_with('{') {
        return Err(invalid("the message", "is not an object"));
    }
    let message = read_fields(text, &MESSAGE_FIELDS)?;
    let data_text = message.get("data");
    let data = match data_text.filter(|text| text.starts_with('{')) {
        Some(object) => Some(read_fields(object, &DATA_FIELDS)?),
        None => None,
    };
    let channel = message.one_of("channel", Channel::parse)?;
    let is_finish = message.one_of("action", |text| match text {
        "FINISH" => Some(true),
        "PAYMENT" => Some(false),
        _ => None,
    })?;
    if is_finish {
        return Ok(Message::Finish);
    }
    if data_text.is_none() {
        return Ok(Message::NoData);
    }
    let data = data.ok_or_else(|| invalid("data", "is not an object"))?;
    let id = payment_id(key)?;
    let payment = explain_data(channel, &data)?;
    Ok(Message::Payment { id, payment })
}

fn explain_data<'a>(
    channel: Channel,
    data: &Fields<'a, { DATA_FIELDS.len() }>,
) -> Result<Payment<'a>, DeadLetter> {
    let payment_type = data.one_of("paymentType", Channel::parse)?;
    let amount = whole_number("amount", data.required("amount")?)?;
    data.optional_day("payoutDate")?;
    data.optional_day("confirmDate")?;
    let merchant = data.text("merchantNumber")?;
    if !is_merchant_number(&merchant) {
        let what = "is empty, over 64 bytes, or holds '/' or a control character";
        return Err(invalid("merchantNumber", what));
    }
    let date = data.text("paymentDate")?;
    if local_day(&date).is_none() {
        return Err(invalid(
            "paymentDate",
            "is no local date-time of the years 0001 to 9998",
        ));
    }
    Ok(Payment {
        channel,
        payment_type,
        amount,
        merchant,
        date,
        action: data.one_of("paymentActionType", ActionType::parse)?,
        method: data.one_of("paymentMethodType", MethodType::parse)?,
        test_payment: data.flag("testPayment")?,
        network_cancel: data.flag("networkCancel")?,
        unconfirmed: data.flag("unconfirmed")?,
    })
}

#[cfg(test)]
mod tests;
