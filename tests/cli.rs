//! The program as an operator meets it: output, exit codes, all mistakes at once.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the program in a directory, with nothing of this process's environment.
fn settle_in(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_settle"));
    command
        .current_dir(directory)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied());
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    Run {
        code: status.code(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

fn settle(arguments: &[&str]) -> Run {
    settle_in(empty().path(), arguments, &[])
}

fn empty() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn with_file(text: &str) -> TempDir {
    let directory = empty();
    std::fs::write(directory.path().join("settle.toml"), text).unwrap();
    directory
}

#[test]
fn help_and_version_are_no_mistakes() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["--version"],
        &["topics", "--help"],
    ] {
        let run = settle(arguments);
        assert_eq!(run.code, Some(0), "{arguments:?}");
        assert!(!run.out.is_empty() && run.err.is_empty(), "{arguments:?}");
    }
    let help = settle(&["--help"]).out;
    assert!(
        help.contains("Examples:") && help.contains("Exit codes:"),
        "{help}"
    );
}

#[test]
fn wrong_usage_is_64() {
    for arguments in [
        &[][..],
        &["config"],
        &["sell"],
        &["run", "--fast"],
        &["run", "--log-format", "xml"],
        &["verify", "--from-offset", "3"],
        &["explain"],
        &["dead-letters"],
        &["dead-letters", "list", "--since", "yesterday"],
        &["dead-letters", "replay", "0", "0"],
        &["offsets"],
        &["rules"],
        &["rules", "get", "no key"],
        &["rules", "forget", "no key"],
        &["rules", "put", "m/2025-05-26/PAYMENT/MONEY"],
        &["state"],
        &["state", "get"],
        &["status", "--watch", "now"],
    ] {
        let run = settle(arguments);
        assert_eq!(run.code, Some(64), "{arguments:?}");
        assert!(run.out.is_empty() && !run.err.is_empty(), "{arguments:?}");
    }
}

#[test]
fn doing_it_and_only_saying_so_exclude_each_other() {
    let replay = [
        "dead-letters",
        "replay",
        "0",
        "0",
        "--by",
        "kim",
        "--reason",
        "x",
    ];
    for change in [
        &replay[..],
        &["rules", "forget", "m/2025-05-26/PAYMENT/MONEY"],
    ] {
        let run = settle(&[change, &["--yes", "--dry-run"]].concat());
        assert_eq!(run.code, Some(64), "{}", run.err);
    }
}

