//! Rule keys and payout rules.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use jiff::civil::Date;

use crate::domain::payment::{ActionType, MethodType, day, is_merchant_number};

/// `merchantNumber/paymentDay/paymentActionType/paymentMethodType`: the key of bases, rules,
/// totals and statistics. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleKey(Arc<str>);

/// The four fields of a rule key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a> {
    pub merchant: &'a str,
    /// ISO date, years 0001 to 9998.
    pub day: &'a str,
    pub action: ActionType,
    pub method: MethodType,
}

impl RuleKey {
    /// Joins four fields that have been checked before.
    pub fn new(merchant: &str, day: &str, action: ActionType, method: MethodType) -> Self {
        let text = format!("{merchant}/{day}/{}/{}", action.as_str(), method.as_str());
        Self(text.into())
    }

    /// The key of this text, when all four fields are valid.
    pub fn parse(text: &str) -> Option<Self> {
        Fields::parse(text).map(|_| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn fields(&self) -> Fields<'_> {
        Fields::parse(&self.0).expect("a rule key is checked when it is made")
    }

    pub fn merchant(&self) -> &str {
        self.fields().merchant
    }

    /// The day as ISO text, `2025-05-26`.
    pub fn day_text(&self) -> &str {
        self.fields().day
    }

    pub fn day(&self) -> Date {
        day(self.fields().day).expect("a rule key is checked when it is made")
    }

    pub fn action(&self) -> ActionType {
        self.fields().action
    }

    pub fn method(&self) -> MethodType {
        self.fields().method
    }
}

impl<'a> Fields<'a> {
    /// Splits a rule key into its fields; `None` when it is none.
    pub fn parse(key: &'a str) -> Option<Self> {
        let mut parts = key.split('/');
        let merchant = parts.next()?;
        let day_text = parts.next()?;
        let action = ActionType::parse(parts.next()?)?;
        let method = MethodType::parse(parts.next()?)?;
        let whole = parts.next().is_none() && is_merchant_number(merchant);
        (whole && day(day_text).is_some()).then_some(Self {
            merchant,
            day: day_text,
            action,
            method,
        })
    }
}

impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for RuleKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// When payments of one rule key are paid out and confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub rule_id: String,
    pub payout_date: Date,
    pub confirm_date: Date,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_key_gives_its_four_fields_back() {
        let key = RuleKey::new("m-1", "2025-05-26", ActionType::Cancel, MethodType::Pay);
        assert_eq!(key.as_str(), "m-1/2025-05-26/CANCEL/PAY");
        assert_eq!(RuleKey::parse(key.as_str()), Some(key.clone()));
        assert_eq!(key.merchant(), "m-1");
        assert_eq!(key.day(), jiff::civil::date(2025, 5, 26));
    }

    #[test]
    fn other_texts_are_no_rule_key() {
        for text in [
            "",
            "m/2025-05-26/CANCEL",
            "m/2025-05-26/CANCEL/PAY/",
            "/2025-05-26/CANCEL/PAY",
            "m/2025-5-26/CANCEL/PAY",
            "m/2025-05-26/cancel/PAY",
            "@position",
        ] {
            assert_eq!(RuleKey::parse(text), None, "{text}");
        }
    }
}
