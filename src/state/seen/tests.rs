//! Laws of the window: what is found, what is forgotten, what survives a file.

use std::time::Duration;

use super::*;

const DAY: i64 = 24 * 3_600_000;

fn store(path: &Path) -> Store {
    let window = Window::new(Duration::from_secs(7 * 24 * 3600));
    Store::open(path, "a/0", 4 << 20, window).unwrap()
}

fn id(number: i64) -> u128 {
    let hash = blake3::hash(&number.to_be_bytes());
    u128::from_be_bytes(*hash.as_bytes().first_chunk().unwrap())
}

/// One that may repeat what [`add`] has added.
fn payment(number: i64, timestamp: i64) -> Seen {
    Seen {
        id: id(number),
        offset: number,
        timestamp,
        fingerprint: 1,
    }
}

fn add(store: &mut Store, number: i64, timestamp: i64) {
    let mut ids = Ids::decided_since(DAY);
    ids.insert(Seen {
        id: id(number),
        offset: number,
        timestamp,
        fingerprint: 1,
    });
    let mut positions = store.positions();
    positions.source += 1;
    positions.time = positions.time.max(timestamp);
    store.replay(ids, positions);
}

#[test]
fn ids_are_found_in_memory_in_runs_and_after_a_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("seen.redb");
    let mut seen = store(&path);
    for number in 0..5000 {
        add(&mut seen, number, DAY);
        if number % 300 == 299 {
            seen.checkpoint().unwrap();
        }
    }
    assert!(seen.runs.len() < 10, "{} runs", seen.runs.len());
    for number in 0..5000 {
        let found = seen
            .find(&payment(number, DAY))
            .unwrap()
            .map(|seen| seen.offset);
        assert_eq!(found, Some(number));
    }
    assert_eq!(seen.find(&payment(5000, DAY)).unwrap(), None);
    let positions = seen.positions();
    seen.checkpoint().unwrap();
    drop(seen);
    let seen = store(&path);
    assert_eq!(seen.positions(), positions);
    for number in 0..5000 {
        assert!(seen.find(&payment(number, DAY)).unwrap().is_some());
    }
}

#[test]
fn ids_are_found_while_a_checkpoint_is_written_but_not_yet_collected() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = store(&directory.path().join("seen.redb"));
    let at_once: Background = &|job: Box<dyn FnOnce() + Send>| job();
    for number in 0..40 {
        add(&mut seen, number, DAY);
        seen.begin_checkpoint(at_once);
        for earlier in 0..=number {
            let found = seen.find(&payment(earlier, DAY)).unwrap();
            assert_eq!(found.map(|seen| seen.offset), Some(earlier));
        }
        seen.poll_checkpoint().unwrap();
    }
}

#[test]
fn what_was_not_checkpointed_is_gone_after_a_crash_and_the_positions_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("seen.redb");
    let mut seen = store(&path);
    add(&mut seen, 1, DAY);
    seen.checkpoint().unwrap();
    add(&mut seen, 2, DAY);
    drop(seen);
    let seen = store(&path);
    assert_eq!(seen.positions().source, 0);
    assert_eq!(seen.find(&payment(2, DAY)).unwrap(), None);
}

#[test]
fn the_window_is_exact_and_reaches_in_both_directions() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = store(&directory.path().join("seen.redb"));
    add(&mut seen, 1, 10 * DAY);
    for checkpoint in [false, true] {
        if checkpoint {
            seen.checkpoint().unwrap();
        }
        for (timestamp, found) in [
            (17 * DAY, true),
            (17 * DAY + 1, false),
            (3 * DAY, true),
            (3 * DAY - 1, false),
        ] {
            assert_eq!(
                seen.find(&payment(1, timestamp)).unwrap().is_some(),
                found,
                "{timestamp}"
            );
        }
    }
}

#[test]
fn of_several_firsts_the_newest_inside_the_window_counts() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = store(&directory.path().join("seen.redb"));
    for (offset, timestamp) in [(1, DAY), (2, 9 * DAY), (3, 17 * DAY)] {
        let mut ids = Ids::decided_since(DAY);
        ids.insert(Seen {
            id: id(1),
            offset,
            timestamp,
            fingerprint: 1,
        });
        seen.replay(
            ids,
            Positions {
                time: timestamp,
                ..seen.positions()
            },
        );
    }
    for checkpoint in [false, true] {
        if checkpoint {
            seen.checkpoint().unwrap();
        }
        let offset = |timestamp| {
            seen.find(&payment(1, timestamp))
                .unwrap()
                .map(|seen| seen.offset)
        };
        assert_eq!(offset(18 * DAY), Some(3));
        assert_eq!(offset(14 * DAY), Some(3));
        assert_eq!(offset(9 * DAY), Some(2));
        assert_eq!(offset(0), Some(1));
    }
}

