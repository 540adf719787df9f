//! One run with everything that can be seen: load, dead letters, an outage of the rule service, an upstream that leaves
//! a transaction open, a database that goes away, a kill, a takeover, a restore, brokers that stand still. Afterwards
//! every query of every dashboard has data, every registered metric has been scraped, and every diagnosis of a runbook
//! and every command of the pages that lead through something has been carried out. The page tells the truth, and every
//! log line is as documented.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chaos::cluster::rule_faults::Fault;
use chaos::cluster::wait;
use chaos::oracle::settled;
use chaos::pipeline::{Pipeline, PipelineOptions};
use chaos::workload::day::{Day, DayOptions};
use chaos::workload::send::{self, SendOptions};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use reqwest::blocking::Client;
use serde_json::Value;
use settle::metrics::ALL;

use crate::prometheus::{INTERVAL, Prometheus};
use crate::{dashboards, logs, page, rules, walkthrough};

const LIMIT: Duration = Duration::from_secs(90);
const PAYMENTS_PER_SECOND: u32 = 600;

/// A running pipeline and the Prometheus that watches it.
struct Scene {
    pipeline: Pipeline,
    prometheus: Prometheus,
    client: Client,
    began: f64,
}

fn seconds_since_epoch() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

impl Scene {
    fn start() -> Self {
        let began = seconds_since_epoch();
        let pipeline = Pipeline::start(&PipelineOptions {
            binary: env!("CARGO_BIN_EXE_settle").into(),
            instances: 2,
            partitions: 4,
            ..PipelineOptions::new().unwrap()
        })
        .unwrap();
        let targets: Vec<_> = pipeline
            .instances
            .iter()
            .map(|instance| instance.address().to_string())
            .collect();
        let prometheus =
            Prometheus::start(&pipeline.cluster.directory().join("prometheus"), &targets);
        let client = Client::builder().no_proxy().build().unwrap();
        Self {
            pipeline,
            prometheus,
            client,
            began,
        }
    }

    fn get(&self, instance: usize, path: &str) -> Result<String, reqwest::Error> {
        let url = format!("{}{path}", self.pipeline.instances[instance].http());
        self.client.get(url).send()?.text()
    }

    /// The largest value that a query has had since then.
    fn largest(&self, query: &str, since: f64) -> f64 {
        let series = self
            .prometheus
            .range(query, since, seconds_since_epoch())
            .unwrap();
        series
            .iter()
            .flat_map(crate::prometheus::Series::numbers)
            .fold(0.0, f64::max)
    }

    fn wait_for(&self, what: &str, query: &str) {
        let since = seconds_since_epoch();
        wait::until(what, LIMIT, || {
            Ok((self.largest(query, since) > 0.0).then_some(()))
        })
        .unwrap();
    }

    /// Everything that can happen, one after the other, while payments come.
    fn play(&mut self) {
        let settled = r#"sum(rate(settle_records_total{outcome="settlement"}[4s])) > 300"#;
        self.wait_for("payments to be settled", settled);
        page::take_picture(&self.pipeline.instances[0]);

        self.breathe();
        self.pipeline.cluster.rules.set_fault(Fault::Status {
            code: 503,
            retry_after: Some(1),
        });
        self.wait_for(
            "payments that wait for a rule",
            "sum(settle_waiting_records) > 20",
        );
        self.wait_for("an outage to be noticed", "max(settle_rules_outage)");
        self.pipeline.cluster.rules.set_fault(Fault::Healthy);
        self.breathe();

        self.hold_readers_back();
        self.pipeline.cluster.postgres().kill();
        self.wait_for(
            "the database to be missed",
            "settle_sink_connected == bool 0",
        );
        self.pipeline.cluster.postgres().restart().unwrap();
        self.breathe();

        self.pipeline.instances[0].kill();
        let takeover = "count(settle_position_offset) == 8 and sum(up) == 1";
        self.wait_for("the other instance to own everything", takeover);
        let state = self.pipeline.instances[0].options().state_directory();
        fs::remove_dir_all(state).unwrap();
        self.pipeline.instances[0].restart().unwrap();
        self.stand_still_while_it_restores();
        for instance in &self.pipeline.instances {
            instance.wait_ready(LIMIT).unwrap();
        }
        self.breathe();
    }

    /// Lets payments come for a while, so that a picture of the run can be read.
    fn breathe(&self) {
        if Prometheus::is_kept() {
            let settled = r#"sum(settle_records_total{outcome="settlement"})"#;
            let now = self.largest(settled, seconds_since_epoch() - 2.0);
            let query = format!("{settled} > {now} + 4000");
            self.wait_for("payments", &query);
        }
    }

