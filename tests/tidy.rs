//! The shape of the source tree: who may import whom, who may name which vendor, how long a file
//! may grow.
//!
//! [`LAYERS`] is the architecture. The crate doc explains it, in the same order; a change of one is
//! a change of both.

#![expect(
    clippy::unwrap_used,
    reason = "a tree that cannot be read has failed the test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use settle::metrics;

/// Each module with the modules it imports, lowest layer first: a module sees only what stands
/// before it, so there is no cycle.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &[]),
    ("lock", &[]),
    ("exit", &[]),
    ("tls", &[]),
    ("failpoint", &[]),
    ("config", &[]),
    ("codec", &["domain"]),
    (
        "broker",
        &["domain", "clock", "exit", "failpoint", "config"],
    ),
    ("topics", &["exit", "config", "broker"]),
    (
        "state",
        &["domain", "clock", "failpoint", "codec", "broker"],
    ),
    ("rules", &["domain", "clock", "lock", "failpoint", "codec"]),
    ("metrics", &["domain"]),
    (
        "engine",
        &[
            "domain",
            "clock",
            "failpoint",
            "codec",
            "broker",
            "state",
            "rules",
            "metrics",
        ],
    ),
    (
        "sink",
        &[
            "domain",
            "clock",
            "lock",
            "exit",
            "tls",
            "failpoint",
            "config",
            "codec",
            "broker",
        ],
    ),
    (
        "http",
        &[
            "domain", "clock", "tls", "config", "codec", "state", "metrics", "engine",
        ],
    ),
    ("notify", &["clock", "engine"]),
    ("telemetry", &["clock"]),
    (
        "app",
        &[
            "domain",
            "clock",
            "exit",
            "tls",
            "failpoint",
            "config",
            "broker",
            "topics",
            "state",
            "rules",
            "metrics",
            "engine",
            "sink",
            "http",
            "notify",
        ],
    ),
    // No `domain`, no `engine`, no `state`: what proves the pipeline shares none of its decisions.
    (
        "verify",
        &["clock", "exit", "config", "codec", "broker", "sink"],
    ),
    (
        "inspect",
        &[
            "domain", "exit", "config", "codec", "broker", "state", "sink", "http", "verify",
        ],
    ),
    (
        "operate",
        &[
            "domain", "clock", "exit", "config", "codec", "broker", "verify", "inspect",
        ],
    ),
    (
        "positions",
        &[
            "domain", "clock", "exit", "config", "codec", "broker", "topics", "engine",
        ],
    ),
    (
        "cli",
        &[
            "clock",
            "exit",
            "tls",
            "config",
            "broker",
            "topics",
            "http",
            "telemetry",
            "app",
            "verify",
            "inspect",
            "operate",
            "positions",
        ],
    ),
];

/// Each vendor with the one place that may name it.
const OWNERS: &[(&str, &str)] = &[
    ("rdkafka", "src/broker/"),
    ("redb", "src/state/"),
    ("rustix", "src/state/"),
    ("reqwest", "src/rules/"),
    ("tokio_postgres", "src/sink/"),
    ("native_tls", "src/tls.rs"),
    ("postgres_native_tls", "src/sink/"),
    ("axum", "src/http/"),
    ("hyper_tls", "src/http/"),
    ("tokio_native_tls", "src/http/"),
    ("hyper", "src/http/"),
    ("hyper_util", "src/http/"),
    ("::metrics", "src/metrics/"),
    ("metrics_exporter_prometheus", "src/metrics/"),
    ("metrics_process", "src/metrics/"),
    ("sd_notify", "src/notify.rs"),
    ("tracing_subscriber", "src/telemetry/"),
];

/// Lines of a file that are neither blank nor a comment nor its unit tests.
const CODE_LINES_MAX: usize = 500;