#[test]
fn where_nothing_runs_and_nothing_ran_there_is_nothing_to_see() {
    let run = settle(&["status", "--instance", "127.0.0.1:1", "--output", "json"]);
    assert_eq!(run.code, Some(69), "{}", run.err);
    assert!(run.out.contains("no answer"), "{}", run.out);
    for command in [&["state", "describe"][..], &["state", "export"]] {
        let directory = empty();
        let run = settle_in(directory.path(), command, &[]);
        assert_eq!(run.code, Some(74), "{}", run.err);
        assert!(run.err.contains("state.directory"), "{}", run.err);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

#[test]
fn without_a_file_the_defaults_are_valid() {
    let run = settle(&["config", "check"]);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    assert!(
        run.out.starts_with("configuration is valid\n"),
        "{}",
        run.out
    );
}

#[test]
fn the_default_file_is_valid_and_dumps_as_the_defaults() {
    let directory = with_file(&settle(&["config", "default"]).out);
    assert_eq!(
        settle_in(directory.path(), &["config", "check"], &[]).code,
        Some(0)
    );
    let strip = |dump: String| -> Vec<String> {
        dump.lines()
            .map(|line| line.split(" # ").next().unwrap_or_default().to_owned())
            .collect()
    };
    let dump = settle_in(directory.path(), &["config", "dump"], &[]).out;
    assert!(dump.contains("workers = 1 # settle.toml:"), "{dump}");
    assert_eq!(strip(dump), strip(settle(&["config", "dump"]).out));
}

#[test]
fn every_mistake_is_reported_at_once_with_file_line_and_key() {
    let directory = with_file(
        "[pipeline]\nworkers = 0\nbatch = 1\n\n[kafka.properties]\nacks = \"all\"\nlinger.mz = 1\n\n[log]\nfilter = \"settle=loud\"\n",
    );
    for command in [
        &["config", "check"][..],
        &["config", "dump"],
        &["run"],
        &["topics", "plan"],
    ] {
        let run = settle_in(directory.path(), command, &[("SETTLE_RULES__TIMEOUT", "2")]);
        assert_eq!(run.code, Some(78), "{command:?}");
        let lines: Vec<_> = run.err.lines().collect();
        assert_eq!(
            lines[0],
            "settle: the configuration is not valid, 6 errors:"
        );
        assert_eq!(
            lines[1],
            "  settle.toml:2: pipeline.workers: must be between 1 and 64, not 0"
        );
        assert!(
            lines[2].starts_with("  settle.toml:3: pipeline.batch: unknown key"),
            "{}",
            lines[2]
        );
        assert!(
            lines[3].starts_with("  settle.toml:6: kafka.properties.acks: cannot be set: "),
            "{}",
            lines[3]
        );
        assert!(
            lines[4].starts_with("  settle.toml:7: kafka.properties.linger.mz: "),
            "{}",
            lines[4]
        );
        assert!(
            lines[5].starts_with("  settle.toml:10: log.filter: "),
            "{}",
            lines[5]
        );
        assert!(
            lines[6].starts_with("  SETTLE_RULES__TIMEOUT: rules.timeout: must be a duration"),
            "{}",
            lines[6]
        );
    }
}

#[test]
fn a_file_that_was_named_must_exist() {
    let run = settle(&["config", "check", "--config", "elsewhere.toml"]);
    assert_eq!(run.code, Some(78));
    assert!(
        run.err.contains("elsewhere.toml: cannot be read: "),
        "{}",
        run.err
    );
}

#[test]
fn properties_librdkafka_does_not_take_are_mistakes() {
    let directory = with_file(
        "[kafka.properties]\nsecurity.protocol = \"SSL\"\nlinger.mz = 1\nssl.ca.location = 3\n",
    );
    let run = settle_in(
        directory.path(),
        &["config", "check"],
        &[("SETTLE_KAFKA__PROPERTIES__LINGER_MS", "soon")],
    );
    assert_eq!(run.code, Some(78));
    assert!(
        run.err
            .contains("settle.toml:3: kafka.properties.linger.mz: "),
        "{}",
        run.err
    );
    assert!(
        run.err
            .contains("SETTLE_KAFKA__PROPERTIES__LINGER_MS: kafka.properties.linger.ms: "),
        "{}",
        run.err
    );
    assert_eq!(run.err.lines().count(), 3, "{}", run.err);
}

#[test]
fn the_dump_shows_origins_and_no_secrets() {
    let directory = with_file("[postgres]\nurl = \"postgres://settle:hunter2@127.0.0.1/settle\"\n");
    let environment = [
        ("SETTLE_HTTP__TOKEN", "hunter2"),
        ("SETTLE_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
    ];
    let run = settle_in(directory.path(), &["config", "dump"], &environment);
    assert_eq!(run.code, Some(0));
    assert!(!run.out.contains("hunter2"), "{}", run.out);
    for line in [
        "url = \"***\" # settle.toml:2",
        "token = \"***\" # SETTLE_HTTP__TOKEN",
        "\"sasl.password\" = \"***\" # SETTLE_KAFKA__PROPERTIES__SASL_PASSWORD",
        "workers = 1 # default",
        "advertise = \"127.0.0.1:8080\" # as http.listen",
    ] {
        assert!(
            run.out.lines().any(|printed| printed == line),
            "{line}\n{}",
            run.out
        );
    }
}

#[test]
fn a_filter_for_logs_that_does_not_parse_is_a_mistake() {
    let run = settle_in(
        empty().path(),
        &["topics", "plan"],
        &[("RUST_LOG", "settle=loud")],
    );
    assert_eq!(run.code, Some(78));
    assert!(run.err.contains("RUST_LOG"), "{}", run.err);
}

#[test]
fn a_kafka_that_is_not_there_is_unavailable() {
    // Just given up, so nobody listens there.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    drop(taken);
    let is_unavailable = |command: &[&str]| {
        let run = settle_in(
            empty().path(),
            command,
            &[("SETTLE_KAFKA__BOOTSTRAP_SERVERS", &address)],
        );
        assert_eq!(run.code, Some(69), "{command:?}: {}", run.err);
        let told = format!("Kafka at {address} cannot be reached: ");
        assert!(run.err.contains(&told), "{command:?}: {}", run.err);
    };
    let commands = [
        &["topics", "plan"][..],
        &["verify"],
        &["explain", "some-payment"],
        &["dead-letters", "list"],
    ];
    // Each waits for ten seconds.
    std::thread::scope(|scope| {
        for command in commands {
            scope.spawn(|| is_unavailable(command));
        }
    });
}