    /// The upstream leaves a transaction open for a while.
    fn hold_readers_back(&self) {
        let upstream: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.pipeline.bootstrap())
            .set("transactional.id", "upstream")
            .create()
            .unwrap();
        upstream.init_transactions(LIMIT).unwrap();
        upstream.begin_transaction().unwrap();
        let finish = r#"{"channel":"ONLINE","action":"FINISH"}"#;
        let record = BaseRecord::<str, str>::to(&self.pipeline.names.source)
            .partition(0)
            .payload(finish);
        upstream.send(record).map_err(|(error, _)| error).unwrap();
        upstream.flush(LIMIT).unwrap();
        let stuck = r#"max(settle_stable_offset_stuck_seconds{kind="ingest"}) > 3 and max(settle_stable_offset_gap_records{kind="ingest"}) > 100"#;
        self.wait_for("a stable offset that stands still", stuck);
        upstream.abort_transaction(LIMIT).unwrap();
        let free = r#"max(settle_stable_offset_stuck_seconds{kind="ingest"}) < bool 2"#;
        self.wait_for("the stable offset to move again", free);
    }

    /// A restore of so little is over between two scrapes; brokers that stand still let it last.
    fn stand_still_while_it_restores(&self) {
        wait::until("a restore", LIMIT, || {
            let status = self.get(0, "/api/status").unwrap_or_default();
            let status: Value = serde_json::from_str(&status).unwrap_or_default();
            let partitions = status["partitions"].as_array().into_iter().flatten();
            let left = partitions.filter_map(|partition| partition["remaining"].as_i64());
            Ok((left.sum::<i64>() > 0).then_some(()))
        })
        .unwrap();
        self.pipeline.cluster.kafka.pause();
        self.wait_for(
            "the restore to be seen",
            "sum(settle_restore_remaining_records) > 0",
        );
        self.pipeline.cluster.kafka.resume();
    }

    /// Queries of panels, annotations and variables that have no data; all problems at once.
    fn silent_queries(&self) -> Vec<String> {
        let now = seconds_since_epoch();
        let mut silent = Vec::new();
        for dashboard in dashboards::generated() {
            let uid = dashboard["uid"].as_str().unwrap();
            for panel in dashboards::panels(&dashboard) {
                for expression in dashboards::expressions(panel) {
                    if let Err(reason) = self.has_data(expression, now) {
                        silent.push(format!("{uid}: {}: {reason}: {expression}", panel["title"]));
                    }
                }
            }
            for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
                let expression = annotation["expr"].as_str().unwrap();
                if let Err(reason) = self.has_data(expression, now) {
                    silent.push(format!("{uid}: {}: {reason}", annotation["name"]));
                }
            }
            for variable in dashboard["templating"]["list"].as_array().unwrap() {
                if let Some(query) = variable["definition"].as_str() {
                    let inner = query
                        .strip_prefix("label_values(")
                        .unwrap()
                        .strip_suffix(')')
                        .unwrap();
                    let (selector, label) = inner.rsplit_once(", ").unwrap();
                    let values = self
                        .prometheus
                        .label_values(label, &filled(selector))
                        .unwrap();
                    if values.is_empty() {
                        silent.push(format!("{uid}: variable {}", variable["name"]));
                    }
                }
            }
        }
        silent
    }

    fn has_data(&self, expression: &str, now: f64) -> Result<(), String> {
        let series = self
            .prometheus
            .range(&filled(expression), self.began, now)?;
        let has_number = series
            .iter()
            .any(|series| series.numbers().next().is_some());
        has_number.then_some(()).ok_or_else(|| "no data".to_owned())
    }

    /// Names of all metrics that the instances show.
    fn scraped(&self) -> BTreeSet<String> {
        let pages = [0, 1].map(|instance| self.get(instance, "/metrics").unwrap());
        let types = pages
            .iter()
            .flat_map(|page| page.lines())
            .filter_map(|line| line.strip_prefix("# TYPE "));
        types
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    }

    /// `promtool check metrics`.
    fn lint_metrics(&self) {
        let url = format!("{}/metrics", self.pipeline.instances[0].http());
        let run = Command::new("sh")
            .arg("-c")
            .arg(format!("curl -s {url} | promtool check metrics"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && said.is_empty(), "{said}");
    }

    /// Carries the commands of the runbooks out, on this pipeline.
    fn diagnose(&self) {
        let instance = &self.pipeline.instances[0];
        let directory = self.pipeline.cluster.directory().join("runbooks");
        fs::create_dir_all(&directory).unwrap();
        fs::copy(
            instance.options().config_file(),
            directory.join("settle.toml"),
        )
        .unwrap();
        let database = self
            .pipeline
            .cluster
            .postgres()
            .url_of(&self.pipeline.names.database);
        let mut done = BTreeSet::new();
        for (page, command) in rules::diagnoses() {
            let here = command
                .replace("http://127.0.0.1:8080", &instance.http())
                .replace(
                    "/var/lib/settle",
                    &instance.options().state_directory().display().to_string(),
                );
            if !done.insert(here.clone()) {
                continue;
            }
            let run = Command::new("bash")
                .args(["-o", "pipefail", "-c", &here])
                .current_dir(&directory)
                .env("PATH", path())
                .env("DATABASE_URL", &database)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&run.stderr);
            assert!(run.status.success(), "{page}: {command}\n{said}");
            assert!(!run.stdout.is_empty(), "{page}: {command} prints nothing");
        }
        assert!(done.len() > 10, "{done:?}");
    }

    /// Goes through the pages that lead somebody through something, on the first instance. What systemd does with
    /// `stop` and `start` happens to all of them: pages say so of whole installations.
    fn walk_through(&mut self) {
        let directory = self.pipeline.cluster.directory().join("runbooks");
        let options = self.pipeline.instances[0].options();
        let here = [
            ("http://127.0.0.1:8080", self.pipeline.instances[0].http()),
            (
                "/var/lib/settle",
                options.state_directory().display().to_string(),
            ),
        ];
        let name = &self.pipeline.names.database;
        let environment = BTreeMap::from([
            ("PATH".to_owned(), path()),
            (
                "DATABASE_URL".to_owned(),
                self.pipeline.cluster.postgres().url_of(name),
            ),
        ]);
        for step in walkthrough::PAGES.into_iter().flat_map(walkthrough::steps) {
            let instances = &mut self.pipeline.instances;
            match step.command.as_str() {
                "systemctl stop settle" => {
                    for instance in instances {
                        let status = instance.terminate(LIMIT).unwrap();
                        assert!(status.success(), "{status}\n{}", instance.tail());
                    }
                }
                "systemctl start settle" => {
                    for instance in instances {
                        instance.restart().unwrap();
                    }
                }
                "systemctl restart settle" => {
                    let status = instances[0].terminate(LIMIT).unwrap();
                    assert!(status.success(), "{status}\n{}", instances[0].tail());
                    instances[0].restart().unwrap();
                }
                _ => step.run(&directory, &here, &environment),
            }
        }
    }
}

