//! Partitions that are added to topics, which Kafka cannot take away again, and topics that go away.

use chaos::cluster::tools::Tool;
use chaos::cluster::topics::Topic;

use crate::line::{LIMIT, Line, plain};
use crate::operator::{
    BROKEN_PROMISE, CONFIGURATION, FAILED, assert_contains, await_entry, delete_topic, kafka,
    positions, refused, settle,
};
use crate::parts::Parts;

const PARTS: Parts = Parts {
    day: plain,
    seed: 341,
    size: 400,
};

/// An instance that hears of new partitions soon.
fn running(name: &str) -> Line {
    PARTS.begin(name, &[("topic.metadata.refresh.interval.ms", "1000")])
}

const ADDED: &str = "a partition was added while this process runs, and is left alone";

#[test]
fn a_partition_added_to_the_source_waits_until_its_changelog_has_one_too() {
    let mut line = running("wider");
    let (source, changelog) = (
        line.names.source.clone(),
        line.names.ingest_changelog.clone(),
    );
    line.topics.grow(&source, 5).unwrap();
    let entry = await_entry(&line, ADDED, &source, 4);
    let alter = format!("kafka-topics.sh --alter --topic {changelog} --partitions 5");
    assert_contains(entry["message"].as_str().unwrap(), &[&alter]);
    // The others go on.
    PARTS.send(&line, 1);
    line.prove();
    line.terminate(0);
    let log = refused(&mut line, CONFIGURATION);
    let wrong = format!("{changelog}: has 4 partitions and must have 5, as many as {source}");
    assert_contains(&log, &[&wrong, &alter]);
    let arguments = ["--alter", "--topic", &changelog, "--partitions", "5"];
    kafka(&line, Tool::Topics, &arguments);
    line.restart(0);
    let payment = r#"{"channel":"ONLINE","action":"PAYMENT","data":{"paymentType":"ONLINE","amount":5,"merchantNumber":"merchant-0001","paymentDate":"2025-05-26T14:23:51.123456","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}}"#;
    line.produce(&source, 4, "in-the-new-one", Some(payment));
    PARTS.send(&line, 2);
    line.prove();
    let mut settled = 0;
    line.read(&line.names.settlements, |record| {
        settled += u32::from(record.key == Some(b"in-the-new-one"));
    });
    assert_eq!(settled, 1);
}

#[test]
fn a_partition_added_to_bases_or_changelog_is_refused_at_the_start_and_taken_back() {
    let mut line = running("longer");
    let (bases, changelog) = (line.names.bases.clone(), line.names.changelog.clone());
    line.topics.grow(&bases, 5).unwrap();
    await_entry(&line, ADDED, &bases, 4);
    line.topics.grow(&changelog, 5).unwrap();
    PARTS.send(&line, 1);
    line.prove();
    line.terminate(0);
    let log = refused(&mut line, CONFIGURATION);
    let rules = &line.names.rules;
    for topic in [&bases, &changelog] {
        let wrong = format!("{topic}: has 5 partitions and must have 4, as many as {rules}");
        assert_contains(&log, &[&wrong, "docs/damage.md"]);
    }
    assert_eq!(settle(&line, &["topics", "plan"]).0, CONFIGURATION);
    // Nothing is on its way, so both can be made anew.
    delete_topic(&line, &bases);
    delete_topic(&line, &changelog);
    assert_eq!(settle(&line, &["topics", "apply"]).0, 0);
    // Kafka forgets the group's offsets of a topic that is deleted.
    let log = refused(&mut line, BROKEN_PROMISE);
    assert_contains(
        &log,
        &["neither the changelog nor the group holds a position"],
    );
    for number in ["0", "1", "2", "3"] {
        let (code, printed) = positions(&line, &["set", &bases, number, "earliest"]);
        assert_eq!(code, 0, "{printed}");
        assert_contains(&printed, &["goes on at 0, with the totals of"]);
    }
    line.restart(0);
    PARTS.send(&line, 2);
    line.settle();
    line.terminate(0);
    let (code, printed) = settle(&line, &["verify", "--at-rest"]);
    assert_eq!(code, 0, "{printed}");
}

#[test]
fn more_partitions_for_all_topics_with_rule_keys_are_refused_because_keys_would_move() {
    let mut line = running("all");
    line.terminate(0);
    let names = &line.names;
    let keyed = [
        &names.bases,
        &names.rules,
        &names.settlements,
        &names.statistics,
        &names.changelog,
    ];
    for topic in keyed {
        line.topics.grow(topic, 5).unwrap();
    }
    for is_lost in [false, true] {
        if is_lost {
            line.lose_state(0).unwrap();
        }
        let log = refused(&mut line, BROKEN_PROMISE);
        assert_contains(&log, &["the number of partitions was changed", "of 5"]);
    }
}

#[test]
fn a_topic_deleted_under_a_running_instance_ends_it_with_the_name() {
    let mut line = running("pulled");
    let changelog = line.names.changelog.clone();
    delete_topic(&line, &changelog);
    PARTS.send(&line, 1);
    let status = line.instances[0].wait_exit(2 * LIMIT).unwrap();
    assert_eq!(status.code(), Some(FAILED), "{}", line.instances[0].tail());
    assert_contains(
        &line.log(0),
        &["a topic or partition of this service is gone"],
    );
    let log = refused(&mut line, BROKEN_PROMISE);
    assert_contains(
        &log,
        &[
            "the changelog holds no position",
            "settle positions rebuild",
        ],
    );
    let (code, printed) = positions(&line, &["rebuild"]);
    assert_eq!(code, 0, "{printed}");
    line.restart(0);
    PARTS.send(&line, 2);
    line.prove();
}

#[test]
fn a_changelog_made_anew_under_a_running_instance_is_never_taken_for_a_whole_one() {
    let mut line = running("swapped");
    let changelog = line.names.changelog.clone();
    delete_topic(&line, &changelog);
    let empty = Topic::new(&changelog, 4).set("cleanup.policy", "compact");
    line.topics.create(&[empty]).unwrap();
    PARTS.send(&line, 1);
    let status = line.instances[0].wait_exit(2 * LIMIT).unwrap();
    assert_eq!(
        status.code(),
        Some(BROKEN_PROMISE),
        "{}",
        line.instances[0].tail()
    );
    line.lose_state(0).unwrap();
    let log = refused(&mut line, BROKEN_PROMISE);
    assert_contains(&log, &["settle positions rebuild"]);
    delete_topic(&line, &changelog);
    let (code, printed) = positions(&line, &["rebuild"]);
    assert_eq!(code, 0, "{printed}");
    line.restart(0);
    PARTS.send(&line, 2);
    line.prove();
}