#[test]
fn of_several_firsts_one_with_the_same_bytes_counts_before_a_newer_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = store(&directory.path().join("seen.redb"));
    for checkpoint in [true, false] {
        for (offset, timestamp, fingerprint) in [(1, DAY, 1), (2, 9 * DAY, 2)] {
            let mut ids = Ids::decided_since(DAY);
            ids.insert(Seen {
                id: id(1),
                offset,
                timestamp,
                fingerprint,
            });
            let positions = Positions {
                time: timestamp,
                ..seen.positions()
            };
            seen.replay(ids, positions);
            if checkpoint {
                seen.checkpoint().unwrap();
            }
        }
        let offset = |fingerprint, timestamp| {
            let payment = Seen {
                fingerprint,
                ..payment(1, timestamp)
            };
            seen.find(&payment).unwrap().map(|seen| seen.offset)
        };
        for _ in 0..2 {
            assert_eq!(offset(1, 5 * DAY), Some(1));
            assert_eq!(offset(2, 5 * DAY), Some(2));
            assert_eq!(offset(3, 5 * DAY), Some(2));
            assert_eq!(offset(1, 10 * DAY), Some(2));
            assert_eq!(offset(1, 17 * DAY), None);
        }
    }
}

fn add_at_once(store: &mut Store, number: i64, timestamp: i64) {
    add(store, number, timestamp);
    store.checkpoint().unwrap();
}

#[test]
fn runs_expire_whole_and_a_date_in_the_far_future_does_not_keep_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = store(&directory.path().join("seen.redb"));
    clock::simulate(Duration::ZERO);
    let mut ids = Ids::decided_since(DAY);
    ids.insert(Seen {
        id: id(1),
        offset: 1,
        timestamp: 90_000 * DAY,
        fingerprint: 1,
    });
    seen.replay(
        ids,
        Positions {
            time: DAY,
            ..Positions::default()
        },
    );
    seen.checkpoint().unwrap();
    assert_eq!(seen.runs.len(), 1);
    clock::simulate(Duration::from_secs(3601));
    add_at_once(&mut seen, 2, 17 * DAY);
    assert_eq!(seen.runs.len(), 1);
    assert_eq!(seen.find(&payment(1, 90_000 * DAY)).unwrap(), None);
    assert!(seen.find(&payment(2, 17 * DAY)).unwrap().is_some());
}

#[test]
fn an_entry_that_comes_late_is_kept_as_long_as_one_that_came_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = store(&directory.path().join("seen.redb"));
    clock::simulate(Duration::ZERO);
    add_at_once(&mut seen, 1, 100 * DAY);
    add_at_once(&mut seen, 2, 40 * DAY);
    clock::simulate(Duration::from_secs(3601));
    add_at_once(&mut seen, 3, 108 * DAY);
    assert!(seen.find(&payment(2, 40 * DAY)).unwrap().is_some());
    add_at_once(&mut seen, 4, 108 * DAY + 1);
    assert_eq!(seen.find(&payment(2, 40 * DAY)).unwrap(), None);
}

#[test]
fn one_entry_of_today_does_not_end_the_window_of_what_came_within_the_hour() {
    for (seconds, is_kept) in [(0, true), (3600, true), (3601, false)] {
        let directory = tempfile::tempdir().unwrap();
        let mut seen = store(&directory.path().join("seen.redb"));
        clock::simulate(Duration::ZERO);
        add_at_once(&mut seen, 1, 40 * DAY);
        clock::simulate(Duration::from_secs(seconds));
        add_at_once(&mut seen, 2, 100 * DAY);
        let found = seen.find(&payment(1, 40 * DAY)).unwrap();
        assert_eq!(found.is_some(), is_kept, "{seconds}");
    }
}

#[test]
fn the_window_starts_at_the_first_entry_that_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("seen.redb");
    let mut seen = store(&path);
    let start = |seen: &Store, batch: &[i64]| {
        let mut ids = Ids::decided_since(77);
        for number in batch {
            ids.insert(Seen {
                id: id(*number),
                offset: *number,
                timestamp: DAY,
                fingerprint: 1,
            });
        }
        let start = seen.start_with(&ids, 1000, 88);
        (start.offset, start.decided_since)
    };
    assert_eq!(start(&seen, &[]), (1000, 88));
    assert_eq!(start(&seen, &[9, 8]), (8, 77));
    add(&mut seen, 5, DAY);
    assert_eq!(start(&seen, &[8]), (5, 77), "in memory");
    clock::simulate(Duration::ZERO);
    seen.begin_checkpoint(&|_| {});
    assert_eq!(start(&seen, &[]).0, 5, "being written");
    drop(seen);
    let mut seen = store(&path);
    add_at_once(&mut seen, 5, DAY);
    drop(seen);
    let mut seen = store(&path);
    assert_eq!(start(&seen, &[]).0, 5, "in the file");
    for number in 6..20 {
        add_at_once(&mut seen, number, DAY);
    }
    assert_eq!(start(&seen, &[]).0, 5, "merged");
    clock::simulate(Duration::from_secs(3601));
    add_at_once(&mut seen, 20, 30 * DAY);
    assert_eq!(start(&seen, &[]).0, 20, "expired");
}

#[test]
fn a_flipped_bit_in_a_block_is_damage_and_never_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = store(&directory.path().join("seen.redb"));
    add(&mut seen, 1, DAY);
    seen.checkpoint().unwrap();
    seen.file
        .write(|write, _| {
            let mut blocks = write.open_table(BLOCKS).unwrap();
            let mut block = blocks.get((0, 0)).unwrap().unwrap().value().to_vec();
            block[20] ^= 1;
            blocks.insert((0, 0), block.as_slice()).unwrap();
            Ok(())
        })
        .unwrap();
    drop(seen);
    let seen = store(&directory.path().join("seen.redb"));
    assert!(matches!(
        seen.find(&payment(1, DAY)),
        Err(Error::Damaged { .. })
    ));
}
