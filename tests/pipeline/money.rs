//! What an operator sees of money and time in `/metrics`: what waits, since when, and what was settled.

use chaos::cluster::rule_faults::Fault;
use chaos::cluster::wait;
use serde_json::Value;

use crate::http::get;
use crate::line::{LIMIT, Line};
use crate::metrics::{self, Scrape};
use crate::payments::{home, merchants_in, payment};

/// The sum of all samples of this name.
fn total(scrape: &Scrape, name: &str) -> f64 {
    scrape.of(name).iter().map(|sample| sample.value).sum()
}

/// Settled amounts of one sign.
fn settled(scrape: &Scrape, sign: &str) -> f64 {
    let samples = scrape.of("settle_amount_total");
    let of_sign = samples
        .iter()
        .filter(|sample| sample.labels["outcome"] == "settlement" && sample.labels["sign"] == sign);
    of_sign.map(|sample| sample.value).sum()
}

fn is(found: f64, wanted: i32) -> bool {
    (found - f64::from(wanted)).abs() < 0.5
}

#[test]
fn money_that_waits_for_a_rule_is_shown_and_what_was_settled_is_the_sum_of_the_totals() {
    let mut line = Line::new("money");
    line.start(1);
    line.rules.set_fault(Fault::Status {
        code: 503,
        retry_after: Some(1),
    });
    let merchant = merchants_in(2, line.rules.seed()).next().unwrap();
    let amounts = [700, -250, 1000, 49];
    let payments = amounts.iter().enumerate();
    line.send(
        payments.map(|(number, amount)| payment(&format!("held-{number}"), &merchant, *amount)),
    );

    wait::until(
        "the payments to wait, for more than two seconds",
        LIMIT,
        || {
            let scrape = metrics::read(&line.instances[0]);
            let held = is(total(&scrape, "settle_waiting_records"), 4);
            let amount = is(total(&scrape, "settle_waiting_amount"), 1499);
            let oldest = scrape
                .of("settle_oldest_unsettled_seconds")
                .into_iter()
                .find(|sample| {
                    sample.labels["kind"] == "settle"
                        && sample.labels["partition"] == home(&merchant).to_string()
                });
            let old = oldest.is_some_and(|sample| sample.value > 2.0);
            assert!(is(settled(&scrape, "positive"), 0));
            Ok((held && amount && old).then_some(()))
        },
    )
    .unwrap();

    line.rules.set_fault(Fault::Healthy);
    line.prove();
    let totals = get(&line.instances[0].http(), "/api/aggregation-data/all");
    let totals: Vec<Value> = serde_json::from_str(&totals.text).unwrap();
    let sum: i64 = totals
        .iter()
        .map(|entry| entry["value"]["totalAmount"].as_i64().unwrap())
        .sum();
    assert_eq!(sum, 1499);
    wait::until("nothing to wait any more", LIMIT, || {
        let scrape = metrics::read(&line.instances[0]);
        assert!(is(settled(&scrape, "positive"), 1749) && is(settled(&scrape, "negative"), 250));
        let waiting = [
            "settle_waiting_records",
            "settle_waiting_amount",
            "settle_oldest_unsettled_seconds",
        ];
        Ok(waiting
            .iter()
            .all(|name| is(total(&scrape, name), 0))
            .then_some(()))
    })
    .unwrap();
}
