//! The system calls of the state files fail, or the process dies in them. strace(1) does it, so that the binary under
//! test is the one without failpoints.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use chaos::cluster::instance::InstanceOptions;

use crate::kills::settled_and_killed;
use crate::line::{LIMIT, Line, PARTITIONS};
use crate::moving::under_load_of;

/// Payments per second; a traced process is slow.
const RATE: u32 = 200;
/// `sysexits.h`: the state directory cannot be used.
const EXIT_STATE: i32 = 74;
const WRITES: [&str; 3] = ["pwrite64", "fdatasync", "ftruncate"];

/// An instance that strace starts.
struct Traced {
    options: InstanceOptions,
    trace: PathBuf,
}

impl Traced {
    /// `inject` is what strace(1) calls a tampering: `fdatasync:error=EIO:when=2`; calls of a thread are counted, on
    /// these files only.
    fn new(options: &InstanceOptions, files: &[PathBuf], inject: &str) -> Self {
        fs::create_dir_all(&options.directory).unwrap();
        let trace = options.directory.join("trace");
        let script = options.directory.join("traced");
        let call = inject.split(':').next().unwrap();
        let paths: Vec<String> = files
            .iter()
            .map(|file| format!("-P '{}' ", file.display()))
            .collect();
        let paths = paths.concat();
        // -D: the service stays the child of whoever starts it.
        let text = format!(
            "#!/bin/sh\nexec strace -D -f -qq -y -o '{}' -e signal=none -e trace={},{call} {paths}-e inject={inject} \
             '{}' \"$@\"\n",
            trace.display(),
            WRITES.join(","),
            env!("CARGO_BIN_EXE_settle"),
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut options = options.clone();
        options.binary = script;
        Self { options, trace }
    }

    /// The calls, in their order.
    fn calls(&self) -> String {
        fs::read_to_string(&self.trace).unwrap()
    }
}

/// All new files of an instance together grow more often than this.
const GROWTHS_MAX: usize = 20;

/// The files that an instance has for its tasks, also while they are made.
fn files(state: &Path) -> Vec<PathBuf> {
    let kinds = ["ingest", "settle"].into_iter();
    let named = kinds.flat_map(|kind| (0..PARTITIONS).map(move |n| format!("{kind}-{n}.redb")));
    named
        .flat_map(|name| [state.join(format!("{name}.new")), state.join(name)])
        .collect()
}

/// Starts it again as it was first.
fn restart_untraced(line: &mut Line) {
    let mut options = line.instances[0].options().clone();
    options.binary = env!("CARGO_BIN_EXE_settle").into();
    line.instances[0].restart_with(options).unwrap();
}

/// Runs the instance until it dies of a SIGKILL inside the call.
fn die_in(line: &mut Line, inject: &str) {
    let options = line.instances[0].options().clone();
    let traced = Traced::new(&options, &files(&options.state_directory()), inject);
    line.instances[0].restart_with(traced.options).unwrap();
    let status = line.instances[0].wait_exit(LIMIT);
    let status = status.unwrap_or_else(|error| panic!("{inject}: {error:#}"));
    let signal = status.signal();
    assert_eq!(
        signal,
        Some(libc::SIGKILL),
        "{inject}: {}",
        line.instances[0].tail()
    );
}

/// Runs the instance until it gives up over the error, and sees that it wrote no more to that file.
fn fail_in(line: &mut Line, inject: &str) {
    let options = line.instances[0].options().clone();
    let traced = Traced::new(&options, &files(&options.state_directory()), inject);
    line.instances[0]
        .restart_with(traced.options.clone())
        .unwrap();
    let status = line.instances[0].wait_exit(LIMIT);
    let status = status.unwrap_or_else(|error| panic!("{inject}: {error:#}"));
    let code = status.code();
    assert_eq!(
        code,
        Some(EXIT_STATE),
        "{inject}: {}",
        line.instances[0].tail()
    );
    let calls = traced.calls();
    let (before, after) = calls
        .split_once("(INJECTED)")
        .unwrap_or_else(|| panic!("{inject}: {calls}"));
    let (_, file) = before.rsplit_once('<').unwrap();
    let (file, _) = file.split_once('>').unwrap();
    let later: Vec<_> = after.lines().filter(|call| call.contains(file)).collect();
    assert!(
        later.is_empty(),
        "{inject}: written after the error: {later:#?}"
    );
}

fn rest_and_prove(line: &mut Line) {
    restart_untraced(line);
    line.wait_ready();
    line.prove();
    line.instances[0].kill();
}

/// A pipeline whose instance has state, and was killed.
fn prepared(label: &str) -> Line {
    settled_and_killed(Line::new(label), 101)
}

fn die_and_prove(line: &mut Line, seed: u64, hits: &[usize]) {
    under_load_of(line, seed, RATE, |line| {
        for hit in hits {
            for call in WRITES {
                // A file grows now and then only: most of all when it is new.
                if call == "ftruncate" {
                    if *hit > GROWTHS_MAX {
                        continue;
                    }
                    line.lose_state(0).unwrap();
                }
                die_in(line, &format!("{call}:signal=KILL:when={hit}"));
            }
        }
    });
    rest_and_prove(line);
}

#[test]
fn a_death_in_a_write_of_a_state_file_changes_no_outcome_and_no_total() {
    let mut line = prepared("syscall-kill");
    die_and_prove(&mut line, 102, &[1, 6]);
}

#[test]
fn a_write_that_fails_is_never_written_over_and_the_next_start_is_right() {
    let mut line = prepared("syscall-error");
    under_load_of(&mut line, 103, RATE, |line| {
        for inject in [
            "fdatasync:error=EIO:when=1",
            "fdatasync:error=EIO:when=5",
            "pwrite64:error=EIO:when=4",
            "pwrite64:error=ENOSPC:when=9+",
        ] {
            fail_in(line, inject);
        }
        line.lose_state(0).unwrap();
        fail_in(line, "ftruncate:error=ENOSPC:when=2");
    });
    rest_and_prove(&mut line);
}

#[test]
fn a_state_directory_that_cannot_be_written_is_refused_before_anything_is_read() {
    let mut line = Line::new("syscall-readonly");
    let options = line.options(0);
    let state = options.state_directory();
    let lock = state.join("LOCK");
    let traced = Traced::new(&options, &[lock], "openat:error=EROFS:when=1");
    line.launch(traced.options);
    let status = line.instances[0].wait_exit(LIMIT).unwrap();
    assert_eq!(status.code(), Some(EXIT_STATE));
    let log = line.log(0);
    let state_named = log.contains(&state.display().to_string()) && log.contains("state.directory");
    assert!(log.contains("open the lock file") && state_named, "{log}");
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "no directory").unwrap();
    line.instances[0].restart_with(options).unwrap();
    let status = line.instances[0].wait_exit(LIMIT).unwrap();
    assert_eq!(status.code(), Some(EXIT_STATE));
    assert!(line.log(0).contains("create the state directory"));
}

#[test]
#[ignore = "./dev crash"]
fn the_whole_matrix_of_system_calls() {
    for (seed, hits) in (110..).zip([[1, 2, 3], [4, 5, 7], [9, 12, 16], [20, 25, 31]]) {
        let mut line = prepared("syscall-matrix");
        die_and_prove(&mut line, seed, &hits);
    }
}
