//! `settle dead-letters replay`: once, whoever does it, however often, and whatever becomes of it on the way.

use std::process::{Child, Command, Output, Stdio};

use chaos::model::partition;
use chaos::proxy::{Api, Fate, Rule, Side};
use chaos::workload::Message;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

use crate::inspect::{json, message, payment, settle, text};
use crate::line::{LIMIT, Line, PARTITIONS};

const REPLAYERS: usize = 3;
const ROUNDS: i64 = 3;

fn arguments(place: (i32, i64), more: &[&str]) -> Vec<String> {
    let (partition, offset) = place;
    let fixed = ["--by", "kim", "--reason", "upgraded to 1.2"];
    let (partition, offset) = (partition.to_string(), offset.to_string());
    let place = ["dead-letters", "replay", &partition, &offset];
    let all = place.into_iter().chain(fixed).chain(more.iter().copied());
    all.map(str::to_owned).collect()
}

fn replay(line: &Line, place: (i32, i64), more: &[&str]) -> Output {
    let arguments = arguments(place, more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    settle(line, &arguments)
}

/// A replay under way; `bootstrap` is where it finds Kafka.
fn begin(line: &Line, place: (i32, i64), bootstrap: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_settle"))
        .args(arguments(place, &["--yes"]))
        .arg("--config")
        .arg(line.options(0).config_file())
        .env("SETTLE_KAFKA__BOOTSTRAP_SERVERS", bootstrap)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Where the replays of a message stand.
fn replays(line: &Line, (partition, offset): (i32, i64)) -> Vec<i64> {
    let of = format!("{}/{partition}/{offset}", line.names.source);
    let mut found = Vec::new();
    line.read(&line.names.source, |record| {
        if record.header("settle-replay") == Some(of.as_bytes()) {
            assert_eq!(record.partition, partition);
            assert_eq!(record.header("settle-replay-by"), Some(&b"kim"[..]));
            found.push(record.offset);
        }
    });
    found
}

/// Broken messages that all went to one partition, in this order.
fn broken(count: i64) -> (i32, Vec<Message>) {
    let messages = (0..count).map(|number| Message {
        partition: 0,
        ..message(&format!("broken-{number}"), "{")
    });
    (0, messages.collect())
}

#[test]
fn a_dead_letter_is_sent_again_once_and_it_is_told_by_whom() {
    let mut line = Line::new("replayed");
    line.start(1);
    line.send([message("b", "{")]);
    line.settle();
    let place = (partition::of(b"b", PARTITIONS), 0);
    let plan = replay(&line, place, &[]);
    assert_eq!(plan.status.code(), Some(0), "{}", errors(&plan));
    let plan = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.contains("nothing was changed"), "{plan}");
    assert!(plan.contains("dead letter again"), "{plan}");
    assert!(replays(&line, place).is_empty());
    let done = replay(&line, place, &["--yes", "--output", "json"]);
    assert_eq!(done.status.code(), Some(0), "{}", errors(&done));
    let done: Value = serde_json::from_slice(&done.stdout).unwrap();
    let at = replays(&line, place);
    assert_eq!(at.len(), 1, "{done:#}");
    let source = &line.names.source;
    let again = format!("{source}/{}/{}", place.0, at[0]);
    assert_eq!(done["replayedAs"], again, "{done:#}");
    let twice = replay(&line, place, &["--yes"]);
    assert_eq!(twice.status.code(), Some(1));
    let told = errors(&twice);
    assert!(
        told.contains(&again) && told.contains("by kim: upgraded to 1.2"),
        "{told}"
    );
    let plan = replay(&line, place, &["--dry-run"]);
    assert_eq!(
        plan.status.code(),
        Some(1),
        "a plan refuses what would be refused"
    );
    assert_eq!(replays(&line, place), at);
    // It has an outcome of its own, and no promise is broken by it.
    line.settle();
    let letters = text(&line, &["dead-letters", "list"]);
    assert_eq!(letters.lines().count(), 2, "{letters}");
    text(&line, &["verify", "--at-rest"]);
    let story = json(&line, &["explain", "b"]);
    let facts = |index: usize, what: &str| {
        let facts = story["received"][index]["facts"].as_array().unwrap();
        let fact = facts.iter().find(|fact| fact["what"] == what);
        fact.unwrap_or_else(|| panic!("no {what}: {story:#}"))
            .clone()
    };
    assert_eq!(facts(0, "replayed as")["place"], again);
    assert_eq!(
        facts(1, "replay of")["place"],
        format!("{source}/{}/0", place.0)
    );
    assert_eq!(facts(1, "replay of")["detail"]["by"], "kim");
    facts(1, "dead letter");
    line.terminate(0);
}

#[test]
fn what_must_not_be_sent_again_is_refused_and_says_why() {
    let mut line = Line::new("refused");
    line.start(1);
    line.send([payment("whole", i64::MAX), message("cut", "{")]);
    line.settle();
    line.send([payment("over", i64::MAX)]);
    line.settle();
    let refused = |place: (i32, i64), why: &str| {
        for more in [&["--yes"][..], &[]] {
            let output = replay(&line, place, more);
            assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
            assert!(errors(&output).contains(why), "{}", errors(&output));
        }
    };
    let place_of = |key: &str| {
        let mut found = None;
        line.read(&line.names.source, |record| {
            if record.key == Some(key.as_bytes()) {
                found = Some((record.partition, record.offset));
            }
        });
        found.unwrap()
    };
    refused((0, 999), "no dead letter");
    refused(place_of("whole"), "no dead letter");
    // The first of its id: its replay would be no payment but a duplicate.
    refused(place_of("over"), "DUPLICATE");
    // What an instance writes when a letter does not fit.
    let place = place_of("whole");
    let source = format!("{}/{}/{}", line.names.source, place.0, place.1);
    let header = |key, value| Header {
        key,
        value: Some(value),
    };
    let headers = OwnedHeaders::new()
        .insert(header("settle-source", source.as_str()))
        .insert(header("settle-truncated", "99"));
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", line.bootstrap())
        .create()
        .unwrap();
    let letter = BaseRecord::<str, str>::to(&line.names.dead_letter)
        .partition(place.0)
        .payload("{")
        .headers(headers);
    producer.send(letter).map_err(|(error, _)| error).unwrap();
    producer.flush(LIMIT).unwrap();
    refused(place, "was cut");
    let unsigned = settle(&line, &["dead-letters", "replay", "0", "0"]);
    assert_eq!(unsigned.status.code(), Some(64));
    let unnamed = ["--by", " ", "--reason", "x"];
    let unnamed = [&["dead-letters", "replay", "0", "0"][..], &unnamed].concat();
    assert_eq!(settle(&line, &unnamed).status.code(), Some(64));
    line.terminate(0);
}

#[test]
fn replays_at_the_same_time_make_one_record() {
    let mut line = Line::new("together");
    line.start(1);
    let (partition, messages) = broken(ROUNDS);
    line.send(messages);
    line.settle();
    for offset in 0..ROUNDS {
        let place = (partition, offset);
        let running: Vec<Child> = (0..REPLAYERS)
            .map(|_| begin(&line, place, &line.bootstrap()))
            .collect();
        let outputs = running
            .into_iter()
            .map(|child| child.wait_with_output().unwrap());
        // One that was overtaken does not know whether it had written.
        let outputs: Vec<_> = outputs
            .map(|output| (output.status.code(), errors(&output)))
            .collect();
        assert_eq!(replays(&line, place).len(), 1, "{outputs:#?}");
        let wrote = outputs.iter().filter(|(code, _)| *code == Some(0));
        assert!(wrote.count() <= 1, "{outputs:#?}");
        assert!(
            outputs
                .iter()
                .all(|(code, _)| [0, 1, 69].map(Some).contains(code)),
            "{outputs:#?}"
        );
    }
    line.terminate(0);
}

#[test]
fn a_replay_that_dies_while_it_commits_is_never_made_twice() {
    let mut line = Line::new("killed");
    line.start(1);
    let (partition, messages) = broken(2);
    line.send(messages);
    line.settle();
    let proxy = line.cluster.kafka.proxy();
    // Offset 0: the request to commit is late. Offset 1: its answer never comes.
    for (offset, fate) in [
        (0, Fate::Hold(Side::Open)),
        (1, Fate::DropAnswer(Side::Open)),
    ] {
        let place = (partition, offset);
        let armed = proxy.arm(Rule::new(Api::EndTxn, "|replay", fate));
        let mut child = begin(&line, place, &proxy.bootstrap());
        armed.wait_caught(1, LIMIT).unwrap();
        if fate != Fate::Hold(Side::Open) {
            armed.wait_answered(LIMIT).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let again = replay(&line, place, &["--yes"]);
        let was_committed = fate != Fate::Hold(Side::Open);
        let expected = i32::from(was_committed);
        assert_eq!(again.status.code(), Some(expected), "{}", errors(&again));
        assert_eq!(replays(&line, place).len(), 1, "{fate:?}");
        // What arrives now is of an epoch that is over.
        armed.release();
        let last = replay(&line, place, &["--yes"]);
        assert_eq!(last.status.code(), Some(1), "{}", errors(&last));
        assert_eq!(replays(&line, place).len(), 1, "{fate:?}");
    }
    line.terminate(0);
}
