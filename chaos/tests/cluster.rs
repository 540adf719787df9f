//! The real parts start, take what is done to them, and leave nothing behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chaos::cluster::instance::{Instance, InstanceOptions};
use chaos::cluster::kafka::{Broker, Kafka, KafkaOptions};
use chaos::cluster::names::Names;
use chaos::cluster::postgres::Postgres;
use chaos::cluster::scratch::Scratch;
use chaos::cluster::topics::{Isolation, Topic, Topics};
use chaos::cluster::{Cluster, ClusterOptions, process, shared, wait};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_postgres::{NoTls, Row};

const LIMIT: Duration = Duration::from_secs(30);

fn produce(bootstrap: &str, topic: &str, values: &[&str]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .create()
        .unwrap();
    for value in values {
        let record = BaseRecord::<(), str>::to(topic).partition(0).payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LIMIT).unwrap();
}

fn consume(bootstrap: &str, topic: &str, count: usize) -> Vec<String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "reader")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&list).unwrap();
    let start = Instant::now();
    let mut values = Vec::new();
    while values.len() < count {
        assert!(start.elapsed() < LIMIT, "only {values:?}");
        // A broker that is down is reported here, and no obstacle.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            values.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap());
        }
    }
    values
}

fn query(url: &str, statement: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let connection = tokio::spawn(connection);
        let rows = client.query(statement, &[]).await;
        connection.abort();
        rows
    })
}

fn await_dead(pids: &[libc::pid_t]) {
    let dead = wait::until("the end of all processes", LIMIT, || {
        Ok((!pids.iter().any(|pid| process::is_alive(*pid))).then_some(()))
    });
    dead.unwrap();
}

#[test]
fn records_survive_the_kill_and_the_stop_of_a_broker() {
    let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
    let bootstrap = kafka.bootstrap();
    let topics = Topics::connect(&bootstrap).unwrap();
    topics.create(&[Topic::new("t", 2)]).unwrap();
    produce(&bootstrap, "t", &["one", "two"]);

    kafka.kill();
    assert!(!kafka.brokers()[0].is_running());
    kafka.restart().unwrap();
    assert_eq!(consume(&bootstrap, "t", 2), ["one", "two"]);

    kafka.pause();
    kafka.resume();
    kafka.terminate().unwrap();
    assert!(!kafka.brokers()[0].is_running());
    kafka.restart().unwrap();
    produce(&bootstrap, "t", &["three"]);
    assert_eq!(consume(&bootstrap, "t", 3), ["one", "two", "three"]);
}

