//! `README.md` says what the program says: configuration, exit codes, metrics, topics, tables, commands, tests and files
//! that it names are there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use settle::config::keys::{Fallback, KEYS};
use settle::exit;
use settle::metrics;

#[expect(dead_code, reason = "shared with the tests of operations")]
#[path = "operations/files.rs"]
mod files;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What a word in code must begin with to be taken for a path of this repository.
const DIRECTORIES: [&str; 6] = ["src/", "tests/", "chaos/", "docs/", "packaging/", ".ci/"];

/// Names of tests are sentences: they have more underscores than any other name in code.
const UNDERSCORES_OF_A_TEST: usize = 3;

fn readme() -> String {
    fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap()
}

/// The text under a heading, up to the next one of any level.
fn section<'a>(readme: &'a str, heading: &str) -> &'a str {
    let (_, after) = readme.split_once(&format!("\n{heading}\n")).unwrap();
    after.split_once("\n#").map_or(after, |(text, _)| text)
}

/// Lines of prose and tables, without blocks of code.
fn prose(readme: &str) -> String {
    let parts = readme.split("\n```");
    parts.step_by(2).collect::<Vec<_>>().join("\n")
}

/// What stands in blocks that begin with the given language.
fn blocks<'a>(readme: &'a str, language: &str) -> Vec<&'a str> {
    let parts = readme.split("\n```").skip(1).step_by(2);
    parts
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .collect()
}

/// Words in code, outside of blocks.
fn spans(readme: &str) -> Vec<String> {
    let prose = prose(readme);
    prose
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// Cells of the rows of the first table in a text, its head aside.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let table = text
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    table
        .skip(2)
        .map(|line| {
            let inner = line.strip_prefix("| ").unwrap().strip_suffix('|').unwrap();
            inner.split(" | ").map(str::trim).collect()
        })
        .collect()
}

/// Files under a directory whose name ends so.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(ROOT).join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn every_exit_code_stands_in_the_table_with_its_meaning() {
    let readme = readme();
    let table: Vec<(&str, &str)> = rows(section(&readme, "### Exit codes"))
        .into_iter()
        .map(|cells| (cells[0], cells[1]))
        .collect();
    let expected: Vec<(&str, &str)> = exit::MEANINGS
        .lines()
        .skip(1)
        .map(|line| line.trim().split_once("  ").unwrap())
        .collect();
    assert_eq!(table, expected);
}

#[test]
fn every_metric_that_is_named_is_in_the_registry() {
    let spans = spans(&readme());
    let named: Vec<&String> = spans
        .iter()
        .filter(|span| span.starts_with("settle_"))
        .collect();
    assert!(!named.is_empty());
    for name in named {
        let known = metrics::ALL.iter().any(|metric| metric.name == name);
        assert!(known, "{name}");
    }
}

#[test]
fn every_message_that_is_quoted_is_one_of_the_program() {
    let sources: Vec<String> = files("src", ".rs").into_iter().map(unbroken).collect();
    let readme = readme();
    let quoted: Vec<String> = spans(section(&readme, "## What happens when something fails"))
        .into_iter()
        .filter(|span| span.contains(' '))
        .collect();
    assert!(!quoted.is_empty());
    for text in quoted {
        let is_there = sources.iter().any(|source| source.contains(&text));
        assert!(is_there, "{text}");
    }
}

