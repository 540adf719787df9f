//! A transactional id that two producers hold.

use std::thread;
use std::time::Duration;

use chaos::cluster::wait;
use chaos::line::LIMIT;
use chaos::proxy::{Fate, Rule, Side};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};

use crate::flow::Flow;

/// What is noticed later than this is another takeover.
const ANOTHER: Duration = Duration::from_secs(6);

/// Another producer takes the transactional id of the first instance, whose own can say nothing meanwhile: the two would
/// take it from each other for a while.
fn usurp(flow: &Flow) {
    let every = Rule::all(&flow.line.producer(0), Fate::Hold(Side::Open));
    let held = flow.line.proxy().arm(every);
    held.wait_caught(1, LIMIT).unwrap();
    let usurper: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", flow.line.bootstrap())
        .set("transactional.id", flow.line.transactional_id(0))
        .create()
        .unwrap();
    usurper.init_transactions(LIMIT).unwrap();
    held.release();
}

#[test]
fn a_transactional_id_that_is_taken_twice_is_taken_back_and_a_third_time_ends_the_process() {
    let mut flow = Flow::start("usurped", 1, &[]);
    flow.under_load(83, |flow| {
        flow.progress("the start");
        for time in 1..=2 {
            usurp(flow);
            wait::until("the instance to notice", LIMIT, || {
                let log = flow.line.log(0)?;
                let noticed = log.matches("taking up again from the log").count();
                Ok((noticed >= time).then_some(()))
            })
            .unwrap();
            flow.progress("a time that it was taken");
            // The trouble itself, not a wait for something: sooner it would count as one takeover.
            thread::sleep(ANOTHER);
            assert!(flow.is_running(0), "{}", flow.line.tails());
        }
        usurp(flow);
        let status = flow.line.instances[0].wait_exit(LIMIT).unwrap();
        assert_eq!(status.code(), Some(1), "{}", flow.line.tails());
        let log = flow.line.log(0).unwrap();
        assert!(log.contains("kafka.instance_id"), "{}", flow.line.tails());
        flow.line.instances[0].restart().unwrap();
        flow.progress("the restart");
    });
}
