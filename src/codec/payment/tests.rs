//! Every check of a source record, in the order of `docs/contract.md`.

use super::*;

const GOOD: &str = r#"{"channel":"ONLINE","action":"PAYMENT","data":{"paymentType":"ONLINE","amount":12500,"payoutDate":"2025-05-28","confirmDate":"2025-05-27","merchantNumber":"merchant-4436","paymentDate":"2025-05-26T14:23:51.123456","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}}"#;

fn defect(value: &str) -> Result<(), Defect> {
    match read(Some(b"id"), Some(value.as_bytes())) {
        Message::DeadLetter(dead) => Err(dead.defect),
        _ => Ok(()),
    }
}

fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

#[test]
fn the_example_of_the_contract_is_a_payment() {
    let Message::Payment { id, payment } = read(Some(b"id-1"), Some(GOOD.as_bytes())) else {
        panic!("no payment");
    };
    assert_eq!(id, "id-1");
    assert_eq!(payment.amount, 12500);
    assert_eq!(
        payment.rule_key().as_str(),
        "merchant-4436/2025-05-26/PAYMENT/MONEY"
    );
}

#[test]
fn both_readings_agree_on_what_a_payment_is() {
    let values = [
        GOOD.to_owned(),
        with("12500", "-9223372036854775808"),
        with("\"merchant-4436\"", r#""m\u0041\u00e9""#),
        with("\"payoutDate\":\"2025-05-28\"", "\"payoutDate\":null"),
        with("\"amount\"", "\"x\":[{\"amount\":1e999}],\"amount\""),
        with(
            "}}",
            r#","testPayment":true,"networkCancel":null,"unconfirmed":false}}"#,
        ),
    ];
    for value in &values {
        let quick = read_payment(Some(b"id"), value).expect(value);
        assert_eq!(Ok(quick), explain(Some(b"id"), value), "{value}");
    }
}

#[test]
fn amounts_are_whole_numbers_of_64_bits() {
    for (text, good) in [
        ("0", true),
        ("-0", true),
        ("9223372036854775807", true),
        ("-9223372036854775808", true),
        ("9223372036854775808", false),
        ("-9223372036854775809", false),
        ("1.0", false),
        ("1e2", false),
        ("1E400", false),
        ("\"1\"", false),
        ("true", false),
        ("[1]", false),
        ("{}", false),
    ] {
        let expected = if good {
            Ok(())
        } else {
            Err(Defect::InvalidValue)
        };
        assert_eq!(defect(&with("12500", text)), expected, "{text}");
    }
    assert_eq!(defect(&with("12500", "null")), Err(Defect::MissingField));
    assert_eq!(defect(&with("12500", "01")), Err(Defect::NotJson));
}

#[test]
fn a_known_field_that_stands_twice_is_not_json_and_an_unknown_one_is_ignored() {
    for (from, to) in [
        ("\"channel\"", "\"channel\":\"ONLINE\",\"channel\""),
        ("\"amount\"", "\"amount\":1,\"amount\""),
        (
            "\"amount\"",
            "\"testPayment\":null,\"testPayment\":null,\"amount\"",
        ),
        ("\"amount\"", "\"\\u0061mount\":1,\"amount\""),
        ("\"data\"", "\"data\":null,\"data\""),
    ] {
        assert_eq!(defect(&with(from, to)), Err(Defect::NotJson), "{to}");
    }
    assert_eq!(
        defect(&with("\"data\"", "\"amount\":1,\"amount\":1,\"data\"")),
        Ok(())
    );
    let finish = r#"{"channel":"ONLINE","action":"FINISH","data":{"amount":1,"amount":2}}"#;
    assert_eq!(defect(finish), Err(Defect::NotJson));
}

#[test]
fn an_unknown_name_that_is_json_and_no_text_is_ignored() {
    for name in [r#""\ud800""#, r#""amount\udfff""#] {
        for before in ["\"channel\"", "\"amount\""] {
            let text = with(before, &format!("{name}:1,{before}"));
            assert_eq!(defect(&text), Ok(()), "{text}");
        }
    }
    for name in ["\"a\tb\"", r#""\x""#, r#""\ud8""#, "1"] {
        let text = with("\"amount\"", &format!("{name}:1,\"amount\""));
        assert_eq!(defect(&text), Err(Defect::NotJson), "{text}");
    }
}

#[test]
fn the_first_check_that_applies_decides() {
    let cases = [
        ("", Err(Defect::NotJson)),
        ("nonsense", Err(Defect::NotJson)),
        ("{} x", Err(Defect::NotJson)),
        ("[]", Err(Defect::InvalidValue)),
        (r#"["ONLINE","PAYMENT",{}]"#, Err(Defect::InvalidValue)),
        ("null", Err(Defect::InvalidValue)),
        ("{}", Err(Defect::MissingField)),
        (r#"{"channel":1}"#, Err(Defect::InvalidValue)),
        (r#"{"channel":"X","action":1}"#, Err(Defect::InvalidValue)),
        (r#"{"channel":"ONLINE"}"#, Err(Defect::MissingField)),
        (
            r#"{"channel":"ONLINE","action":"PAY"}"#,
            Err(Defect::InvalidValue),
        ),
        (
            r#"{"channel":"ONLINE","action":"FINISH","data":[1]}"#,
            Ok(()),
        ),
        (r#"{"channel":"ONLINE","action":"PAYMENT"}"#, Ok(())),
        (
            r#"{"channel":"ONLINE","action":"PAYMENT","data":[]}"#,
            Err(Defect::InvalidValue),
        ),
        (
            r#"{"channel":"ONLINE","action":"PAYMENT","data":{}}"#,
            Err(Defect::MissingField),
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(defect(value), expected, "{value}");
    }
    assert_eq!(
        read(
            None,
            Some(b"{\"channel\":\"OFFLINE\",\"action\":\"FINISH\"}")
        ),
        Message::Finish
    );
    assert_eq!(
        read(
            None,
            Some(b"{\"channel\":\"OFFLINE\",\"action\":\"PAYMENT\",\"data\":null}")
        ),
        Message::NoData
    );
    assert_eq!(read(Some(b"id"), None), Message::NoData);
    assert_eq!(
        defect(&with("\"ONLINE\",\"amount\"", "null,\"amount\"")),
        Err(Defect::MissingField)
    );
}

#[test]
fn an_array_in_place_of_the_data_object_is_refused() {
    let value = r#"{"channel":"ONLINE","action":"PAYMENT","data":["ONLINE",1,null,null,"m","2025-05-26T14:23","PAYMENT","MONEY",false,false,false]}"#;
    assert_eq!(defect(value), Err(Defect::InvalidValue));
}

#[test]
fn the_key_is_checked_before_the_fields_of_data() {
    let of = |key: Option<&[u8]>, value: &str| match read(key, Some(value.as_bytes())) {
        Message::DeadLetter(dead) => Err(dead.defect),
        _ => Ok(()),
    };
    let bad = with("12500", "null");
    assert_eq!(of(None, &bad), Err(Defect::MissingKey));
    assert_eq!(of(Some(b""), &bad), Err(Defect::MissingKey));
    assert_eq!(of(Some(b"\xff"), &bad), Err(Defect::InvalidValue));
    assert_eq!(
        of(Some("a\u{85}".as_bytes()), GOOD),
        Err(Defect::InvalidValue)
    );
    assert_eq!(of(Some(&[b'a'; 255]), GOOD), Ok(()));
    assert_eq!(of(Some(&[b'a'; 256]), GOOD), Err(Defect::InvalidValue));
    assert_eq!(of(Some(b"id"), &bad), Err(Defect::MissingField));
}

#[test]
fn flags_and_optional_dates_are_checked() {
    assert_eq!(
        defect(&with("\"2025-05-28\"", "\"2025-5-28\"")),
        Err(Defect::InvalidValue)
    );
    assert_eq!(
        defect(&with("\"2025-05-28\"", "20250528")),
        Err(Defect::InvalidValue)
    );
    assert_eq!(
        defect(&with("}}", r#","unconfirmed":"true"}}"#)),
        Err(Defect::InvalidValue)
    );
    assert_eq!(
        defect(&with("merchant-4436", "a/b")),
        Err(Defect::InvalidValue)
    );
    assert_eq!(
        defect(&with("T14:23:51.123456", "T14:23:51Z")),
        Err(Defect::InvalidValue)
    );
}

#[test]
fn a_detail_is_one_line_and_repeats_nothing_of_the_payload() {
    for value in [
        "{\"channel\":\n\"SECRET\",\"action\":\"PAYMENT\"}",
        "SECRET",
        "{\"a\":SECRET}",
    ] {
        let Message::DeadLetter(dead) = read(Some(b"SECRET"), Some(value.as_bytes())) else {
            panic!("{value}");
        };
        assert!(
            !dead.detail.contains("SECRET") && !dead.detail.contains('\n'),
            "{dead}"
        );
    }
}

#[test]
fn deep_nesting_in_an_unknown_field_is_no_reason_to_refuse() {
    let deep = format!("\"x\":{}{},\"data\"", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(defect(&with("\"data\"", &deep)), Ok(()));
}
