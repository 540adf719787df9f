//! The proof can fail: each corruption of a perfect run breaks the promise it is about, and no other.

use std::sync::LazyLock;

use crate::model::json::Json;
use crate::model::outgoing::{self, Exclusion, Settlement, Totals};
use crate::model::{Contract, Rule, calendar, partition};
use crate::oracle::promise::Promise;
use crate::oracle::reference::{self, Capture, Stored, Topic};
use crate::oracle::tables::{DeadLetterRow, SettlementRow};
use crate::workload::day::{Day, DayOptions};
use crate::workload::{EXCLUDED_MERCHANTS, TEST_MERCHANTS};

fn contract() -> Contract {
    Contract {
        excluded_merchants: EXCLUDED_MERCHANTS.map(str::to_owned).to_vec(),
        test_merchants: TEST_MERCHANTS.map(str::to_owned).to_vec(),
        ..Contract::default()
    }
}

fn perfect() -> Capture {
    static RUN: LazyLock<Capture> = LazyLock::new(|| {
        let options = DayOptions {
            merchants: 40,
            ..DayOptions::new(11, 6_000, 3)
        };
        reference::run(&contract(), Day::new(options))
    });
    RUN.clone()
}

/// Corrupts a perfect run; exactly `promise` must be broken.
pub(super) fn breaks(promise: Promise, corrupt: impl FnOnce(&mut Capture)) {
    let mut capture = perfect();
    corrupt(&mut capture);
    let findings = capture.findings(&contract());
    let examples: Vec<_> = findings
        .all()
        .iter()
        .flat_map(|finding| &finding.examples)
        .collect();
    assert_eq!(findings.broken(), [promise], "{examples:#?}");
}

fn find<'a>(topic: &'a mut Topic, text: &str) -> &'a mut Stored {
    let found = topic
        .records
        .iter_mut()
        .find(|stored| stored.text().contains(text));
    found.unwrap_or_else(|| panic!("no record with {text}"))
}

/// Changes a settlement by rule, and its row alike.
fn change_settlement(capture: &mut Capture, change: impl Fn(&mut Stored)) {
    let index = capture
        .settlements
        .records
        .iter()
        .position(|stored| stored.text().contains("\"RULE\""))
        .unwrap();
    change(&mut capture.settlements.records[index]);
    let value = capture.settlements.records[index].value.clone().unwrap();
    capture.settlement_rows[index].settlement = Settlement::read(&value).unwrap();
}

/// Changes an exclusion with this reason, and its row alike.
fn change_exclusion(capture: &mut Capture, reason: &str, change: impl Fn(&mut Stored)) {
    let index = capture
        .exclusions
        .records
        .iter()
        .position(|stored| stored.text().contains(reason))
        .unwrap();
    change(&mut capture.exclusions.records[index]);
    let value = capture.exclusions.records[index].value.clone().unwrap();
    capture.exclusion_rows[index] = Exclusion::read(&value).unwrap();
}

/// Some key whose statistics were published several times, and the places of its records.
fn risen(capture: &Capture) -> Vec<usize> {
    let records = &capture.statistics.records;
    let places = |key: &Option<Vec<u8>>| {
        records
            .iter()
            .enumerate()
            .filter(|(_, r)| r.key == *key)
            .map(|(index, _)| index)
            .collect::<Vec<_>>()
    };
    records
        .iter()
        .map(|r| places(&r.key))
        .find(|places| places.len() > 3)
        .unwrap()
}

#[test]
fn a_perfect_run_keeps_every_promise() {
    let findings = perfect().findings(&contract());
    let examples: Vec<_> = findings
        .all()
        .iter()
        .flat_map(|finding| &finding.examples)
        .collect();
    assert!(findings.hold(), "{examples:#?}");
    for finding in findings.all() {
        assert!(
            finding.checked > 100,
            "{} was checked {} times",
            finding.promise,
            finding.checked
        );
    }
}

#[test]
fn a_lost_settlement_is_seen() {
    breaks(Promise::Outcomes, |capture| {
        capture.settlements.records.remove(100);
        capture.settlement_rows.remove(100);
    });
}

#[test]
fn a_settlement_made_twice_is_seen() {
    breaks(Promise::Outcomes, |capture| {
        let twin = capture.settlements.records[100].clone();
        capture.settlements.records.push(Stored {
            offset: 99_999,
            ..twin
        });
    });
}

