//! Dashboards and rules name registered metrics with their labels, and leave none out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use settle::metrics::{ALL, Kind, Metric};

use crate::{dashboards, rules};

/// What Prometheus itself makes.
const FOREIGN: [(&str, &[&str]); 3] = [
    ("up", &[]),
    ("scrape_duration_seconds", &[]),
    ("ALERTS", &["alertname", "alertstate", "severity"]),
];

/// One selector of an expression: a name, and the labels it is filtered by.
#[derive(Debug)]
pub struct Selector {
    pub name: String,
    /// Label and the rest of its matcher, such as `=~"$job"`.
    pub matchers: BTreeMap<String, String>,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == ':'
}

/// The selectors of an expression: words that are metrics by their name, with what stands in braces behind them.
pub fn selectors(expression: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| is_word(c) || c == '"') {
        rest = &rest[start..];
        if let Some(text) = rest.strip_prefix('"') {
            rest = text.split_once('"').unwrap().1;
            continue;
        }
        let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(length);
        rest = after;
        let is_metric = ["settle_", "settle:", "process_"]
            .iter()
            .any(|of| name.starts_with(of))
            || FOREIGN.iter().any(|(foreign, _)| *foreign == name);
        if !is_metric {
            continue;
        }
        let mut matchers = BTreeMap::new();
        if let Some(inner) = rest.strip_prefix('{') {
            let (inner, after) = inner.split_once('}').unwrap();
            rest = after;
            for matcher in inner.split(',') {
                let at = matcher.find(['=', '!']).unwrap();
                matchers.insert(matcher[..at].to_owned(), matcher[at..].to_owned());
            }
        }
        let name = name.to_owned();
        found.push(Selector { name, matchers });
    }
    found
}

/// The registered metric that a sample of this name belongs to.
fn registered(name: &str) -> Option<&'static Metric> {
    let base = |metric: &&&Metric| match metric.kind {
        Kind::Histogram(_) => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|end| name.strip_suffix(end) == Some(metric.name)),
        Kind::Counter | Kind::Gauge => metric.name == name,
    };
    ALL.iter().find(base).copied()
}

/// Labels that a sample of this name can have; `None` when nothing makes it.
fn labels_of(name: &str) -> Option<BTreeSet<String>> {
    let own: Vec<String> = if let Some(metric) = registered(name) {
        let bucket = name.ends_with("_bucket").then_some("le");
        metric
            .labels
            .iter()
            .copied()
            .chain(bucket)
            .map(str::to_owned)
            .collect()
    } else if let Some((_, labels)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
        labels.iter().map(|label| (*label).to_owned()).collect()
    } else if rules::recorded().iter().any(|rule| rule.name == name) {
        Vec::new()
    } else {
        return None;
    };
    let everywhere = ["job", "instance"].map(str::to_owned);
    Some(own.into_iter().chain(everywhere).collect())
}

fn assert_known(place: &str, expression: &str) {
    for selector in selectors(expression) {
        let known = labels_of(&selector.name);
        let known = known.unwrap_or_else(|| panic!("{place}: nothing makes {}", selector.name));
        for label in selector.matchers.keys() {
            assert!(
                known.contains(label),
                "{place}: {} has no label {label}",
                selector.name
            );
        }
    }
}

/// Every expression that a dashboard, one of its variables, an annotation or a rule evaluates, with its place.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for dashboard in dashboards::generated() {
        let uid = dashboard["uid"].as_str().unwrap();
        for panel in dashboards::panels(&dashboard) {
            let place = format!("{uid}: {}", panel["title"]);
            found.extend(
                dashboards::expressions(panel).map(|expr| (place.clone(), expr.to_owned())),
            );
        }
        for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
            found.push((
                format!("{uid}: annotation"),
                annotation["expr"].as_str().unwrap().to_owned(),
            ));
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            if let Value::String(query) = &variable["definition"] {
                found.push((format!("{uid}: variable"), query.clone()));
            }
        }
    }
    let rules = rules::recorded().into_iter().chain(rules::alerts());
    found.extend(rules.map(|rule| (rule.name, rule.expression)));
    found
}

#[test]
fn dashboards_and_rules_use_registered_metrics_with_their_labels() {
    let expressions = expressions();
    assert!(expressions.len() > 100, "{}", expressions.len());
    for (place, expression) in expressions {
        assert_known(&place, &expression);
    }
}

#[test]
fn every_registered_metric_is_used_in_a_dashboard_or_a_rule() {
    let used: BTreeSet<_> = expressions()
        .iter()
        .flat_map(|(_, expression)| selectors(expression))
        .filter_map(|selector| registered(&selector.name))
        .map(|metric| metric.name)
        .collect();
    let unused: Vec<_> = ALL
        .iter()
        .filter(|metric| !used.contains(metric.name))
        .collect();
    assert!(unused.is_empty(), "{unused:#?}");
}

#[test]
fn selectors_are_read_as_prometheus_reads_them() {
    let found =
        selectors(r#"sum by (job) (rate(settle_x_total{a="settle_y",b!~"$c"}[5m])) / up > bool 0"#);
    let names: Vec<_> = found
        .iter()
        .map(|selector| selector.name.as_str())
        .collect();
    assert_eq!(names, ["settle_x_total", "up"]);
    assert_eq!(found[0].matchers["b"], r#"!~"$c""#);
    assert!(
        labels_of("settle_end_to_end_seconds_bucket")
            .unwrap()
            .contains("le")
    );
    assert!(labels_of("settle_end_to_end_seconds").is_none());
}
