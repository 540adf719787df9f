//! Clients that are answered and told of nothing, as by a broker that no longer leads what they read.

use std::time::Duration;

use chaos::cluster::wait;
use chaos::proxy::{Api, Fate, Rule};

use crate::line::{LIMIT, Line, day};

/// Three looks of the service, each after half a minute, and what they ask of a busy broker.
const NOTICED: Duration = Duration::from_secs(150);

const PART: usize = 500;

#[test]
fn clients_that_read_no_more_are_replaced_and_nothing_is_missed() {
    let mut line = Line::new("standstill").with_database();
    let through_proxy = line.proxy().bootstrap();
    let options = line.options(0);
    line.launch(options.set("kafka.bootstrap_servers", through_proxy));
    line.wait_ready();
    let tail = line.tail();
    let name = line.name(0);
    let deaf = |client: &str| {
        let rule = Rule::new(Api::Fetch, client, Fate::FetchNothing);
        line.proxy().arm(rule.times(usize::MAX))
    };
    let sink = deaf(&format!("|{name}|sink|"));
    let reader = deaf(&format!("|{name}|reader-0"));
    let mut messages = day(141, 2 * PART as u64);
    line.send(messages.by_ref().take(PART));
    // Their rules were published meanwhile, which the reader is to read.
    wait::until("outcomes", LIMIT, || {
        Ok((tail.seen()?.total() >= PART as u64).then_some(()))
    })
    .unwrap();
    let consumer = deaf(&format!("|{name}|0|"));
    line.send(messages);
    let logged = |line: &Line, what: &str| {
        wait::until(what, NOTICED, || {
            Ok(line.log(0).contains(what).then_some(()))
        })
        .unwrap();
    };
    line.rest(|line| {
        logged(line, "the sink stands still; joining its group again");
        logged(line, "reading stands still before the end of a log");
        logged(line, "the consumer has not delivered offset");
    });
    drop((sink, reader, consumer));
    line.prove();
    line.terminate(0);
}
