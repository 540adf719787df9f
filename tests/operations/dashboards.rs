//! Dashboards: their description in `grafana/dashboards.toml`, and what Grafana gets of it.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::files;
use crate::layout::{COLUMNS, Layout};

/// Classic dashboards of this version are read by Grafana 10 and later.
const SCHEMA: u32 = 39;
/// What `@` stands for in a query.
const MATCHERS: &str = r#"job=~"$job",instance=~"$instance""#;
/// Where provisioned Grafana serves the runbooks.
pub const RUNBOOKS: &str = "/public/runbooks";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    dashboard: Vec<Dashboard>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dashboard {
    pub uid: String,
    title: String,
    description: String,
    row: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    title: String,
    panel: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Panel {
    title: String,
    r#type: String,
    unit: String,
    width: u64,
    height: Option<u64>,
    decimals: Option<u32>,
    /// Can fall below 0.
    #[serde(default)]
    signed: bool,
    description: String,
    /// Legend and expression.
    queries: Vec<(String, String)>,
    /// From this value on, in this colour.
    #[serde(default)]
    thresholds: Vec<(f64, String)>,
    #[serde(default)]
    runbooks: Vec<String>,
}

pub fn described() -> Vec<Dashboard> {
    let text = files::read("grafana/dashboards.toml");
    let description: Description = toml::from_str(&text).unwrap();
    description.dashboard
}

/// The generated dashboards, as they are in the repository.
pub fn generated() -> Vec<Value> {
    let files = files::list("grafana/dashboards", "json");
    let parsed = files
        .iter()
        .map(|file| serde_json::from_str(&files::read(file)));
    parsed.map(Result::unwrap).collect()
}

/// The panels of a generated dashboard, headings of rows aside.
pub fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row")
}

/// The expressions of a panel.
pub fn expressions(panel: &Value) -> impl Iterator<Item = &str> {
    let targets = panel["targets"].as_array().unwrap().iter();
    targets.map(|target| target["expr"].as_str().unwrap())
}

impl Dashboard {
    pub fn json(&self) -> Value {
        let mut layout = Layout::default();
        let mut panels = Vec::new();
        for row in &self.row {
            layout.break_line();
            let place = layout.place(COLUMNS, 1);
            let id = panels.len() + 1;
            panels.push(json!({
                "id": id, "type": "row", "title": row.title, "collapsed": false, "gridPos": place, "panels": [],
            }));
            layout.break_line();
            for panel in &row.panel {
                let place = layout.place(panel.width, panel.height());
                panels.push(panel.json(panels.len() + 1, &place));
            }
        }
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["settle"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": false,
            "graphTooltip": 1,
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": annotations()},
            "templating": {"list": variables()},
            "links": self.links(),
            "panels": panels,
        })
    }

    /// The other dashboards, with the same time and the same choice of instances.
    fn links(&self) -> Vec<Value> {
        let all = described();
        let others = all.iter().filter(|other| other.uid != self.uid);
        let link = |other: &Dashboard| {
            json!({
                "title": other.title.trim_start_matches("settle / "), "type": "link", "icon": "dashboard",
                "url": format!("/d/{}", other.uid), "keepTime": true, "includeVars": true,
                "asDropdown": false, "targetBlank": false, "tags": [], "tooltip": other.description,
            })
        };
        others.map(link).collect()
    }
}

impl Panel {
    fn height(&self) -> u64 {
        let usual = if self.r#type == "stat" { 4 } else { 8 };
        self.height.unwrap_or(usual)
    }

