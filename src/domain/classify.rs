//! What becomes of a record of the source topic at ingest: a base, an exclusion or a dead letter.

use std::fmt;

use crate::domain::payment::{Payment, Source};

/// Why a well-formed payment is not settled, in the order in which reasons are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exclusion {
    Finish,
    NoData,
    Duplicate,
    DuplicateConflict,
    TestPayment,
    NonSettlementMerchant,
    NetworkCancel,
    Unconfirmed,
}

impl Exclusion {
    pub const ALL: [Self; 8] = [
        Self::Finish,
        Self::NoData,
        Self::Duplicate,
        Self::DuplicateConflict,
        Self::TestPayment,
        Self::NonSettlementMerchant,
        Self::NetworkCancel,
        Self::Unconfirmed,
    ];

    /// The reason on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finish => "FINISH",
            Self::NoData => "NO_DATA",
            Self::Duplicate => "DUPLICATE",
            Self::DuplicateConflict => "DUPLICATE_CONFLICT",
            Self::TestPayment => "TEST_PAYMENT",
            Self::NonSettlementMerchant => "NON_SETTLEMENT_MERCHANT",
            Self::NetworkCancel => "NETWORK_CANCEL",
            Self::Unconfirmed => "UNCONFIRMED",
        }
    }
}

/// Why a message is no payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Defect {
    MissingKey,
    NotUtf8,
    NotJson,
    MissingField,
    InvalidValue,
    AmountOverflow,
}

impl Defect {
    pub const ALL: [Self; 6] = [
        Self::MissingKey,
        Self::NotUtf8,
        Self::NotJson,
        Self::MissingField,
        Self::InvalidValue,
        Self::AmountOverflow,
    ];

    /// The value of the header `settle-reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingKey => "MISSING_KEY",
            Self::NotUtf8 => "NOT_UTF8",
            Self::NotJson => "NOT_JSON",
            Self::MissingField => "MISSING_FIELD",
            Self::InvalidValue => "INVALID_VALUE",
            Self::AmountOverflow => "AMOUNT_OVERFLOW",
        }
    }
}

/// A defect with one line for people that repeats nothing of the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub defect: Defect,
    pub detail: String,
}

impl fmt::Display for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.defect.as_str(), self.detail)
    }
}

/// The earlier payment with the same payment id, when it lies inside the duplicate window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    pub source: Source,
    /// Whether its value bytes equal those of the payment at hand.
    pub same_bytes: bool,
}

/// Merchants whose payments are not settled.
#[derive(Debug, Clone, Default)]
pub struct Exclude {
    merchants: Vec<Pattern>,
    test_merchants: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    Prefix(String),
}

impl Exclude {
    /// `merchants` are exact numbers, or prefixes that end in `*`; `test_merchants` are exact.
    pub fn new(merchants: &[String], test_merchants: &[String]) -> Self {
        let pattern = |text: &String| match text.strip_suffix('*') {
            Some(prefix) => Pattern::Prefix(prefix.to_owned()),
            None => Pattern::Exact(text.clone()),
        };
        Self {
            merchants: merchants.iter().map(pattern).collect(),
            test_merchants: test_merchants.iter().cloned().map(Pattern::Exact).collect(),
        }
    }
}

fn listed(patterns: &[Pattern], merchant: &str) -> bool {
    patterns.iter().any(|pattern| match pattern {
        Pattern::Exact(text) => text == merchant,
        Pattern::Prefix(prefix) => merchant.starts_with(prefix.as_str()),
    })
}

/// The first reason that applies, or `None`: the payment goes on to be settled.
pub fn exclusion(payment: &Payment, first: Option<&First>, exclude: &Exclude) -> Option<Exclusion> {
    if let Some(first) = first {
        return Some(if first.same_bytes {
            Exclusion::Duplicate
        } else {
            Exclusion::DuplicateConflict
        });
    }
    let merchant = payment.merchant.as_ref();
    if payment.test_payment || listed(&exclude.test_merchants, merchant) {
        Some(Exclusion::TestPayment)
    } else if listed(&exclude.merchants, merchant) {
        Some(Exclusion::NonSettlementMerchant)
    } else if payment.network_cancel {
        Some(Exclusion::NetworkCancel)
    } else if payment.unconfirmed {
        Some(Exclusion::Unconfirmed)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::domain::payment::{ActionType, Channel, MethodType};

    fn payment(merchant: &str) -> Payment<'_> {
        Payment {
            channel: Channel::Online,
            payment_type: Channel::Online,
            amount: 1,
            merchant: Cow::Borrowed(merchant),
            date: Cow::Borrowed("2025-05-26T14:23"),
            action: ActionType::Payment,
            method: MethodType::Money,
            test_payment: true,
            network_cancel: true,
            unconfirmed: true,
        }
    }

    #[test]
    fn the_first_reason_of_the_contract_wins() {
        let exclude = Exclude::new(&["m".into(), "x-*".into()], &["t".into()]);
        let first = |same_bytes| First {
            source: Source {
                partition: 0,
                offset: 1,
            },
            same_bytes,
        };
        let mut payment = payment("m");
        let mut reasons = vec![
            exclusion(&payment, Some(&first(true)), &exclude),
            exclusion(&payment, Some(&first(false)), &exclude),
            exclusion(&payment, None, &exclude),
        ];
        payment.test_payment = false;
        reasons.push(exclusion(&payment, None, &exclude));
        payment.merchant = Cow::Borrowed("mm");
        reasons.push(exclusion(&payment, None, &exclude));
        payment.network_cancel = false;
        reasons.push(exclusion(&payment, None, &exclude));
        payment.unconfirmed = false;
        assert_eq!(
            reasons.into_iter().flatten().collect::<Vec<_>>(),
            [
                Exclusion::Duplicate,
                Exclusion::DuplicateConflict,
                Exclusion::TestPayment,
                Exclusion::NonSettlementMerchant,
                Exclusion::NetworkCancel,
                Exclusion::Unconfirmed,
            ]
        );
        assert_eq!(exclusion(&payment, None, &exclude), None);
    }

    #[test]
    fn merchants_are_listed_exactly_or_by_prefix() {
        let exclude = Exclude::new(&["m".into(), "x-*".into()], &["t".into()]);
        let reason = |merchant| {
            let mut payment = payment(merchant);
            (
                payment.test_payment,
                payment.network_cancel,
                payment.unconfirmed,
            ) = (false, false, false);
            exclusion(&payment, None, &exclude)
        };
        assert_eq!(reason("x-1"), Some(Exclusion::NonSettlementMerchant));
        assert_eq!(reason("x-"), Some(Exclusion::NonSettlementMerchant));
        assert_eq!(reason("m1"), None);
        assert_eq!(reason("t"), Some(Exclusion::TestPayment));
        assert_eq!(reason("t1"), None);
    }
}
