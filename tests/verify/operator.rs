//! What an operator is told about instances, positions, rules and local state, and what a rule that is put or forgotten
//! does.

use std::fs;
use std::process::Output;

use chaos::cluster::wait;
use chaos::proxy::{Api, Fate, Rule, Side};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::inspect::{DAY, json, message, payment, settle, text};
use crate::line::{LIMIT, Line, PARTITIONS};

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command prints as JSON, whatever its exit code.
fn answer(line: &Line, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = settle(line, &[arguments, &["--output", "json"]].concat());
    let json = serde_json::from_slice(&output.stdout);
    (
        code(&output),
        json.unwrap_or_else(|_| panic!("{}", errors(&output))),
    )
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field]
        .as_array()
        .unwrap_or_else(|| panic!("no {field}: {value:#}"))
}

fn is_about(value: &Value, topic: &str, partition: i32) -> bool {
    value["topic"] == topic && value["partition"] == partition
}

#[test]
fn status_names_instances_and_owners_and_its_exit_code_says_what_is_wrong() {
    let mut line = Line::new("status").with_database();
    line.start(1);
    line.send([payment("a", 1), payment("b", 2)]);
    line.settle();
    let (exit, seen) = answer(&line, &["status"]);
    assert_eq!(
        (exit, &seen["state"]),
        (Some(0), &"healthy".into()),
        "{seen:#}"
    );
    assert_eq!(list(&seen, "instances").len(), 1, "{seen:#}");
    assert_eq!(seen["instances"][0]["instance"], line.name(0));
    let owned = list(&seen, "partitions");
    assert_eq!(
        owned.len(),
        2 * usize::try_from(PARTITIONS).unwrap(),
        "{seen:#}"
    );
    assert!(
        owned.iter().all(|of| of["owner"] == line.name(0)),
        "{seen:#}"
    );
    for dependency in ["Kafka", "rule service", "PostgreSQL"] {
        let state = &seen["instances"][0]["dependencies"][dependency];
        assert_eq!(state["ok"], true, "{seen:#}");
    }
    one_that_cannot_join_is_not_ready(&mut line);
    let seen = wait::until("two healthy instances", LIMIT, || {
        let (exit, seen) = answer(&line, &["status"]);
        let both = list(&seen, "instances").len() == 2;
        Ok((exit == Some(0) && both).then_some(seen))
    })
    .unwrap();
    let owners: Vec<&str> = list(&seen, "partitions")
        .iter()
        .map(|of| of["owner"].as_str().unwrap())
        .collect();
    assert!(
        [0, 1]
            .iter()
            .all(|index| owners.contains(&line.name(*index).as_str())),
        "{seen:#}"
    );
    the_dead_are_named(&line);
}

fn one_that_cannot_join_is_not_ready(line: &mut Line) {
    let proxy = line.cluster.kafka.proxy();
    let joins = Rule::new(Api::JoinGroup, &line.client(1), Fate::Hold(Side::Open));
    let armed = proxy.arm(joins.times(usize::MAX));
    let options = line
        .options(1)
        .set("kafka.bootstrap_servers", proxy.bootstrap());
    line.launch(options);
    let address = line.instances[1].address().to_string();
    let asked = ["status", "--instance", &address];
    let (exit, seen) = wait::until("an answer of the second instance", LIMIT, || {
        let (exit, seen) = answer(line, &asked);
        Ok((exit != Some(69)).then_some((exit, seen)))
    })
    .unwrap();
    assert_eq!(
        (exit, &seen["state"]),
        (Some(1), &"not ready".into()),
        "{seen:#}"
    );
    let why = list(&seen["instances"][0], "whyNot");
    assert!(
        why.iter()
            .any(|why| why.as_str().unwrap().starts_with("assigned")),
        "{seen:#}"
    );
    drop(armed);
    line.wait_ready();
}

