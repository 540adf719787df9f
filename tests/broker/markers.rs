//! A broker that is killed at a moment at which it loses markers of ended transactions.

use std::fs;
use std::thread;
use std::time::Duration;

use chaos::cluster::wait;
use chaos::pipeline::{Pipeline, PipelineOptions};
use chaos::proxy::{Api, Armed, Fate, Rule, Stage};
use chaos::topics_reader;
use settle::clock;

use crate::{DEFAULT_SESSION, LIMIT, options, prove_through};

/// Settlements of a pipeline that is at work again: more than an end that is written again adds.
const WRITTEN_ENOUGH: i64 = 100;

/// Part of the client id of every producer of an instance.
const PRODUCERS: &str = "|producer";

/// How long after an answer the broker dies: markers are under way then.
const DELAYS_MILLIS: [u64; 8] = [0, 2, 4, 6, 8, 10, 12, 15];

/// Sent before the first death.
const PAYMENTS_FIRST: u64 = 1000;

/// A broker that comes back after transactions have expired forgets markers of most of them, and
/// their records hang.
#[test]
fn a_broker_that_comes_back_after_transactions_have_expired_loses_and_doubles_nothing() {
    let mut options = options(DEFAULT_SESSION);
    for (name, value) in [
        ("transaction.timeout.ms", "2000"),
        ("socket.timeout.ms", "1500"),
    ] {
        options.properties.insert(name.to_owned(), value.to_owned());
    }
    killed(35, &options, 2, |pipeline, _| wait_writing(pipeline));
}

/// The first thing that an instance writes when its broker is back ends a transaction again, if
/// markers were lost. The broker dies in it once more.
#[test]
fn a_broker_that_dies_while_lost_markers_are_written_again_loses_and_doubles_nothing() {
    killed(37, &behind_proxy(1), 2, |pipeline, round| {
        just_after_a_commit(pipeline, round);
        pipeline.cluster.kafka.kill();
        let write = arm(pipeline, Api::Produce, "settle|");
        pipeline.cluster.kafka.restart().unwrap();
        wait_answered(&write);
    });
}

#[test]
#[ignore = "takes a quarter of an hour: ./dev crash"]
fn a_broker_that_dies_fifty_times_just_after_a_commit_loses_and_doubles_nothing() {
    killed(38, &behind_proxy(1), 50, just_after_a_commit);
}

#[test]
#[ignore = "takes a quarter of an hour: ./dev crash"]
fn a_broker_that_comes_back_fifty_times_too_late_loses_and_doubles_nothing() {
    let mut options = options(DEFAULT_SESSION);
    for (name, value) in [
        ("transaction.timeout.ms", "2000"),
        ("socket.timeout.ms", "1500"),
    ] {
        options.properties.insert(name.to_owned(), value.to_owned());
    }
    killed(39, &options, 50, |pipeline, _| wait_writing(pipeline));
}

#[test]
#[ignore = "three brokers: ./dev crash"]
fn three_brokers_that_die_at_once_just_after_a_commit_lose_and_double_nothing() {
    killed(40, &behind_proxy(3), 10, just_after_a_commit);
}

/// Kills all brokers so often, each time when `moment` returns, and proves the result.
fn killed(seed: u64, options: &PipelineOptions, times: u64, moment: fn(&Pipeline, u64)) {
    prove_through(seed, options, PAYMENTS_FIRST, |pipeline, wait_sent| {
        wait_sent(PAYMENTS_FIRST);
        for round in 0..times {
            moment(pipeline, round);
            pipeline.cluster.kafka.kill();
            pipeline.cluster.kafka.restart().unwrap();
        }
        eprintln!(
            "{} transactions had to be ended again",
            lost_markers(pipeline)
        );
    });
}

fn behind_proxy(brokers: usize) -> PipelineOptions {
    let mut options = options(DEFAULT_SESSION);
    options.cluster.kafka.behind_proxy = true;
    options.cluster.kafka.brokers = brokers;
    options
}

fn just_after_a_commit(pipeline: &Pipeline, round: u64) {
    wait_writing(pipeline);
    let end = arm(pipeline, Api::EndTxn, PRODUCERS);
    wait_answered(&end);
    let delay = DELAYS_MILLIS[usize::try_from(round).unwrap() % DELAYS_MILLIS.len()];
    // The moment itself, not a wait for something.
    thread::sleep(Duration::from_millis(delay));
}

fn arm(pipeline: &Pipeline, api: Api, client: &str) -> Armed {
    let rule = Rule::new(api, client, Fate::Delay(Duration::ZERO));
    pipeline.cluster.kafka.proxy().arm(rule)
}

/// Until the broker has answered the request. Looks all the time: milliseconds matter.
fn wait_answered(request: &Armed) {
    let deadline = clock::now() + LIMIT;
    while !matches!(request.stages()[..], [Stage::Answered(_)]) {
        assert!(clock::now() < deadline, "{:?}", request.stages());
        thread::yield_now();
    }
}

/// Until more settlements are being written than an end that is written again would add.
fn wait_writing(pipeline: &Pipeline) {
    let (bootstrap, topic) = (pipeline.bootstrap(), &pipeline.names.settlements);
    let mut first = None;
    wait::until("settlements are written", LIMIT, || {
        let Ok(bounds) = topics_reader::bounds(&bootstrap, topic) else {
            return Ok(None); // It has just come back.
        };
        let written = bounds.iter().map(|(_, high)| high).sum::<i64>();
        let added = written - *first.get_or_insert(written);
        Ok((added >= WRITTEN_ENOUGH).then_some(()))
    })
    .unwrap();
}

/// Transactions that the instances had to end again.
fn lost_markers(pipeline: &Pipeline) -> usize {
    let logs = pipeline.instances.iter().map(|instance| {
        let log = fs::read_to_string(instance.log()).unwrap();
        log.matches("a broker has lost markers").count()
    });
    logs.sum()
}
