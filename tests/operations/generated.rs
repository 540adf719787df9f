//! Files that are generated are what would be generated now. `UPDATE_GENERATED=1` writes them.

use std::fmt::Write;
use std::fs;

use settle::metrics::{ALL, Kind, Metric, Unit};

use crate::{dashboards, files};

fn check(relative: &str, wanted: &str) {
    let there = fs::read_to_string(files::path(relative)).unwrap_or_default();
    if there != wanted && std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(files::path(relative), wanted).unwrap();
        return;
    }
    assert!(
        there == wanted,
        "{relative} is stale: UPDATE_GENERATED=1 cargo test --test operations generated"
    );
}

#[test]
fn generated_dashboards_are_those_of_the_description() {
    for dashboard in dashboards::described() {
        let name = dashboard.uid.strip_prefix("settle-").unwrap();
        let json = serde_json::to_string_pretty(&dashboard.json()).unwrap();
        check(&format!("grafana/dashboards/{name}.json"), &(json + "\n"));
    }
    let there = files::list("grafana/dashboards", "json");
    assert_eq!(there.len(), dashboards::described().len(), "{there:?}");
}

#[test]
fn generated_documentation_of_metrics_is_that_of_the_registry() {
    let mut text = String::from(
        "# Metrics\n\n\
         Everything that `GET /metrics` shows. Generated from the registry in `src/metrics/mod.rs`.\n\n\
         Counters begin at 0 with the process. Series of a partition are shown by the instance that owns it, and go with it.\n\
         Amounts are in minor units. Prometheus adds `job` and `instance`.\n\n\
         | metric | type | unit | labels | meaning |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for metric in ALL {
        writeln!(text, "{}", row(metric)).unwrap();
    }
    text.push_str("\n## Buckets\n\nUpper bounds; `+Inf` is one more.\n\n| histogram | bounds |\n| --- | --- |\n");
    for metric in ALL {
        if let Kind::Histogram(bounds) = metric.kind {
            let bounds: Vec<_> = bounds.iter().map(ToString::to_string).collect();
            writeln!(text, "| `{}` | {} |", metric.name, bounds.join(", ")).unwrap();
        }
    }
    check("docs/metrics.md", &text);
}

fn row(metric: &Metric) -> String {
    let unit = match metric.unit {
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        Unit::Records => "records",
        Unit::Minor => "minor units",
        Unit::One => "",
    };
    let labels: Vec<_> = metric
        .labels
        .iter()
        .map(|label| format!("`{label}`"))
        .collect();
    let cells = [
        format!("`{}`", metric.name),
        metric.kind.as_str().to_owned(),
        unit.to_owned(),
        labels.join(", "),
        metric.help.to_owned(),
    ];
    format!("| {} |", cells.join(" | "))
}
