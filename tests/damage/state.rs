//! State files that are not what was written, and a disk that is really full. What else can happen to them is in
//! `tests/pipeline/state.rs` and `tests/pipeline/syscalls.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use chaos::workload::day::{Day, DayOptions};
use redb::{Database, TableDefinition};

use crate::line::{LIMIT, count, day};
use crate::operator::{STATE, assert_contains, entries, line};

const SEED: u64 = 351;
const PART: usize = 700;

const META: TableDefinition<&str, &str> = TableDefinition::new("meta");

fn zero(file: &Path) {
    let length = fs::metadata(file).unwrap().len();
    fs::write(file, vec![0; usize::try_from(length).unwrap()]).unwrap();
}

/// As a later version of the program would have left it.
fn renew_layout(file: &Path) {
    let database = Database::open(file).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut meta = write.open_table(META).unwrap();
        let old = meta.insert("layout", "2").unwrap();
        assert!(old.is_some_and(|old| old.value() == "1"));
    }
    write.commit().unwrap();
}

#[test]
fn zeroed_files_and_files_of_a_newer_version_are_set_aside_and_rebuilt() {
    let mut line = line("zeroed");
    line.start(1);
    line.send(day(SEED, 3 * PART as u64).take(PART));
    line.settle();
    line.terminate(0);
    let state = line.instances[0].options().state_directory();
    for kind in ["ingest", "settle"] {
        for (number, harm) in [zero, zero, renew_layout, renew_layout]
            .into_iter()
            .enumerate()
        {
            harm(&state.join(format!("{kind}-{number}.redb")));
        }
    }
    line.restart(0);
    line.send(day(SEED, 3 * PART as u64).take(100));
    line.send(day(SEED, 3 * PART as u64).skip(PART));
    let proof = line.prove();
    assert!(count(&proof, "DUPLICATE") >= 70, "{:?}", proof.tally);
    let log = line.log(0);
    assert_eq!(entries(&log, "local state is damaged").len(), 8);
    assert_eq!(log.matches("its layout is").count(), 4, "{log}");
}

#[test]
fn a_full_disk_ends_it_with_the_directory_and_nothing_is_lost_when_there_is_room_again() {
    let mut line = line("full");
    line.start(1);
    line.send(day(SEED, PART as u64));
    line.settle();
    line.terminate(0);
    let whole = line.instances[0].options().clone();
    let files = fs::read_dir(whole.state_directory()).unwrap();
    let sizes = files.map(|file| file.unwrap().metadata().unwrap().len());
    // Nothing behind the first half of the largest file can be written: as on a full disk, with EFBIG.
    let blocks = sizes.max().unwrap() / 2 / 512;
    let script = whole.directory.join("limited");
    let text = format!(
        "#!/bin/sh\ntrap '' XFSZ\nulimit -f {blocks}\nexec '{}' \"$@\"\n",
        env!("CARGO_BIN_EXE_settle"),
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut limited = whole.clone();
    limited.binary = script;
    line.instances[0].restart_with(limited).unwrap();
    line.send(Day::new(DayOptions {
        is_plain: true,
        ..DayOptions::new(SEED + 1, 40_000, 4)
    }));
    let status = line.instances[0].wait_exit(LIMIT).unwrap();
    assert_eq!(status.code(), Some(STATE), "{}", line.instances[0].tail());
    let state = whole.state_directory().display().to_string();
    assert_contains(&line.log(0), &[&state, "state.directory", "File too large"]);
    // Still full.
    line.instances[0].restart().unwrap();
    let status = line.instances[0].wait_exit(LIMIT).unwrap();
    assert_eq!(status.code(), Some(STATE), "{}", line.instances[0].tail());
    line.instances[0].restart_with(whole).unwrap();
    line.prove();
}
