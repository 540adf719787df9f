//! The local state is lost, old or damaged; the log knows better.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use chaos::cluster::instance::get_status;
use chaos::cluster::scratch::copy_files;
use chaos::cluster::wait;

use crate::line::{LIMIT, Line, count, day, plain};

const SEED: u64 = 41;
const THIRD: usize = 1500;
/// Payments of the first third that come again after the restart, as they were.
const REPEATED: usize = 300;
/// So many payments take longer to read again than the service takes to stop.
const WINDOW: u64 = 40_000;
const ENDS: usize = 4;

/// A day in three parts; before the last, `harm` is done to the state directory of the stopped instance.
struct Trial {
    line: Line,
    state: PathBuf,
}

impl Trial {
    fn start(name: &str) -> Self {
        let mut line = Line::new(name);
        line.start(1);
        let state = line.instances[0].options().state_directory();
        line.send(day(SEED, 3 * THIRD as u64).take(THIRD));
        line.settle();
        Self { line, state }
    }

    /// The second third, and a stop.
    fn second_third(&mut self) {
        self.line
            .send(day(SEED, 3 * THIRD as u64).skip(THIRD).take(THIRD));
        self.line.settle();
        self.line.terminate(0);
    }

    /// The rest, with repeats from before the restart among it.
    fn last_third(&mut self) {
        self.line.restart(0);
        self.line.send(day(SEED, 3 * THIRD as u64).take(REPEATED));
        self.line.send(day(SEED, 3 * THIRD as u64).skip(2 * THIRD));
        let proof = self.line.prove();
        assert!(count(&proof, "DUPLICATE") > REPEATED as u64 * 8 / 10);
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = files(&self.state);
        // A file for each partition of source and bases.
        assert_eq!(files.len(), 8, "{files:?}");
        files
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "redb"))
        .collect();
    files.sort();
    files
}

#[test]
fn state_deleted_after_an_orderly_end_is_rebuilt_and_repeats_are_recognised() {
    let mut trial = Trial::start("deleted");
    trial.second_third();
    fs::remove_dir_all(&trial.state).unwrap();
    trial.last_third();
}

#[test]
fn state_deleted_after_a_kill_under_load_is_rebuilt_and_repeats_are_recognised() {
    let mut trial = Trial::start("wiped");
    trial
        .line
        .send(day(SEED, 3 * THIRD as u64).skip(THIRD).take(THIRD));
    trial.line.instances[0].kill();
    fs::remove_dir_all(&trial.state).unwrap();
    trial.last_third();
}

#[test]
fn an_older_copy_of_the_state_is_brought_up_to_the_log() {
    let mut trial = Trial::start("older");
    trial.line.terminate(0);
    let copied = trial
        .line
        .cluster
        .directory()
        .join(format!("{}-copy", trial.line.names.application_id));
    copy_files(&trial.state, &copied).unwrap();
    trial.line.restart(0);
    trial.second_third();
    fs::remove_dir_all(&trial.state).unwrap();
    copy_files(&copied, &trial.state).unwrap();
    trial.last_third();
    let log = trial.line.log(0);
    assert!(!log.contains("damaged"), "an old copy is no damage:\n{log}");
}

#[test]
fn state_of_another_instance_is_not_mistaken_for_ones_own() {
    let mut trial = Trial::start("swapped");
    trial.second_third();
    let files = trial.files();
    // Partition 0 gets the file of partition 1 and the other way round, of both kinds.
    for pair in [(0, 1), (4, 5)] {
        let (one, other) = (&files[pair.0], &files[pair.1]);
        let aside = one.with_extension("aside");
        fs::rename(one, &aside).unwrap();
        fs::rename(other, one).unwrap();
        fs::rename(&aside, other).unwrap();
    }
    trial.last_third();
}

#[test]
fn truncated_state_files_are_set_aside_and_rebuilt() {
    let mut trial = Trial::start("truncated");
    trial.second_third();
    for file in trial.files() {
        let length = fs::metadata(&file).unwrap().len();
        fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .unwrap()
            .set_len(length / 2)
            .unwrap();
    }
    trial.last_third();
    assert!(trial.line.log(0).contains("damaged"));
}

#[test]
fn state_files_with_flipped_bytes_give_no_wrong_total_and_no_wrong_outcome() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut trial = Trial::start("flipped");
    trial.second_third();
    for path in trial.files() {
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let length = file.metadata().unwrap().len();
        // Behind the header, in what is written: one byte of each 2 KiB.
        for at in (4096..length).step_by(2048) {
            let at = at + rng.u64(..2048);
            let mut byte = [0];
            file.seek(SeekFrom::Start(at)).unwrap();
            if file.read(&mut byte).unwrap() == 1 && byte[0] != 0 {
                file.seek(SeekFrom::Start(at)).unwrap();
                file.write_all(&[byte[0] ^ (1 << rng.u8(..8))]).unwrap();
            }
        }
    }
    trial.last_third();
    assert!(trial.line.log(0).contains("damaged"));
}

#[test]
fn an_end_while_the_duplicate_window_is_read_again_lets_the_next_start_read_it_anew() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut line = Line::new("window");
    line.start(1);
    line.send(plain(SEED, WINDOW));
    line.settle();
    line.terminate(0);
    line.lose_state(0).unwrap();
    let begun = |line: &Line| line.log(0).matches("for the duplicate window").count();
    for _ in 0..ENDS {
        let before = begun(&line);
        line.instances[0].restart().unwrap();
        let is_read_again = wait::until("the window being read", LIMIT, || {
            let is_ready = get_status(line.instances[0].address(), "/readyz").ok() == Some(200);
            let has_begun = begun(&line) > before;
            Ok((has_begun || is_ready).then_some(has_begun))
        })
        .unwrap();
        if !is_read_again {
            break; // The last end came after all of it.
        }
        thread::sleep(Duration::from_millis(rng.u64(..150)));
        line.terminate(0);
    }
    line.restart(0);
    line.send(plain(SEED, WINDOW).take(REPEATED));
    let proof = line.prove();
    assert_eq!(count(&proof, "DUPLICATE"), REPEATED as u64);
}
