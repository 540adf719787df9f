//! Transactions of others that nobody ends: in the source, and in changelogs, where nothing of others belongs.

use chaos::cluster::tools::Tool;
use chaos::cluster::wait;
use chaos::model::partition;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::line::{LIMIT, Line, PARTITIONS, plain};
use crate::operator::{await_entry, ends, kafka, line, metric};
use crate::parts::Parts;

const PARTS: Parts = Parts {
    day: plain,
    seed: 331,
    size: 400,
};

/// Another producer's open transaction, with one record in each of these places.
fn open(line: &Line, name: &str, records: &[(&str, i32, &str, &str)]) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", line.bootstrap())
        .set(
            "transactional.id",
            format!("{name}-{}", line.names.application_id),
        )
        .set("transaction.timeout.ms", "120000")
        .create()
        .unwrap();
    producer.init_transactions(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    for (topic, partition, key, value) in records {
        let record = BaseRecord::to(topic)
            .partition(*partition)
            .key(*key)
            .payload(*value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LIMIT).unwrap();
    producer
}

/// As the message says.
fn abort(line: &Line, topic: &str, partition: i32, offset: i64) {
    let (partition, offset) = (partition.to_string(), offset.to_string());
    let place = ["abort", "--topic", topic, "--partition", &partition];
    let start = ["--start-offset", &offset];
    kafka(line, Tool::Transactions, &[&place[..], &start].concat());
}

/// A payment id of this partition of the source.
fn id_in(number: i32) -> String {
    (0..1000)
        .map(|id| format!("waiting-{id}"))
        .find(|id| partition::of(id.as_bytes(), PARTITIONS) == number)
        .unwrap()
}

#[test]
fn payments_behind_a_transaction_that_hangs_wait_and_go_on_when_it_ends() {
    let mut line = line("hung");
    line.start(1);
    PARTS.send(&line, 0);
    line.prove();
    let topic = line.names.source.clone();
    let offsets = ends(&line, &topic);
    let payment = r#"{"channel":"ONLINE","action":"PAYMENT","data":{"paymentType":"ONLINE","amount":5,"merchantNumber":"merchant-0001","paymentDate":"2025-05-26T14:23:51.123456","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}}"#;
    let (kept, dropped) = (id_in(0), id_in(2));
    let committed = open(&line, "kept", &[(&topic, 0, &kept, payment)]);
    let aborted = open(&line, "dropped", &[(&topic, 2, &dropped, payment)]);
    PARTS.send(&line, 1);
    for partition in [0, 2] {
        let index = usize::try_from(partition).unwrap();
        let message = "a transaction that has not ended keeps the records behind this offset";
        let entry = await_entry(&line, message, &topic, partition);
        assert_eq!(entry["offset"], offsets[index], "{entry}");
        assert!(entry["behind"].as_i64().unwrap() > 50, "{entry}");
        let label = format!("partition=\"{partition}\"");
        wait::until("the metric to tell it, too", LIMIT, || {
            let stuck = metric(&line, "settle_stable_offset_stuck_seconds", &label);
            Ok((stuck >= 10.0).then_some(()))
        })
        .unwrap();
    }
    // The others have gone on, and these have not begun.
    let group = line.names.application_id.clone();
    let at = || line.topics.committed(&group, &topic).unwrap();
    let end = ends(&line, &topic);
    wait::until("the other partitions", LIMIT, || {
        let at = at();
        Ok((at[1] == Some(end[1]) && at[3] == Some(end[3])).then_some(()))
    })
    .unwrap();
    let at = at();
    assert_eq!((at[0], at[2]), (Some(offsets[0]), Some(offsets[2])));
    committed.commit_transaction(LIMIT).unwrap();
    abort(&line, &topic, 2, offsets[2]);
    drop(aborted);
    line.prove();
    let (mut has_kept, mut has_dropped) = (false, false);
    line.read(&line.names.settlements, |record| {
        has_kept |= record.key == Some(kept.as_bytes());
        has_dropped |= record.key == Some(dropped.as_bytes());
    });
    assert!(has_kept && !has_dropped, "{has_kept} {has_dropped}");
}

#[test]
fn a_transaction_that_hangs_in_a_changelog_is_waited_for_and_named() {
    let mut line = line("blocked");
    line.start(1);
    PARTS.send(&line, 0);
    line.prove();
    line.terminate(0);
    let (totals, ingest) = (
        line.names.changelog.clone(),
        line.names.ingest_changelog.clone(),
    );
    let offsets = [ends(&line, &totals)[0], ends(&line, &ingest)[1]];
    let by_tool = open(&line, "totals", &[(&totals, 0, "key", "value")]);
    let by_owner = open(&line, "ingest", &[(&ingest, 1, "key", "value")]);
    line.instances[0].restart().unwrap();
    let message = "an undecided transaction of another application";
    let entries = [
        await_entry(&line, message, &totals, 0),
        await_entry(&line, message, &ingest, 1),
    ];
    for (entry, offset) in entries.iter().zip(offsets) {
        assert_eq!(entry["offset"], offset, "{entry}");
    }
    // Other partitions run meanwhile; payments of these two wait.
    await_entry(&line, "task runs", &line.names.source, 0);
    await_entry(&line, "task runs", &line.names.bases, 1);
    PARTS.send(&line, 1);
    abort(&line, &totals, 0, offsets[0]);
    by_owner.abort_transaction(LIMIT).unwrap();
    drop(by_tool);
    line.prove();
}
