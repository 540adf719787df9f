//! `/metrics` of an instance, read as Prometheus would.

use std::collections::{BTreeMap, BTreeSet};

use chaos::cluster::instance::Instance;

use crate::http::get;

/// One sample.
#[derive(Debug, Clone)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// All samples of one scrape.
pub struct Scrape(Vec<Sample>);

impl Scrape {
    /// The samples of this name.
    pub fn of(&self, name: &str) -> Vec<Sample> {
        self.0
            .iter()
            .filter(|sample| sample.name == name)
            .cloned()
            .collect()
    }

    /// The sum of the samples of this name that bear this label.
    pub fn sum(&self, name: &str, label: (&str, &str)) -> f64 {
        let samples = self.of(name);
        assert!(!samples.is_empty(), "there is no metric {name}");
        samples
            .iter()
            .filter(|sample| {
                sample
                    .labels
                    .get(label.0)
                    .is_some_and(|found| found == label.1)
            })
            .map(|sample| sample.value)
            .sum()
    }
}

/// Scrapes an instance; every line must be as the text format wants it.
pub fn read(instance: &Instance) -> Scrape {
    let answer = get(&instance.http(), "/metrics");
    assert_eq!(answer.status, 200);
    let mut typed = BTreeSet::new();
    let mut samples = Vec::new();
    for line in answer.text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            assert!(
                ["HELP", "TYPE"].contains(&words[0]) && words.len() == 3,
                "{line}"
            );
            if words[0] == "TYPE" {
                assert!(typed.insert(words[1].to_owned()), "typed twice: {line}");
            }
            continue;
        }
        let sample = sample(line);
        let known = ["", "_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|end| sample.name.strip_suffix(end))
            .any(|base| typed.contains(base));
        assert!(known, "a sample without a type: {line}");
        samples.push(sample);
    }
    Scrape(samples)
}

fn sample(line: &str) -> Sample {
    let (head, value) = line
        .rsplit_once(' ')
        .unwrap_or_else(|| panic!("no value: {line}"));
    let value = value
        .parse()
        .unwrap_or_else(|_| panic!("no number: {line}"));
    let (name, labels) = match head.split_once('{') {
        None => (head, BTreeMap::new()),
        Some((name, labels)) => {
            let labels = labels
                .strip_suffix('}')
                .unwrap_or_else(|| panic!("not closed: {line}"));
            let pairs = labels
                .split("\",")
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (label, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                    (label.to_owned(), value.trim_end_matches('"').to_owned())
                });
            (name, pairs.collect())
        }
    };
    Sample {
        name: name.to_owned(),
        labels,
        value,
    }
}
