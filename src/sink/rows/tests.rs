//! Rows of every kind of record, the odd ones above all.

use jiff::civil::{date, datetime};

use super::*;

const PLACE: Source = Source {
    partition: 3,
    offset: 81723,
};

const SETTLEMENT: &str = r#"{"paymentId":"p\"1","channel":"ONLINE","paymentType":"OFFLINE","amount":-12500,"merchantNumber":"merchant-4436","paymentDate":"2025-05-26T14:23:51.123456789","paymentActionType":"PAYMENT","paymentMethodType":"MONEY","payoutDate":"2025-06-10","confirmDate":"2025-06-09","payoutBasis":"RULE","ruleId":"16858a4e","source":{"partition":3,"offset":81723}}"#;

fn logged(key: Option<&[u8]>, value: Option<&[u8]>) -> Logged {
    payment(PLACE, Some(1_748_269_431_123), key, value)
}

#[test]
fn json_goes_to_body_as_it_stands_and_everything_else_to_raw() {
    let json = br#"{"a": 1.50, "a": "\ud83d\ude00"}"#;
    let row = logged(Some(b"p-1"), Some(json));
    assert_eq!(row.body.as_deref().map(str::as_bytes), Some(&json[..]));
    assert_eq!((row.raw, row.payment_id.as_deref()), (None, Some("p-1")));
    for raw in [
        &b""[..],
        b"{",
        b"\xff",
        b"\"\\u0000\"",
        b"\"\\ud800\"",
        b"1e200000",
    ] {
        let row = logged(Some(b"p-1"), Some(raw));
        assert_eq!((row.body, row.raw.as_deref()), (None, Some(raw)));
    }
}

#[test]
fn a_tombstone_is_logged_with_neither_body_nor_raw() {
    let row = logged(None, None);
    assert_eq!((row.body, row.raw, row.payment_id), (None, None, None));
}

#[test]
fn a_key_that_text_cannot_hold_is_a_null_payment_id() {
    for key in [&b"a\0b"[..], b"\xff\xfe"] {
        assert_eq!(logged(Some(key), None).payment_id, None);
    }
    assert_eq!(logged(Some(b""), None).payment_id.as_deref(), Some(""));
}

#[test]
fn a_timestamp_that_is_none_or_out_of_range_is_null() {
    let at = |millis| payment(PLACE, millis, None, None).recorded_at;
    assert_eq!(at(Some(0)), Some(Timestamp::UNIX_EPOCH));
    assert!(at(Some(TIME_MIN)).is_some());
    for none in [
        None,
        Some(i64::MAX),
        Some(TIME_MIN - 1),
        Some(-250_000_000_000_000),
        Some(i64::MIN),
    ] {
        assert_eq!(at(none), None, "{none:?}");
    }
}

#[test]
fn a_settlement_is_read_and_its_time_cut_to_microseconds() {
    let Ok(Row::Settlement(row)) = settlement(SETTLEMENT.as_bytes()) else {
        panic!("a settlement");
    };
    assert_eq!(
        (row.source, row.amount, row.payment_id.as_str()),
        (PLACE, -12500, "p\"1")
    );
    assert_eq!(
        row.payment_date,
        datetime(2025, 5, 26, 14, 23, 51, 123_456_000)
    );
    assert_eq!(row.payout_date, date(2025, 6, 10));
    assert_eq!(row.rule_id.as_deref(), Some("16858a4e"));
}

#[test]
fn every_local_date_time_that_java_prints_is_a_timestamp() {
    for (text, expected) in [
        ("0001-01-01T00:00", datetime(1, 1, 1, 0, 0, 0, 0)),
        ("2025-05-26T14:23", datetime(2025, 5, 26, 14, 23, 0, 0)),
        ("2025-05-26T14:23:51", datetime(2025, 5, 26, 14, 23, 51, 0)),
        (
            "2025-05-26T14:23:51.1",
            datetime(2025, 5, 26, 14, 23, 51, 100_000_000),
        ),
        // Rounded, it would fall on another day.
        (
            "9998-12-31T23:59:59.999999999",
            datetime(9998, 12, 31, 23, 59, 59, 999_999_000),
        ),
    ] {
        assert_eq!(local_date_time(text), Some(expected), "{text}");
    }
}

