//! Messages that are no payments, each with the reason of its dead letter; and payments that look odd and are none the
//! worse for it.

use rand::Rng;
use rand::rngs::StdRng;

use crate::workload::form::{Form, pick};

/// Key, value and the reason due.
pub type Poison = (Option<Vec<u8>>, Vec<u8>, &'static str);

const REQUIRED: [&str; 6] = [
    "paymentType",
    "amount",
    "merchantNumber",
    "paymentDate",
    "paymentActionType",
    "paymentMethodType",
];

const REASONS: [(&str, u32); 5] = [
    ("MISSING_KEY", 1),
    ("NOT_UTF8", 1),
    ("NOT_JSON", 3),
    ("MISSING_FIELD", 2),
    ("INVALID_VALUE", 5),
];

/// Makes something wrong of a right payment.
pub fn poison(rng: &mut StdRng, id: &str, form: Form) -> Poison {
    let reason = pick(rng, &REASONS);
    let mut key = Some(id.as_bytes().to_vec());
    let value = match reason {
        "MISSING_KEY" => {
            key = rng.random_bool(0.5).then(Vec::new);
            form.json().into_bytes()
        }
        "NOT_UTF8" => not_utf8(rng, &form),
        "NOT_JSON" => not_json(rng, form),
        "MISSING_FIELD" => missing_field(rng, form).into_bytes(),
        _ => match rng.random_range(0..10) {
            0..3 => {
                key = Some(wrong_id(rng, id));
                form.json().into_bytes()
            }
            3 => no_payment(rng, &form),
            _ => wrong_value(rng, form).json().into_bytes(),
        },
    };
    (key, value, reason)
}

fn not_utf8(rng: &mut StdRng, form: &Form) -> Vec<u8> {
    let mut value = form.json().into_bytes();
    let at = rng.random_range(0..value.len());
    value[at] = pick(rng, &[(0xff, 1), (0xc0, 1), (0xfe, 1)]);
    value
}

fn not_json(rng: &mut StdRng, mut form: Form) -> Vec<u8> {
    let json = form.json();
    match rng.random_range(0..14) {
        0 => Vec::new(),
        1 => json.as_bytes()[..json.len() / 2].to_vec(),
        2 => format!("{json}}}").into_bytes(),
        3 => format!("\u{feff}{json}").into_bytes(),
        4 => vec![0; 40],
        5 => format!("{json}\0").into_bytes(),
        6 => b"payment of 12500 by merchant-4436".to_vec(),
        7 => {
            form.data.push(("amount".to_owned(), "1".to_owned()));
            form.json().into_bytes()
        }
        8 => {
            form.data
                .push(("merch\\u0061ntNumber".to_owned(), "\"x\"".to_owned()));
            form.json().into_bytes()
        }
        9 => json
            .replacen("{\"channel\"", "{\"action\":\"PAYMENT\",\"channel\"", 1)
            .into_bytes(),
        10 => form.with("amount", "007").json().into_bytes(),
        11 => form.with("amount", "NaN").json().into_bytes(),
        12 => form.with("merchantNumber", "\"a\tb\"").json().into_bytes(),
        _ => json.replace('"', "'").into_bytes(),
    }
}

fn missing_field(rng: &mut StdRng, mut form: Form) -> String {
    let name = REQUIRED[rng.random_range(0..REQUIRED.len())];
    match rng.random_range(0..6) {
        0..2 => form.without(name).json(),
        2..4 => form.with(name, "null").json(),
        4 => form.json().replacen("\"channel\":", "\"chanel\":", 1),
        _ => {
            "null".clone_into(&mut form.action);
            form.json()
        }
    }
}

fn wrong_id(rng: &mut StdRng, id: &str) -> Vec<u8> {
    match rng.random_range(0..5) {
        0 => [id.as_bytes(), &[0xff, 0xfe]].concat(),
        1 => format!("{id:x<256}").into_bytes(),
        2 => format!("{id}\0").into_bytes(),
        3 => format!("{id}\u{85}").into_bytes(),
        _ => format!("{id}\n").into_bytes(),
    }
}

/// JSON, but no object where one must be.
fn no_payment(rng: &mut StdRng, form: &Form) -> Vec<u8> {
    let text = match rng.random_range(0..6) {
        0 => "[]".to_owned(),
        1 => "12500".to_owned(),
        2 => "null".to_owned(),
        3 => format!("[{}]", form.json()),
        4 => format!(
            "{{\"channel\":\"ONLINE\",\"action\":\"PAYMENT\",\"data\":[{}]}}",
            form.data_json()
        ),
        _ => form
            .json()
            .replacen("\"channel\":\"O", "\"channel\":\"o", 1),
    };
    text.into_bytes()
}

fn wrong_value(rng: &mut StdRng, form: Form) -> Form {
    let long_name = format!("\"{:m<65}\"", "merchant-");
    let huge = "9".repeat(400);
    let wrong: [(&str, &str); 26] = [
        ("amount", "12500.0"),
        ("amount", "1.25e4"),
        ("amount", "1E4"),
        ("amount", "9223372036854775808"),
        ("amount", "-9223372036854775809"),
        ("amount", "1e400"),
        ("amount", &huge),
        ("amount", "\"12500\""),
        ("amount", "{}"),
        ("payoutDate", "\"2025-02-30\""),
        ("payoutDate", "20250528"),
        ("confirmDate", "\"2025-5-27\""),
        ("confirmDate", "\"\""),
        ("merchantNumber", "\"\""),
        ("merchantNumber", "\"shop/1\""),
        ("merchantNumber", "\"shop\\u0000\""),
        ("merchantNumber", "\"shop\\n\""),
        ("merchantNumber", "4436"),
        ("merchantNumber", &long_name),
        ("paymentDate", "\"2025-05-26\""),
        ("paymentDate", "\"2025-05-26T14:23:51Z\""),
        ("paymentDate", "\"9999-05-26T14:23:51\""),
        ("paymentDate", "\"0000-05-26T14:23:51\""),
        ("paymentActionType", "\"REFUND\""),
        ("paymentMethodType", "[\"CARD\"]"),
        ("testPayment", "\"false\""),
    ];
    let (name, json) = wrong[rng.random_range(0..wrong.len())];
    form.with(name, json)
}

/// Odd, but a payment.
pub fn oddity(rng: &mut StdRng, id: &str, form: Form) -> (Vec<u8>, Vec<u8>) {
    let id = id.as_bytes().to_vec();
    let json = match rng.random_range(0..11) {
        0 => form
            .with("note", "{\"a\":1,\"a\":2,\"b\":[1e999,\"\\u0000\"]}")
            .json(),
        1 => form.with("merchantNumber", "\"가맹점-서울-12\"").json(),
        2 => form
            .with("merchantNumber", "\"O\\u0027Neil \\\"\\\\\\\" Söhne\"")
            .json(),
        3 => form
            .with("merchantNumber", &format!("\"{:-<64}\"", "merchant"))
            .json(),
        4 => form
            .json()
            .replace(",\"", " ,\r\n\t\"")
            .replace("\":", "\" : "),
        5 => form.json().replacen("\"channel\"", "\"ch\\u0061nnel\"", 1),
        6 => form.with("amount", "-0").json(),
        7 => form
            .with("testPayment", "null")
            .with("networkCancel", "false")
            .with("unconfirmed", "null")
            .json(),
        8 => form
            .with("depth", &format!("{}{}", "[".repeat(60), "]".repeat(60)))
            .json(),
        9 => {
            return (
                [&id[..], "-é😀".as_bytes()].concat(),
                form.json().into_bytes(),
            );
        }
        _ => {
            return (
                format!("{:y<255}", String::from_utf8_lossy(&id)).into_bytes(),
                form.json().into_bytes(),
            );
        }
    };
    (id, json.into_bytes())
}
