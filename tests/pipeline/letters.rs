//! Dead letters carry what came.

use chaos::cluster::topics::Topic;
use chaos::model::Record;
use chaos::workload::Message;

use crate::line::{Line, PARTITIONS, count};
use crate::payments::{message, payment};

/// Key, value, and two headers.
type Letter = (Vec<u8>, Vec<u8>, [Option<String>; 2]);

/// All dead letters with the headers of these names, in the order of their keys.
fn letters(line: &Line, names: [&str; 2]) -> Vec<Letter> {
    let mut letters = Vec::new();
    let text = |record: &Record, name| {
        record
            .header(name)
            .map(|value| String::from_utf8(value.to_vec()).unwrap())
    };
    line.read(&line.names.dead_letter, |record| {
        let bytes = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
        letters.push((
            bytes(record.key),
            bytes(record.value),
            names.map(|name| text(record, name)),
        ));
    });
    letters.sort();
    letters
}

#[test]
fn a_value_that_does_not_fit_is_cut_and_says_how_long_it_was() {
    let mut line = Line::new("cut").with_database();
    let narrow = Topic::new(&line.names.dead_letter, PARTITIONS).set("max.message.bytes", "20000");
    line.topics.create(&[narrow]).unwrap();
    line.start(1);
    let long = |length: usize| vec![b'x'; length];
    line.send([
        message("a-fits", long(10_000), "NOT_JSON"),
        message("b-cut", long(600_000), "NOT_JSON"),
        message("c-cut", long(900_000), "NOT_JSON"),
        payment("paid", "shop-1", 12),
    ]);
    let proof = line.prove();
    assert_eq!(count(&proof, "NOT_JSON"), 3);
    let letters = letters(&line, ["settle-reason", "settle-truncated"]);
    let told: Vec<_> = letters
        .iter()
        .map(|(_, _, [_, length])| length.as_deref())
        .collect();
    assert_eq!(told, [None, Some("600000"), Some("900000")]);
    assert_eq!(letters[0].1, long(10_000));
    for (_, value, _) in &letters[1..] {
        assert!((10_000..20_000).contains(&value.len()), "{}", value.len());
        assert!(value.iter().all(|byte| *byte == b'x'));
    }
}

#[test]
fn a_key_of_any_length_stops_nothing() {
    let mut line = Line::new("keys");
    let narrow = Topic::new(&line.names.dead_letter, PARTITIONS).set("max.message.bytes", "20000");
    line.topics.create(&[narrow]).unwrap();
    line.start(1);
    let keyed = |key: String, value: Option<&[u8]>| Message {
        value: value.map(<[u8]>::to_vec),
        ..message(&key, Vec::new(), "LONG_KEY")
    };
    line.send([
        keyed("x".repeat(65_536), None),
        keyed("\u{1}".repeat(160_000), None),
        keyed("x".repeat(900_000), None),
        keyed("x".repeat(30_000), Some(b"{")),
        payment("paid", "shop-1", 12),
    ]);
    line.settle();
    let mut keys = Vec::new();
    line.read(&line.names.exclusions, |record| {
        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        let is_null = value.starts_with("{\"paymentId\":null,\"reason\":\"NO_DATA\"");
        keys.push((record.key.map(<[u8]>::len), is_null));
    });
    keys.sort();
    assert_eq!(keys, [(None, true), (None, true), (Some(65_536), false)]);
    let letters = letters(&line, ["settle-reason", "settle-truncated"]);
    let reason = [Some("NOT_JSON".to_owned()), None];
    assert_eq!(letters, [(Vec::new(), b"{".to_vec(), reason)]);
}

#[test]
fn an_amount_that_overflows_the_total_goes_back_with_its_original_bytes() {
    let mut line = Line::new("overflow").with_database();
    line.start(2);
    let odd = |id: &str, amount: i64| -> Message {
        let plain = payment(id, "shop-overflow", amount);
        let text = String::from_utf8(plain.value.unwrap()).unwrap();
        let odd = text.replacen(
            "\"data\":",
            " \"note\" : \"\\u00e9 é\",\r\n\t\"data\" :  ",
            1,
        );
        message(id, odd.into_bytes(), "LARGE_AMOUNT")
    };
    line.send([odd("a", i64::MAX), odd("e", -1)]);
    line.settle();
    let refused = [odd("b", i64::MAX), odd("c", 2)];
    line.send(refused.clone());
    line.settle();
    line.send([odd("d", i64::MIN), odd("f", 1)]);
    let proof = line.prove();
    assert_eq!(count(&proof, "AMOUNT_OVERFLOW"), 2);
    let found = letters(&line, ["settle-reason", "settle-truncated"]);
    let reason = [Some("AMOUNT_OVERFLOW".to_owned()), None];
    let expected =
        refused.map(|message| (message.key.unwrap(), message.value.unwrap(), reason.clone()));
    assert_eq!(found, expected);
}
