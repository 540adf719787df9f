//! A broker that freezes, or dies and comes back, under load: nothing is lost, nothing doubled,
//! whatever markers the broker has lost with it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use chaos::cluster::instance::Instance;
use chaos::cluster::wait;
use chaos::oracle::{self, settled};
use chaos::pipeline::{Pipeline, PipelineOptions};
use chaos::report;
use chaos::topics_reader;
use chaos::workload::day::{Day, DayOptions};
use chaos::workload::send::{self, SendOptions};

const PAYMENTS: u64 = 12_000;
const PER_SECOND: u32 = 800;
const PARTITIONS: i32 = 4;
/// Longer than the clients wait for an answer (3 s), so that requests are sent again.
const FROZEN: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(120);

/// Longer than any freeze here, on a busy machine too.
const LONG_SESSION: &str = "60000";
/// Shorter than a freeze: the frozen broker is fenced meanwhile, and can lose the markers of ended
/// transactions.
const SHORT_SESSION: &str = "3000";
/// Settlements of a pipeline that is at work again.
const WRITTEN_ENOUGH: i64 = 100;
/// As brokers have it when nothing is said. One that is killed comes back when it is over.
const DEFAULT_SESSION: &str = "9000";

/// Settles a day with two instances while `trouble` befalls a broker with this
/// `broker.session.timeout.ms`, then proves the result.
fn prove_through(seed: u64, session: &str, trouble: impl Fn(&Pipeline, &dyn Fn(u64))) {
    prove_through_with(seed, session, &[], trouble);
}

/// The same with `kafka.properties` of the instances.
fn prove_through_with(
    seed: u64,
    session: &str,
    properties: &[(&str, &str)],
    trouble: impl Fn(&Pipeline, &dyn Fn(u64)),
) {
    let mut options = PipelineOptions::new().unwrap();
    options.binary = env!("CARGO_BIN_EXE_settle").into();
    options.partitions = PARTITIONS;
    options.properties = properties
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let properties = &mut options.cluster.kafka.properties;
    properties.insert("broker.session.timeout.ms".to_owned(), session.to_owned());
    let pipeline = Pipeline::start(&options).unwrap();
    let sending = SendOptions {
        per_second: Some(PER_SECOND),
        ..SendOptions::new(&pipeline.bootstrap(), &pipeline.names.source)
    };
    let day = Day::new(DayOptions::new(seed, PAYMENTS, PARTITIONS));
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            send::send(&sending, day, |count| {
                sent.store(count, Ordering::Relaxed);
                true
            })
        });
        let wait_sent = |count: u64| {
            wait::until("payments are sent", LIMIT, || {
                Ok((sent.load(Ordering::Relaxed) >= count).then_some(()))
            })
            .unwrap();
        };
        trouble(&pipeline, &wait_sent);
        sender.join().unwrap().unwrap();
    });
    let run = pipeline.run();
    let settled = settled::wait_settled(&run, LIMIT);
    if settled.is_err() {
        let tails = pipeline.instances.iter().map(Instance::tail);
        panic!("{settled:?}\n{}", tails.collect::<Vec<_>>().join("\n"));
    }
    pipeline.check_alive().unwrap();
    let proof = oracle::prove(&run, &pipeline.contract, &pipeline.service()).unwrap();
    assert!(proof.findings.hold(), "{}", report::proof(&proof));
}

fn freeze_again_and_again(pipeline: &Pipeline, wait_sent: &dyn Fn(u64)) {
    for count in [2000, 5000, 8000] {
        wait_sent(count);
        pipeline.cluster.kafka.pause();
        // The trouble itself, not a wait for something.
        thread::sleep(FROZEN);
        pipeline.cluster.kafka.resume();
    }
}

#[test]
fn a_broker_that_freezes_again_and_again_loses_and_doubles_nothing() {
    prove_through(31, LONG_SESSION, freeze_again_and_again);
}

#[test]
fn a_broker_that_is_fenced_while_it_is_frozen_loses_and_doubles_nothing() {
    prove_through(33, SHORT_SESSION, freeze_again_and_again);
}

#[test]
fn a_broker_that_is_killed_loses_and_doubles_nothing() {
    prove_through(34, DEFAULT_SESSION, |pipeline, wait_sent| {
        for count in [3000, 7000] {
            wait_sent(count);
            pipeline.cluster.kafka.kill();
            pipeline.cluster.kafka.restart().unwrap();
        }
    });
}

/// A broker that comes back after transactions have expired forgets markers of most of them, and
/// their records hang.
#[test]
fn a_broker_that_comes_back_after_transactions_have_expired_loses_and_doubles_nothing() {
    let short = [
        ("transaction.timeout.ms", "2000"),
        ("socket.timeout.ms", "1500"),
    ];
    prove_through_with(35, DEFAULT_SESSION, &short, |pipeline, wait_sent| {
        for count in [2000, 5000, 8000] {
            wait_sent(count);
            wait_writing(pipeline);
            pipeline.cluster.kafka.kill();
            pipeline.cluster.kafka.restart().unwrap();
        }
        eprintln!(
            "{} transactions had to be ended again",
            lost_markers(pipeline)
        );
    });
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

#[test]
fn a_broker_that_is_restarted_loses_and_doubles_nothing() {
    prove_through(32, LONG_SESSION, |pipeline, wait_sent| {
        for count in [3000, 7000] {
            wait_sent(count);
            pipeline.cluster.kafka.terminate().unwrap();
            pipeline.cluster.kafka.restart().unwrap();
        }
    });
}