#[test]
fn three_brokers_go_on_without_one() {
    let options = KafkaOptions {
        brokers: 3,
        heap: "256m".to_owned(),
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(&options).unwrap();
    let bootstrap = kafka.bootstrap();
    let mut topic = Topic::new("t", 1);
    topic.replication = 3;
    Topics::connect(&bootstrap)
        .unwrap()
        .create(&[topic])
        .unwrap();
    produce(&bootstrap, "t", &["one"]);
    kafka.brokers()[0].kill();
    produce(&bootstrap, "t", &["two"]);
    assert_eq!(consume(&bootstrap, "t", 2), ["one", "two"]);
    kafka.restart().unwrap();
    assert!(kafka.brokers().iter().all(Broker::is_running));
}

#[test]
fn topics_are_created_once_and_described() {
    let cluster = shared::cluster().unwrap();
    let names = Names::unique("topics");
    let topics = Topics::connect(&cluster.kafka.bootstrap()).unwrap();
    let topic = Topic::new(&names.source, 3).set("cleanup.policy", "compact");
    topics.create(std::slice::from_ref(&topic)).unwrap();
    topics.create(&[topic]).unwrap();
    assert!(topics.create(&[Topic::new(&names.source, 4)]).is_err());
    assert_eq!(topics.partitions(&names.source).unwrap(), Some(3));
    assert_eq!(topics.partitions(&names.bases).unwrap(), None);
    assert_eq!(
        topics.config(&names.source).unwrap()["cleanup.policy"],
        "compact"
    );
    assert_eq!(
        topics.ends(&names.source, Isolation::Committed).unwrap(),
        [0, 0, 0]
    );
    assert_eq!(
        topics.committed("nobody", &names.source).unwrap(),
        [None, None, None]
    );
    topics.delete(&[&names.source]).unwrap();
}

#[test]
fn the_database_survives_kill_stop_and_pause() {
    let directory = Scratch::new().unwrap();
    let postgres = Postgres::start(&directory.path().join("postgres")).unwrap();
    postgres.create_database("other").unwrap();
    postgres.create_database("other").unwrap();
    let url = postgres.url_of("other");
    query(&url, "CREATE TABLE kept AS SELECT 1 AS value").unwrap();
    let rows = || query(&url, "SELECT value FROM kept").map(|rows| rows.len());
    assert!(query(&postgres.url(), "SELECT value FROM kept").is_err());

    postgres.kill();
    assert!(rows().is_err());
    postgres.restart().unwrap();
    assert_eq!(rows().unwrap(), 1);
    postgres.stop().unwrap();
    assert!(rows().is_err());
    postgres.restart().unwrap();
    postgres.pause();
    postgres.resume();
    assert_eq!(rows().unwrap(), 1);
}

/// A program that stands in for settle: it has a life, but no behaviour.
fn stand_in(directory: &Path, body: &str) -> PathBuf {
    let path = directory.join("stand-in");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn an_instance_gets_its_configuration_and_ends_as_told() {
    let cluster = shared::cluster().unwrap();
    let directory = Scratch::new().unwrap();
    let binary = stand_in(
        directory.path(),
        r#"trap 'exit 7' TERM; cat "$3"; while :; do sleep 0.02; done"#,
    );
    let names = Names::unique("instance");
    let options = cluster.instance(binary, "settle-0", &names).unwrap();
    let mut instance = Instance::start(options.set("pipeline.workers", 2)).unwrap();
    let log = wait::until("the configuration in the log", LIMIT, || {
        let log = fs::read_to_string(instance.log())?;
        Ok(log.contains("workers = 2").then_some(log))
    });
    let log = log.unwrap();
    assert!(log.contains(&cluster.kafka.bootstrap()), "{log}");
    assert!(log.contains(&names.ingest_changelog), "{log}");
    assert!(instance.rss_bytes().unwrap() > 0);
    assert!(instance.cpu_seconds().unwrap() >= 0.0);
    assert_eq!(instance.terminate(LIMIT).unwrap().code(), Some(7));

    instance.restart().unwrap();
    assert_eq!(instance.exit_status(), None);
    instance.pause();
    instance.resume();
    instance.kill();
    assert_eq!(instance.exit_status().unwrap().code(), None);
}

#[test]
fn an_instance_that_ends_is_not_waited_for() {
    let directory = Scratch::new().unwrap();
    let binary = stand_in(directory.path(), "echo the reason; exit 78");
    let options = InstanceOptions::new(&binary, "settle-0", directory.path()).unwrap();
    let instance = Instance::start(options).unwrap();
    let start = Instant::now();
    let error = instance.wait_ready(LIMIT).unwrap_err().to_string();
    assert!(error.contains("exit code 78"), "{error}");
    assert!(error.contains("the reason"), "{error}");
    assert!(start.elapsed() < LIMIT);
}

#[test]
fn nothing_runs_and_nothing_is_left_after_the_drop() {
    let cluster = Cluster::start(&ClusterOptions::default()).unwrap();
    let directory = cluster.directory().to_owned();
    let pids = pids(&cluster);
    assert!(pids.iter().all(|pid| process::is_alive(*pid)));
    drop(cluster);
    await_dead(&pids);
    assert!(!directory.exists());
}

fn pids(cluster: &Cluster) -> Vec<libc::pid_t> {
    let server = cluster.postgres().pid().unwrap();
    let mut pids = vec![cluster.kafka.brokers()[0].pid().unwrap(), server];
    pids.extend(process::descendants(server));
    pids
}

#[test]
fn nothing_outlives_an_owner_that_is_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "own_a_cluster_until_killed",
            "--ignored",
            "--nocapture",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let mut next = |prefix: &str| {
        lines
            .find_map(|line| line.unwrap().strip_prefix(prefix).map(str::to_owned))
            .unwrap()
    };
    let directory = PathBuf::from(next("directory "));
    let pids: Vec<libc::pid_t> = next("pids ")
        .split(' ')
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert!(pids.len() > 2);
    owner.kill().unwrap();
    owner.wait().unwrap();
    await_dead(&pids);
    // What the owner could not remove, the next one does; here others may be at it already.
    Scratch::new().unwrap();
    wait::until("the directory is gone", LIMIT, || {
        Ok((!directory.exists()).then_some(()))
    })
    .unwrap();
}

#[test]
#[ignore = "the other half of nothing_outlives_an_owner_that_is_killed"]
fn own_a_cluster_until_killed() {
    let cluster = Cluster::start(&ClusterOptions::default()).unwrap();
    let pids: Vec<String> = pids(&cluster).iter().map(ToString::to_string).collect();
    println!("\ndirectory {}", cluster.directory().display());
    println!("pids {}", pids.join(" "));
    std::thread::sleep(Duration::from_secs(600));
}
