//! A request to join that the group takes long to answer, as it does while it waits for other members.

use chaos::cluster::instance::Instance;
use chaos::cluster::wait;
use chaos::line::LIMIT;
use chaos::proxy::{Api, Fate, Rule, Side, Stage};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};

use crate::one::One;

#[test]
fn a_join_that_is_answered_late_does_not_stop_the_tasks() {
    // So long that the group does not give the member up meanwhile.
    let session = [("session.timeout.ms".to_owned(), "120000".into())];
    let session = toml::Table::from_iter(session);
    let mut one = One::start_with("join", |options| options.set("kafka.properties", session));
    let join = Rule::new(Api::JoinGroup, &one.line.client(0), Fate::Hold(Side::Open));
    // Again and again, should the client give the connection up.
    let join = one.line.proxy().arm(join.times(usize::MAX));
    let options = one.line.options(1).unwrap();
    one.line.instances.push(Instance::start(options).unwrap());
    join.wait_caught(1, LIMIT).unwrap();
    // Makes the worker take its tasks up again, for which it asks where the group stands.
    let usurper: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", one.line.bootstrap())
        .set("transactional.id", one.line.transactional_id(0))
        .create()
        .unwrap();
    usurper.init_transactions(LIMIT).unwrap();
    one.send();
    wait::until("the worker to take up again", LIMIT, || {
        let fenced = one.count_in_log("taking up again from the log") > 0;
        Ok(fenced.then_some(()))
    })
    .unwrap();
    one.settle();
    // All that without an answer to any request to join.
    assert!(join.stages().iter().all(|stage| *stage == Stage::Held));
    join.release();
    one.line.wait_ready().unwrap();
    one.prove();
}
