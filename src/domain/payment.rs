//! A payment as the upstream sends it, after its fields have been checked one by one.

use std::borrow::Cow;

use jiff::civil::Date;

use crate::domain::rule::RuleKey;

/// Defines an enum whose variants have one exact text each.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($variant),+ }

        impl $name {
            /// Every variant, in the order of `docs/contract.md`.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The variant of this exact text.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

text_enum!(
    /// Where a payment was made (`channel`, and again `data.paymentType`).
    Channel { Online = "ONLINE", Offline = "OFFLINE" }
);
text_enum!(
    /// What was done (`paymentActionType`).
    ActionType {
        Payment = "PAYMENT",
        Cancel = "CANCEL",
        PartialCancel = "PARTIAL_CANCEL",
        FullCancel = "FULL_CANCEL",
    }
);
text_enum!(
    /// How it was paid (`paymentMethodType`).
    MethodType { Card = "CARD", Money = "MONEY", Pay = "PAY", Point = "POINT" }
);

/// The place of a record in the source topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    pub partition: i32,
    pub offset: i64,
}

/// A well-formed payment. Borrows from the record it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment<'a> {
    pub channel: Channel,
    pub payment_type: Channel,
    /// Minor units of the currency; negative for cancellations that the upstream signs.
    pub amount: i64,
    pub merchant: Cow<'a, str>,
    /// `paymentDate` as received; [`local_day`] is its day.
    pub date: Cow<'a, str>,
    pub action: ActionType,
    pub method: MethodType,
    pub test_payment: bool,
    pub network_cancel: bool,
    pub unconfirmed: bool,
}

impl Payment<'_> {
    /// The key under which this payment is dated and added up.
    pub fn rule_key(&self) -> RuleKey {
        RuleKey::new(
            &self.merchant,
            day_text(&self.date),
            self.action,
            self.method,
        )
    }
}

/// Whether a merchant number may stand in a rule key: not empty, at most 64 bytes, no `/`, no
/// control character.
pub fn is_merchant_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && !text.contains(|c: char| c == '/' || c.is_control())
}

/// Whether a text may be a payment id: at most 255 bytes, no control character.
pub fn is_payment_id(text: &str) -> bool {
    text.len() <= 255 && !text.contains(char::is_control)
}

/// The day of an ISO date (`2025-05-26`), years 0001 to 9998: a default date, some days later,
/// is a date of four digits, too.
pub fn day(text: &str) -> Option<Date> {
    iso_date(text).filter(|day| day.year() <= 9998)
}

/// An ISO date (`2025-05-26`), years 0001 to 9999.
pub fn iso_date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = number(&bytes[0..4])?;
    let month = number(&bytes[5..7])?;
    let day = number(&bytes[8..10])?;
    if year < 1 {
        return None;
    }
    Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

/// The day of a local date-time as Java prints it: `T`, optional seconds, up to nine fraction
/// digits, no zone.
pub fn local_day(text: &str) -> Option<Date> {
    let (date, time) = text.split_at_checked(10)?;
    let bytes = time.as_bytes();
    if bytes.len() < 6 || bytes[0] != b'T' || bytes[3] != b':' {
        return None;
    }
    if number(&bytes[1..3])? > 23 || number(&bytes[4..6])? > 59 {
        return None;
    }
    match &bytes[6..] {
        [] => {}
        [b':', a, b, fraction @ ..] => {
            if number(&[*a, *b])? > 59 {
                return None;
            }
            match fraction {
                [] => {}
                [b'.', digits @ ..] => {
                    let plausible = (1..=9).contains(&digits.len());
                    if !plausible || !digits.iter().all(u8::is_ascii_digit) {
                        return None;
                    }
                }
                _ => return None,
            }
        }
        _ => return None,
    }
    day(date)
}

/// The `2025-05-26` of a local date-time that [`local_day`] has accepted.
pub fn day_text(local_date_time: &str) -> &str {
    &local_date_time[..10]
}

fn number(digits: &[u8]) -> Option<i16> {
    digits.iter().try_fold(0_i16, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + i16::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_local_date_times_are_accepted_in_every_form_that_java_prints() {
        for text in [
            "2025-05-26T14:23",
            "2025-05-26T14:23:51",
            "2025-05-26T14:23:51.1",
            "2025-05-26T14:23:51.123456789",
            "0001-01-01T00:00",
            "9998-12-31T23:59:59.999999999",
            "2024-02-29T00:00",
        ] {
            assert!(local_day(text).is_some(), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_local_date_time() {
        for text in [
            "",
            "2025-05-26",
            "2025-05-26 14:23",
            "2025-05-26t14:23",
            "2025-05-26T14",
            "2025-05-26T14:2",
            "2025-05-26T24:00",
            "2025-05-26T14:60",
            "2025-05-26T14:23:60",
            "2025-05-26T14:23:51.",
            "2025-05-26T14:23:51.1234567890",
            "2025-05-26T14:23:51Z",
            "2025-05-26T14:23:51+09:00",
            "2025-05-26T14:23:5",
            "2025-02-29T00:00",
            "2025-13-01T00:00",
            "2025-00-01T00:00",
            "2025-01-00T00:00",
            "0000-01-01T00:00",
            "9999-01-01T00:00",
            "+2025-05-26T14:23",
            "-025-05-26T14:23",
            "２０25-05-26T14:23",
        ] {
            assert!(local_day(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_merchant_number_has_no_slash_no_control_character_and_at_most_64_bytes() {
        assert!(is_merchant_number("merchant-4436"));
        assert!(is_merchant_number(&"m".repeat(64)));
        assert!(!is_merchant_number(&"m".repeat(65)));
        for text in ["", "a/b", "a\u{7f}", "a\u{85}", "\n"] {
            assert!(!is_merchant_number(text), "{text:?}");
        }
    }
}
