//! What a text must hold to be the rule of a key: the body of the rule service's answer and the
//! records of the rules topic. Errors name fields, never their content.

use std::borrow::Cow;

use jiff::civil::Date;
use serde::Deserialize;

use crate::codec::object::Object;
use crate::domain::payment;
use crate::domain::rule::{Rule, RuleKey};

/// Longest rule id, in bytes.
const RULE_ID_BYTES_MAX: usize = 255;

/// Why a text is not the rule of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("not a rule as JSON (line {line}, column {column})")]
    Malformed { line: usize, column: usize },
    #[error("no `{0}`")]
    Missing(&'static str),
    #[error("`{0}` is not valid")]
    Invalid(&'static str),
    #[error("`{0}` is of another key")]
    OtherKey(&'static str),
}

/// The rule as others write it. Unknown fields are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    rule_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payout_date: Option<Cow<'a, str>>,
    #[serde(borrow)]
    confirm_date: Option<Cow<'a, str>>,
    #[serde(borrow)]
    merchant_number: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payment_date: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payment_action_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payment_method_type: Option<Cow<'a, str>>,
}

/// The rule in `json`, if it is one and belongs to `key`.
pub fn read(key: &RuleKey, json: &[u8]) -> Result<Rule, Mismatch> {
    let body = serde_json::from_slice::<Object<Body<'_>>>(json);
    let Object(body) = body.map_err(|error| Mismatch::Malformed {
        line: error.line(),
        column: error.column(),
    })?;
    let rule_id = required("ruleId", body.rule_id.as_deref())?;
    let rule = Rule {
        rule_id: id("ruleId", rule_id)?.to_owned(),
        payout_date: date("payoutDate", body.payout_date.as_deref())?,
        confirm_date: date("confirmDate", body.confirm_date.as_deref())?,
    };
    same(
        "merchantNumber",
        body.merchant_number.as_deref(),
        key.merchant(),
    )?;
    let day = required("paymentDate", body.payment_date.as_deref())?;
    if !is_midnight_of(key.day_text(), day) {
        return Err(Mismatch::OtherKey("paymentDate"));
    }
    same(
        "paymentActionType",
        body.payment_action_type.as_deref(),
        key.action().as_str(),
    )?;
    same(
        "paymentMethodType",
        body.payment_method_type.as_deref(),
        key.method().as_str(),
    )?;
    Ok(rule)
}

fn required<'a>(name: &'static str, value: Option<&'a str>) -> Result<&'a str, Mismatch> {
    value.ok_or(Mismatch::Missing(name))
}

fn same(name: &'static str, value: Option<&str>, asked: &str) -> Result<(), Mismatch> {
    if required(name, value)? == asked {
        Ok(())
    } else {
        Err(Mismatch::OtherKey(name))
    }
}

/// Control characters are refused because the database cannot hold a text with U+0000.
fn id<'a>(name: &'static str, value: &'a str) -> Result<&'a str, Mismatch> {
    let fits = !value.is_empty() && value.len() <= RULE_ID_BYTES_MAX;
    if fits && !value.chars().any(char::is_control) {
        Ok(value)
    } else {
        Err(Mismatch::Invalid(name))
    }
}

fn date(name: &'static str, value: Option<&str>) -> Result<Date, Mismatch> {
    payment::iso_date(required(name, value)?).ok_or(Mismatch::Invalid(name))
}

/// `text` is `day` at midnight as Java prints or reads it: `T00:00`, seconds and a fraction of
/// zeros optional.
fn is_midnight_of(day: &str, text: &str) -> bool {
    let Some(seconds) = text
        .strip_prefix(day)
        .and_then(|time| time.strip_prefix("T00:00"))
    else {
        return false;
    };
    match seconds.strip_prefix(":00") {
        None => seconds.is_empty(),
        Some("") => true,
        Some(fraction) => fraction.strip_prefix('.').is_some_and(|digits| {
            (1..=9).contains(&digits.len()) && digits.bytes().all(|digit| digit == b'0')
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Mismatch, RULE_ID_BYTES_MAX, read};
    use crate::domain::rule::{Rule, RuleKey};
    use jiff::civil::date;

    const RULE: &str = r#"{"ruleId":"r-1","payoutDate":"2025-06-10","confirmDate":"2025-06-09","merchantNumber":"m-1","paymentDate":"2025-05-26T00:00:00","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}"#;

    fn key() -> RuleKey {
        RuleKey::parse("m-1/2025-05-26/PAYMENT/MONEY").unwrap()
    }

    /// The rule with one text of it replaced.
    fn with(old: &str, new: &str) -> Result<Rule, Mismatch> {
        let body = RULE.replace(old, new);
        assert!(body != RULE || old == new, "{old}");
        read(&key(), body.as_bytes())
    }

    #[test]
    fn a_rule_of_the_key_is_read_whatever_else_it_holds() {
        let rule = Rule {
            rule_id: "r-1".to_owned(),
            payout_date: date(2025, 6, 10),
            confirm_date: date(2025, 6, 9),
        };
        assert_eq!(with("", ""), Ok(rule.clone()));
        assert_eq!(with("{", r#"{"version":{"a":[1]},"note":null,"#), Ok(rule));
    }

    #[test]
    fn the_payment_date_is_midnight_as_java_or_anyone_prints_it() {
        for midnight in ["T00:00", "T00:00:00", "T00:00:00.0", "T00:00:00.000000000"] {
            assert!(with("T00:00:00", midnight).is_ok(), "{midnight}");
        }
        for other in [
            "",
            "T",
            "T00",
            "T00:00:",
            "T00:00:01",
            "T00:01",
            "T00:00:00.",
            "T00:00:00.001",
            "T00:00:00.0000000000",
            "T00:00:00Z",
            "T00:00:00+09:00",
            " 00:00:00",
        ] {
            let answer = with("T00:00:00", other);
            assert_eq!(answer, Err(Mismatch::OtherKey("paymentDate")), "{other}");
        }
    }

    #[test]
    fn a_rule_of_another_key_is_not_taken() {
        for (old, new, name) in [
            ("m-1", "m-2", "merchantNumber"),
            ("m-1", "M-1", "merchantNumber"),
            ("05-26T", "05-27T", "paymentDate"),
            ("\"PAYMENT\"", "\"CANCEL\"", "paymentActionType"),
            ("\"MONEY\"", "\"CARD\"", "paymentMethodType"),
        ] {
            assert_eq!(with(old, new), Err(Mismatch::OtherKey(name)));
        }
    }

    #[test]
    fn every_field_is_required_and_null_is_none() {
        for name in [
            "ruleId",
            "payoutDate",
            "confirmDate",
            "merchantNumber",
            "paymentDate",
            "paymentActionType",
            "paymentMethodType",
        ] {
            let quoted = format!("\"{name}\"");
            let missing = Err(Mismatch::Missing(name));
            assert_eq!(with(&quoted, "\"other\""), missing);
            let null = format!("\"other\":null,{quoted}:null,\"another\"");
            assert_eq!(with(&quoted, &null), missing);
        }
    }

    #[test]
    fn rule_ids_and_dates_that_later_readers_could_not_hold_are_refused() {
        let longest = "x".repeat(RULE_ID_BYTES_MAX);
        assert!(with("r-1", &longest).is_ok());
        for id in ["", "a\\u0000b", "a\\nb", &format!("{longest}x")] {
            assert_eq!(with("r-1", id), Err(Mismatch::Invalid("ruleId")), "{id}");
        }
        for day in [
            "",
            "2025-6-10",
            "20250610",
            "2025-06-31",
            "2025-06-10T00:00:00",
            "10.06.2025",
            "0000-01-01",
            "+12025-06-10",
            "2025-06-1\u{663}",
        ] {
            let answer = with("2025-06-10", day);
            assert_eq!(answer, Err(Mismatch::Invalid("payoutDate")), "{day}");
        }
    }

    #[test]
    fn the_dates_of_a_rule_have_the_years_0001_to_9999() {
        for day in ["0001-01-01", "9999-01-01", "9999-12-31"] {
            let rule = with("2025-06-10", day).unwrap();
            assert_eq!(rule.payout_date.to_string(), day);
            let rule = with("2025-06-09", day).unwrap();
            assert_eq!(rule.confirm_date.to_string(), day);
        }
    }

    #[test]
    fn other_texts_are_no_rule() {
        let cut = &RULE[..RULE.len() - 1];
        let twice = RULE.replace('{', r#"{"ruleId":"r-2","#);
        let number = RULE.replace("\"r-1\"", "1");
        let trailing = format!("{RULE} {RULE}");
        let values =
            r#"["r-1","2025-06-10","2025-06-09","m-1","2025-05-26T00:00:00","PAYMENT","MONEY"]"#;
        for body in [
            "", "null", "[]", values, "\"rule\"", "<html>", cut, &twice, &number, &trailing,
        ] {
            let answer = read(&key(), body.as_bytes());
            assert!(matches!(answer, Err(Mismatch::Malformed { .. })), "{body}");
        }
        let latin = RULE.replace("r-1", "r-?").into_bytes();
        let latin: Vec<u8> = latin
            .iter()
            .map(|b| if *b == b'?' { 0xe4 } else { *b })
            .collect();
        let answer = read(&key(), &latin);
        assert!(matches!(answer, Err(Mismatch::Malformed { .. })));
    }
}
