//! An orderly end leaves nothing to undo.

use std::time::Duration;

use chaos::cluster::topics::Isolation;
use chaos::topics_reader;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::line::Line;
use crate::moving::{progress, under_load};

const ROUNDS: usize = 3;

/// Records of a topic, those of aborted transactions among them.
fn uncommitted(line: &Line, topic: &str) -> u64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", line.bootstrap())
        .set("group.id", "none")
        .set("isolation.level", "read_uncommitted")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let ends = line.topics.ends(topic, Isolation::Uncommitted).unwrap();
    let mut list = TopicPartitionList::new();
    for partition in (0_i32..).take(ends.len()) {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut open, mut count) = (ends.len(), 0);
    while open > 0 {
        match consumer
            .poll(Duration::from_secs(30))
            .expect("the topic has an end")
        {
            Ok(_) => count += 1,
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) if topics_reader::is_weather(&error) => {}
            Err(error) => panic!("{error}"),
        }
    }
    count
}

#[test]
fn a_restart_after_sigterm_aborts_no_transaction_and_goes_on_where_it_stopped() {
    let mut line = Line::new("restart");
    // A stall of the machine is no reason for an abort.
    let patient = [
        ("session.timeout.ms", 60_000),
        ("socket.timeout.ms", 30_000),
        ("transaction.timeout.ms", 60_000),
    ];
    let patient = patient.map(|(name, millis)| (name.to_owned(), millis.into()));
    for index in 0..2 {
        let options = line.options(index);
        line.launch(options.set("kafka.properties", toml::Table::from_iter(patient.clone())));
    }
    line.wait_ready();
    let tail = line.tail();
    under_load(&mut line, 61, |line| {
        for _ in 0..ROUNDS {
            for index in 0..2 {
                progress(&tail, "a restart");
                line.terminate(index);
                line.restart(index);
            }
        }
        progress(&tail, "the last restart");
    });
    line.prove();
    let names = &line.names;
    let outputs = [
        &names.bases,
        &names.rules,
        &names.settlements,
        &names.statistics,
        &names.exclusions,
        &names.dead_letter,
        &names.changelog,
        &names.ingest_changelog,
    ];
    for topic in outputs {
        let mut committed = 0;
        line.read(topic, |_| committed += 1);
        assert!(committed > 0, "{topic} is empty");
        assert_eq!(
            uncommitted(&line, topic),
            committed,
            "aborted records in {topic}"
        );
    }
    for index in 0..2 {
        let log = line.log(index);
        assert!(!log.contains("the group's offset differs"), "{log}");
        assert!(!log.contains("taking up again"), "{log}");
    }
}