#[test]
fn modules_import_exactly_what_the_layer_table_says() {
    let mut wrong = Vec::new();
    for (place, (module, allowed)) in LAYERS.iter().enumerate() {
        let below: BTreeSet<_> = LAYERS[..place].iter().map(|(name, _)| *name).collect();
        let allowed: BTreeSet<_> = allowed.iter().copied().collect();
        for upward in allowed.difference(&below) {
            wrong.push(format!(
                "the table lets {module} see {upward}, not below it"
            ));
        }
        let used = imports(module);
        let used: BTreeSet<_> = used.iter().map(String::as_str).collect();
        for forbidden in used.difference(&allowed) {
            wrong.push(format!("{module} may not import {forbidden}"));
        }
        for unused in allowed.difference(&used) {
            wrong.push(format!(
                "{module} does not import {unused}, the table says so"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_module_stands_in_the_layer_table_and_in_the_crate_doc_in_the_same_order() {
    let root = text("src/lib.rs");
    let table: Vec<_> = LAYERS.iter().map(|(module, _)| *module).collect();
    let (_, documented) = root.split_once("//! # Layers").unwrap();
    let documented: Vec<_> = documented
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`")?.split_once('`'))
        .map(|(module, _)| module)
        .collect();
    assert_eq!(documented, table);
    let declared: BTreeSet<_> = root
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    assert_eq!(declared, table.into_iter().collect());
}

#[test]
fn imports_are_spelt_so_that_the_layer_test_sees_them() {
    for (path, code) in sources("src") {
        for hidden in ["crate::{", "super::super", "use crate as", "use crate::*"] {
            assert!(!code.contains(hidden), "{path}: {hidden}");
        }
    }
    assert!(!text("src/lib.rs").contains("pub use"), "src/lib.rs");
}

#[test]
fn each_vendor_is_named_in_one_place() {
    for (path, code) in sources("src") {
        for (vendor, owner) in OWNERS {
            if path.starts_with(owner) {
                continue;
            }
            assert!(!names_crate(&code, vendor), "{path} names {vendor}");
        }
    }
}

/// Files that meet the client library in C, and the one that kills this process in tests.
const UNSAFE: [&str; 8] = [
    "src/broker/bootstrap.rs",
    "src/broker/call.rs",
    "src/broker/ends.rs",
    "src/broker/leaders.rs",
    "src/broker/native.rs",
    "src/broker/operations.rs",
    "src/broker/signals.rs",
    "src/failpoint/armed.rs",
];

#[test]
fn only_what_meets_the_client_library_in_c_and_armed_failpoints_are_unsafe() {
    for (path, code) in sources("src") {
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(
            UNSAFE.contains(&path.as_str()) || words.into_iter().all(|word| word != "unsafe"),
            "{path}"
        );
    }
}

#[test]
fn metric_names_are_written_down_once() {
    for (path, code) in sources("src") {
        if path.starts_with("src/metrics/") {
            continue;
        }
        for metric in metrics::ALL {
            assert!(!code.contains(metric.name), "{path}: {}", metric.name);
        }
    }
}

#[test]
fn every_failpoint_is_reached_in_one_place() {
    let code: Vec<_> = sources("src")
        .into_iter()
        .filter(|(path, _)| !path.starts_with("src/failpoint/"))
        .collect();
    for (point, name) in failpoints() {
        let reached = |code: &str| {
            let calls = code.match_indices("Point::");
            calls
                .filter(|(at, word)| {
                    let rest = &code[at + word.len()..];
                    let end = rest.find(|c: char| !c.is_alphanumeric());
                    rest[..end.unwrap_or(rest.len())] == *point
                })
                .count()
        };
        let places: usize = code.iter().map(|(_, code)| reached(code)).sum();
        assert_eq!(places, 1, "{point} is reached in so many places");
        for (path, code) in &code {
            assert!(!code.contains(&format!("\"{name}\"")), "{path}: {name}");
        }
    }
}

#[test]
fn a_binary_without_the_feature_knows_no_failpoint() {
    let binary = fs::read(env!("CARGO_BIN_EXE_settle")).unwrap();
    let binary = String::from_utf8_lossy(&binary);
    let holds = |text: &str| binary.contains(text);
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let features = manifest["features"].as_table().unwrap();
    assert!(!features.contains_key("default"), "{features:?}");
    // What this test would find if it were there.
    assert!(holds("state.directory"));
    let names = failpoints().into_iter().map(|(_, name)| name);
    for text in names.chain(["FAILPOINTS".to_owned(), "FAILPOINT_SOCKET".to_owned()]) {
        assert_eq!(holds(&text), cfg!(feature = "failpoints"), "{text}");
    }
}

/// The registry as it is written down: variants and names.
fn failpoints() -> Vec<(String, String)> {
    let registry = text("src/failpoint/mod.rs");
    let (_, list) = registry.split_once("\npoints! {").unwrap();
    let (list, _) = list.split_once('}').unwrap();
    let found: Vec<_> = list
        .lines()
        .filter_map(|line| line.trim().strip_suffix("\",")?.split_once(" = \""))
        .map(|(point, name)| (point.to_owned(), name.to_owned()))
        .collect();
    assert!(found.len() > 50, "{found:?}");
    found
}

#[test]
fn files_are_short_and_open_with_what_they_own() {
    let roots = ["src", "tests", "chaos/src", "chaos/tests"];
    for (path, code) in roots.into_iter().flat_map(sources) {
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= CODE_LINES_MAX, "{path}: {lines} lines of code");
        assert!(text(&path).starts_with("//! "), "{path}");
    }
}

#[test]
fn what_proves_the_service_does_not_link_it() {
    let manifest: toml::Table = text("chaos/Cargo.toml").parse().unwrap();
    assert!(
        !manifest["dependencies"]
            .as_table()
            .unwrap()
            .contains_key("settle")
    );
    for (path, code) in sources("chaos/src")
        .into_iter()
        .chain(sources("chaos/tests"))
    {
        assert!(!names_crate(&code, "settle"), "{path}");
    }
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let here = env!("CARGO_MANIFEST_DIR");
    let homes = ["/home", "/root", "/Users"].map(|home| format!("{home}/"));
    // What .gitignore names, and what git and other tools keep.
    let left_out = ["target", "data", "node_modules"];
    let is_kept_by_tools = |name: &str| name.starts_with('.') && name != ".ci";
    let mut all = Vec::new();
    for entry in fs::read_dir(here).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let is_directory = entry.file_type().unwrap().is_dir();
        if left_out.contains(&&*name) || is_directory && is_kept_by_tools(&name) {
            continue;
        }
        if is_directory {
            all.extend(files(&name, ""));
        } else {
            all.push(name);
        }
    }
    assert!(all.contains(&"Cargo.toml".to_owned()), "{all:?}");
    for path in all {
        // Pictures.
        let Ok(text) = fs::read_to_string(Path::new(here).join(&path)) else {
            continue;
        };
        // A checkout directly under the root may be called like anything.
        assert!(
            here.matches('/').count() < 2 || !text.contains(here),
            "{path}"
        );
        assert!(homes.iter().all(|home| !text.contains(home)), "{path}");
    }
}

/// What the code of a module imports of the others.
fn imports(module: &str) -> BTreeSet<String> {
    let (file, directory) = (format!("src/{module}.rs"), format!("src/{module}/"));
    let of_module = sources("src")
        .into_iter()
        .filter(|(path, _)| *path == file || path.starts_with(&directory))
        .filter(|(path, _)| !path.ends_with("/tests.rs"));
    let mut imports: BTreeSet<String> = of_module
        .flat_map(|(_, code)| {
            let after = code.split("crate::").skip(1);
            let names = after.map(|rest| {
                let name = rest.chars();
                name.take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect()
            });
            names.collect::<Vec<String>>()
        })
        .collect();
    imports.remove(module);
    imports
}

/// Whether a path of this code begins with the crate's name.
fn names_crate(code: &str, name: &str) -> bool {
    let path = format!("{name}::");
    code.match_indices(&path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// Every Rust file below a directory, with its code: neither comments nor unit tests.
fn sources(root: &str) -> Vec<(String, String)> {
    let with_code = |path: String| {
        let text = text(&path);
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        (path, code)
    };
    let found: Vec<_> = files(root, "rs").into_iter().map(with_code).collect();
    assert!(!found.is_empty(), "{root} has no sources");
    found
}

/// The files below a directory with this extension, all when it is empty; relative to the project.
fn files(root: &str, extension: &str) -> Vec<String> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending = vec![base.join(root)];
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(path).unwrap();
            pending.extend(entries.map(|entry| entry.unwrap().path()));
        } else if extension.is_empty() || path.extension().is_some_and(|of| of == extension) {
            found.push(
                path.strip_prefix(base)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    found.sort();
    found
}

fn text(path: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
