//! The engine, unchanged, over a broker in memory: one seed is one run, and can be repeated.
//!
//! `./dev sim --seeds N` runs more of them, `./dev sim --seed S` one with its history.

mod broker;
mod cluster;
mod expected;
mod frozen;
mod group;
mod log;
mod network;
mod oracle;
mod payments;
mod port;
mod producer;
mod rules;
mod run;
mod transactions;
mod undone;
mod world;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::run::{Outcome, run};

/// What `./dev test` runs; `SIMULATION_SEEDS` says otherwise.
const SEEDS: u64 = 3000;

fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}: {text} is no number")),
    )
}

/// A directory that costs no disk, where the system has one.
pub fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        env::temp_dir()
    };
    tempfile::tempdir_in(parent).expect("a writable directory")
}

fn run_in(parent: &Path, seed: u64, keeps_history: bool) -> Outcome {
    let directory = parent.join(seed.to_string());
    fs::create_dir_all(&directory).expect("a writable directory");
    let outcome = run(seed, &directory, keeps_history);
    fs::remove_dir_all(&directory).expect("a writable directory");
    outcome
}

/// Runs a failed seed again, with its history, and says where that lies.
fn dump(parent: &Path, seed: u64, breach: &str) -> String {
    let again = run_in(parent, seed, true);
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("simulation-{seed}.log"));
    let text = format!("seed {seed}: {breach}\n{}", again.history);
    fs::write(&file, text).expect("write the history");
    let repeated = again.breach.as_deref() == Some(breach);
    format!(
        "seed {seed}: {breach}\n  history: {} (repeated: {repeated})",
        file.display()
    )
}

#[test]
fn every_promise_holds_through_any_trouble_and_the_lag_reaches_zero() {
    let first = setting("SIMULATION_SEED");
    let count = setting("SIMULATION_SEEDS").unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let begin = first.unwrap_or(0);
    let parent = directory();
    let next = AtomicU64::new(begin);
    let failed = Mutex::new(None);
    let is_over = AtomicBool::new(false);
    let troubles: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    let work = || {
        while !is_over.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= begin + count {
                break;
            }
            let outcome = run_in(parent.path(), seed, false);
            let mut all = troubles.lock().expect("nobody panics with it");
            for (kind, times) in outcome.troubles {
                *all.entry(kind).or_default() += times;
            }
            *all.entry("commits").or_default() += outcome.commits as u64;
            let most = all.entry("most calls").or_default();
            *most = outcome.calls.max(*most);
            if let Some(breach) = outcome.breach {
                is_over.store(true, Ordering::Relaxed);
                *failed.lock().expect("nobody panics with it") = Some((seed, breach));
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    eprintln!("{troubles:?}");
    let failed = failed.into_inner().expect("nobody panics with it");
    if let Some((seed, breach)) = failed {
        let done = next.load(Ordering::Relaxed) - begin;
        panic!("after {done} seeds: {}", dump(parent.path(), seed, &breach));
    }
}

/// Seeds beyond the usual ones that show a defect which no other does (tests/mutants).
const REMARKABLE: [u64; 1] = [7206];

#[test]
fn seeds_that_have_shown_what_no_other_did_hold() {
    let parent = directory();
    for seed in REMARKABLE {
        let outcome = run_in(parent.path(), seed, false);
        assert_eq!(outcome.breach, None, "seed {seed}");
    }
}

#[test]
fn a_seed_can_be_repeated() {
    let parent = directory();
    for seed in 0..5 {
        let (one, two) = (
            run_in(parent.path(), seed, true),
            run_in(parent.path(), seed, true),
        );
        assert_eq!(one.fingerprint, two.fingerprint, "seed {seed}");
        assert_eq!(one.history, two.history, "seed {seed}");
    }
}
