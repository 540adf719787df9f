//! Each corruption of the topics of a real run breaks the promise that it is about, and no other.

use settle::broker::Topic;
use settle::codec::stored::{POSITION_KEY, Position};
use settle::verify::promise::Promise;
use settle::verify::terms::Scope;

use crate::capture::{Capture, Stored, breaks, perfect};

const OUTCOMES: &[Promise] = &[Promise::Outcomes];
const TOTALS: &[Promise] = &[Promise::Totals];
const RULES: &[Promise] = &[Promise::Rules];

/// Changes a settlement by rule in the topic, and leaves its row out of it.
fn change_settlement(capture: &mut Capture, text: &str, change: impl Fn(&mut Stored)) {
    let index = capture.find(Topic::Settlements, text);
    change(&mut capture.of(Topic::Settlements)[index]);
    forget_rows(capture);
}

/// As without a database.
fn forget_rows(capture: &mut Capture) {
    capture.positions.clear();
    for (_, rows) in &mut capture.tables {
        rows.clear();
    }
}

fn without_rows(promises: &[Promise], example: &str, corrupt: impl FnOnce(&mut Capture)) {
    breaks(promises, example, |capture| {
        forget_rows(capture);
        corrupt(capture);
    });
}

#[test]
fn a_real_run_keeps_every_promise_and_every_promise_was_looked_at() {
    let report = perfect().judge(Scope::default());
    assert!(report.findings.hold(), "{}", report.text());
    for promise in Promise::ALL {
        let finding = report.findings.of(promise);
        assert!(finding.checked > 100, "{promise}: {}", report.text());
        assert_eq!(finding.unjudged.len(), 0, "{}", report.text());
    }
    assert_eq!(report.under_way.bases, 0);
    for reason in ["DUPLICATE", "DUPLICATE_CONFLICT", "FINISH", "TEST_PAYMENT"] {
        let kinds = ("exclusion", reason.to_owned());
        assert!(report.outcomes.contains_key(&kinds), "{}", report.text());
    }
    let overflow = ("dead letter", "AMOUNT_OVERFLOW".to_owned());
    assert!(report.outcomes.contains_key(&overflow), "{}", report.text());
}

#[test]
fn a_missing_exclusion_dead_letter_or_settlement_is_seen() {
    for topic in [Topic::Exclusions, Topic::DeadLetter] {
        without_rows(OUTCOMES, "has no outcome", |capture| {
            capture.of(topic).remove(7);
        });
    }
    let both = &[Promise::Outcomes, Promise::Totals];
    without_rows(both, "has no outcome, base", |capture| {
        capture.of(Topic::Settlements).remove(7);
    });
}

#[test]
fn a_settlement_and_an_exclusion_made_twice_are_seen() {
    let both = &[Promise::Outcomes, Promise::Totals];
    without_rows(both, "has settlement", |capture| {
        let settlements = capture.of(Topic::Settlements);
        let last = settlements.last().unwrap().offset;
        let mut twin = settlements[7].clone();
        twin.offset = last + 100;
        settlements.push(twin);
    });
    without_rows(OUTCOMES, "has exclusion", |capture| {
        let exclusions = capture.of(Topic::Exclusions);
        let mut twin = exclusions[7].clone();
        twin.offset += 100_000;
        exclusions.push(twin);
    });
}

#[test]
fn an_outcome_above_the_committed_offset_is_seen() {
    without_rows(OUTCOMES, "above the committed position", |capture| {
        let index = capture.find(Topic::Exclusions, "FINISH");
        let mut extra = capture.of(Topic::Exclusions)[index].clone();
        extra.replace("\"offset\":", "\"offset\":77");
        extra.offset += 100_000;
        capture.of(Topic::Exclusions).push(extra);
    });
}

#[test]
fn a_position_that_was_not_committed_with_its_outcomes_is_seen() {
    without_rows(OUTCOMES, "above the committed position", |capture| {
        move_position(capture, Topic::IngestChangelog, -20);
    });
    without_rows(
        &[Promise::Atomicity],
        "above the committed position",
        |capture| {
            move_position(capture, Topic::Changelog, -20);
        },
    );
}

/// Moves what the last position record of a changelog says.
fn move_position(capture: &mut Capture, topic: Topic, by: i64) {
    let records = capture.of(topic);
    let is_position = |stored: &&mut Stored| stored.key.as_deref() == Some(POSITION_KEY);
    let last = records.iter_mut().rfind(is_position).unwrap();
    let mut position = Position::decode(last.value.as_deref().unwrap()).unwrap();
    position.next += by;
    last.value = Some(position.encode());
}

#[test]
fn a_base_left_at_rest_and_a_base_made_twice_are_seen() {
    let both = &[Promise::Outcomes, Promise::Totals];
    without_rows(both, "has no outcome, base", |capture| {
        // The last settlement of a partition, as if its transaction had never been.
        let settlements = capture.of(Topic::Settlements);
        settlements.pop();
    });
    without_rows(OUTCOMES, "has 2 bases", |capture| {
        let mut twin = capture.of(Topic::Bases)[9].clone();
        twin.offset += 100_000;
        capture.of(Topic::Bases).push(twin);
        move_position(capture, Topic::Changelog, 200_000);
    });
}

