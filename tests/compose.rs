//! `compose.yaml` is checked without Docker: its syntax, what it refers to, and that the service accepts what it says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

const INSTANCES: [&str; 3] = ["settle-0", "settle-1", "settle-2"];

/// The keys that the compose specification knows and this file may use.
const SERVICE_KEYS: [&str; 10] = [
    "build",
    "image",
    "restart",
    "stop_grace_period",
    "depends_on",
    "environment",
    "ports",
    "volumes",
    "healthcheck",
    "command",
];
const HEALTHCHECK_KEYS: [&str; 6] = [
    "test",
    "interval",
    "timeout",
    "retries",
    "start_period",
    "start_interval",
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The file with its anchors and merge keys resolved; a key that stands twice is an error of the parser.
fn compose() -> Map<String, Value> {
    serde_saphyr::from_str(&read("compose.yaml")).unwrap()
}

fn table<'a>(of: &'a Map<String, Value>, key: &str) -> &'a Map<String, Value> {
    of.get(key)
        .and_then(Value::as_object)
        .unwrap_or_else(|| panic!("{key} is not a mapping"))
}

fn services() -> BTreeMap<String, Map<String, Value>> {
    table(&compose(), "services")
        .iter()
        .map(|(name, service)| (name.clone(), service.as_object().unwrap().clone()))
        .collect()
}

fn texts<'a>(service: &'a Map<String, Value>, key: &str) -> Vec<&'a str> {
    let items = service.get(key).and_then(Value::as_array);
    items
        .into_iter()
        .flatten()
        .map(|item| item.as_str().unwrap())
        .collect()
}

/// The environment as a container sees it.
fn environment(service: &Map<String, Value>) -> BTreeMap<String, String> {
    table(service, "environment")
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                other => panic!("{name}: compose refuses {other}"),
            };
            (name.clone(), value)
        })
        .collect()
}

#[test]
fn only_keys_that_compose_knows_are_used() {
    for key in compose().keys() {
        assert!(
            ["name", "services", "volumes"].contains(&key.as_str()) || key.starts_with("x-"),
            "{key}"
        );
    }
    for (name, service) in services() {
        for key in service.keys() {
            assert!(SERVICE_KEYS.contains(&key.as_str()), "{name}: {key}");
        }
        if service.contains_key("healthcheck") {
            for key in table(&service, "healthcheck").keys() {
                assert!(HEALTHCHECK_KEYS.contains(&key.as_str()), "{name}: {key}");
            }
        }
    }
}

#[test]
fn services_wait_for_services_that_can_say_when() {
    let services = services();
    for (name, service) in &services {
        let Some(needs) = service.get("depends_on").and_then(Value::as_object) else {
            continue;
        };
        for (other, how) in needs {
            let needed = services
                .get(other)
                .unwrap_or_else(|| panic!("{name} waits for {other}, which is not there"));
            match how["condition"].as_str().unwrap() {
                "service_healthy" => assert!(needed.contains_key("healthcheck"), "{other}"),
                condition => assert_eq!(condition, "service_started"),
            }
        }
    }
}

#[test]
fn images_are_pinned_or_built_here() {
    let stages: BTreeSet<String> = read("Dockerfile")
        .lines()
        .filter(|line| line.starts_with("FROM "))
        .filter_map(|line| Some(line.split_once(" AS ")?.1.to_owned()))
        .collect();
    for (name, service) in services() {
        let image = service["image"].as_str().unwrap();
        if service.contains_key("build") {
            let build = table(&service, "build");
            assert_eq!(build["context"], ".", "{name}");
            let target = build["target"].as_str().unwrap();
            assert!(
                stages.contains(target),
                "{name}: the Dockerfile has no stage {target}"
            );
        } else {
            let (_, tag) = image
                .split_once(':')
                .unwrap_or_else(|| panic!("{name}: no tag"));
            assert!(
                tag.starts_with(|first: char| first.is_ascii_digit()),
                "{image}"
            );
        }
    }
}

#[test]
fn what_the_images_copy_is_in_the_repository() {
    let dockerfile = read("Dockerfile");
    let copied = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|line| !line.starts_with("--from"));
    for line in copied {
        let source = line.split(' ').next().unwrap();
        assert!(repository().join(source).exists(), "{source}");
    }
}

#[test]
fn every_volume_is_declared_and_has_one_owner() {
    let declared: BTreeSet<String> = table(&compose(), "volumes").keys().cloned().collect();
    let mut used = BTreeSet::new();
    for (name, service) in services() {
        for mount in texts(&service, "volumes") {
            let (volume, _) = mount.split_once(':').unwrap();
            assert!(
                used.insert(volume.to_owned()),
                "{name}: {volume} has two owners"
            );
        }
    }
    assert_eq!(declared, used);
}

#[test]
fn ports_are_open_to_this_machine_only_and_used_once() {
    let mut taken = BTreeSet::new();
    for (name, service) in services() {
        for port in texts(&service, "ports") {
            let parts: Vec<&str> = port.split(':').collect();
            assert_eq!(parts.len(), 3, "{name}: {port}");
            assert_eq!(parts[0], "127.0.0.1", "{name}: {port}");
            assert!(taken.insert(parts[1].to_owned()), "{name}: {port} is taken");
        }
    }
}

#[test]
fn one_broker_does_not_wait_for_replicas() {
    let kafka = environment(&services()["kafka"]);
    for key in [
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR",
    ] {
        assert_eq!(kafka[key], "1", "{key}");
    }
    assert_eq!(kafka["KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS"], "0");
    assert_eq!(kafka["CLUSTER_ID"].len(), 22);
}

#[test]
fn each_instance_keeps_its_identity_and_its_state() {
    let services = services();
    for name in INSTANCES {
        let service = &services[name];
        let environment = environment(service);
        assert_eq!(environment["SETTLE_KAFKA__INSTANCE_ID"], name);
        assert_eq!(
            environment["SETTLE_HTTP__ADVERTISE"],
            format!("{name}:8080")
        );
        assert_eq!(
            texts(service, "volumes"),
            [format!("{name}:/var/lib/settle")]
        );
        for address in [
            "SETTLE_KAFKA__BOOTSTRAP_SERVERS",
            "SETTLE_RULES__URL",
            "SETTLE_POSTGRES__URL",
        ] {
            let host = host(&environment[address]);
            assert!(
                services.contains_key(host),
                "{name}: {address} names {host}"
            );
        }
    }
}

/// The host of `[scheme://][user@]host:port[/path]`.
fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    rest.split(':').next().unwrap()
}

#[test]
fn the_service_accepts_the_configuration_of_each_instance() {
    let services = services();
    for name in INSTANCES {
        let output = Command::new(env!("CARGO_BIN_EXE_settle"))
            .args(["config", "check", "--config"])
            .arg(repository().join("deploy/settle.toml"))
            .envs(environment(&services[name]))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {errors}");
    }
}