/// The program that is tested comes first.
fn path() -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_settle")).parent().unwrap();
    format!("{}:{}", binary.display(), std::env::var("PATH").unwrap())
}

/// An expression as Grafana would send it, with everything chosen.
fn filled(expression: &str) -> String {
    let window = format!("{}s", 4 * INTERVAL);
    expression
        .replace("$__rate_interval", &window)
        // A rate needs two samples.
        .replace("$__interval", &window)
        .replace("$job", ".+")
        .replace("$instance", ".+")
        .replace("$partition", ".+")
}

#[test]
fn every_query_has_data_every_metric_is_scraped_and_every_diagnosis_works_in_a_real_run() {
    let mut scene = Scene::start();
    let sending = SendOptions {
        per_second: Some(PAYMENTS_PER_SECOND),
        ..SendOptions::new(&scene.pipeline.bootstrap(), &scene.pipeline.names.source)
    };
    let day = Day::new(DayOptions {
        merchants: 2000,
        ..DayOptions::new(7, 200_000, scene.pipeline.partitions)
    });
    send::during(&sending, day, || scene.play()).unwrap();
    settled::wait_settled(&scene.pipeline.run(), LIMIT).unwrap();
    for path in ["/readyz", "/api/aggregation-data/all"] {
        scene.get(0, path).unwrap();
    }
    let calm = r#"sum(rate(settle_records_total{outcome="settlement"}[4s])) == bool 0 and sum(settle_lag_records) == 0"#;
    scene.wait_for("the end to be seen", calm);

    let silent = scene.silent_queries();
    assert!(silent.is_empty(), "{silent:#?}");
    let registered: BTreeSet<_> = ALL.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(scene.scraped(), registered);
    scene.lint_metrics();
    scene.diagnose();
    page::tells_the_truth(&scene.pipeline.instances);
    for instance in &scene.pipeline.instances {
        logs::are_as_documented(instance);
    }
    let gap = scene.largest(
        "min_over_time(settle:conservation_gap:records[5s])",
        scene.began,
    );
    assert!(gap < 0.5, "{gap} records are not accounted for");
    scene.walk_through();
    settled::wait_settled(&scene.pipeline.run(), LIMIT).unwrap();
    scene.prometheus.keep();
}