#[test]
fn bases_on_their_way_are_right_beside_live_instances_and_wrong_at_rest() {
    let mut capture = perfect();
    forget_rows(&mut capture);
    for topic in [
        Topic::Settlements,
        Topic::Statistics,
        Topic::Changelog,
        Topic::Rules,
    ] {
        capture.of(topic).clear();
    }
    let letters = capture.of(Topic::DeadLetter);
    letters.retain_mut(|letter| letter.header("settle-reason") != b"AMOUNT_OVERFLOW");
    let bases = capture.of(Topic::Bases).len() as u64;
    let moving = capture.judge_moving();
    assert!(moving.findings.hold(), "{}", moving.text());
    assert_eq!(moving.under_way.bases, bases);
    let at_rest = capture.judge(Scope::default());
    assert_eq!(at_rest.findings.broken(), OUTCOMES, "{}", at_rest.text());
    assert_eq!(at_rest.findings.of(Promise::Outcomes).breaches, bases);
}

#[test]
fn a_wrong_reason_and_a_wrong_first_are_seen() {
    let change = |reason: &'static str, from: &'static str, to: &'static str| {
        move |capture: &mut Capture| {
            let index = capture.find(Topic::Exclusions, reason);
            capture.of(Topic::Exclusions)[index].replace(from, to);
        }
    };
    let unconfirmed = change("UNCONFIRMED", "UNCONFIRMED", "NETWORK_CANCEL");
    without_rows(OUTCOMES, "and is exclusion UNCONFIRMED", unconfirmed);
    let conflict = change("DUPLICATE_CONFLICT", "DUPLICATE_CONFLICT", "DUPLICATE");
    without_rows(OUTCOMES, "a duplicate of one of", conflict);
    let first = change(
        "\"DUPLICATE\"",
        "\"first\":{\"partition\":",
        "\"first\":{\"partition\":1",
    );
    without_rows(OUTCOMES, "a duplicate of one of", first);
    without_rows(OUTCOMES, "and is dead letter", |capture| {
        let letter = &mut capture.of(Topic::DeadLetter)[3];
        *letter.header("settle-reason") = b"NOT_A_REASON".to_vec();
    });
}

#[test]
fn changed_contents_are_seen() {
    without_rows(OUTCOMES, "says something else", |capture| {
        change_settlement(capture, "\"RULE\"", |stored| {
            stored.replace("\"channel\":\"O", "\"channel\":\"X");
        });
    });
    without_rows(OUTCOMES, "says something else", |capture| {
        let index = capture.find(Topic::Exclusions, "UNCONFIRMED");
        capture.of(Topic::Exclusions)[index].replace("\"amount\":", "\"amount\":7");
    });
    without_rows(OUTCOMES, "dead letter", |capture| {
        let letter = &mut capture.of(Topic::DeadLetter)[3];
        letter.value.get_or_insert_default().push(b'!');
    });
    without_rows(OUTCOMES, "is not written as agreed", |capture| {
        change_settlement(capture, "\"RULE\"", |stored| stored.replace("{", "{ "));
    });
}

#[test]
fn a_record_in_a_wrong_partition_is_seen() {
    for topic in [Topic::Exclusions, Topic::DeadLetter] {
        without_rows(OUTCOMES, "belongs in partition", |capture| {
            let record = &mut capture.of(topic)[5];
            record.partition = (record.partition + 1) % 4;
        });
    }
    let of_statistics = |capture: &mut Capture| {
        let record = &mut capture.of(Topic::Statistics)[5];
        record.partition = (record.partition + 1) % 4;
    };
    without_rows(TOTALS, "belongs in partition", of_statistics);
}

#[test]
fn wrong_dates_are_seen() {
    without_rows(RULES, "other dates than its rule", |capture| {
        change_settlement(capture, "\"RULE\"", |stored| {
            stored.replace("\"payoutDate\":\"2025", "\"payoutDate\":\"2026");
        });
    });
    without_rows(RULES, "has not the default dates", |capture| {
        change_settlement(capture, "\"DEFAULT\"", |stored| {
            stored.replace("\"confirmDate\":\"2025", "\"confirmDate\":\"2026");
        });
    });
}

#[test]
fn a_rule_never_committed_and_a_rule_committed_later_are_seen() {
    without_rows(RULES, "a rule that was never committed", |capture| {
        change_settlement(capture, "\"RULE\"", |stored| {
            stored.replace("\"ruleId\":\"", "\"ruleId\":\"x");
        });
    });
    without_rows(RULES, "a rule that was never committed", |capture| {
        capture.of(Topic::Rules).remove(4);
    });
    without_rows(RULES, "a rule that was committed later", |capture| {
        capture.of(Topic::Rules)[4].timestamp += 600_000;
    });
}

