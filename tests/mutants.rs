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

#[test]
fn every_mutant_says_what_it_breaks_and_names_its_test() {
    for patch in patches() {
        let text = fs::read_to_string(&patch).unwrap();
        let head = text.split("\n---").next().unwrap();
        let names_test = head.lines().any(|line| {
            line.starts_with("# Test: cargo test ") || line.starts_with("# Caught by ")
        });
        assert!(names_test, "{}", patch.display());
        assert!(head.starts_with("# Breaks"), "{}", patch.display());
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
