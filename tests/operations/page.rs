//! The page of a running instance, in a real browser.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chaos::browser::{self, Browser, View};
use chaos::cluster::instance::Instance;
use reqwest::blocking::Client;
use serde_json::Value;

const FITS: &str = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";

/// Writes the picture of the documentation, taken under load, where `PAGE_IMAGES` says.
pub fn take_picture(instance: &Instance) {
    let Some(directory) = std::env::var_os("PAGE_IMAGES") else {
        return;
    };
    let mut browser = Browser::start().unwrap();
    let mut take = |view, name| {
        browser.open(&instance.http(), view).unwrap();
        browser
            .until("document.querySelector('main')?.dataset.polls > 5")
            .unwrap();
        browser
            .picture(&PathBuf::from(&directory).join(name))
            .unwrap();
    };
    take(View::DESK, "page.png");
    if directory != "docs/img" {
        take(View::PHONE, "page-phone.png");
    }
}

/// What stands on the pages of two instances at rest is what they say themselves.
pub fn tells_the_truth(instances: &[Instance]) {
    if !browser::is_wanted() {
        return;
    }
    let client = Client::builder().no_proxy().build().unwrap();
    let get = |instance: &Instance, path: &str| {
        let url = format!("{}{path}", instance.http());
        client.get(url).send().unwrap().text().unwrap()
    };
    let mut browser = Browser::start().unwrap();
    // One instance may have all of ingest, the other all of settle.
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (view, instance, other) in [
        (View::DESK, &instances[0], &instances[1]),
        (View::PHONE, &instances[1], &instances[0]),
    ] {
        browser.open(&instance.http(), view).unwrap();
        browser
            .until("document.querySelector('main')?.dataset.polls > 1")
            .unwrap();
        browser
            .until("document.querySelector('#state').textContent === 'Ready'")
            .unwrap();
        assert_eq!(browser.text("#instance").unwrap(), instance.name());
        let metrics = get(instance, "/metrics");
        let counted = |labels: &str| {
            let series = metrics
                .lines()
                .filter(|line| line.starts_with("settle_records_total{") && line.contains(labels));
            series
                .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
                .sum::<u64>()
        };
        let settlements = counted("outcome=\"settlement\"");
        *sums.entry("settlement").or_default() += settlements;
        for selector in [
            "svg.wide [data-rate=settlements]",
            "[data-outcome=Settlements] [data-value]",
        ] {
            assert_eq!(
                shown(&mut browser, selector),
                Some(settlements),
                "{selector}"
            );
        }
        for (outcome, reason) in [("dead_letter", "NOT_JSON"), ("exclusion", "DUPLICATE")] {
            let count = counted(&format!("outcome=\"{outcome}\",reason=\"{reason}\""));
            *sums.entry(reason).or_default() += count;
            if count == 0 {
                continue;
            }
            assert_eq!(
                shown(
                    &mut browser,
                    &format!("[data-outcome={reason}] [data-value]")
                ),
                Some(count),
                "{reason}"
            );
        }
        assert_eq!(browser.text("[data-show=lag]").unwrap(), "0");

        let status: Value = serde_json::from_str(&get(instance, "/api/status")).unwrap();
        partitions_are_told(&mut browser, &status, other);
        let problems = browser.text("#problems tbody").unwrap();
        for part in [&status["workers"][0], &status["rules"], &status["sink"]] {
            let told = part["lastProblem"].as_str().unwrap_or_default();
            assert!(problems.contains(told), "{problems}: {told}");
        }
        assert_eq!(browser.value(FITS).unwrap(), true);
        assert_eq!(browser.complaints(), [""; 0]);
    }
    assert!(sums.values().all(|count| *count > 0), "{sums:?}");
}

/// The raw value of the first element that a selector finds.
fn shown(browser: &mut Browser, selector: &str) -> Option<u64> {
    let script = format!("Number(document.querySelector('{selector}').dataset.value)");
    browser.value(&script).unwrap().as_u64()
}

/// Own partitions with their positions, those of the other instance with a link to it.
fn partitions_are_told(browser: &mut Browser, status: &Value, other: &Instance) {
    for (table, kind, owners) in [
        ("ingest", "ingest", "sourceOwners"),
        ("settle", "settle", "owners"),
    ] {
        for (partition, owner) in status[owners].as_object().unwrap() {
            let owner = owner.as_str().unwrap();
            let number: usize = partition.parse().unwrap();
            let row = format!("#{table} tbody tr:nth-child({})", number + 1);
            if owner == other.address().to_string() {
                let link = format!("document.querySelector('{row} a').href");
                assert_eq!(browser.value(&link).unwrap(), format!("{}/", other.http()));
                continue;
            }
            let mut tasks = status["partitions"].as_array().unwrap().iter();
            let own = tasks.find(|task| task["kind"] == kind && task["partition"] == number);
            let position = own.unwrap()["position"].as_u64();
            assert_eq!(
                shown(browser, &format!("{row} td:nth-child(4)")),
                position,
                "{row}"
            );
        }
    }
}
