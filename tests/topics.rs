//! Topics on a real Kafka: planned, created, checked.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::process::Command;
use std::thread;

use chaos::cluster::names::Names;
use chaos::cluster::shared;
use chaos::cluster::topics::{Topic, Topics};
use settle::config::Config;
use settle::exit::Exit;
use settle::topics;

/// Names of topics that no other test uses, on the shared cluster.
struct Place {
    names: Names,
    bootstrap: String,
    topics: Topics,
}

impl Place {
    fn new() -> Self {
        let bootstrap = shared::cluster().unwrap().kafka.bootstrap();
        let topics = Topics::connect(&bootstrap).unwrap();
        Self {
            names: Names::unique("topics"),
            bootstrap,
            topics,
        }
    }

    fn environment(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let bootstrap = (
            "SETTLE_KAFKA__BOOTSTRAP_SERVERS".to_owned(),
            self.bootstrap.clone(),
        );
        let topics = self.names.topics();
        let topics = topics.map(|(key, name)| (format!("TOPICS__{}", key.to_uppercase()), name));
        let more = more.iter().map(|(key, value)| ((*key).to_owned(), *value));
        let own = topics.into_iter().chain(more);
        let own = own.map(|(key, value)| (format!("SETTLE_{key}"), value.to_owned()));
        std::iter::once(bootstrap).chain(own).collect()
    }

    fn config(&self) -> Config {
        Config::load(None, self.environment(&[]).into_iter()).unwrap()
    }

    /// Exit code and everything that was printed.
    fn settle(&self, arguments: &[&str], more: &[(&str, &str)]) -> (Option<i32>, String) {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_settle"));
        command
            .current_dir(directory.path())
            .args(arguments)
            .env_clear()
            .envs(self.environment(more));
        let output = command.output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(printed).unwrap())
    }
}

#[test]
fn a_plan_creates_nothing_and_apply_creates_what_it_says() {
    let place = Place::new();
    let (code, printed) = place.settle(&["topics", "plan"], &[]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.ends_with("9 to create: `settle topics apply`\n"),
        "{printed}"
    );
    assert_eq!(place.topics.partitions(&place.names.bases).unwrap(), None);

    let (code, printed) = place.settle(
        &["topics", "apply"],
        &[("TOPICS__CREATE", "false"), ("TOPICS__PARTITIONS", "3")],
    );
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.ends_with("9 created\n"), "{printed}");
    assert_eq!(
        place.topics.partitions(&place.names.bases).unwrap(),
        Some(3)
    );
    let bases = place.topics.config(&place.names.bases).unwrap();
    assert_eq!(bases["message.timestamp.type"], "LogAppendTime");
    assert_eq!(
        (
            bases["cleanup.policy"].as_str(),
            bases["retention.ms"].as_str()
        ),
        ("delete", "604800000")
    );
    assert_eq!(
        place.topics.config(&place.names.changelog).unwrap()["cleanup.policy"],
        "compact"
    );

    let (code, printed) = place.settle(&["topics", "plan"], &[]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.ends_with("nothing to do\n") && !printed.contains("warning"),
        "{printed}"
    );
}

#[test]
fn a_wrong_number_of_partitions_stops_the_start_and_names_the_topic() {
    let place = Place::new();
    let names = &place.names;
    place
        .topics
        .create(&[Topic::new(&names.bases, 4), Topic::new(&names.rules, 5)])
        .unwrap();
    for command in [&["topics", "plan"][..], &["topics", "apply"], &["run"]] {
        let (code, printed) = place.settle(command, &[]);
        assert_eq!(code, Some(78), "{printed}");
        let violation = format!(
            "{}: has 5 partitions and must have 4, as many as {}",
            names.rules, names.bases
        );
        assert!(printed.contains(&violation), "{printed}");
    }
    assert_eq!(place.topics.partitions(&names.source).unwrap(), None);
}

#[test]
fn a_missing_topic_stops_the_start_where_none_may_be_created() {
    let place = Place::new();
    let (code, printed) = place.settle(&["run"], &[("TOPICS__CREATE", "false")]);
    assert_eq!(code, Some(78), "{printed}");
    assert!(
        printed.contains(&place.names.source) && printed.contains("settle topics apply"),
        "{printed}"
    );
}

#[test]
fn more_copies_than_brokers_is_a_mistake_of_the_configuration() {
    let place = Place::new();
    let (code, printed) =
        place.settle(&["topics", "apply"], &[("TOPICS__REPLICATION_FACTOR", "3")]);
    assert_eq!(code, Some(78), "{printed}");
}

#[test]
fn instances_that_start_together_agree_on_the_topics() {
    let place = Place::new();
    let config = place.config();
    thread::scope(|scope| {
        let starts: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| topics::ensure(&config)))
            .collect();
        for start in starts {
            assert_eq!(start.join().unwrap().unwrap().bases, 4);
        }
    });
}

#[test]
fn the_ingest_changelog_follows_the_source() {
    let place = Place::new();
    place
        .topics
        .create(&[Topic::new(&place.names.source, 7)])
        .unwrap();
    let partitions = topics::ensure(&place.config()).unwrap();
    assert_eq!((partitions.source, partitions.bases), (7, 4));
    assert_eq!(
        place
            .topics
            .partitions(&place.names.ingest_changelog)
            .unwrap(),
        Some(7)
    );
}

#[test]
fn a_changelog_that_forgets_is_refused() {
    let place = Place::new();
    let changelog = Topic::new(&place.names.changelog, 4)
        .set("cleanup.policy", "delete")
        .set("retention.ms", "604800000");
    place.topics.create(&[changelog]).unwrap();
    let error = topics::ensure(&place.config()).unwrap_err();
    assert_eq!(error.exit(), Exit::Configuration);
    assert!(
        error.to_string().contains(&place.names.changelog),
        "{error}"
    );
}
