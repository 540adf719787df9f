//! The mutants are up to date: each patch applies to the code as it is, names the test that notices it, and stands in
//! `docs/proof.md` beside the guarantee that it breaks. `./dev mutants` runs them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn patches() -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(ROOT).join("tests/mutants")).unwrap();
    let mut patches: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    patches.sort();
    patches
}

fn name(patch: &Path) -> String {
    patch.file_stem().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn every_mutant_applies_to_the_code_as_it_is() {
    for patch in patches() {
        let output = Command::new("git")
            .args(["apply", "--check"])
            .arg(&patch)
            .current_dir(ROOT)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", patch.display());
    }
}

/// All source files below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let below = entries.flat_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path)
        } else {
            vec![path]
        }
    });
    let is_source = |path: &PathBuf| path.extension().is_some_and(|end| end == "rs");
    below.filter(is_source).collect()
}

/// Names of all functions, and of all modules of the service.
fn functions_and_modules() -> Vec<String> {
    let mut names = Vec::new();
    for directory in ["src", "tests"].map(|name| Path::new(ROOT).join(name)) {
        for path in sources(&directory) {
            let text = fs::read_to_string(&path).unwrap();
            let functions = text.split("fn ").skip(1);
            names.extend(functions.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
            let module = path.strip_prefix(&directory).unwrap().with_extension("");
            names.push(module.to_str().unwrap().replace('/', "::"));
        }
    }
    names
}

#[test]
fn every_mutant_says_what_it_breaks_and_names_a_test_that_there_is() {
    let names = functions_and_modules();
    for patch in patches() {
        let text = fs::read_to_string(&patch).unwrap();
        let head = text.split("\n---").next().unwrap();
        assert!(head.starts_with("# Breaks"), "{}", patch.display());
        let mut tests = head.lines().filter_map(|line| {
            let command = line.strip_prefix("# Test: cargo test ");
            let caught = line.strip_prefix("# Caught by ");
            command
                .or(caught)?
                .trim_end_matches('.')
                .split(' ')
                .next_back()
        });
        let test = tests
            .next()
            .unwrap_or_else(|| panic!("{}", patch.display()));
        let is_there = names.iter().any(|name| name.contains(test));
        assert!(is_there, "{}: {test}", patch.display());
    }
}

#[test]
fn every_mutant_stands_beside_its_guarantee() {
    let proof = fs::read_to_string(Path::new(ROOT).join("docs/proof.md")).unwrap();
    let rows = proof.lines().filter(|line| line.starts_with("| "));
    let last_cells = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let named: BTreeSet<&str> = last_cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|word| !word.contains(' ') && (word.contains('-') || word.contains('_')))
        .collect();
    for patch in patches() {
        let name = name(&patch);
        assert!(
            named.contains(name.as_str()),
            "docs/proof.md does not name {name}"
        );
    }
    for name in named {
        let patch = Path::new(ROOT).join(format!("tests/mutants/{name}.patch"));
        assert!(patch.is_file(), "docs/proof.md names {name}");
    }
}