#[test]
fn wrong_totals_are_seen() {
    without_rows(
        &[Promise::Totals, Promise::Atomicity],
        "they sum up to",
        |capture| {
            let record = capture.of(Topic::Statistics).last_mut().unwrap();
            record.replace("\"totalAmount\":", "\"totalAmount\":1");
        },
    );
    without_rows(TOTALS, "statistics record", |capture| {
        capture.of(Topic::Statistics).pop();
    });
    without_rows(TOTALS, "does not rise", |capture| {
        let statistics = capture.of(Topic::Statistics);
        let mut twin = statistics[3].clone();
        twin.offset += 100_000;
        statistics.push(twin);
    });
    let of_changelog = |capture: &mut Capture| {
        let records = capture.of(Topic::Changelog);
        let is_total = |stored: &Stored| stored.key.as_deref() != Some(POSITION_KEY);
        let last = records.iter().rposition(is_total).unwrap();
        records.remove(last);
    };
    without_rows(TOTALS, "changelog record", of_changelog);
}

#[test]
fn a_changelog_that_cannot_be_read_is_seen() {
    without_rows(&[Promise::State], "cannot be read", |capture| {
        let position = capture.of(Topic::IngestChangelog).first_mut().unwrap();
        position.value.get_or_insert_default().push(0);
    });
}

#[test]
fn a_refusal_for_an_overflow_that_never_was_is_seen() {
    // A settlement becomes a dead letter, and all totals leave it out.
    without_rows(TOTALS, "was refused at a total of", |capture| {
        let settlements = capture.of(Topic::Settlements);
        let keys: Vec<String> = settlements.iter().map(rule_key).collect();
        let single = |key: &String| keys.iter().filter(|other| *other == key).count() == 1;
        let index = keys.iter().position(single).unwrap();
        let key = keys[index].clone();
        let settlement = settlements.remove(index);
        let json: serde_json::Value = serde_json::from_str(&settlement.text()).unwrap();
        let place = &json["source"];
        let is_source = |stored: &&Stored| {
            stored.partition == place["partition"] && stored.offset == place["offset"]
        };
        let source = capture
            .of(Topic::Source)
            .iter()
            .find(is_source)
            .unwrap()
            .clone();
        let of = format!(
            "{}/{}/{}",
            capture.terms.source_topic, source.partition, source.offset
        );
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        capture.of(Topic::DeadLetter).push(Stored {
            offset: 100_000,
            headers: vec![
                header("settle-reason", "AMOUNT_OVERFLOW"),
                header("settle-detail", "why"),
                header("settle-source", &of),
            ],
            ..source
        });
        let is_of_key = |stored: &Stored| {
            let text = stored
                .key
                .as_deref()
                .map(String::from_utf8_lossy)
                .unwrap_or_default();
            let parts: Vec<&str> = key.split('/').collect();
            *text == key
                || parts
                    .iter()
                    .all(|part| text.contains(&format!("\"{part}\"")))
        };
        capture
            .of(Topic::Statistics)
            .retain(|stored| !is_of_key(stored));
        capture
            .of(Topic::Changelog)
            .retain(|stored| !is_of_key(stored));
    });
}

fn rule_key(settlement: &Stored) -> String {
    let json: serde_json::Value = serde_json::from_str(&settlement.text()).unwrap();
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    let day = text("paymentDate")[..10].to_owned();
    let (action, method) = (text("paymentActionType"), text("paymentMethodType"));
    format!("{}/{day}/{action}/{method}", text("merchantNumber"))
}

#[test]
fn what_is_out_of_scope_is_not_judged() {
    let mut capture = perfect();
    forget_rows(&mut capture);
    let index = capture.find(Topic::Exclusions, "UNCONFIRMED");
    let wrong = &mut capture.of(Topic::Exclusions)[index];
    wrong.replace("UNCONFIRMED", "NETWORK_CANCEL");
    let json: serde_json::Value = serde_json::from_str(&wrong.text()).unwrap();
    let offset = json["source"]["offset"].as_i64().unwrap();
    let partition = i32::try_from(json["source"]["partition"].as_i64().unwrap()).unwrap();
    let merchant = json["merchantNumber"].as_str().unwrap().to_owned();
    let scope = |from, to| Scope {
        partition: Some(partition),
        from_offset: Some(from),
        to_offset: Some(to),
        ..Scope::default()
    };
    let of_merchant = |merchant: &str| Scope {
        merchant: Some(merchant.to_owned()),
        ..Scope::default()
    };
    for (scope, holds) in [
        (scope(offset, offset + 1), false),
        (scope(0, offset), true),
        (scope(offset + 1, i64::MAX), true),
        (of_merchant(&merchant), false),
        (of_merchant("nobody"), true),
    ] {
        let report = capture.judge(scope.clone());
        assert_eq!(
            report.findings.hold(),
            holds,
            "{scope:?}: {}",
            report.text()
        );
    }
}
