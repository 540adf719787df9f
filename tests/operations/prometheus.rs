//! A real Prometheus with the rules of the repository, on targets of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use chaos::cluster::process::Process;
use chaos::cluster::{ports, wait};
use reqwest::blocking::Client;
use serde_json::Value;

use crate::files;

/// Seconds between two scrapes, and two evaluations of the rules.
pub const INTERVAL: u32 = 1;

const KEEP: &str = "KEEP_PROMETHEUS";

const LIMIT: Duration = Duration::from_secs(30);

pub struct Prometheus {
    address: String,
    data: PathBuf,
    client: Client,
    process: Process,
}

impl Prometheus {
    /// Starts it with the shipped configuration, in which only addresses and intervals are changed.
    pub fn start(directory: &Path, targets: &[String]) -> Self {
        let shipped: serde_norway::Value =
            serde_norway::from_str(&files::read("grafana/prometheus.yml")).unwrap();
        let mut config = shipped;
        let interval = || serde_norway::Value::from(format!("{INTERVAL}s"));
        config["global"]["scrape_interval"] = interval();
        config["global"]["scrape_timeout"] = interval();
        config["global"]["evaluation_interval"] = interval();
        let rules = files::path("grafana/rules/*.yaml");
        config["rule_files"] = vec![rules.to_str().unwrap()].into();
        config["scrape_configs"][0]["static_configs"][0]["targets"] = targets.to_vec().into();
        fs::create_dir_all(directory).unwrap();
        let file = directory.join("prometheus.yml");
        fs::write(&file, serde_norway::to_string(&config).unwrap()).unwrap();

        let address = format!("127.0.0.1:{}", ports::free().unwrap());
        let data = directory.join("data");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"));
        let process = Process::start("prometheus", command, &directory.join("prometheus.log"))
            .expect("Prometheus is there: apt-get install prometheus");
        let client = Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
        let prometheus = Self {
            address,
            data,
            client,
            process,
        };
        wait::until("Prometheus to be ready", LIMIT, || {
            let tail = prometheus.process.tail();
            assert!(prometheus.process.is_running(), "{tail}");
            let ready = prometheus.client.get(prometheus.url("/-/ready")).send();
            Ok(ready
                .is_ok_and(|answer| answer.status().is_success())
                .then_some(()))
        })
        .unwrap();
        prometheus
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What an API call returns; its error in words.
    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let request = self.client.post(self.url(path)).form(parameters);
        let text = request.send().and_then(reqwest::blocking::Response::text);
        let answer: Value = serde_json::from_str(&text.map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())?;
        match &answer["error"] {
            Value::Null => Ok(answer["data"].clone()),
            error => Err(error.to_string()),
        }
    }

    /// Series between two times.
    pub fn range(&self, query: &str, from: f64, to: f64) -> Result<Vec<Series>, String> {
        let (from, to, step) = (from.to_string(), to.to_string(), INTERVAL.to_string());
        let parameters = [
            ("query", query),
            ("start", &from),
            ("end", &to),
            ("step", &step),
        ];
        let data = self.ask("/api/v1/query_range", &parameters)?;
        serde_json::from_value(data["result"].clone()).map_err(|error| error.to_string())
    }

    /// Values of a label over all series.
    pub fn label_values(&self, label: &str, selector: &str) -> Result<Vec<String>, String> {
        let path = format!("/api/v1/label/{label}/values");
        let url = self.url(&path);
        let answer = self.client.get(url).query(&[("match[]", selector)]).send();
        let text = answer.and_then(reqwest::blocking::Response::text);
        let answer: Value = serde_json::from_str(&text.map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())?;
        serde_json::from_value(answer["data"].clone()).map_err(|error| error.to_string())
    }

    /// Whether `KEEP_PROMETHEUS` names a directory for what is stored.
    pub fn is_kept() -> bool {
        std::env::var_os(KEEP).is_some()
    }

    /// Ends it in order and copies what it has stored, if it is to be kept.
    pub fn keep(&self) {
        let Some(kept) = std::env::var_os(KEEP) else {
            return;
        };
        self.process.terminate(LIMIT).unwrap();
        let copied = Command::new("cp")
            .arg("-r")
            .arg(&self.data)
            .arg(kept)
            .status();
        assert!(copied.unwrap().success());
    }
}

#[derive(Debug, serde::Deserialize)]
pub struct Series {
    values: Vec<(f64, String)>,
}

impl Series {
    /// Values that are numbers.
    pub fn numbers(&self) -> impl Iterator<Item = f64> {
        let values = self.values.iter().map(|(_, value)| value.parse().unwrap());
        values.filter(|value: &f64| value.is_finite())
    }
}