/// A source with the literals that go over several lines on one.
fn unbroken(path: PathBuf) -> String {
    let source = fs::read_to_string(path).unwrap();
    let mut out = String::new();
    for line in source.lines().map(str::trim) {
        if let Some(begun) = line.strip_suffix('\\') {
            out.push_str(begun);
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[test]
fn every_topic_and_every_table_is_listed() {
    let readme = readme();
    let first_cells = |heading: &str| -> BTreeSet<String> {
        let rows = rows(section(&readme, heading));
        let cells = rows.iter().map(|cells| cells[0].trim_matches('`'));
        cells.map(str::to_owned).collect()
    };
    let topics: BTreeSet<String> = KEYS
        .iter()
        .filter(|key| format!("{:?}", key.kind) == "Topic")
        .map(|key| match key.default {
            Fallback::Text(name) => name.to_owned(),
            other => panic!("{}: {other:?}", key.path),
        })
        .collect();
    assert_eq!(first_cells("## Topics"), topics);
    let mut tables = BTreeSet::new();
    for migration in files("src/sink/migrations", ".sql") {
        let text = fs::read_to_string(migration).unwrap();
        let after = text.split("CREATE TABLE IF NOT EXISTS settle.").skip(1);
        tables.extend(after.map(|text| text.split_whitespace().next().unwrap().to_owned()));
    }
    assert_eq!(first_cells("## PostgreSQL"), tables);
}

#[test]
fn every_link_leads_somewhere() {
    let readme = readme();
    let prose = prose(&readme);
    let targets = prose.split("](").skip(1);
    let targets: Vec<&str> = targets
        .map(|rest| rest.split_once(')').unwrap().0)
        .filter(|target| !target.starts_with("https://"))
        .collect();
    assert!(!targets.is_empty());
    for target in targets {
        let (path, wanted) = target.split_once('#').unwrap_or((target, ""));
        let file = Path::new(ROOT).join(if path.is_empty() { "README.md" } else { path });
        assert!(file.exists(), "{target}");
        if !wanted.is_empty() {
            let text = fs::read_to_string(&file).unwrap();
            let mut headings = text.lines().filter(|line| line.starts_with('#'));
            let leads =
                headings.any(|line| files::anchor(line.trim_start_matches(['#', ' '])) == wanted);
            assert!(leads, "{target}");
        }
    }
}

#[test]
fn every_file_that_is_named_is_there() {
    let readme = readme();
    let spans = spans(&readme);
    let layout = blocks(section(&readme, "## Layout"), "text")
        .concat()
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect::<Vec<_>>();
    assert!(!layout.is_empty());
    let named = spans
        .iter()
        .filter(|span| DIRECTORIES.iter().any(|start| span.starts_with(start)));
    for path in named.chain(&layout) {
        assert!(Path::new(ROOT).join(path).exists(), "{path}");
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let sources: Vec<String> = ["src", "tests", "chaos/src", "chaos/tests"]
        .into_iter()
        .flat_map(|directory| files(directory, ".rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let is_test = |span: &&String| {
        let is_name = span
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        is_name
            && span.matches('_').count() >= UNDERSCORES_OF_A_TEST
            && !span.starts_with("settle_")
            && !span.starts_with("__")
            && !Path::new(ROOT)
                .join(format!("tests/mutants/{span}.patch"))
                .exists()
    };
    let proof = fs::read_to_string(Path::new(ROOT).join("docs/proof.md")).unwrap();
    for text in [readme(), proof] {
        let spans = spans(&text);
        let named: Vec<&String> = spans.iter().filter(is_test).collect();
        assert!(!named.is_empty());
        for name in named {
            let definition = format!("fn {name}()");
            let exists = sources.iter().any(|source| source.contains(&definition));
            assert!(exists, "{name}");
        }
    }
}

#[test]
fn every_command_of_dev_is_one_that_its_help_lists() {
    let help = Command::new(Path::new(ROOT).join("dev"))
        .arg("help")
        .output()
        .unwrap();
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    let listed: BTreeSet<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    let readme = readme();
    let named: BTreeSet<&str> = readme
        .split("./dev ")
        .skip(1)
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_lowercase());
            &rest[..end.unwrap_or(rest.len())]
        })
        .collect();
    assert!(named.contains("demo") && named.contains("test"));
    assert!(named.is_subset(&listed), "{named:?} in {listed:?}");
}

#[test]
fn every_command_of_the_program_is_one() {
    let spans = spans(&readme());
    let commands: BTreeSet<Vec<&str>> = spans
        .iter()
        .filter_map(|span| span.strip_prefix("settle "))
        .map(|words| words.split_whitespace().collect())
        .collect();
    assert!(commands.contains(["run"].as_slice()));
    for command in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_settle"))
            .args(&command)
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success(), "{command:?}");
    }
}

#[test]
fn the_smallest_configuration_is_valid() {
    let readme = readme();
    let examples = blocks(&readme, "toml");
    assert!(!examples.is_empty());
    for example in examples {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("settle.toml"), example).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_settle"))
            .args(["config", "check"])
            .current_dir(&directory)
            .env_clear()
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
    }
}
