//! The unit for systemd.

use std::fs;
use std::path::Path;
use std::process::Command;

use settle::exit::Exit;

const UNIT: &str = "packaging/settle.service";

/// What `systemd-analyze security` may give, in tenths: it gives 12 today.
const EXPOSURE_MAX: &str = "--threshold=13";

fn unit() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(UNIT)).unwrap()
}

/// The values of a setting.
fn setting(name: &str) -> Vec<String> {
    let unit = unit();
    let lines = unit
        .lines()
        .filter_map(|line| line.strip_prefix(&format!("{name}=")));
    lines.map(str::to_owned).collect()
}

fn analyze(arguments: &[&str], file: &Path) {
    let run = Command::new("systemd-analyze")
        .args(arguments)
        .arg(file)
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{arguments:?}: {said}");
    if arguments[0] == "verify" {
        assert!(said.is_empty(), "{said}");
    }
}

#[test]
fn the_unit_is_valid_and_exposes_little() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("settle.service");
    // Where this machine has the program.
    let here = unit().replace("/usr/local/bin/settle", env!("CARGO_BIN_EXE_settle"));
    fs::write(&file, here).unwrap();
    analyze(&["verify", "--man=no"], &file);
    analyze(
        &["security", "--offline=true", "--no-pager", EXPOSURE_MAX],
        &file,
    );
}

#[test]
fn a_restart_follows_every_failure_that_it_can_cure_and_no_other() {
    assert_eq!(setting("Restart"), ["on-failure"]);
    let excluded = setting("RestartPreventExitStatus");
    let excluded: Vec<u8> = excluded[0]
        .split(' ')
        .map(|code| code.parse().unwrap())
        .collect();
    let incurable = [
        Exit::Usage,
        Exit::BrokenPromise,
        Exit::State,
        Exit::NotAllowed,
        Exit::Configuration,
    ];
    assert_eq!(excluded, incurable.map(Exit::code));
}

#[test]
fn the_service_manager_is_more_patient_than_the_service() {
    let seconds = |name: &str| -> u64 {
        let value = setting(name);
        value[0].strip_suffix('s').unwrap().parse().unwrap()
    };
    let grace = settle::config::Config::load(None, std::iter::empty())
        .unwrap()
        .shutdown
        .grace;
    assert!(seconds("TimeoutStopSec") > grace.as_secs());
    // What `/livez` allows one turn.
    assert!(seconds("WatchdogSec") > 60);
    assert_eq!(setting("Type"), ["notify"]);
}
