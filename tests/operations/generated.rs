//! Files that are generated are what would be generated now. `UPDATE_GENERATED=1` writes them.

use std::fmt::Write;
use std::fs;

use settle::config::default_file;
use settle::config::keys::{Fallback, KEYS, Key, PROPERTIES, PROPERTIES_DOC, SECTIONS, variable};
use settle::config::properties::REFUSED;
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

/// What stands above the generated part of `docs/configure.md`.
const GENERATED: &str = "\n## Reference\n";

#[test]
fn generated_reference_of_the_configuration_is_that_of_the_registry() {
    let page = files::read("docs/configure.md");
    let (written, _) = page.split_once(GENERATED).unwrap();
    let mut text = format!("{written}{GENERATED}");
    text.push_str(
        "\nGenerated from `src/config/keys.rs` and `src/config/properties.rs`. The variable of a key is `SETTLE_`, the section, `__` and the \
         key, in capitals.\n",
    );
    for (section, doc) in SECTIONS {
        let mut keys = KEYS
            .iter()
            .filter(|key| key.section() == *section)
            .peekable();
        let first = keys.peek().unwrap();
        write!(
            text,
            "\n### `[{section}]`\n\n{doc} As a variable: `{}`.\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n",
            variable(first.path)
        )
        .unwrap();
        for key in keys {
            writeln!(text, "{}", row_of_key(key)).unwrap();
        }
    }
    write!(
        text,
        "\n### `[{PROPERTIES}]`\n\n{PROPERTIES_DOC}\n\n| refused | reason |\n| --- | --- |\n"
    )
    .unwrap();
    for (name, reason) in REFUSED {
        writeln!(text, "| `{name}` | {reason} |").unwrap();
    }
    check("docs/configure.md", &text);
}

/// The row that stands for a key.
fn row_of_key(key: &Key) -> String {
    let kind = format!("{:?}", key.kind);
    let kind = match kind.split(|c: char| !c.is_alphabetic()).next().unwrap() {
        "Text" => "text",
        "Topic" => "topic name",
        "List" => "list of texts",
        "Flag" => "true or false",
        "Integer" => "integer",
        "Duration" => "duration",
        "Size" => "size",
        other => panic!("{}: say what {other} is", key.path),
    };
    let default = match key.default {
        Fallback::Text("") if kind == "list of texts" => "`[]`".to_owned(),
        Fallback::Text(text) => format!("`{text}`"),
        Fallback::SameAs(other) => format!("as `{other}`"),
        Fallback::Unset { .. } => "not set".to_owned(),
    };
    let bounds = bounds(key).map_or_else(String::new, |bounds| format!(", {bounds}"));
    format!(
        "| `{}` | {kind}{bounds} | {default} | {} |",
        key.name(),
        key.doc
    )
}

/// What the default file says behind the meaning of a key, such as "1 to 64".
fn bounds(key: &Key) -> Option<String> {
    let file = default_file();
    let words: Vec<&str> = file
        .lines()
        .map(|line| line.trim_start_matches('#').trim())
        .collect();
    let words = words.join(" ");
    let (_, after) = words.split_once(key.doc).unwrap();
    let (bounds, _) = after.strip_prefix(" (")?.split_once(')')?;
    Some(bounds.to_owned())
}
