//! Rules that keep a dashboard usable: described panels, variables in every query, links that lead somewhere.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::layout::COLUMNS;
use crate::names::selectors;
use crate::{dashboards, files};

/// Counters that are shown as they are: any of them above 0 is news, however old.
const TOTALS: [&str; 3] = [
    "settle_sink_lost_total",
    "settle_sink_unreadable_total",
    "settle_rules_ignored_total",
];

const UNITS: [&str; 5] = ["ops", "s", "short", "bytes", "percentunit"];

/// Every panel of every dashboard, with its place.
fn each(mut check: impl FnMut(&str, &Value)) {
    for dashboard in dashboards::generated() {
        for panel in dashboards::panels(&dashboard) {
            let place = format!("{}: {}", dashboard["uid"], panel["title"]);
            check(&place, panel);
        }
    }
}

#[test]
fn dashboards_have_their_own_names_and_cannot_be_edited_in_place() {
    let all = dashboards::generated();
    for field in ["uid", "title"] {
        let names: BTreeSet<_> = all
            .iter()
            .map(|dashboard| dashboard[field].as_str().unwrap())
            .collect();
        assert_eq!(names.len(), all.len(), "{field}");
    }
    for dashboard in &all {
        assert_eq!(dashboard["editable"], json!(false));
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<_> = panels
            .iter()
            .map(|panel| panel["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids.len(), panels.len(), "{}", dashboard["uid"]);
        assert!(
            dashboards::panels(dashboard).count() <= 25,
            "{}",
            dashboard["uid"]
        );
    }
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit() {
    each(|place, panel| {
        for field in ["title", "description"] {
            assert!(
                panel[field].as_str().is_some_and(|text| !text.is_empty()),
                "{place}: {field}"
            );
        }
        let description = panel["description"].as_str().unwrap();
        assert!(
            description.ends_with('.') && description.len() > 20,
            "{place}: {description}"
        );
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap();
        assert!(UNITS.contains(&unit), "{place}: {unit}");
        assert!(dashboards::expressions(panel).count() > 0, "{place}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
    });
}

#[test]
fn panels_do_not_overlap() {
    for dashboard in dashboards::generated() {
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
            assert!(at("x") + at("w") <= COLUMNS, "{}", panel["title"]);
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(
                        taken.insert((x, y)),
                        "{}: {}",
                        dashboard["uid"],
                        panel["title"]
                    );
                }
            }
        }
    }
}

#[test]
fn variables_choose_data_source_job_and_instance() {
    for dashboard in dashboards::generated() {
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let named = |name: &str| {
            variables
                .iter()
                .find(|variable| variable["name"] == name)
                .unwrap()
        };
        let sources = variables
            .iter()
            .filter(|variable| variable["type"] == "datasource");
        assert_eq!(sources.count(), 1);
        assert_eq!(named("datasource")["label"], "Data Source");
        for name in ["job", "instance", "partition"] {
            let variable = named(name);
            assert_eq!(variable["label"], name);
            assert_eq!(variable["datasource"]["uid"], "${datasource}");
            assert_eq!(
                (&variable["multi"], &variable["allValue"]),
                (&json!(true), &json!(".+"))
            );
            assert_eq!(variable["refresh"], 2, "reloaded when the time changes");
        }
    }
}

#[test]
fn every_query_is_filtered_by_job_and_instance() {
    each(|place, panel| {
        for expression in dashboards::expressions(panel) {
            for selector in selectors(expression) {
                let wants: &[&str] = match selector.name.as_str() {
                    "ALERTS" => &[],
                    name if name.starts_with("settle:end_to_end") => &["job"],
                    _ => &["job", "instance"],
                };
                for label in wants {
                    let wanted = format!("=~\"${label}\"");
                    assert_eq!(
                        selector.matchers.get(*label),
                        Some(&wanted),
                        "{place}: {expression}"
                    );
                }
            }
        }
    });
}

#[test]
fn counters_are_shown_as_rates_over_a_window_that_has_samples() {
    each(|place, panel| {
        for expression in dashboards::expressions(panel) {
            for (at, _) in expression.match_indices("_total{") {
                let start = expression[..at]
                    .rfind(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap();
                let name = &expression[start + 1..at + "_total".len()];
                let is_rate = ["rate(", "increase("]
                    .iter()
                    .any(|call| expression[..=start].ends_with(call));
                assert!(is_rate || TOTALS.contains(&name), "{place}: {name}");
            }
            for window in expression.split('[').skip(1) {
                let window = window.split(']').next().unwrap();
                let fixed = ["1m", "5m", "15m", "1h", "30d"].contains(&window);
                assert!(fixed || window == "$__rate_interval", "{place}: [{window}]");
            }
        }
    });
}

#[test]
fn links_lead_to_dashboards_and_runbooks_that_are_there() {
    let all = dashboards::generated();
    let uids: BTreeSet<_> = all
        .iter()
        .map(|dashboard| dashboard["uid"].as_str().unwrap())
        .collect();
    for dashboard in &all {
        let links = dashboard["links"].as_array().unwrap();
        assert_eq!(links.len(), all.len() - 1);
        for link in links {
            let uid = link["url"].as_str().unwrap().strip_prefix("/d/").unwrap();
            assert!(uids.contains(uid), "{uid}");
            assert_eq!(
                (&link["keepTime"], &link["includeVars"]),
                (&json!(true), &json!(true))
            );
        }
    }
    let mut linked = BTreeSet::new();
    each(|place, panel| {
        for link in panel["links"].as_array().unwrap() {
            let page = link["url"]
                .as_str()
                .unwrap()
                .strip_prefix("${runbooks}/")
                .unwrap()
                .to_owned();
            assert!(
                files::path("docs/runbooks").join(&page).exists(),
                "{place}: {page}"
            );
            linked.insert(page);
        }
    });
    for page in files::list("docs/runbooks", "md") {
        let page = page.strip_prefix("docs/runbooks/").unwrap();
        assert!(linked.contains(page), "no panel leads to {page}");
    }
}
