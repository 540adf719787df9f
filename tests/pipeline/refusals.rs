//! What must not go on says so; what can go on does.

use std::time::Duration;

use chaos::cluster::process::describe;
use chaos::cluster::wait;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::line::{LIMIT, Line, PARTITIONS, day};
use crate::moving::{progress, under_load};

#[test]
fn of_two_instances_with_one_instance_id_exactly_one_stops_and_says_why() {
    let mut line = Line::new("twins");
    line.start(1);
    let tail = line.tail();
    under_load(&mut line, 71, |line| {
        progress(&tail, "the start");
        let twin = line.options(1).set("kafka.instance_id", line.name(0));
        line.launch(twin);
        let ended = wait::until("the end of one of the two", LIMIT, || {
            Ok(line
                .instances
                .iter()
                .position(|instance| instance.exit_status().is_some()))
        });
        let ended = ended.unwrap();
        let (loser, winner) = (&line.instances[ended], &line.instances[1 - ended]);
        let status = loser.exit_status().unwrap();
        assert_eq!(
            status.code(),
            Some(1),
            "{}\n{}",
            describe(status),
            loser.tail()
        );
        assert!(
            line.log(ended).contains("kafka.instance_id"),
            "{}",
            loser.tail()
        );
        winner.wait_ready(LIMIT).unwrap();
        progress(&tail, "the end of the twin");
        assert_eq!(winner.exit_status(), None, "{}", winner.tail());
    });
    line.prove();
}

#[test]
fn a_second_instance_on_one_state_directory_does_not_start() {
    let mut line = Line::new("shared");
    line.start(1);
    let directory = line.instances[0].options().state_directory();
    let second = line
        .options(1)
        .set("state.directory", directory.display().to_string());
    let second = line.launch(second);
    let status = line.instances[second].wait_exit(LIMIT).unwrap();
    assert_eq!(status.code(), Some(74), "{}", line.instances[second].tail());
    assert!(line.log(second).contains("state.directory"));
    line.send(day(72, 500));
    line.prove();
}

/// The changelog vanishes while the group has offsets; with or without the local state the start is refused.
fn without_changelog(name: &str, of: fn(&Line) -> String, keeps_state: bool) {
    let mut line = Line::new(name);
    line.start(1);
    line.send(day(73, 1000));
    line.prove();
    line.terminate(0);
    let topic = of(&line);
    line.topics.delete(&[&topic]).unwrap();
    wait::until("the end of the topic", LIMIT, || {
        Ok(line.topics.partitions(&topic)?.is_none().then_some(()))
    })
    .unwrap();
    if !keeps_state {
        line.lose_state(0).unwrap();
    }
    line.instances[0].restart().unwrap();
    let status = line.instances[0].wait_exit(LIMIT).unwrap();
    assert_eq!(status.code(), Some(70), "{}", line.instances[0].tail());
    let log = line.log(0);
    assert!(
        log.contains("the changelog holds no position"),
        "{}",
        line.instances[0].tail()
    );
}

#[test]
fn a_lost_changelog_of_totals_is_refused() {
    without_changelog("lost", |line| line.names.changelog.clone(), false);
}

#[test]
fn a_lost_changelog_of_the_ingest_is_refused_also_when_the_state_is_there() {
    without_changelog("lost", |line| line.names.ingest_changelog.clone(), true);
}

/// As another tool would: an offset transaction without a member.
fn set_group_offsets(line: &Line, offset: i64) {
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
}

fn committed(line: &Line, topic: &str) -> Vec<Option<i64>> {
    line.topics
        .committed(&line.names.application_id, topic)
        .unwrap()
}

/// It goes on from its own records, and logs both numbers of each partition.
fn runs_from_the_record(line: &mut Line, group: Option<i64>, right: &[(String, Vec<Option<i64>>)]) {
    line.restart(0);
    let mut told: Vec<(String, i64, i64)> = line
        .log(0)
        .lines()
        .filter_map(|entry| serde_json::from_str::<Value>(entry).ok())
        .filter(|entry| {
            entry["message"]
                .as_str()
                .unwrap()
                .contains("the group's offset differs")
        })
        .map(|entry| {
            assert_eq!(
                (entry["level"].as_str(), entry["committed_offset"].as_i64()),
                (Some("ERROR"), group)
            );
            let number = |name: &str| entry[name].as_i64().unwrap();
            let topic = entry["topic"].as_str().unwrap().to_owned();
            (topic, number("partition"), number("recorded"))
        })
        .collect();
    told.sort();
    let mut expected = Vec::new();
    for (topic, offsets) in right {
        for (partition, offset) in (0..).zip(offsets) {
            expected.push((topic.clone(), partition, offset.unwrap()));
        }
    }
    assert_eq!(told, expected);
    line.send(day(75, 1000));
    line.prove();
}

#[test]
fn group_offsets_set_elsewhere_do_not_move_it_and_are_repaired() {
    let mut line = Line::new("meddled");
    line.start(1);
    line.send(day(74, 1000));
    line.prove();
    line.terminate(0);
    let topics = [line.names.source.clone(), line.names.bases.clone()];
    let right = topics
        .clone()
        .map(|topic| (topic.clone(), committed(&line, &topic)));
    set_group_offsets(&line, 3);
    assert_eq!(committed(&line, &topics[0]), [Some(3); 4]);
    runs_from_the_record(&mut line, Some(3), &right);
}

#[test]
fn deleted_group_offsets_do_not_move_it_and_are_repaired() {
    let mut line = Line::new("forgotten");
    line.start(1);
    line.send(day(74, 1000));
    line.prove();
    line.terminate(0);
    let topics = [line.names.source.clone(), line.names.bases.clone()];
    let right = topics
        .clone()
        .map(|topic| (topic.clone(), committed(&line, &topic)));
    delete_group(&line);
    assert_eq!(committed(&line, &topics[0]), [None; 4]);
    runs_from_the_record(&mut line, None, &right);
}

/// Possible as soon as the static member has timed out.
fn delete_group(line: &Line) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", line.bootstrap())
        .create()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
    wait::until("the deletion of the group", LIMIT, || {
        let groups = [line.names.application_id.as_str()];
        let results = runtime.block_on(admin.delete_groups(&groups, &options))?;
        Ok(results.iter().all(Result::is_ok).then_some(()))
    })
    .unwrap();
}
