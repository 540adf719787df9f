//! The HTTP interface of a pipeline of several instances.

use std::time::Duration;

use chaos::cluster::wait;
use chaos::model::outgoing;
use chaos::oracle::ledger::Kind;
use reqwest::blocking::Client;
use serde_json::Value;

use crate::line::{LIMIT, Line, day};
use crate::metrics;

const ALL: &str = "/api/aggregation-data/all";

/// An answer.
pub struct Response {
    pub status: u16,
    pub retry_after: Option<String>,
    pub text: String,
}

/// The answer of an instance that runs.
pub fn get(base: &str, path: &str) -> Response {
    try_get(base, path).unwrap()
}

fn try_get(base: &str, path: &str) -> Result<Response, reqwest::Error> {
    let client = Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()?;
    let response = client.get(format!("{base}{path}")).send()?;
    let retry_after = response.headers().get("retry-after");
    Ok(Response {
        status: response.status().as_u16(),
        retry_after: retry_after.map(|value| value.to_str().unwrap().to_owned()),
        text: response.text()?,
    })
}

fn path_of(rule_key: &str) -> String {
    let [merchant, day, action, method] = outgoing::fields(rule_key).unwrap();
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("merchantNumber", merchant)
        .append_pair("paymentDateDailyStr", day)
        .append_pair("actionTypeStr", action)
        .append_pair("methodTypeStr", method)
        .finish();
    format!("/api/aggregation-data?{query}")
}

fn sorted_entries(text: &str) -> Vec<String> {
    let Value::Array(entries) = serde_json::from_str(text).unwrap() else {
        panic!("no array: {text}");
    };
    let mut entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
    entries.sort();
    entries
}

#[test]
fn every_instance_answers_for_every_key_and_the_counters_are_the_outcomes() {
    let mut line = Line::new("http");
    line.start(2);
    line.send(day(21, 4000));
    let proof = line.prove();

    for (key, totals) in proof.largest.iter().take(10) {
        for instance in &line.instances {
            let answer = get(&instance.http(), &path_of(key));
            assert_eq!(
                (answer.status, answer.text),
                (200, totals.render()),
                "{key}"
            );
        }
    }
    let [one, other] = [0, 1].map(|index| get(&line.instances[index].http(), ALL));
    let entries = sorted_entries(&one.text);
    assert!(entries.len() > 500);
    assert_eq!(entries, sorted_entries(&other.text));

    let scrapes: Vec<_> = line.instances.iter().map(metrics::read).collect();
    let mut counted = 0;
    for kind in [Kind::Exclusion, Kind::DeadLetter] {
        for ((_, reason), count) in proof.tally.iter().filter(|((found, _), _)| *found == kind) {
            let sum =
                |scrape: &metrics::Scrape| scrape.sum("settle_records_total", ("reason", reason));
            let sum: f64 = scrapes.iter().map(sum).sum();
            assert_eq!(sum.to_string(), count.to_string(), "{reason}");
            counted += count;
        }
    }
    let settled =
        |scrape: &metrics::Scrape| scrape.sum("settle_records_total", ("outcome", "settlement"));
    let settled: f64 = scrapes.iter().map(settled).sum();
    assert_eq!(settled.to_string(), (proof.sources - counted).to_string());
}

#[test]
fn until_the_owner_has_restored_an_answer_is_503_and_never_wrong() {
    let mut line = Line::new("restoring");
    line.start(2);
    line.send(day(22, 2000));
    let proof = line.prove();
    for instance in &line.instances {
        instance.kill();
    }
    for instance in &line.instances {
        std::fs::remove_dir_all(instance.options().state_directory()).unwrap();
    }
    // The partitions of the one that stays away have no owner until its session ends.
    line.instances[0].restart().unwrap();
    let base = line.instances[0].http();
    let mut unavailable = 0;
    wait::until("the right answer for every key", LIMIT, || {
        let mut right = 0;
        for (key, totals) in &proof.largest {
            // Nobody listens in the first moments.
            let Ok(answer) = try_get(&base, &path_of(key)) else {
                return Ok(None);
            };
            match answer.status {
                503 => {
                    assert!(answer.retry_after.is_some());
                    unavailable += 1;
                }
                200 => {
                    assert_eq!(answer.text, totals.render(), "{key}");
                    right += 1;
                }
                status => panic!("{status} {} for {key}", answer.text),
            }
        }
        Ok((right == proof.largest.len()).then_some(()))
    })
    .unwrap();
    assert!(unavailable > 0);
    line.prove();
}
