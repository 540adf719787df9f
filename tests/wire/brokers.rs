//! A broker that was fenced while it stood still says for a moment that there are no brokers.

use chaos::line::LIMIT;
use chaos::proxy::{Api, Fate, Rule};
use toml::Table;

use crate::one::One;

/// Milliseconds; every client asks so often, and hears it.
const REFRESH: i64 = 1000;

/// More than there are clients, each with several questions under way: those that do not come back ask no more.
const ANSWERS: usize = 60;

#[test]
fn clients_that_are_told_of_no_brokers_come_back() {
    let mut one = One::start_with("no-brokers", |options| {
        let mut properties = Table::new();
        properties.insert(
            "topic.metadata.refresh.interval.ms".to_owned(),
            REFRESH.into(),
        );
        options.set("kafka.properties", properties)
    });
    for _ in 0..2 {
        let rule = Rule::new(Api::Metadata, &one.line.client(0), Fate::NameNoBroker);
        let answers = one.line.proxy().arm(rule.times(usize::MAX));
        answers.wait_caught(ANSWERS, LIMIT).unwrap();
        drop(answers);
        one.pay();
        one.check_offset();
    }
    one.prove();
}
