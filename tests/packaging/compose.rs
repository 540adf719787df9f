//! `compose.yaml`, with the image that it builds and the files that it mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use chaos::checkers::checker;
use chaos::cluster::serve_rules::ServeRulesOptions;
use clap::{Args, FromArgMatches};
use serde_norway::{Mapping, Value};

use crate::files;
use crate::image::{self, dockerfile};
use crate::program;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const INSTANCES: [&str; 3] = ["settle-0", "settle-1", "settle-2"];

struct Compose(Value);

impl Compose {
    fn read() -> Self {
        let text = fs::read_to_string(Path::new(ROOT).join("compose.yaml")).unwrap();
        let mut compose: Value = serde_norway::from_str(&text).unwrap();
        compose.apply_merge().unwrap();
        Self(compose)
    }

    fn services(&self) -> BTreeMap<&str, &Mapping> {
        self.0["services"]
            .as_mapping()
            .unwrap()
            .iter()
            .map(|(name, service)| (name.as_str().unwrap(), service.as_mapping().unwrap()))
            .collect()
    }

    fn service(&self, name: &str) -> &Mapping {
        self.services()[name]
    }
}

fn texts(list: Option<&Value>) -> Vec<&str> {
    let list = list.and_then(Value::as_sequence);
    list.into_iter()
        .flatten()
        .map(|item| item.as_str().unwrap())
        .collect()
}

fn environment(service: &Mapping) -> BTreeMap<&str, &str> {
    let variables = service.get("environment").and_then(Value::as_mapping);
    variables
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str().unwrap(), value.as_str().unwrap()))
        .collect()
}

/// What ends in the service's containers, as (host address, host port, container port).
fn ports(service: &Mapping) -> Vec<(&str, &str, &str)> {
    texts(service.get("ports"))
        .into_iter()
        .map(|port| {
            let parts: Vec<&str> = port.split(':').collect();
            let [address, host, container] = parts[..] else {
                panic!("{port}: write address:host:container")
            };
            (address, host, container)
        })
        .collect()
}

/// (source, path in the container) of each volume.
fn volumes(service: &Mapping) -> Vec<(&str, &str)> {
    texts(service.get("volumes"))
        .into_iter()
        .map(|volume| {
            let (source, target) = volume.split_once(':').unwrap();
            (source, target.split(':').next().unwrap())
        })
        .collect()
}

fn has_healthcheck(service: &Mapping) -> bool {
    service
        .get("healthcheck")
        .is_some_and(|check| check.get("test").is_some() && check.get("disable").is_none())
}

/// What compose says of a file.
fn config(path: &Path) -> std::process::Output {
    checker("docker-compose")
        .unwrap()
        .arg("--file")
        .arg(path)
        .args(["--profile", "*", "config", "--quiet"])
        .output()
        .unwrap()
}

#[test]
fn compose_takes_the_file_and_would_refuse_a_misspelt_key() {
    let output = config(&files::path("compose.yaml"));
    assert!(output.status.success(), "{}", program::said(&output));
    let directory = tempfile::tempdir().unwrap();
    let misspelt = directory.path().join("compose.yaml");
    let text = files::read("compose.yaml").replace("healthcheck:", "healthchek:");
    fs::write(&misspelt, text).unwrap();
    let output = config(&misspelt);
    assert!(
        program::said(&output).contains("healthchek"),
        "{}",
        program::said(&output)
    );
    assert!(!output.status.success());
}

#[test]
fn every_image_is_pinned_to_a_release() {
    let compose = Compose::read();
    for (name, service) in compose.services() {
        let image = service["image"].as_str().unwrap();
        let (repository, tag) = image.split_once(':').unwrap();
        let version = tag.split('-').next().unwrap().trim_start_matches('v');
        let is_release =
            version.contains('.') && version.chars().all(|c| c.is_ascii_digit() || c == '.');
        assert!(is_release, "{name}: {image}");
        if repository == "settle-demo" {
            assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{name}");
        }
    }
}

#[test]
fn one_service_builds_the_image_that_others_use() {
    let compose = Compose::read();
    let services = compose.services();
    let builders: Vec<_> = services
        .iter()
        .filter(|(_, service)| service.contains_key("build"))
        .collect();
    assert_eq!(builders.len(), 1);
    let (_, builder) = builders[0];
    let context = Path::new(ROOT).join(builder["build"]["context"].as_str().unwrap());
    assert!(context.join("Dockerfile").is_file());
    let target = builder["build"]["target"].as_str().unwrap();
    assert!(image::stages().iter().any(|stage| stage.name == target));
    for name in INSTANCES.into_iter().chain(["rules"]) {
        assert_eq!(services[name]["image"], builder["image"], "{name}");
    }
}

