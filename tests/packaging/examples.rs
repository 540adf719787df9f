//! `packaging/settle.toml` is a configuration that the program takes without a warning.

use std::fs;

use crate::files;

/// Checks a configuration file whose secrets lie in `secrets`; returns what then holds.
pub fn check(text: &str, secrets: &str, environment: &[(&str, &str)]) -> toml::Table {
    let directory = tempfile::tempdir().unwrap();
    // Whatever is asked for is there.
    let here = directory.path().display().to_string();
    for name in secrets_of(text, secrets) {
        let content = if name.ends_with("url") {
            "postgres://settle:secret@db:5432/settle"
        } else {
            "secret"
        };
        fs::write(directory.path().join(name), content).unwrap();
    }
    let text = text.replace(secrets, &here);
    fs::write(directory.path().join("settle.toml"), text).unwrap();
    let run = |command| {
        let output = files::settle(
            ["config", command],
            directory.path(),
            environment.iter().copied(),
        );
        assert!(output.status.success(), "{}", files::said(&output));
        files::said(&output)
    };
    assert_eq!(run("check"), "configuration is valid\n");
    run("dump").parse().unwrap()
}

/// Names of the files in this directory that a configuration reads.
pub fn secrets_of<'a>(text: &'a str, directory: &str) -> Vec<&'a str> {
    let paths = text.lines().filter(|line| line.contains("_file"));
    let names = paths.map(|line| {
        let path = line.split('"').rev().nth(1).unwrap();
        let name = path.strip_prefix(directory).unwrap();
        name.strip_prefix('/').unwrap()
    });
    names.collect()
}

#[test]
fn the_example_for_production_is_valid_and_leaves_nothing_to_warn_of() {
    let text = files::read("packaging/settle.toml");
    let holds = check(&text, "/etc/settle", &[]);
    assert_eq!(holds["topics"]["replication_factor"].as_integer(), Some(3));
    assert_eq!(holds["topics"]["create"].as_bool(), Some(false));
    assert!(holds.contains_key("postgres"));
    assert_eq!(secrets_of(&text, "/etc/settle").len(), 3);
}
