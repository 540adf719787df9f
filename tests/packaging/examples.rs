//! `packaging/settle.toml` is a configuration that the program takes without a warning.

use std::collections::BTreeSet;
use std::fs;

use crate::files;
use crate::program;

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
        let output = program::settle(
            ["config", command],
            directory.path(),
            environment.iter().copied(),
        );
        assert!(output.status.success(), "{}", program::said(&output));
        program::said(&output)
    };
    assert_eq!(
        run("check"),
        format!("configuration is valid\n{IN_THE_CLEAR}")
    );
    run("dump").parse().unwrap()
}

/// The one thing that is left to whoever deploys: certificates.
const IN_THE_CLEAR: &str = "warning: http.listen is 0.0.0.0:8080 and there is no http.certificate_file: the token \
                            passes in the clear\n";

/// Names of the files in this directory that a configuration reads.
pub fn secrets_of<'a>(text: &'a str, directory: &str) -> Vec<&'a str> {
    let settings = text.lines().filter(|line| !line.starts_with('#'));
    let paths = settings.filter(|line| line.contains("_file"));
    let names = paths.map(|line| {
        let path = line.split('"').rev().nth(1).unwrap();
        let name = path.strip_prefix(directory).unwrap();
        name.strip_prefix('/').unwrap()
    });
    names.collect()
}

#[test]
fn the_example_for_production_is_valid_and_warns_of_nothing_but_http_in_the_clear() {
    let text = files::read("packaging/settle.toml");
    let holds = check(&text, "/etc/settle", &[]);
    assert_eq!(holds["topics"]["replication_factor"].as_integer(), Some(3));
    assert_eq!(holds["topics"]["create"].as_bool(), Some(false));
    assert!(holds.contains_key("postgres"));
    assert_eq!(secrets_of(&text, "/etc/settle").len(), 3);
}

#[test]
fn the_unit_gives_the_service_every_secret_that_only_root_can_read() {
    let unit = files::read("packaging/settle.service.d/credentials.conf");
    let text = files::read("packaging/settle.toml");
    let values = |begin: &'static str| {
        unit.lines()
            .filter_map(move |line| line.strip_prefix(begin))
    };
    let loaded: BTreeSet<&str> = values("LoadCredential=")
        .map(|credential| {
            let (name, path) = credential.split_once(':').unwrap();
            assert_eq!(path, format!("/etc/settle/{name}"));
            name
        })
        .collect();
    assert_eq!(
        loaded,
        secrets_of(&text, "/etc/settle").into_iter().collect()
    );

    // The files themselves are not there for the service: what the variables name is.
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().display().to_string();
    for name in &loaded {
        fs::write(directory.path().join(name), "postgres://settle@db/settle").unwrap();
    }
    fs::write(directory.path().join("settle.toml"), &text).unwrap();
    let check = |environment: &[(String, String)]| {
        let environment = environment.iter().cloned();
        program::settle(["config", "check"], directory.path(), environment)
    };
    let environment: Vec<(String, String)> = values("Environment=")
        .map(|variable| {
            let (name, value) = variable.split_once('=').unwrap();
            (name.to_owned(), value.replace("%d", &here))
        })
        .collect();
    let output = check(&environment);
    assert!(output.status.success(), "{}", program::said(&output));
    for missing in 0..environment.len() {
        let mut fewer = environment.clone();
        fewer.remove(missing);
        assert_eq!(check(&fewer).status.code(), Some(78), "{missing}");
    }
}