#[test]
fn an_outcome_of_both_kinds_is_seen() {
    breaks(Promise::Outcomes, |capture| {
        let source = capture.settlement_rows[100].settlement.source;
        change_exclusion(capture, "UNCONFIRMED", |_| {});
        let mut twin = find(&mut capture.exclusions, "UNCONFIRMED").clone();
        let text = twin.text();
        let from = text.find("\"source\"").unwrap();
        let to = text.find(",\"merchantNumber\"").unwrap();
        let place = format!(
            "\"source\":{{\"partition\":{},\"offset\":{}}}",
            source.partition, source.offset
        );
        twin.value = Some(text.replace(&text[from..to], &place).into_bytes());
        twin.partition = source.partition % reference::SHAPE.exclusions;
        capture.exclusions.records.push(twin);
    });
}

#[test]
fn an_outcome_of_no_record_is_seen() {
    breaks(Promise::Outcomes, |capture| {
        let mut extra = find(&mut capture.exclusions, "FINISH").clone();
        extra.replace("\"offset\":", "\"offset\":77");
        capture.exclusions.records.push(extra.clone());
        capture
            .exclusion_rows
            .push(Exclusion::read(&extra.value.unwrap()).unwrap());
    });
}

#[test]
fn a_lost_exclusion_and_a_lost_dead_letter_are_seen() {
    breaks(Promise::Outcomes, |capture| {
        capture.exclusions.records.remove(5);
        capture.exclusion_rows.remove(5);
    });
    breaks(Promise::Outcomes, |capture| {
        capture.dead_letters.records.remove(5);
        capture.dead_letter_rows.remove(5);
    });
}

#[test]
fn a_wrong_reason_is_seen() {
    breaks(Promise::Outcomes, |capture| {
        change_exclusion(capture, "UNCONFIRMED", |stored| {
            stored.replace("UNCONFIRMED", "NETWORK_CANCEL");
        });
    });
    breaks(Promise::Outcomes, |capture| {
        change_exclusion(capture, "\"DUPLICATE_CONFLICT", |stored| {
            stored.replace("DUPLICATE_CONFLICT", "DUPLICATE");
        });
    });
    breaks(Promise::Outcomes, |capture| {
        capture.dead_letters.records[3].headers[0].1 = b"NOT_A_REASON".to_vec();
        "NOT_A_REASON".clone_into(&mut capture.dead_letter_rows[3].reason);
    });
}

#[test]
fn a_refusal_for_an_overflow_that_never_was_is_seen() {
    breaks(Promise::Outcomes, |capture| {
        let key = capture.settlement_rows[100].settlement.rule_key();
        let is_key = |row: &SettlementRow| row.settlement.rule_key() == key;
        // The last payment of its key, so that every earlier sum stays right.
        let index = capture.settlement_rows.iter().rposition(is_key).unwrap();
        let last = capture.settlement_rows.remove(index).settlement;
        capture.settlements.records.remove(index);
        refuse(capture, &last);
        take_off(capture, &last);
    });
}

/// Makes a dead letter for overflow of a settlement.
fn refuse(capture: &mut Capture, settlement: &Settlement) {
    let is_source = |r: &&Stored| r.record().place() == settlement.source;
    let source = capture.source.records.iter().find(is_source).unwrap();
    let mut letter = Stored {
        partition: settlement.source.partition % reference::SHAPE.dead_letters,
        offset: 99_999,
        ..source.clone()
    };
    let place = format!("payments/{}", settlement.source);
    letter.headers = vec![
        ("settle-reason", b"AMOUNT_OVERFLOW".to_vec()),
        ("settle-detail", b"why".to_vec()),
        ("settle-source", place.into_bytes()),
    ];
    capture.dead_letter_rows.push(DeadLetterRow {
        source: settlement.source,
        payment_id: Some(settlement.payment_id.clone()),
        reason: "AMOUNT_OVERFLOW".to_owned(),
        detail: "why".to_owned(),
        payload: letter.value.clone().unwrap(),
    });
    capture.dead_letters.records.push(letter);
}

/// Takes the last settlement of its key out of the totals.
fn take_off(capture: &mut Capture, settlement: &Settlement) {
    let name = settlement.rule_key();
    let is_name = |(known, _): &&mut (String, Totals)| *known == name;
    let (_, totals) = capture.statistics_rows.iter_mut().find(is_name).unwrap();
    totals.amount -= settlement.amount;
    totals.count -= 1;
    let totals = *totals;
    capture.answers.iter_mut().find(is_name).unwrap().1 = totals;
    let key = outgoing::statistics_key(&name).unwrap();
    let is_key = |r: &Stored| r.key.as_deref() == Some(key.as_bytes());
    let records = &mut capture.statistics.records;
    let last = records.iter().rposition(is_key).unwrap();
    let before = records[..last].iter().rev().find(|r| is_key(r));
    if before.is_some_and(|before| before.text() == totals.render()) {
        records.remove(last);
    } else {
        records[last].value = Some(totals.render().into_bytes());
    }
}