    fn json(&self, id: usize, place: &Value) -> Value {
        let is_instant = self.r#type == "table";
        let target = |(at, (legend, query)): (usize, &(String, String))| {
            json!({
                "refId": char::from(b'A' + u8::try_from(at).unwrap()).to_string(),
                "datasource": datasource(),
                "expr": query.replace('@', MATCHERS),
                "legendFormat": legend,
                "instant": is_instant,
                "range": !is_instant,
                "format": if is_instant { "table" } else { "time_series" },
            })
        };
        let targets: Vec<_> = self.queries.iter().enumerate().map(target).collect();
        let links = self.runbooks.iter().map(|name| {
            json!({"title": format!("Runbook {name}"), "url": format!("${{runbooks}}/{name}.md"), "targetBlank": true})
        });
        let mut panel = json!({
            "id": id,
            "type": self.r#type,
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "gridPos": place,
            "links": links.collect::<Vec<_>>(),
            "targets": targets,
            "fieldConfig": {"defaults": self.field(), "overrides": []},
            "options": self.options(),
        });
        if is_instant {
            panel["transformations"] = json!([
                {"id": "organize", "options": {"excludeByName": {"Time": true, "Value": true}}},
            ]);
        }
        panel
    }

    fn field(&self) -> Value {
        let mut steps = vec![json!({"color": "green", "value": null})];
        for (from, color) in &self.thresholds {
            steps.push(json!({"color": color, "value": from}));
        }
        let mut field = json!({
            "unit": self.unit,
            "color": {"mode": if self.r#type == "stat" { "thresholds" } else { "palette-classic" }},
            "thresholds": {"mode": "absolute", "steps": steps},
        });
        if let Some(decimals) = self.decimals {
            field["decimals"] = json!(decimals);
        }
        if !self.signed {
            field["min"] = json!(0);
        }
        if self.r#type == "timeseries" {
            field["custom"] = json!({
                "drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never",
                "thresholdsStyle": {"mode": if self.thresholds.is_empty() { "off" } else { "line" }},
            });
        }
        field
    }

    fn options(&self) -> Value {
        match self.r#type.as_str() {
            "stat" => json!({
                "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
                "textMode": if self.queries.len() > 1 || self.queries[0].0.contains("{{") { "value_and_name" } else { "value" },
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
            }),
            "timeseries" => json!({
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            "table" => json!({"showHeader": true}),
            other => panic!("{}: no panel of type {other} is known", self.title),
        }
    }
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

/// Data source, job, instance, partition, and where the runbooks are.
fn variables() -> Vec<Value> {
    let labels = |name: &str, label: &str, query: &str| {
        json!({
            "name": name, "label": label, "type": "query", "datasource": datasource(),
            "definition": query, "query": {"query": query, "refId": name},
            "refresh": 2, "sort": 3, "multi": true, "includeAll": true, "allValue": ".+",
            "current": {"text": "All", "value": "$__all"}, "hide": 0, "skipUrlSync": false,
        })
    };
    vec![
        json!({
            "name": "datasource", "label": "Data Source", "type": "datasource", "query": "prometheus",
            "current": {"text": "Prometheus", "value": "prometheus"}, "hide": 0, "refresh": 1,
        }),
        labels("job", "job", "label_values(settle_build_info, job)"),
        labels(
            "instance",
            "instance",
            r#"label_values(settle_build_info{job=~"$job"}, instance)"#,
        ),
        labels(
            "partition",
            "partition",
            r#"label_values(settle_position_offset{job=~"$job"}, partition)"#,
        ),
        json!({"name": "runbooks", "type": "constant", "query": RUNBOOKS, "hide": 2}),
    ]
}

/// What happened, drawn over every panel.
fn annotations() -> Vec<Value> {
    let list = [
        (
            "Rebalances",
            "blue",
            "sum by (instance) (increase(settle_rebalances_total{@}[$__interval])) > 0",
            "rebalance",
            "{{instance}}",
        ),
        (
            "Starts",
            "yellow",
            "changes(process_start_time_seconds{@}[$__interval]) > 0 or (time() - process_start_time_seconds{@} < 15)",
            "start",
            "{{instance}}",
        ),
        (
            "Alerts",
            "red",
            r#"ALERTS{alertstate="firing",alertname=~"Settle.*"}"#,
            "{{alertname}}",
            "{{severity}} {{instance}}",
        ),
    ];
    let annotation = |(name, color, query, title, text): (&str, &str, &str, &str, &str)| {
        json!({
            "name": name, "iconColor": color, "enable": true, "hide": false, "datasource": datasource(),
            "expr": query.replace('@', MATCHERS), "titleFormat": title, "textFormat": text, "step": "15s",
        })
    };
    list.map(annotation).into()
}
