//! The manifests in `packaging/kubernetes`: fields are those of Kubernetes, names and ports fit each other, and the
//! program takes what a pod gives it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Output;

use chaos::checkers::checker;
use serde::Deserialize;
use serde_norway::{Deserializer, Value};

use crate::{examples, files, program};

const DIRECTORY: &str = "packaging/kubernetes";
const SECRETS: &str = "/run/secrets/settle";

/// What the checker of manifests knows no schema of.
const FOREIGN: [&str; 4] = [
    "kustomization.yaml",
    "prometheus-operator/kustomization.yaml",
    "prometheus-operator/servicemonitor.yaml",
    "settle.toml",
];

fn manifest(name: &str) -> Vec<Value> {
    let text = files::read(&format!("{DIRECTORY}/{name}"));
    Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn one(name: &str) -> Value {
    let [document] = manifest(name).try_into().unwrap();
    document
}

fn names(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(files::path(directory)).unwrap();
    let files = entries
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_file());
    files
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

fn texts(list: &Value) -> BTreeSet<String> {
    let items = list.as_sequence().unwrap().iter();
    items
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

/// Those of a mapping.
fn keys(mapping: &Value) -> BTreeSet<&str> {
    let mapping = mapping.as_mapping().unwrap();
    mapping.keys().map(|key| key.as_str().unwrap()).collect()
}

fn find<'a>(list: &'a Value, key: &str, wanted: &str) -> &'a Value {
    let mut items = list.as_sequence().unwrap().iter();
    let found = items.find(|item| item[key].as_str() == Some(wanted));
    found.unwrap_or_else(|| panic!("no {key} {wanted} in {list:?}"))
}

fn container() -> Value {
    one("statefulset.yaml")["spec"]["template"]["spec"]["containers"][0].clone()
}

fn validated(path: &std::path::Path) -> Output {
    checker("kubernetes-validate")
        .unwrap()
        .args(["--strict", "--quiet"])
        .arg(path)
        .output()
        .unwrap()
}

#[test]
fn kubernetes_takes_every_manifest_and_would_refuse_a_misspelt_field() {
    let mut checked = 0;
    for name in names(DIRECTORY) {
        if !FOREIGN.contains(&name.as_str()) {
            let output = validated(&files::path(&format!("{DIRECTORY}/{name}")));
            assert!(
                output.status.success(),
                "{name}: {}",
                program::said(&output)
            );
            checked += 1;
        }
    }
    assert_eq!(checked, 5);
    let directory = tempfile::tempdir().unwrap();
    let misspelt = directory.path().join("statefulset.yaml");
    let text = files::read(&format!("{DIRECTORY}/statefulset.yaml"));
    fs::write(&misspelt, text.replace("livenessProbe:", "livenessProb:")).unwrap();
    let output = validated(&misspelt);
    assert!(!output.status.success());
    assert!(
        program::said(&output).contains("livenessProb"),
        "{}",
        program::said(&output)
    );
}

#[test]
fn every_file_is_applied() {
    let all = one("kustomization.yaml");
    let known = [
        "apiVersion",
        "configMapGenerator",
        "images",
        "kind",
        "labels",
        "namespace",
        "resources",
    ];
    assert_eq!(keys(&all), known.into());
    let mut named = texts(&all["resources"]);
    let generator = &all["configMapGenerator"][0];
    named.extend(texts(&generator["files"]));
    named.insert("kustomization.yaml".to_owned());
    assert_eq!(named, names(DIRECTORY));
    let image = &all["images"][0];
    assert_eq!(image["name"], container()["image"]);
    assert_eq!(image["newTag"], env!("CARGO_PKG_VERSION"));
    let component = one("prometheus-operator/kustomization.yaml");
    assert_eq!(component["kind"], "Component");
    assert_eq!(
        texts(&component["resources"]),
        ["servicemonitor.yaml".to_owned()].into()
    );
}