#[test]
fn a_wrong_first_a_wrong_amount_and_changed_bytes_are_seen() {
    breaks(Promise::Content, |capture| {
        change_exclusion(capture, "\"DUPLICATE\"", |stored| {
            stored.replace("\"first\":{\"partition\":", "\"first\":{\"partition\":1");
        });
    });
    breaks(Promise::Content, |capture| {
        change_exclusion(capture, "UNCONFIRMED", |stored| {
            stored.replace("\"amount\":", "\"amount\":7");
        });
    });
    breaks(Promise::Content, |capture| {
        change_settlement(capture, |stored| {
            stored.replace("\"paymentType\":\"O", "\"paymentType\":\"X");
        });
    });
    breaks(Promise::Content, |capture| {
        let letter = &mut capture.dead_letters.records[3];
        letter.value.get_or_insert_default().push(b'!');
        capture.dead_letter_rows[3].payload = letter.value.clone().unwrap();
    });
}

#[test]
fn a_base_without_outcome_and_a_lost_base_are_seen() {
    breaks(Promise::AtRest, |capture| {
        let twin = capture.bases.records[10].clone();
        capture.bases.records.push(twin);
    });
    breaks(Promise::AtRest, |capture| {
        capture.bases.records.remove(10);
    });
}

#[test]
fn a_wrong_date_is_seen() {
    breaks(Promise::Rules, |capture| {
        change_settlement(capture, |stored| {
            stored.replace("\"payoutDate\":\"2025-06", "\"payoutDate\":\"2025-07");
        });
    });
    breaks(Promise::Rules, |capture| {
        let index = capture
            .settlements
            .records
            .iter()
            .position(|stored| stored.text().contains("DEFAULT"))
            .unwrap();
        let stored = &mut capture.settlements.records[index];
        stored.replace("\"confirmDate\":\"2025", "\"confirmDate\":\"2024");
        let value = stored.value.clone().unwrap();
        capture.settlement_rows[index].settlement = Settlement::read(&value).unwrap();
    });
}

#[test]
fn a_rule_nobody_published_and_a_rule_the_service_never_gave_are_seen() {
    breaks(Promise::Rules, |capture| {
        let (name, _) = capture.rule_rows.remove(4);
        let at = |r: &Stored| r.key.as_deref() == Some(name.as_bytes());
        capture.rules.records.retain(|r| !at(r));
    });
    breaks(Promise::Rules, |capture| {
        let name = capture
            .settlement_rows
            .iter()
            .find(|row| row.settlement.basis == "DEFAULT")
            .unwrap()
            .settlement
            .rule_key();
        let rule = Rule {
            id: "x".into(),
            payout_date: "2025-06-01".into(),
            confirm_date: "2025-06-01".into(),
        };
        let home = partition::of(name.as_bytes(), reference::SHAPE.keyed);
        let value = outgoing::rule_record(&name, &rule).unwrap();
        capture
            .rules
            .push(home, Some(name.as_bytes()), Some(value.as_bytes()));
        capture.rule_rows.push((name, rule));
    });
}

#[test]
fn default_dates_where_there_is_a_rule_are_seen() {
    breaks(Promise::Rules, |capture| {
        let index = capture
            .settlement_rows
            .iter()
            .position(|row| row.settlement.basis == "RULE")
            .unwrap();
        let settlement = &mut capture.settlement_rows[index].settlement;
        let day = calendar::day(settlement.day()).unwrap() + 2;
        settlement.payout_date = calendar::iso(day);
        settlement.confirm_date = settlement.payout_date.clone();
        settlement.basis = "DEFAULT".to_owned();
        settlement.rule_id = None;
        capture.settlements.records[index].value = Some(settlement.render().into_bytes());
    });
}

#[test]
fn a_wrong_total_is_seen() {
    for (amount, count) in [(1, 0), (0, 1), (-5, -1)] {
        breaks(Promise::Totals, |capture| {
            let last = *risen(capture).last().unwrap();
            let key = capture.statistics.records[last].key.clone().unwrap();
            let json = String::from_utf8(key).unwrap();
            let name = outgoing::statistics_rule_key(&Json::read(&json).unwrap()).unwrap();
            let (_, totals) = capture
                .statistics_rows
                .iter_mut()
                .find(|(known, _)| *known == name)
                .unwrap();
            *totals = Totals {
                amount: totals.amount + amount,
                count: totals.count + count,
            };
            let changed = *totals;
            capture
                .answers
                .iter_mut()
                .find(|(known, _)| *known == name)
                .unwrap()
                .1 = changed;
            capture.statistics.records[last].value = Some(changed.render().into_bytes());
            if count < 0 {
                // It must still rise.
                let before = risen(capture);
                capture.statistics.records.remove(before[before.len() - 2]);
            }
        });
    }
}

