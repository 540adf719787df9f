//! Offsets of the group that somebody sets, deletes, or lets expire.

use chaos::cluster::tools::Tool;
use chaos::cluster::wait;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;

use crate::line::{LIMIT, Line, PARTITIONS, day};
use crate::operator::{entries, kafka, line, metric, positions};
use crate::parts::Parts;

const PARTS: Parts = Parts {
    day,
    seed: 311,
    size: 700,
};
/// `offsets.retention.minutes` of the cluster, and the session of the stopped member before it.
const EXPIRY: Duration = Duration::from_secs(110);

fn committed(line: &Line) -> Vec<Option<i64>> {
    let topics = [&line.names.source, &line.names.bases];
    let of = |topic: &String| {
        let group = &line.names.application_id;
        line.topics.committed(group, topic).unwrap()
    };
    topics.into_iter().flat_map(of).collect()
}

/// Starts it again, and sees that each partition whose offset was moved goes on from its record, says so and counts it.
fn goes_on_from_the_record(line: &mut Line, stood: &[Option<i64>], number: usize) {
    let moved = committed(line);
    let moved = moved.iter().zip(stood).filter(|(to, from)| to != from);
    // That of bases may have stood at the end of its log.
    let moved = moved.count();
    assert!(moved >= 4, "{moved}");
    let told = entries(&line.log(0), "the group's offset differs").len();
    line.restart(0);
    let log = line.log(0);
    let told: Vec<_> = entries(&log, "the group's offset differs").split_off(told);
    assert_eq!(told.len(), moved, "{told:?}");
    for entry in &told {
        let is_bases = entry["topic"] == line.names.bases.as_str();
        let partition = usize::try_from(entry["partition"].as_u64().unwrap()).unwrap();
        let place = partition + if is_bases { 4 } else { 0 };
        assert_eq!(entry["recorded"].as_i64(), stood[place], "{entry}");
        assert_eq!(entry["level"], "ERROR");
    }
    let repaired = metric(line, "settle_positions_repaired_total", "");
    assert_eq!(repaired.to_string(), moved.to_string());
    PARTS.send(line, number);
    line.prove();
}

fn reset(line: &Line, to: &str) {
    let group = &line.names.application_id;
    for topic in [&line.names.source, &line.names.bases] {
        let reset = [
            "--reset-offsets",
            "--group",
            group,
            "--topic",
            topic,
            to,
            "--execute",
        ];
        kafka(line, Tool::ConsumerGroups, &reset);
    }
}

#[test]
fn offsets_that_are_set_back_or_forward_while_it_is_stopped_move_nothing() {
    let mut line = line("reset");
    line.start(1);
    PARTS.send(&line, 0);
    line.prove();
    line.terminate(0);
    let stood = committed(&line);
    // What a forward reset would skip.
    PARTS.send(&line, 1);
    // Kafka's tool sets no offset of a group with members, and `positions` waits for the last to be forgotten.
    positions(&line, &["rebuild"]);
    reset(&line, "--to-latest");
    assert_ne!(committed(&line), stood);
    goes_on_from_the_record(&mut line, &stood, 2);
    line.terminate(0);
    let stood = committed(&line);
    positions(&line, &["rebuild"]);
    reset(&line, "--to-earliest");
    assert_eq!(committed(&line), [Some(0); 8]);
    goes_on_from_the_record(&mut line, &stood, 3);
}

#[test]
fn offsets_that_have_expired_or_are_set_while_it_runs_move_nothing() {
    let mut line = line("expired");
    line.start(1);
    PARTS.send(&line, 0);
    line.prove();
    // As another tool could: a transaction without a member, which the broker does not check.
    for offset in [0, 3] {
        meddle(&line, offset);
        PARTS.send(&line, if offset == 0 { 1 } else { 2 });
        line.prove();
    }
    line.terminate(0);
    let stood = committed(&line);
    line.rest(|line| {
        wait::until("the end of the group's offsets", EXPIRY, || {
            Ok((committed(line) == [None; 8]).then_some(()))
        })
        .unwrap();
    });
    goes_on_from_the_record(&mut line, &stood, 3);
}

fn meddle(line: &Line, offset: i64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", line.bootstrap())
        .set("group.id", &line.names.application_id)
        .create()
        .unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", line.bootstrap())
        .set(
            "transactional.id",
            format!("{}-meddler", line.names.application_id),
        )
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for topic in [&line.names.source, &line.names.bases] {
        for partition in 0..PARTITIONS {
            list.add_partition_offset(topic, partition, Offset::Offset(offset))
                .unwrap();
        }
    }
    producer.init_transactions(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    let nobody = consumer.group_metadata().unwrap();
    producer
        .send_offsets_to_transaction(&list, &nobody, LIMIT)
        .unwrap();
    producer.commit_transaction(LIMIT).unwrap();
    // Bases move behind markers that were read meanwhile.
    assert_eq!(committed(line)[..4], [Some(offset); 4]);
}