/// Ends both instances.
fn the_dead_are_named(line: &Line) {
    // The one of this configuration is dead.
    line.instances[0].kill();
    let (exit, seen) = answer(line, &["status"]);
    assert_eq!(
        (exit, &seen["state"]),
        (Some(69), &"no answer".into()),
        "{seen:#}"
    );
    let dead = list(&seen, "instances")
        .iter()
        .find(|of| of["answers"] == false);
    let address = line.instances[0].address().to_string();
    assert_eq!(dead.unwrap()["address"], address, "{seen:#}");
    let told = settle(line, &["status"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(
        told.contains("no answer") && told.contains(&address),
        "{told}"
    );
    line.terminate(1);
    // Static members are given up when their session is over.
    let left = wait::until("partitions without owner", LIMIT, || {
        let (exit, seen) = answer(line, &["status"]);
        assert_eq!(exit, Some(69), "{seen:#}");
        let left = list(&seen, "withoutOwner").len();
        Ok((left == 2 * usize::try_from(PARTITIONS).unwrap()).then_some(()))
    });
    left.unwrap();
}

#[test]
fn offsets_tell_what_it_means_where_two_positions_differ() {
    let mut line = Line::new("offsets").with_database();
    line.start(1);
    line.send((0..20).map(|number| payment(&format!("p-{number}"), 1)));
    line.settle();
    line.terminate(0);
    let shown = json(&line, &["offsets", "show"]);
    assert_eq!(list(&shown, "notes"), [] as [Value; 0], "{shown:#}");
    let consumed = list(&shown, "consumed");
    assert_eq!(consumed.len(), 2 * usize::try_from(PARTITIONS).unwrap());
    for of in consumed {
        assert_eq!(of["group"], of["position"], "{of:#}");
        assert!(of["lag"].as_i64().unwrap() <= 2, "{of:#}");
    }
    let source = &line.names.source;
    let is_there = |of: &&Value| is_about(of, source, 0);
    let before = consumed.iter().find(is_there).unwrap().clone();
    let position = before["position"].as_i64().unwrap();
    // Someone moves the group's offset, and payments come that nobody takes.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", line.bootstrap())
        .set("group.id", &line.names.application_id)
        .create()
        .unwrap();
    let mut moved = TopicPartitionList::new();
    moved
        .add_partition_offset(source, 0, Offset::Offset(0))
        .unwrap();
    // Refused as long as the group has members; a static one stays until its session is over.
    wait::until("the group's offset is moved", LIMIT, || {
        Ok(consumer.commit(&moved, CommitMode::Sync).ok())
    })
    .unwrap();
    for _ in 0..3 {
        line.produce(source, 0, "late", Some("{"));
    }
    let shown = json(&line, &["offsets", "show"]);
    let after = list(&shown, "consumed").iter().find(is_there).unwrap();
    assert_eq!(
        (&after["group"], &after["position"]),
        (&0.into(), &position.into()),
        "{shown:#}"
    );
    assert_eq!(
        after["lag"].as_i64(),
        before["lag"].as_i64().map(|lag| lag + 3)
    );
    let notes = list(&shown, "notes");
    assert_eq!(notes.len(), 1, "{shown:#}");
    let note = notes[0].as_str().unwrap();
    assert!(
        note.starts_with(&format!("{source}/0: the group says 0")),
        "{note}"
    );
    let rows = list(&shown, "database");
    let rows = rows.iter().find(is_there).unwrap();
    assert_eq!(rows["next"], position, "{shown:#}");
    assert_eq!(rows["lag"], after["lag"], "{shown:#}");
}

#[test]
fn a_rule_that_is_put_dates_the_next_payment_and_one_that_is_forgotten_does_not() {
    let mut line = Line::new("put");
    line.start(1);
    let key = format!("shop-7/{DAY}/PAYMENT/MONEY");
    let put = [
        "rules",
        "put",
        &key,
        "--payout-date",
        "2031-02-03",
        "--confirm-date",
        "2031-02-01",
    ];
    what_is_no_rule_is_refused(&line, &put);
    let none = json(&line, &["rules", "get", &key]);
    assert_eq!(
        (&none["rule"], &none["forgotten"]),
        (&Value::Null, &Value::Null),
        "{none:#}"
    );
    let plan = text(&line, &put);
    assert!(plan.contains("nothing was changed"), "{plan}");
    assert_eq!(json(&line, &["rules", "get", &key])["rule"], Value::Null);
    let done = json(
        &line,
        &[&put[..], &["--rule-id", "by-hand", "--yes"]].concat(),
    );
    let found = json(&line, &["rules", "get", &key]);
    assert_eq!(found["rule"]["ruleId"], "by-hand", "{found:#}");
    assert_eq!(found["rule"]["record"], done["written"], "{found:#}");
    assert_eq!(found["rule"]["payoutDate"], "2031-02-03", "{found:#}");
    line.send([payment("dated", 1)]);
    line.settle();
    let story = json(&line, &["explain", "dated"]);
    let facts = list(&story["received"][0], "facts");
    let settlement = facts
        .iter()
        .find(|fact| fact["what"] == "settlement")
        .unwrap();
    assert_eq!(settlement["detail"]["ruleId"], "by-hand", "{story:#}");
    assert_eq!(
        settlement["detail"]["confirmDate"], "2031-02-01",
        "{story:#}"
    );
    let forget = ["rules", "forget", &key];
    text(&line, &forget);
    assert_eq!(
        json(&line, &["rules", "get", &key])["rule"]["ruleId"],
        "by-hand"
    );
    text(&line, &[&forget[..], &["--yes"]].concat());
    let found = json(&line, &["rules", "get", &key]);
    assert_eq!(found["rule"], Value::Null, "{found:#}");
    assert!(found["forgotten"]["record"].is_string(), "{found:#}");
    line.send([payment("asked", 1)]);
    line.settle();
    let story = text(&line, &["explain", "asked"]);
    assert!(
        story.contains("settlement") && !story.contains("\"ruleId\":\"by-hand\",\"source\""),
        "{story}"
    );
    line.terminate(0);
}

fn what_is_no_rule_is_refused(line: &Line, put: &[&str]) {
    for wrong in [
        &["rules", "get", "shop-7"][..],
        &["rules", "forget", "shop-7/2025-05-26/PAYMENT/GOLD"],
        &[
            "rules",
            "put",
            put[2],
            "--payout-date",
            "3.2.2031",
            "--confirm-date",
            "2031-02-01",
        ],
        &[
            "rules",
            "put",
            put[2],
            "--payout-date",
            "2031-02-03",
            "--confirm-date",
            "2031-02-30",
        ],
        &[put, &["--rule-id", ""]].concat(),
    ] {
        let output = settle(line, wrong);
        assert_eq!(code(&output), Some(64), "{wrong:?}: {}", errors(&output));
    }
}

#[test]
fn the_state_of_a_stopped_instance_is_told_and_stays_as_it_is() {
    let mut line = Line::new("stopped");
    line.start(1);
    let payments = 50;
    line.send((0..payments).map(|number| payment(&format!("p-{number}"), 2)));
    line.send([message("broken", "{")]);
    line.settle();
    let key = format!("shop-7/{DAY}/PAYMENT/MONEY");
    a_running_instance_is_left_alone(&line, &key);
    line.terminate(0);
    let directory = line.options(0).state_directory();
    let files = || {
        let entries = fs::read_dir(&directory).unwrap();
        let mut files: Vec<(String, Vec<u8>)> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let described = json(&line, &["state", "describe"]);
    let described = described.as_array().unwrap();
    assert_eq!(described.len(), 2 * usize::try_from(PARTITIONS).unwrap());
    let sum = |field: &str| -> u64 {
        let fields = described.iter().map(|of| of["content"][field].as_u64());
        fields.map(Option::unwrap_or_default).sum()
    };
    assert_eq!(sum("ids"), payments, "{described:#?}");
    assert_eq!(sum("keys"), 1, "{described:#?}");
    positions_are_those_of_the_topics(&line, described);
    let held = json(&line, &["state", "get", &key]);
    assert_eq!(held[0]["totalAmount"], 2 * payments, "{held:#}");
    assert_eq!(held[0]["count"], payments, "{held:#}");
    let exported = text(&line, &["state", "export"]);
    let exported: Vec<Value> = exported
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(exported, *held.as_array().unwrap());
    let unknown = settle(&line, &["state", "get", "shop-8/2025-05-26/PAYMENT/MONEY"]);
    assert_eq!(code(&unknown), Some(1));
    assert!(files() == before, "a look has changed a file");
    // Also after a kill, and with a file that holds something else than was written.
    line.restart(0);
    line.instances[0].kill();
    text(&line, &["state", "describe"]);
    line.restart(0);
    line.terminate(0);
    let file = held[0]["file"].as_str().unwrap();
    let mut bytes = fs::read(directory.join(file)).unwrap();
    let places: Vec<usize> = (0..bytes.len() - key.len())
        .filter(|at| bytes[*at..].starts_with(key.as_bytes()))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        // Another merchant's.
        bytes[at] ^= 1;
    }
    fs::write(directory.join(file), bytes).unwrap();
    let damaged = settle(&line, &["state", "describe"]);
    assert_eq!(code(&damaged), Some(74), "{}", errors(&damaged));
    let told = String::from_utf8(damaged.stdout).unwrap();
    assert!(
        told.contains("problem: ") && told.contains("wrong checksum"),
        "{told}"
    );
}

fn a_running_instance_is_left_alone(line: &Line, key: &str) {
    for running in [
        &["state", "describe"][..],
        &["state", "export"],
        &["state", "get", key],
    ] {
        let output = settle(line, running);
        assert_eq!(code(&output), Some(74), "{running:?}: {}", errors(&output));
        assert!(
            errors(&output).contains("another live process"),
            "{}",
            errors(&output)
        );
    }
    let hint = errors(&settle(line, &["state", "get", key]));
    assert!(
        hint.contains("/api/aggregation-data?merchantNumber=shop-7"),
        "{hint}"
    );
}

fn positions_are_those_of_the_topics(line: &Line, described: &[Value]) {
    let offsets = json(line, &["offsets", "show"]);
    for of in described {
        let content = &of["content"];
        let belongs = content["belongsTo"].as_str().unwrap();
        let consumed = list(&offsets, "consumed").iter().find(|consumed| {
            let (topic, partition) = (consumed["topic"].as_str().unwrap(), &consumed["partition"]);
            belongs == format!("{}/{topic}/{partition}", line.names.application_id)
        });
        let position = &consumed.unwrap()["position"];
        let is_same = &content["position"] == position;
        assert!(
            is_same || (position.is_null() && content["position"].as_i64() <= Some(0)),
            "{of:#} {position}"
        );
    }
}