#[test]
fn swapped_repeated_and_torn_versions_are_seen() {
    breaks(Promise::Versions, |capture| {
        let places = risen(capture);
        let (a, b) = (places[0], places[1]);
        let value = capture.statistics.records[a].value.clone();
        capture.statistics.records[a].value = capture.statistics.records[b].value.clone();
        capture.statistics.records[b].value = value;
    });
    breaks(Promise::Versions, |capture| {
        let first = risen(capture)[0];
        let twin = capture.statistics.records[first].clone();
        capture.statistics.records.insert(first, twin);
    });
    breaks(Promise::Versions, |capture| {
        let middle = risen(capture)[1];
        capture.statistics.records[middle].replace(",\"count\"", "1,\"count\"");
    });
    breaks(Promise::Versions, |capture| {
        second_behind_first(capture);
    });
}

/// Moves the second version of a key right behind the first; where the two stand.
fn second_behind_first(capture: &mut Capture) -> [usize; 2] {
    let places = risen(capture);
    let offset = capture.statistics.records[places[0]].offset + 1;
    let mut second = capture.statistics.records.remove(places[1]);
    second.offset = offset;
    let partition = second.partition;
    for record in capture
        .statistics
        .records
        .iter_mut()
        .filter(|r| r.partition == partition && r.offset >= offset)
    {
        record.offset += 1;
    }
    capture.statistics.records.insert(places[0] + 1, second);
    [places[0], places[0] + 1]
}

#[test]
fn a_marker_that_is_missing_between_two_transactions_of_one_writer_is_seen() {
    let written_by = |capture: &mut Capture, writers: [&[u8]; 2]| {
        for (place, writer) in second_behind_first(capture).into_iter().zip(writers) {
            let headers = &mut capture.statistics.records[place].headers;
            headers.push(("settle-transaction", writer.to_vec()));
        }
    };
    breaks(Promise::Versions, |capture| {
        written_by(capture, [b"settle:a-0/1", b"settle:a-0/2"]);
    });
    let mut capture = perfect();
    written_by(&mut capture, [b"settle:a-0/1", b"settle:b-0/2"]);
    assert!(capture.findings(&contract()).hold());
}

#[test]
fn a_record_in_the_wrong_partition_is_seen() {
    breaks(Promise::Placement, |capture| {
        capture.settlements.records[7].partition += 1;
    });
    breaks(Promise::Placement, |capture| {
        capture.bases.records[7].partition += 1;
    });
    breaks(Promise::Placement, |capture| {
        capture.rules.records[7].partition += 1;
    });
    breaks(Promise::Placement, |capture| {
        capture.exclusions.records[7].partition += 1;
    });
    breaks(Promise::Placement, |capture| {
        capture.dead_letters.records[7].partition += 1;
    });
}

#[test]
fn other_bytes_of_the_same_meaning_are_seen() {
    breaks(Promise::Format, |capture| {
        capture.settlements.records[7].replace("\"amount\":", "\"amount\": ");
    });
    breaks(Promise::Format, |capture| {
        capture.exclusions.records[7].replace(",\"source\"", ", \"source\"");
    });
    breaks(Promise::Format, |capture| {
        capture.statistics.records[7].replace(",\"count\"", " ,\"count\"");
    });
    breaks(Promise::Format, |capture| {
        capture.settlements.records[7].key = Some(b"other".to_vec());
    });
    breaks(Promise::Format, |capture| {
        capture.dead_letters.records[7].headers[1].1 = b"two\nlines".to_vec();
        "two\nlines".clone_into(&mut capture.dead_letter_rows[7].detail);
    });
}

#[test]
fn outside_the_window_a_repeat_may_be_either() {
    let contract = Contract {
        window_ms: 1000,
        ..contract()
    };
    let mut messages: Vec<_> = Day::new(DayOptions {
        is_plain: true,
        ..DayOptions::new(5, 3000, 1)
    })
    .collect();
    let repeat = messages[10].clone();
    messages.insert(2500, repeat);
    let run = reference::run(&contract, messages.clone().into_iter());
    assert_eq!(run.exclusions.records.len(), 1);
    assert!(run.findings(&contract).hold());
    let forgetful = Contract {
        window_ms: 0,
        ..contract.clone()
    };
    let mut run = reference::run(&contract, messages.into_iter());
    assert!(run.findings(&forgetful).hold());
    run.exclusions.records[0].replace("\"offset\":10}", "\"offset\":11}");
    assert!(run.findings(&contract).broken().contains(&Promise::Content));
}
