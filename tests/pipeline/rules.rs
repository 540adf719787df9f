//! The rule service fails in every way, and others publish rules too.

use std::collections::BTreeMap;
use std::time::Duration;

use chaos::cluster::rule_faults::Fault;
use chaos::cluster::rule_service::Answer;
use chaos::cluster::rules::{Rule, RuleKey};
use chaos::cluster::wait;
use chaos::model::outgoing::{self, Settlement};
use chaos::model::partition;

use crate::line::{LIMIT, Line, PARTITIONS, count, plain};
use crate::metrics;
use crate::payments::{home, merchants_in, payment, rule_key};

const FAULTS: [Fault; 9] = [
    Fault::Refused,
    Fault::Status {
        code: 503,
        retry_after: Some(1),
    },
    Fault::Status {
        code: 429,
        retry_after: Some(1),
    },
    Fault::Status {
        code: 400,
        retry_after: None,
    },
    Fault::Garbage,
    Fault::WrongKey,
    Fault::Reset,
    Fault::Redirect,
    Fault::Hang(Duration::from_secs(5)),
];

/// Settlements by the partition of their rule key.
fn settled(line: &Line) -> BTreeMap<i32, u64> {
    let mut settled = BTreeMap::new();
    line.read(&line.names.settlements, |record| {
        *settled.entry(record.partition).or_default() += 1;
    });
    settled
}

fn failed_calls(line: &Line) -> f64 {
    let calls = metrics::read(&line.instances[0]).of("settle_rule_calls_total");
    calls
        .iter()
        .filter(|sample| !["rule", "no_rule"].contains(&sample.labels["result"].as_str()))
        .map(|sample| sample.value)
        .sum()
}

#[test]
fn while_the_rule_service_fails_its_keys_wait_others_go_on_and_nothing_is_defaulted() {
    let mut line = Line::new("outage");
    let options = line.options(0).set("rules.timeout", "2s");
    line.launch(options);
    line.wait_ready();
    let known: Vec<String> = (1..PARTITIONS)
        .map(|partition| merchants_in(partition, 1).next().unwrap())
        .collect();
    line.send(
        known
            .iter()
            .map(|name| payment(&format!("known-{name}"), name, 100)),
    );
    line.settle();
    line.rules.forget_calls();

    let waiting: Vec<String> = merchants_in(0, 1).take(FAULTS.len()).collect();
    for (number, (fault, name)) in FAULTS.into_iter().zip(&waiting).enumerate() {
        let before = failed_calls(&line);
        line.rules.set_fault(fault);
        line.send([payment(&format!("waiting-{number}"), name, 700)]);
        line.send(
            known
                .iter()
                .map(|name| payment(&format!("{number}-{name}"), name, 100)),
        );
        wait::until(
            &format!("other partitions going on during {fault:?}"),
            LIMIT,
            || {
                let settled = settled(&line);
                assert_eq!(
                    settled.get(&0),
                    None,
                    "settled without an answer: {fault:?}"
                );
                let expected = u64::try_from(number).unwrap() + 2;
                let go_on = (1..PARTITIONS).all(|at| settled.get(&at) == Some(&expected));
                Ok((go_on && failed_calls(&line) > before).then_some(()))
            },
        )
        .unwrap();
    }
    line.rules.set_fault(Fault::Healthy);
    let proof = line.prove();
    assert_eq!(count(&proof, "DEFAULT"), 0);
    let mut answered: BTreeMap<RuleKey, usize> = BTreeMap::new();
    for call in line.rules.calls() {
        if call.answer == Answer::Rule {
            *answered.entry(call.key.unwrap()).or_default() += 1;
        }
    }
    let once: BTreeMap<RuleKey, usize> = waiting.iter().map(|name| (rule_key(name), 1)).collect();
    assert_eq!(answered, once);
}

