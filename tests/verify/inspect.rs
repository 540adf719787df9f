//! What `settle explain` and `settle dead-letters` tell of a real run.

use std::process::Output;

use chaos::model::partition;
use chaos::workload::Message;
use serde_json::Value;

use crate::line::{Line, PARTITIONS};

pub const DAY: &str = "2025-05-26";

pub fn settle(line: &Line, arguments: &[&str]) -> Output {
    line.command(0, arguments).unwrap()
}

pub fn text(line: &Line, arguments: &[&str]) -> String {
    let output = settle(line, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{arguments:?}: {told}{errors}"
    );
    told
}

pub fn json(line: &Line, arguments: &[&str]) -> Value {
    let with_json = [arguments, &["--output", "json"]].concat();
    serde_json::from_str(&text(line, &with_json)).unwrap()
}

pub fn message(id: &str, value: &str) -> Message {
    Message {
        key: Some(id.as_bytes().to_vec()),
        value: Some(value.as_bytes().to_vec()),
        partition: partition::of(id.as_bytes(), PARTITIONS),
        intent: "SETTLED",
    }
}

pub fn payment(id: &str, amount: i64) -> Message {
    message(
        id,
        &format!(
            r#"{{"channel":"ONLINE","action":"PAYMENT","data":{{"paymentType":"ONLINE","amount":{amount},"merchantNumber":"shop-7","paymentDate":"{DAY}T14:23","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}}}}"#
        ),
    )
}

/// The facts of one kind.
fn facts<'a>(received: &'a Value, what: &str) -> Vec<&'a Value> {
    let facts = received["facts"].as_array().unwrap().iter();
    facts.filter(|fact| fact["what"] == what).collect()
}

#[test]
fn every_fact_about_a_payment_is_told() {
    let mut line = Line::new("explained").with_database();
    line.start(1);
    line.send([
        payment("first", 100),
        payment("told", 23),
        payment("told", 23),
    ]);
    line.settle();
    line.send([payment("last", 1), message("broken", "{")]);
    line.settle();
    let story = json(&line, &["explain", "told"]);
    let received = story["received"].as_array().unwrap();
    assert_eq!(received.len(), 2, "{story:#}");
    let (first, repeat) = (&received[0], &received[1]);
    assert_eq!(first["ruleKey"], format!("shop-7/{DAY}/PAYMENT/MONEY"));
    assert_eq!(facts(first, "base").len(), 1, "{story:#}");
    let settlement = facts(first, "settlement")[0];
    assert_eq!(settlement["detail"]["amount"], 23, "{story:#}");
    let is_by_rule = settlement["detail"]["payoutBasis"] == "RULE";
    assert_eq!(
        facts(first, "its rule").len(),
        usize::from(is_by_rule),
        "{story:#}"
    );
    let total = &facts(first, "total")[0]["detail"];
    let counted = total["settlementOfItsKey"].as_u64().unwrap();
    assert!(
        total["total"]["count"].as_u64().unwrap() >= counted,
        "{story:#}"
    );
    let latest = &facts(first, "latest total")[0]["detail"]["total"];
    assert_eq!(latest["totalAmount"], 124, "{story:#}");
    assert_eq!(latest["count"], 3, "{story:#}");
    let rows: Vec<&Value> = facts(first, "row")
        .iter()
        .map(|row| &row["place"])
        .collect();
    assert_eq!(rows, ["settle.settlement", "settle.payment_log"]);
    let exclusion = facts(repeat, "exclusion")[0];
    assert_eq!(exclusion["detail"]["reason"], "DUPLICATE", "{story:#}");
    let offset = exclusion["detail"]["first"]["offset"].to_string();
    assert!(
        first["source"].as_str().unwrap().ends_with(&offset),
        "{story:#}"
    );
    let dead = text(&line, &["explain", "broken"]);
    assert!(dead.contains("no payment: NOT_JSON"), "{dead}");
    assert!(dead.contains("dead letter"), "{dead}");
    let nobody = settle(&line, &["explain", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1));
    line.terminate(0);
}

#[test]
fn dead_letters_are_listed_by_reason_partition_and_time_and_shown_with_their_bytes() {
    let mut line = Line::new("letters");
    line.start(1);
    line.send([
        message("a", "{"),
        message("b", "{\"broken\""),
        message("c", "[]"),
    ]);
    line.settle();
    let all = text(&line, &["dead-letters", "list"]);
    assert_eq!(all.lines().count(), 3, "{all}");
    let invalid = json(
        &line,
        &["dead-letters", "list", "--reason", "INVALID_VALUE"],
    );
    assert_eq!(invalid["key"], "c");
    let partition = partition::of(b"c", PARTITIONS);
    assert_eq!(
        invalid["source"],
        format!("{}/{partition}/0", line.names.source)
    );
    for number in 0..PARTITIONS {
        let wanted = number.to_string();
        let of = text(&line, &["dead-letters", "list", "--partition", &wanted]);
        let due = all
            .lines()
            .filter(|text| text.contains(&format!("/{number}/")))
            .count();
        assert_eq!(of.lines().count(), due, "{of}");
    }
    let early = text(
        &line,
        &["dead-letters", "list", "--until", "2020-01-01T00:00:00Z"],
    );
    assert_eq!(early, "");
    let late = text(
        &line,
        &["dead-letters", "list", "--since", "2020-01-01T00:00:00Z"],
    );
    assert_eq!(late, all);
    let shown = json(
        &line,
        &["dead-letters", "show", &partition.to_string(), "0"],
    );
    assert_eq!(
        (&shown["value"], &shown["form"]),
        (&"[]".into(), &"text".into())
    );
    assert_eq!(shown["reason"], "INVALID_VALUE");
    let none = settle(&line, &["dead-letters", "show", "0", "999"]);
    assert_eq!(none.status.code(), Some(1));
    line.terminate(0);
}