#[test]
fn what_is_no_settlement_is_told_apart() {
    for (from, to) in [
        ("-12500", "1.5"),
        ("2025-06-10", "2025-06-31"),
        ("2025-05-26T", "2025-05-26 "),
        ("\"offset\":81723", "\"offset\":null"),
        ("}}", "}"),
    ] {
        let other = SETTLEMENT.replace(from, to);
        assert!(settlement(other.as_bytes()).is_err(), "{to}");
    }
    let nul = SETTLEMENT.replace("16858a4e", "a\\u0000b");
    let Ok(Row::Settlement(row)) = settlement(nul.as_bytes()) else {
        panic!("a settlement");
    };
    assert_eq!(row.rule_id.as_deref(), Some("a\u{fffd}b"));
}

#[test]
fn exclusions_are_read_with_and_without_their_optional_fields() {
    let json = r#"{"paymentId":"p","reason":"DUPLICATE","source":{"partition":3,"offset":81724},"first":{"partition":3,"offset":81723},"merchantNumber":"m","amount":12500}"#;
    let Ok(Row::Exclusion(row)) = exclusion(json.as_bytes()) else {
        panic!("an exclusion");
    };
    assert_eq!((row.first, row.amount), (Some(PLACE), Some(12500)));
    let json = r#"{"paymentId":"a\u0000b","reason":"FINISH","source":{"partition":3,"offset":81723},"merchantNumber":null,"amount":null}"#;
    let Ok(Row::Exclusion(row)) = exclusion(json.as_bytes()) else {
        panic!("an exclusion");
    };
    assert_eq!((row.source, row.payment_id, row.first), (PLACE, None, None));
}

#[test]
fn a_dead_letter_is_placed_by_its_header() {
    let headers = |source: &'static [u8]| [Some(&b"NOT_JSON"[..]), Some(b"line\0"), Some(source)];
    let Ok(Row::DeadLetter(row)) =
        dead_letter(Some(b"\xff"), Some(b"x"), headers(b"pay/ments/3/81723"))
    else {
        panic!("a dead letter");
    };
    assert_eq!(
        (row.source, row.payment_id, row.detail.as_str()),
        (PLACE, None, "line\u{fffd}")
    );
    assert_eq!(row.payload.as_deref(), Some(&b"x"[..]));
    for source in [
        &b""[..],
        b"3/81723",
        b"payments/3/",
        b"payments/x/1",
        b"\xff/3/1",
    ] {
        assert!(dead_letter(None, None, headers(source)).is_err());
    }
    assert!(dead_letter(None, None, [None, None, Some(b"payments/3/1")]).is_err());
}

#[test]
fn rules_are_upserted_and_forgotten_and_only_under_their_own_key() {
    let key = b"merchant-4436/2025-05-26/PAYMENT/MONEY";
    let json = br#"{"ruleId":"16858a4e","payoutDate":"2025-06-10","confirmDate":"2025-06-09","merchantNumber":"merchant-4436","paymentDate":"2025-05-26T00:00:00","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}"#;
    assert!(matches!(
        rule(Some(key), Some(json)),
        Ok(Row::Rule(_, Some(_)))
    ));
    assert!(matches!(rule(Some(key), None), Ok(Row::Rule(_, None))));
    assert!(rule(Some(b"merchant-1/2025-05-26/PAYMENT/MONEY"), Some(json)).is_err());
    assert!(rule(Some(key), Some(b"{}")).is_err());
    assert!(rule(None, Some(json)).is_err());
    assert!(rule(Some(b"\xff"), None).is_err());
}

#[test]
fn statistics_are_absolute_values_and_a_tombstone_takes_them_away() {
    let key = br#"{"merchantNumber":"m","paymentDateDaily":"2025-05-26","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}"#;
    let Ok(Row::Statistics(at, Some(totals))) =
        statistics(Some(key), Some(br#"{"totalAmount":-5,"count":2}"#))
    else {
        panic!("statistics");
    };
    assert_eq!(
        (at.day, totals.amount, totals.count),
        (date(2025, 5, 26), -5, 2)
    );
    assert!(matches!(
        statistics(Some(key), None),
        Ok(Row::Statistics(_, None))
    ));
    assert!(
        statistics(
            Some(key),
            Some(br#"{"totalAmount":1,"count":18446744073709551615}"#)
        )
        .is_err()
    );
    assert!(statistics(Some(b"m"), Some(br#"{"totalAmount":1,"count":1}"#)).is_err());
}