#[test]
fn an_outage_over_many_keys_ends_with_every_key_asked_and_answered_once() {
    let mut line = Line::new("storm");
    line.start(2);
    line.rules.set_fault(Fault::Status {
        code: 503,
        retry_after: Some(1),
    });
    line.send(plain(5, 1500));
    wait::until("calls that fail", LIMIT, || {
        Ok((line.rules.call_count() > 10).then_some(()))
    })
    .unwrap();
    assert_eq!(settled(&line), BTreeMap::new());
    line.rules.set_fault_for(Fault::Garbage, 0.5);
    wait::until("settlements beside garbage", LIMIT, || {
        Ok((!settled(&line).is_empty()).then_some(()))
    })
    .unwrap();
    line.rules.set_fault(Fault::Healthy);
    let proof = line.prove();
    assert_eq!(count(&proof, "RULE") + count(&proof, "DEFAULT"), 1500);
    assert!(
        count(&proof, "DEFAULT") > 0,
        "no merchant was without a rule"
    );
    let mut answered: BTreeMap<RuleKey, usize> = BTreeMap::new();
    for call in line.rules.calls() {
        if matches!(call.answer, Answer::Rule | Answer::Absent) {
            *answered.entry(call.key.unwrap()).or_default() += 1;
        }
    }
    let twice: Vec<_> = answered.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

/// Waits until the rule of this merchant was asked for.
fn wait_asked(line: &Line, merchant: &str) {
    let key = rule_key(merchant);
    wait::until("a call of the rule service", LIMIT, || {
        let calls = line.rules.calls_by_key();
        Ok(calls.contains_key(&key).then_some(()))
    })
    .unwrap();
}

#[test]
fn that_there_is_no_rule_is_asked_again_where_the_answer_has_become_too_old() {
    let mut line = Line::new("old");
    let options = line.options(0).set("rules.absent_ttl", "2s");
    line.launch(options);
    line.wait_ready();
    let merchants: Vec<String> = merchants_in(0, 1).take(2).collect();
    // The first one waits longer than the answer for the one behind it is good for.
    line.rules.set_fault(Fault::Status {
        code: 503,
        retry_after: Some(20),
    });
    line.send([payment("first", &merchants[0], 100)]);
    wait_asked(&line, &merchants[0]);
    line.rules.set_fault(Fault::Status {
        code: 404,
        retry_after: None,
    });
    line.send([payment("behind", &merchants[1], 100)]);
    wait_asked(&line, &merchants[1]);
    line.rules.set_fault(Fault::Healthy);
    let proof = line.prove();
    assert_eq!((count(&proof, "RULE"), count(&proof, "DEFAULT")), (2, 0));
}

/// The rule of each settlement of this merchant, in order.
fn rules_used(line: &Line, merchant: &str) -> Vec<Option<String>> {
    let mut used = Vec::new();
    line.read(&line.names.settlements, |record| {
        let settlement = Settlement::read(record.value.unwrap()).unwrap();
        if settlement.merchant == merchant {
            used.push(settlement.rule_id);
        }
    });
    used
}

/// Sends payments, each after the one before has settled, until one uses this rule.
fn pay_until(line: &Line, merchant: &str, prefix: &str, rule: &str) {
    let before = rules_used(line, merchant).len();
    let mut sent = 0;
    wait::until(&format!("a settlement by the rule {rule}"), LIMIT, || {
        let used = rules_used(line, merchant);
        if used.last().and_then(Option::as_deref) == Some(rule) {
            return Ok(Some(()));
        }
        if used.len() == before + sent {
            line.send([payment(&format!("{prefix}-{sent}"), merchant, 5)]);
            sent += 1;
        }
        Ok(None)
    })
    .unwrap();
}

#[test]
fn a_rule_published_by_another_system_is_in_force_and_a_tombstone_forgets_it() {
    let mut line = Line::new("foreign");
    line.contract.has_foreign_rules = true;
    line.start(1);
    let merchant = merchants_in(2, 1).next().unwrap();
    let key = rule_key(&merchant);
    let own = line.rules.rule_of(&key).unwrap().rule_id;
    pay_until(&line, &merchant, "own", &own);

    let foreign = Rule {
        rule_id: "foreign-rule".to_owned(),
        payout_date: "2025-07-01".parse().unwrap(),
        confirm_date: "2025-06-30".parse().unwrap(),
        key: key.fields(),
    };
    let name = key.to_string();
    assert!(outgoing::fields(&name).is_some());
    assert_eq!(home(&merchant), partition::of(name.as_bytes(), PARTITIONS));
    let text = serde_json::to_string(&foreign).unwrap();
    line.produce(&line.names.rules, home(&merchant), &name, Some(&text));
    pay_until(&line, &merchant, "foreign", "foreign-rule");
    line.restart(0);
    line.send((0..20).map(|number| payment(&format!("after-{number}"), &merchant, 5)));
    line.settle();
    let used = rules_used(&line, &merchant);
    let first = used
        .iter()
        .position(|rule| rule.as_deref() == Some("foreign-rule"));
    assert!(
        used[first.unwrap()..]
            .iter()
            .all(|rule| rule.as_deref() == Some("foreign-rule"))
    );

    line.rules.forget_calls();
    line.produce(&line.names.rules, home(&merchant), &name, None);
    pay_until(&line, &merchant, "again", &own);
    assert_eq!(line.rules.calls_by_key().get(&key), Some(&1));
    line.prove();
}
