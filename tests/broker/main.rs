//! A broker that freezes, or dies and comes back, under load: nothing is lost, nothing doubled,
//! whatever markers the broker has lost with it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stderr, reason = "tests say how much trouble there was")]

mod markers;

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use chaos::cluster::instance::Instance;
use chaos::cluster::wait;
use chaos::oracle::{self, settled};
use chaos::pipeline::{Pipeline, PipelineOptions};
use chaos::report;
use chaos::workload::day::{Day, DayOptions};
use chaos::workload::send::{self, SendOptions};

const PAYMENTS: u64 = 12_000;
/// More than any trouble here lasts.
const PAYMENTS_MAX: u64 = 10_000_000;
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
/// As brokers have it when nothing is said. One that is killed comes back when it is over.
const DEFAULT_SESSION: &str = "9000";

/// A pipeline of two instances on brokers with this `broker.session.timeout.ms`.
fn options(session: &str) -> PipelineOptions {
    let mut options = PipelineOptions::new().unwrap();
    options.binary = env!("CARGO_BIN_EXE_settle").into();
    options.partitions = PARTITIONS;
    let properties = &mut options.cluster.kafka.properties;
    properties.insert("broker.session.timeout.ms".to_owned(), session.to_owned());
    options
}

/// Settles payments while `trouble` befalls the brokers, so many of them and until it is over, then proves the result.
/// `trouble` is given what waits until so many payments were sent.
fn prove_through(
    seed: u64,
    options: &PipelineOptions,
    payments: u64,
    trouble: impl Fn(&Pipeline, &dyn Fn(u64)),
) {
    let pipeline = Pipeline::start(options).unwrap();
    let sending = SendOptions {
        per_second: Some(PER_SECOND),
        ..SendOptions::new(&pipeline.bootstrap(), &pipeline.names.source)
    };
    let day = Day::new(DayOptions::new(seed, PAYMENTS_MAX, PARTITIONS));
    let sent = AtomicU64::new(0);
    let day = day.inspect(|_| {
        sent.fetch_add(1, Ordering::Relaxed);
    });
    let wait_sent = |count: u64| {
        wait::until("payments are sent", LIMIT, || {
            Ok((sent.load(Ordering::Relaxed) >= count).then_some(()))
        })
        .unwrap();
    };
    let work = || {
        trouble(&pipeline, &wait_sent);
        wait_sent(payments);
    };
    send::during(&sending, day, work).unwrap();
    let run = pipeline.run();
    let settled = settled::wait_settled(&run, LIMIT);
    if settled.is_err() {
        let tails = pipeline.instances.iter().map(Instance::tail);
        panic!("{settled:?}\n{}", tails.collect::<Vec<_>>().join("\n"));
    }
    pipeline.check_alive().unwrap();
    no_leaders_are_made_up(&pipeline);
    let proof = oracle::prove(&run, &pipeline.contract, &pipeline.service()).unwrap();
    assert!(proof.findings.hold(), "{}", report::proof(&proof));
}

/// librdkafka's way of taking leaders from answers to fetches, which overwrites memory, is off (src/broker/leaders.rs).
fn no_leaders_are_made_up(pipeline: &Pipeline) {
    for instance in &pipeline.instances {
        let log = fs::read_to_string(instance.log()).unwrap();
        assert!(!log.contains("METADATAUPDATE"), "{}", instance.tail());
    }
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
#[ignore = "others here do more: ./dev crash"]
fn a_broker_that_freezes_again_and_again_loses_and_doubles_nothing() {
    prove_through(31, &options(LONG_SESSION), PAYMENTS, freeze_again_and_again);
}

#[test]
fn a_broker_that_is_fenced_while_it_is_frozen_loses_and_doubles_nothing() {
    prove_through(
        33,
        &options(SHORT_SESSION),
        PAYMENTS,
        freeze_again_and_again,
    );
}

#[test]
#[ignore = "others here do more: ./dev crash"]
fn a_broker_that_is_restarted_loses_and_doubles_nothing() {
    prove_through(
        32,
        &options(LONG_SESSION),
        PAYMENTS,
        |pipeline, wait_sent| {
            for count in [3000, 7000] {
                wait_sent(count);
                pipeline.cluster.kafka.terminate().unwrap();
                pipeline.cluster.kafka.restart().unwrap();
            }
        },
    );
}