#[test]
fn every_mount_exists_and_every_volume_is_used() {
    let compose = Compose::read();
    let declared: BTreeSet<&str> = compose.0["volumes"]
        .as_mapping()
        .unwrap()
        .keys()
        .map(|name| name.as_str().unwrap())
        .collect();
    let mut used = BTreeSet::new();
    for (name, service) in compose.services() {
        for (source, target) in volumes(service) {
            assert!(target.starts_with('/'), "{name}: {target}");
            if source.starts_with(['.', '/']) {
                assert!(Path::new(ROOT).join(source).exists(), "{name}: {source}");
            } else {
                assert!(used.insert(source), "{source} is mounted twice");
            }
        }
    }
    assert_eq!(declared, used);
}

#[test]
fn every_service_waits_for_services_that_get_ready() {
    let compose = Compose::read();
    let services = compose.services();
    for (name, service) in &services {
        let waits = service.get("depends_on").and_then(Value::as_mapping);
        for (other, wait) in waits.into_iter().flatten() {
            let other = services[other.as_str().unwrap()];
            match wait["condition"].as_str().unwrap() {
                "service_healthy" => assert!(has_healthcheck(other), "{name}: {other:?}"),
                "service_completed_successfully" => {
                    let restart = other["restart"].as_str().unwrap();
                    assert!(restart.starts_with("on-failure:"), "{name}: {restart}");
                }
                condition => panic!("{name}: {condition}"),
            }
        }
        assert!(has_healthcheck(service) || *name == "topics", "{name}");
        let restart = service["restart"].as_str().unwrap();
        assert!(
            restart.starts_with("on-failure:"),
            "{name}: no restart loop"
        );
    }
    for name in INSTANCES {
        for other in ["topics", "postgres", "rules"] {
            assert!(services[name]["depends_on"].get(other).is_some(), "{name}");
        }
    }
    assert!(services["topics"]["depends_on"].get("kafka").is_some());
}

#[test]
fn host_ports_differ_and_are_open_to_this_machine_only() {
    let compose = Compose::read();
    let mut taken = BTreeSet::new();
    for (name, service) in compose.services() {
        for (address, host, _) in ports(service) {
            assert_eq!(address, "127.0.0.1", "{name}");
            assert!(taken.insert(host), "{name}: {host} is taken");
        }
    }
}