/// The variables of a pod's process, filled in as Kubernetes does.
fn environment(pod: &str, namespace: &str) -> BTreeMap<String, String> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for variable in container()["env"].as_sequence().unwrap() {
        let source = &variable["valueFrom"]["fieldRef"]["fieldPath"];
        let value = match (variable["value"].as_str(), source.as_str()) {
            (Some(value), None) => {
                let fill = |text: String, (name, value): (&String, &String)| {
                    text.replace(&format!("$({name})"), value)
                };
                known.iter().fold(value.to_owned(), fill)
            }
            (None, Some("metadata.name")) => pod.to_owned(),
            (None, Some("metadata.namespace")) => namespace.to_owned(),
            other => panic!("{other:?}"),
        };
        assert!(!value.contains("$("), "{value}");
        known.insert(variable["name"].as_str().unwrap().to_owned(), value);
    }
    known
}

/// What holds in a pod.
fn configuration(pod: &str) -> toml::Table {
    let text = files::read(&format!("{DIRECTORY}/settle.toml"));
    let environment = environment(pod, "payments");
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    examples::check(&text, SECRETS, &environment)
}

#[test]
fn a_pod_is_an_instance_of_its_own_under_its_own_name() {
    let set = one("statefulset.yaml");
    let services = manifest("service.yaml");
    let pods = &services[0];
    assert_eq!(set["spec"]["serviceName"], pods["metadata"]["name"]);
    assert_eq!(pods["spec"]["clusterIP"], "None");
    assert_eq!(pods["spec"]["publishNotReadyAddresses"], true);
    let service = pods["metadata"]["name"].as_str().unwrap();
    let port = container()["ports"][0]["containerPort"].as_u64().unwrap();
    for pod in ["settle-0", "settle-1"] {
        let holds = configuration(pod);
        assert_eq!(holds["kafka"]["instance_id"].as_str(), Some(pod));
        let advertised = format!("{pod}.{service}.payments.svc:{port}");
        assert_eq!(
            holds["http"]["advertise"].as_str(),
            Some(advertised.as_str())
        );
        let listens = format!("0.0.0.0:{port}");
        assert_eq!(holds["http"]["listen"].as_str(), Some(listens.as_str()));
    }
    // Variables that Kubernetes would add look like keys of the configuration.
    assert_eq!(set["spec"]["template"]["spec"]["enableServiceLinks"], false);
}

#[test]
fn what_is_written_lies_on_volumes_and_all_else_is_read_only() {
    let (container, set) = (container(), one("statefulset.yaml"));
    let pod = &set["spec"]["template"]["spec"];
    let security = &container["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(
        texts(&security["capabilities"]["drop"]),
        ["ALL".to_owned()].into()
    );
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let user = pod["securityContext"]["runAsUser"].as_u64().unwrap();
    let group = pod["securityContext"]["fsGroup"].as_u64().unwrap();
    let runs_as = format!("\nUSER {user}:{group}\n");
    assert!(files::read("Dockerfile").contains(&runs_as), "{runs_as}");
    let mounted = |name: &str| {
        let mount = find(&container["volumeMounts"], "name", name);
        mount["mountPath"].as_str().unwrap().to_owned()
    };
    let state = configuration("settle-0")["state"]["directory"].clone();
    assert_eq!(state.as_str(), Some(mounted("state").as_str()));
    let claim = &set["spec"]["volumeClaimTemplates"][0];
    assert_eq!(claim["metadata"]["name"], "state");
    assert_eq!(mounted("tmp"), "/tmp");
    assert_eq!(mounted("secrets"), SECRETS);
    let configuration = mounted("configuration");
    let generated = &one("kustomization.yaml")["configMapGenerator"][0];
    let volume = find(&pod["volumes"], "name", "configuration");
    assert_eq!(volume["configMap"]["name"], generated["name"]);
    let file = generated["files"][0].as_str().unwrap();
    let named = format!("{configuration}/{file}");
    assert_eq!(
        container["args"],
        Value::from(vec!["run", "--config", &named])
    );
}

fn seconds(text: &str) -> u64 {
    text.strip_suffix('s').unwrap().parse().unwrap()
}

#[test]
fn an_orderly_end_and_a_restart_have_the_time_they_need() {
    let set = one("statefulset.yaml");
    let grace = configuration("settle-0")["shutdown"]["grace"].clone();
    let given = &set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
    assert!(given.as_u64().unwrap() > seconds(grace.as_str().unwrap()));
    let budget = one("poddisruptionbudget.yaml");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    let container = container();
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["path"], path, "{probe}");
        assert_eq!(get["port"], container["ports"][0]["name"], "{probe}");
    }
}

