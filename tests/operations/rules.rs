//! Alerts: each is tested by promtool, has a page that says what to do, and names a dashboard.

use std::collections::BTreeSet;
use std::process::Command;

use serde_norway::Value;

use crate::{dashboards, files};

/// In this order.
const HEADINGS: [&str; 5] = ["Meaning", "Impact", "Diagnosis", "Mitigation", "Verify"];
const RUNBOOKS: &str = "docs/runbooks";

/// A recording rule or an alert.
#[derive(Debug)]
pub struct Rule {
    pub name: String,
    pub expression: String,
    text: Value,
}

impl Rule {
    fn annotation(&self, name: &str) -> &str {
        let text = self.text["annotations"][name].as_str();
        text.unwrap_or_else(|| panic!("{} has no {name}", self.name))
    }
}

fn rules(kind: &str) -> Vec<Rule> {
    let mut found = Vec::new();
    for file in files::list("grafana/rules", "yaml") {
        let parsed: Value = serde_norway::from_str(&files::read(&file)).unwrap();
        for group in parsed["groups"].as_sequence().unwrap() {
            for rule in group["rules"].as_sequence().unwrap() {
                if let Some(name) = rule.get(kind) {
                    found.push(Rule {
                        name: name.as_str().unwrap().to_owned(),
                        expression: rule["expr"].as_str().unwrap().to_owned(),
                        text: rule.clone(),
                    });
                }
            }
        }
    }
    found
}

pub fn recorded() -> Vec<Rule> {
    rules("record")
}

pub fn alerts() -> Vec<Rule> {
    rules("alert")
}

/// The sections of a runbook: heading and text.
fn sections(text: &str) -> Vec<(&str, &str)> {
    let after = text.split("\n## ").skip(1);
    after
        .map(|section| section.split_once('\n').unwrap())
        .collect()
}

/// The commands of the section that must change nothing.
pub fn diagnoses() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in files::list(RUNBOOKS, "md") {
        let text = files::read(&file);
        let diagnosis = sections(&text)
            .into_iter()
            .find(|(heading, _)| *heading == "Diagnosis");
        let blocks = diagnosis.unwrap().1.split("```").skip(1).step_by(2);
        for block in blocks {
            let commands = block
                .strip_prefix("sh\n")
                .unwrap_or_else(|| panic!("{file}: {block}"));
            found.extend(
                commands
                    .lines()
                    .map(|command| (file.clone(), command.to_owned())),
            );
        }
    }
    found
}

fn promtool(arguments: &[&str], files: &[String]) {
    let run = Command::new("promtool")
        .args(arguments)
        .args(files.iter().map(|file| files::path(file)))
        .output();
    let run = run.expect("promtool is there: apt-get install prometheus");
    let said = [run.stdout, run.stderr].concat();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn rules_are_valid_and_pass_their_tests() {
    promtool(&["check", "rules"], &files::list("grafana/rules", "yaml"));
    promtool(
        &["test", "rules"],
        &files::list("grafana/rules/tests", "yaml"),
    );
}

#[test]
fn every_alert_fires_in_one_test_and_is_quiet_in_another() {
    let mut tested = BTreeSet::new();
    for file in files::list("grafana/rules/tests", "yaml") {
        let parsed: Value = serde_norway::from_str(&files::read(&file)).unwrap();
        for test in parsed["tests"].as_sequence().unwrap() {
            for check in test["promql_expr_test"].as_sequence().unwrap() {
                let expression = check["expr"].as_str().unwrap();
                let (_, alert) = expression.split_once("alertname=\"").unwrap();
                let alert = alert.split_once('"').unwrap().0.to_owned();
                let fires = !check["exp_samples"].as_sequence().unwrap().is_empty();
                tested.insert((alert, fires));
            }
        }
    }
    let wanted = alerts()
        .into_iter()
        .flat_map(|alert| [(alert.name.clone(), true), (alert.name, false)]);
    assert_eq!(tested, wanted.collect());
}

#[test]
fn every_alert_says_how_bad_it_is_what_it_means_and_where_to_look() {
    let dashboards: BTreeSet<_> = dashboards::described()
        .into_iter()
        .map(|dashboard| dashboard.uid)
        .collect();
    for alert in alerts() {
        let severity = alert.text["labels"]["severity"].as_str().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{}",
            alert.name
        );
        assert!(
            !alert.annotation("summary").contains("{{"),
            "{}: static",
            alert.name
        );
        assert!(
            alert.annotation("description").contains("{{"),
            "{}: says which",
            alert.name
        );
        let page = alert.annotation("runbook_url");
        assert_eq!(page, format!("{RUNBOOKS}/{}.md", alert.name));
        let uid = alert
            .annotation("dashboard_url")
            .strip_prefix("/d/")
            .unwrap();
        assert!(dashboards.contains(uid), "{}: {uid}", alert.name);
    }
}

#[test]
fn every_alert_has_a_runbook_of_the_fixed_headings_and_every_runbook_an_alert() {
    let pages: BTreeSet<_> = files::list(RUNBOOKS, "md").into_iter().collect();
    let wanted = alerts()
        .into_iter()
        .map(|alert| format!("{RUNBOOKS}/{}.md", alert.name));
    assert_eq!(pages, wanted.collect());
    for page in pages {
        let text = files::read(&page);
        let name = page
            .strip_prefix("docs/runbooks/")
            .unwrap()
            .strip_suffix(".md")
            .unwrap();
        assert!(text.starts_with(&format!("# {name}\n")), "{page}");
        let sections = sections(&text);
        let headings: Vec<_> = sections.iter().map(|(heading, _)| *heading).collect();
        assert_eq!(headings, HEADINGS, "{page}");
        for (heading, text) in &sections {
            assert!(text.trim().len() > 20, "{page}: {heading} is empty");
        }
        assert!(
            diagnoses().iter().any(|(of, _)| *of == page),
            "{page} diagnoses nothing"
        );
    }
}

#[test]
fn a_diagnosis_only_reads() {
    for (page, command) in diagnoses() {
        let reads = [
            "curl -s http://",
            "settle config check",
            "settle offsets show",
            "settle status",
            "settle topics plan",
            "psql ",
            "df ",
            "journalctl ",
        ];
        assert!(
            reads.iter().any(|begin| command.starts_with(begin)),
            "{page}: {command}"
        );
        let writes = [
            "-X", "--data", "insert", "update ", "delete", "truncate", "drop ",
        ];
        assert!(
            writes
                .iter()
                .all(|word| !command.to_lowercase().contains(&word.to_lowercase())),
            "{page}: {command}"
        );
    }
}