#[test]
fn each_instance_has_an_identity_an_address_and_a_state_of_its_own() {
    let compose = Compose::read();
    let instances: Vec<&str> = compose
        .services()
        .into_iter()
        .filter(|(_, service)| environment(service).contains_key("SETTLE_KAFKA__INSTANCE_ID"))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(instances, INSTANCES);
    for name in instances {
        let service = compose.service(name);
        let variables = environment(service);
        assert_eq!(variables["SETTLE_KAFKA__INSTANCE_ID"], name);
        let port = variables["SETTLE_HTTP__LISTEN"]
            .strip_prefix("0.0.0.0:")
            .unwrap();
        assert_eq!(
            variables["SETTLE_HTTP__ADVERTISE"],
            format!("{name}:{port}")
        );
        assert_eq!(ports(service)[0].2, port);
        let test = texts(service["healthcheck"].get("test"));
        assert_eq!(test, ["CMD", "settle", "health"]);
        assert!(dockerfile().contains(r#"CMD ["settle", "health"]"#));
        let state = variables["SETTLE_STATE__DIRECTORY"];
        assert_eq!(volumes(service), [(name, state)]);
        assert!(dockerfile().contains(&format!("\nWORKDIR {state}\n")));
        assert!(dockerfile().contains(&format!("\nEXPOSE {port}\n")));
    }
}

#[test]
fn addresses_are_those_the_services_listen_on() {
    let compose = Compose::read();
    let kafka = environment(compose.service("kafka"));
    let advertised: Vec<&str> = kafka["KAFKA_ADVERTISED_LISTENERS"].split(',').collect();
    assert!(advertised.contains(&"PLAINTEXT://kafka:9092"));
    let (address, host, container) = ports(compose.service("kafka"))[0];
    assert!(advertised.contains(&format!("HOST://{address}:{host}").as_str()));
    for port in ["9092", container] {
        let listening = format!("://0.0.0.0:{port}");
        assert!(kafka["KAFKA_LISTENERS"].contains(&listening), "{listening}");
    }
    let rules = texts(compose.service("rules").get("command"));
    let program = ServeRulesOptions::augment_args(clap::Command::new("rules"));
    let options = program.try_get_matches_from(&rules).unwrap();
    let options = ServeRulesOptions::from_arg_matches(&options).unwrap();
    assert_eq!(
        (rules[0], options.listen.to_string().as_str()),
        ("rules", "0.0.0.0:8090")
    );
    let database = environment(compose.service("postgres"));
    let (user, password) = (database["POSTGRES_USER"], database["POSTGRES_PASSWORD"]);
    let url = format!(
        "postgres://{user}:{password}@postgres:5432/{}",
        database["POSTGRES_DB"]
    );
    for name in INSTANCES {
        let variables = environment(compose.service(name));
        assert_eq!(variables["SETTLE_KAFKA__BOOTSTRAP_SERVERS"], "kafka:9092");
        assert_eq!(
            variables["SETTLE_RULES__URL"],
            "http://rules:8090/payout-rules"
        );
        assert_eq!(variables["SETTLE_POSTGRES__URL"], url);
    }
}

#[test]
fn prometheus_scrapes_every_instance_and_grafana_reads_what_is_mounted() {
    let compose = Compose::read();
    let read = |path: &str| -> Value {
        let text = fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
        serde_norway::from_str(&text).unwrap()
    };
    let mounts = |name: &str| -> BTreeMap<&str, &str> {
        let mounts = volumes(compose.service(name)).into_iter();
        mounts.map(|(source, target)| (target, source)).collect()
    };

    let config = read("grafana/prometheus.yml");
    let job = &config["scrape_configs"][0];
    assert_eq!(job["job_name"], "settle", "alerts name it");
    let targets = texts(job["static_configs"][0].get("targets"));
    assert_eq!(targets, INSTANCES.map(|name| format!("{name}:8080")));
    let prometheus = mounts("prometheus");
    assert_eq!(
        prometheus["/etc/prometheus/prometheus.yml"],
        "./grafana/prometheus.yml"
    );
    let rules = texts(config.get("rule_files"))[0];
    let rules = rules.strip_suffix("/*.yaml").unwrap();
    assert_eq!(prometheus[rules], "./grafana/rules");

    let source = &read("grafana/provisioning/datasources/prometheus.yaml")["datasources"][0];
    assert_eq!(source["url"], "http://prometheus:9090");
    assert_eq!(
        source["jsonData"]["timeInterval"],
        config["global"]["scrape_interval"]
    );
    let provider = &read("grafana/provisioning/dashboards/settle.yaml")["providers"][0];
    let boards = provider["options"]["path"].as_str().unwrap();
    let grafana = mounts("grafana");
    assert_eq!(grafana[boards], "./grafana/dashboards");
    assert_eq!(
        grafana["/etc/grafana/provisioning"],
        "./grafana/provisioning"
    );
    assert_eq!(
        grafana["/usr/share/grafana/public/runbooks"],
        "./docs/runbooks"
    );
    let home = environment(compose.service("grafana"))["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    let home = home.strip_prefix(boards).unwrap();
    assert!(
        Path::new(ROOT)
            .join(format!("grafana/dashboards{home}"))
            .is_file()
    );
    for name in ["prometheus", "grafana"] {
        let (_, _, port) = ports(compose.service(name))[0];
        let test = texts(compose.service(name)["healthcheck"].get("test"));
        assert!(
            test.last().unwrap().contains(&format!("127.0.0.1:{port}/")),
            "{name}"
        );
    }
}

#[test]
fn an_expired_transaction_is_ended_within_a_second() {
    let compose = Compose::read();
    let kafka = environment(compose.service("kafka"));
    let name = "KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS";
    assert_eq!(kafka[name], "1000");
}

#[test]
fn the_program_takes_every_variable() {
    let compose = Compose::read();
    for name in INSTANCES.into_iter().chain(["topics"]) {
        let directory = tempfile::tempdir().unwrap();
        let variables = environment(compose.service(name));
        let output = program::settle(["config", "check"], directory.path(), variables);
        assert!(
            output.status.success(),
            "{name}: {}",
            program::said(&output)
        );
    }
}
