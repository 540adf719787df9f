//! The program itself: beside instances under load that are killed, and on what they leave behind.

use std::process::Command;
use std::thread;

use chaos::cluster::wait;
use chaos::workload::send::{self, SendOptions};
use serde_json::Value;

use crate::line::{LIMIT, Line, day};

/// Kills, each with a verification under way.
const KILLS: usize = 6;
/// Between two kills so many outcomes become visible, at least.
const PROGRESS: u64 = 300;

struct Verified {
    code: Option<i32>,
    report: Value,
    text: String,
}

fn verify(line: &Line, arguments: &[&str]) -> Verified {
    let output = Command::new(env!("CARGO_BIN_EXE_settle"))
        .args(["verify", "--output", "json", "--config"])
        .arg(line.options(0).config_file())
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Verified {
        code: output.status.code(),
        report: serde_json::from_str(&text).unwrap_or_default(),
        text: text + &errors,
    }
}

#[test]
fn beside_instances_that_are_killed_under_load_there_is_no_false_alarm() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut line = Line::new("alarm").with_database();
    line.start(2);
    let tail = line.tail();
    let sending = SendOptions {
        per_second: Some(800),
        ..line.sending()
    };
    send::during(&sending, day(seed, 1_000_000), || {
        for kill in 0..KILLS {
            let before = tail.seen().unwrap().total();
            wait::until("progress before the kill", LIMIT, || {
                let seen = tail.seen()?.total();
                Ok((seen >= before + PROGRESS).then_some(()))
            })
            .unwrap();
            let verified = thread::scope(|beside| {
                let verified = beside.spawn(|| verify(&line, &[]));
                line.instances[kill % 2].kill();
                verified.join().unwrap()
            });
            assert_eq!(verified.code, Some(0), "kill {kill}: {}", verified.text);
            let read = verified.report["sourceRecords"].as_u64().unwrap();
            eprintln!("kill {kill}: {read} source records judged");
            assert!(read >= before / 2, "{}", verified.text);
            line.instances[kill % 2].restart().unwrap();
        }
    })
    .unwrap();
    line.settle();
    let verified = verify(&line, &["--at-rest"]);
    assert_eq!(verified.code, Some(0), "{}", verified.text);
    assert_eq!(verified.report["basesOnTheirWay"], 0, "{}", verified.text);
}

/// The numbers of the promises that a report calls broken.
fn broken(verified: &Verified) -> Vec<u64> {
    let promises = verified.report["promises"].as_array().unwrap();
    let broken = promises.iter().filter(|promise| promise["breaches"] != 0);
    broken
        .map(|promise| promise["promise"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_settlement_that_someone_adds_is_found_and_the_exit_code_says_so() {
    let mut line = Line::new("added");
    line.start(1);
    line.send(day(72, 500));
    line.settle();
    let clean = verify(&line, &["--at-rest"]);
    assert_eq!(clean.code, Some(0), "{}", clean.text);
    let mut copy = None;
    line.read(&line.names.settlements, |record| {
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        copy = Some((record.partition, text(record.key), text(record.value)));
    });
    let (partition, key, value) = copy.unwrap();
    line.produce(&line.names.settlements, partition, &key, Some(&value));
    let verified = verify(&line, &[]);
    assert_eq!(verified.code, Some(1), "{}", verified.text);
    // Its total does not count it either.
    assert_eq!(broken(&verified), [1, 2], "{}", verified.text);
    let at_rest = verify(&line, &["--at-rest"]);
    assert_eq!(at_rest.code, Some(1), "{}", at_rest.text);
    line.terminate(0);
}
