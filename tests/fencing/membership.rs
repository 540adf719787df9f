//! Offsets are accepted from a member of the present generation and from nobody else.

use std::time::Duration;

use chaos::cluster::names::Names;
use chaos::cluster::topics::{Topic as NewTopic, Topics};
use chaos::cluster::{shared, wait};
use chaos::line::LIMIT;
use chaos::proxy::{Api, Fate, Rule, Side};
use settle::broker::classify::Reaction;
use settle::broker::client::Settings;
use settle::broker::consumer::Consumer;
use settle::broker::port::{Consumer as _, Polled, Port as _, Producer as _, Rebalance};
use settle::broker::producer::Producer;
use settle::broker::transaction::Transaction;
use settle::broker::{Partition, Topic};
use settle::config::Config;

const STEP: Duration = Duration::from_millis(50);

const PLACE: Partition = Partition::new(Topic::Source, 0);

/// A group of one test on the cluster that all of them share.
struct Group {
    names: Names,
    topics: Topics,
    settings: Settings,
}

impl Group {
    fn new(name: &str) -> Self {
        let cluster = shared::cluster_of(&chaos::line::cluster_options()).unwrap();
        let names = Names::unique(name);
        let topics = Topics::connect(&cluster.kafka.bootstrap()).unwrap();
        let bootstrap = cluster.kafka.proxy().bootstrap();
        let both = [&names.source, &names.bases];
        topics
            .create(&both.map(|name| NewTopic::new(name, 2)))
            .unwrap();
        let environment = [
            ("KAFKA__BOOTSTRAP_SERVERS", bootstrap.as_str()),
            ("KAFKA__APPLICATION_ID", names.application_id.as_str()),
            ("KAFKA__INSTANCE_ID", names.application_id.as_str()),
            ("TOPICS__SOURCE", names.source.as_str()),
            ("TOPICS__BASES", names.bases.as_str()),
        ];
        let environment =
            environment.map(|(key, value)| (format!("SETTLE_{key}"), value.to_owned()));
        let config = Config::load(None, environment.into_iter()).unwrap();
        Self {
            settings: Settings::new(&config),
            names,
            topics,
        }
    }

    fn producer(&self) -> Producer {
        let mut producer = self.settings.producer(0);
        producer.replace().unwrap();
        producer
    }

    fn committed(&self) -> Option<i64> {
        let group = &self.names.application_id;
        self.topics.committed(group, &self.names.source).unwrap()[0]
    }
}

/// Polls, and answers changes of the assignment, until `done`.
fn poll_until(what: &str, consumers: &[&Consumer], done: impl Fn() -> bool) {
    wait::until(what, LIMIT, || {
        for consumer in consumers {
            match consumer.poll(STEP)? {
                Polled::Rebalance(Rebalance::Assigned(partitions)) => {
                    let places: Vec<_> = partitions.iter().map(|place| (*place, 0)).collect();
                    consumer.assign(&places)?;
                }
                Polled::Rebalance(Rebalance::Revoked { partitions, .. }) => {
                    consumer.unassign(&partitions)?;
                }
                Polled::Record(_) | Polled::Nothing => {}
            }
        }
        Ok(done().then_some(()))
    })
    .unwrap();
}

#[test]
fn who_has_not_joined_yet_proves_no_membership_and_commits_nothing() {
    let group = Group::new("stranger");
    let mut producer = group.producer();
    let client = format!("|{}|", group.names.application_id);
    let join = Rule::new(Api::JoinGroup, &client, Fate::Hold(Side::Open));
    let cluster = shared::cluster_of(&chaos::line::cluster_options()).unwrap();
    let join = cluster.kafka.proxy().arm(join.times(usize::MAX));
    let consumer = group.settings.join(0).unwrap();
    let transaction = Transaction::begin(&mut producer).unwrap();
    let refused = transaction.commit(&[(PLACE, 5)], || consumer.membership());
    let refused = refused.expect_err("an offset without a member");
    assert_eq!(refused.reaction, Reaction::Recover, "{refused}");
    producer.replace().unwrap();
    assert_eq!(group.committed(), None);

    join.release();
    poll_until("the membership", &[&consumer], || {
        consumer.membership().is_ok()
    });
    let transaction = Transaction::begin(&mut producer).unwrap();
    let committed = transaction.commit(&[(PLACE, 7)], || consumer.membership());
    committed.unwrap();
    assert_eq!(group.committed(), Some(7));
}

#[test]
fn offsets_of_a_generation_that_is_over_are_refused() {
    let group = Group::new("generation");
    let mut producer = group.producer();
    let first = group.settings.join(0).unwrap();
    poll_until("the first member", &[&first], || first.membership().is_ok());
    let old = first.membership().unwrap();
    let second = group.settings.join(1).unwrap();
    poll_until("the second member", &[&first, &second], || {
        second.membership().is_ok()
    });
    let transaction = Transaction::begin(&mut producer).unwrap();
    let refused = transaction.commit(&[(PLACE, 5)], || Ok(old));
    let refused = refused.expect_err("an offset of an old generation");
    assert_eq!(refused.reaction, Reaction::Recover, "{refused}");
    producer.replace().unwrap();
    assert_eq!(group.committed(), None);
}