#[test]
fn selectors_find_the_pods_and_ports_are_those_that_are_open() {
    let set = one("statefulset.yaml");
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    let port = &container()["ports"][0]["name"];
    assert_eq!(&set["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(
        &one("poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
        labels
    );
    for service in manifest("service.yaml") {
        assert_eq!(&service["spec"]["selector"], labels);
        assert_eq!(&service["spec"]["ports"][0]["targetPort"], port);
    }
    let policy = one("networkpolicy.yaml");
    assert_eq!(&policy["spec"]["podSelector"]["matchLabels"], labels);
    assert_eq!(&policy["spec"]["ingress"][0]["ports"][0]["port"], port);
    let inside = &policy["spec"]["egress"][0];
    assert_eq!(&inside["to"][0]["podSelector"]["matchLabels"], labels);
    // Kafka, PostgreSQL and the rule service, where the configuration has them.
    let holds = configuration("settle-0");
    let port_of = |text: &str| text.rsplit(':').next().unwrap().parse::<u64>().unwrap();
    let rules = url::Url::parse(holds["rules"]["url"].as_str().unwrap()).unwrap();
    let needed = [
        port_of(holds["kafka"]["bootstrap_servers"].as_str().unwrap()),
        5432,
        rules.port_or_known_default().unwrap().into(),
    ];
    let open = policy["spec"]["egress"][2]["ports"].as_sequence().unwrap();
    let open: Vec<u64> = open
        .iter()
        .map(|port| port["port"].as_u64().unwrap())
        .collect();
    assert_eq!(open, needed);
}

#[test]
fn prometheus_finds_each_pod_once_under_the_job_that_alerts_name() {
    let monitor = one("prometheus-operator/servicemonitor.yaml");
    assert_eq!(
        keys(&monitor),
        ["apiVersion", "kind", "metadata", "spec"].into()
    );
    let spec = &monitor["spec"];
    assert_eq!(keys(spec), ["endpoints", "jobLabel", "selector"].into());
    assert_eq!(
        keys(&spec["endpoints"][0]),
        ["interval", "path", "port"].into()
    );
    let wanted = spec["selector"]["matchLabels"].as_mapping().unwrap();
    let marked = spec["selector"]["matchExpressions"][0]["key"]
        .as_str()
        .unwrap();
    let services = manifest("service.yaml");
    let chosen: Vec<&Value> = services
        .iter()
        .filter(|service| {
            let labels = &service["metadata"]["labels"];
            let fits = wanted
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value));
            fits && labels.get(marked).is_some()
        })
        .collect();
    let [service] = chosen[..] else {
        panic!("{chosen:?}")
    };
    let job = &service["metadata"]["labels"][spec["jobLabel"].as_str().unwrap()];
    assert_eq!(job, "settle");
    assert_eq!(
        spec["endpoints"][0]["port"],
        service["spec"]["ports"][0]["name"]
    );
    let prometheus: Value = serde_norway::from_str(&files::read("grafana/prometheus.yml")).unwrap();
    assert_eq!(
        spec["endpoints"][0]["interval"],
        prometheus["global"]["scrape_interval"]
    );
}

#[test]
fn the_secret_that_the_page_creates_holds_every_file_that_is_read() {
    let page = files::read("docs/deploy.md");
    let volume = "secretName: settle\n";
    assert!(files::read(&format!("{DIRECTORY}/statefulset.yaml")).contains(volume));
    let (_, command) = page.split_once("create secret generic settle ").unwrap();
    let (command, _) = command.split_once("```").unwrap();
    let given: BTreeSet<&str> = command
        .split("--from-file=")
        .skip(1)
        .map(|file| file.split_whitespace().next().unwrap())
        .collect();
    let text = files::read(&format!("{DIRECTORY}/settle.toml"));
    let read: BTreeSet<&str> = examples::secrets_of(&text, SECRETS).into_iter().collect();
    assert_eq!(given, read);
}
