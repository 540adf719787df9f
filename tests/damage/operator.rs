//! What an operator has: the program's own commands, Kafka's tools, the log and the metrics.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use chaos::cluster::kafka::KafkaOptions;
use chaos::cluster::tools::Tool;
use chaos::cluster::topics::Isolation;
use chaos::cluster::{ClusterOptions, shared, wait};
use serde_json::Value;

use crate::line::{LIMIT, Line};

/// `sysexits.h`, as `settle --help` lists them.
pub const FAILED: i32 = 1;
pub const BROKEN_PROMISE: i32 = 70;
pub const STATE: i32 = 74;
pub const CONFIGURATION: i32 = 78;

/// A pipeline on the cluster of these tests.
pub fn line(name: &str) -> Line {
    let properties = [
        // As short as Kafka lets it be.
        ("offsets.retention.minutes", "1"),
        ("offsets.retention.check.interval.ms", "1000"),
    ];
    let own = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let options = ClusterOptions {
        kafka: KafkaOptions {
            properties: own.into(),
            ..KafkaOptions::default()
        },
        without_postgres: true,
        ..ClusterOptions::default()
    };
    shared::cluster_of(&options).unwrap();
    Line::new(name)
}

/// Runs a command of the program with the configuration of the first instance: its exit code, and what it printed.
pub fn settle(line: &Line, arguments: &[&str]) -> (i32, String) {
    let output = line.command(0, arguments).unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).unwrap();
    (output.status.code().unwrap(), printed)
}

/// The same for `settle positions`, which waits until the group has forgotten the instances that were stopped.
pub fn positions(line: &Line, arguments: &[&str]) -> (i32, String) {
    let arguments = [&["positions"], arguments].concat();
    wait::until("the group being empty", LIMIT, || {
        let (code, printed) = settle(line, &arguments);
        let is_busy = code == FAILED && printed.contains("still has members");
        Ok((!is_busy).then_some((code, printed)))
    })
    .unwrap()
}

/// Starts the stopped instance, which must refuse to run; what it logged since.
pub fn refused(line: &mut Line, code: i32) -> String {
    let before = line.log(0).len();
    line.instances[0].restart().unwrap();
    let status = line.instances[0].wait_exit(LIMIT).unwrap();
    assert_eq!(status.code(), Some(code), "{}", line.instances[0].tail());
    line.log(0).split_off(before)
}

/// Runs one of Kafka's tools.
pub fn kafka(line: &Line, tool: Tool, arguments: &[&str]) -> String {
    tool.run(&line.bootstrap(), arguments).unwrap()
}

/// Deletes a topic with Kafka's tool and waits until it is gone.
pub fn delete_topic(line: &Line, topic: &str) {
    kafka(line, Tool::Topics, &["--delete", "--topic", topic]);
    wait::until("the end of the topic", LIMIT, || {
        Ok(line.topics.partitions(topic)?.is_none().then_some(()))
    })
    .unwrap();
}

/// Log entries whose message contains this text.
pub fn entries(log: &str, message: &str) -> Vec<Value> {
    let entries = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries
        .filter(|entry| {
            entry["message"]
                .as_str()
                .is_some_and(|text| text.contains(message))
        })
        .collect()
}

/// Waits for an entry of the first instance's log with this message, topic and partition.
pub fn await_entry(line: &Line, message: &str, topic: &str, partition: i32) -> Value {
    let what = format!("{message:?} of {topic}/{partition}");
    wait::until(&what, LIMIT, || {
        let found = entries(&line.log(0), message);
        let here = |entry: &Value| entry["topic"] == topic && entry["partition"] == partition;
        Ok(found.into_iter().find(here))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", line.instances[0].tail()))
}

/// The sum over all samples of a metric whose labels contain this text.
pub fn metric(line: &Line, name: &str, labels: &str) -> f64 {
    let mut stream = TcpStream::connect(line.instances[0].address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let samples = text.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(labels))
    });
    let values = samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
    let values: Vec<f64> = values.collect();
    assert!(!values.is_empty(), "no {name} with {labels}:\n{text}");
    values.into_iter().sum()
}

/// The ends of a topic's partitions, open transactions among them.
pub fn ends(line: &Line, topic: &str) -> Vec<i64> {
    line.topics.ends(topic, Isolation::Uncommitted).unwrap()
}

pub fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}
