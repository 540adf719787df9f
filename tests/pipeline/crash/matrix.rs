//! One instance under load dies at one point after the other.

use std::fs;

use settle::failpoint::Point;

use crate::crash::by::{By, by, reached};
use crate::crash::{RATE, assert_killed, assert_undamaged, await_death, name, restart_armed};
use crate::kills::settled_and_killed;
use crate::line::{GRACE, LIMIT, Line};
use crate::moving::under_load_of;

/// What one instance reaches by itself.
const ALONE: &[By] = &[
    By::Load,
    By::Start,
    By::Life,
    By::Empty,
    By::EmptyLife,
    By::Damage,
    By::Failure,
    By::End,
    By::LastStep,
];
/// The hits at which the whole matrix dies.
const HITS: [usize; 3] = [1, 2, 5];
/// One for each partition of source and bases.
const FILES: usize = 8;
/// Points that die on one pipeline of the whole matrix, so that its proofs stay short.
const POINTS: usize = 6;

/// One death: at this hit of this point, in an instance that starts on an empty directory or on the one it left.
#[derive(Clone, Copy)]
struct Death {
    point: Point,
    hit: usize,
    empty: bool,
}

/// Dies as it is told to. The instance is down before and afterwards.
fn die(line: &mut Line, death: Death) {
    let way = by(death.point);
    // What comes once in a life is reached again in the next one, after a death at the same place.
    let (lives, hit) = match way {
        By::Life | By::EmptyLife | By::Failure | By::LastStep => (death.hit, 1),
        _ => (1, death.hit),
    };
    let mut specification = format!("{}=kill@{hit}", name(death.point));
    if way == By::Failure {
        specification.push_str(",commit.before=error@2");
    }
    for _ in 0..lives {
        if death.empty || matches!(way, By::Empty | By::EmptyLife) {
            line.lose_state(0).unwrap();
        }
        if way == By::Damage {
            damage(line);
        }
        restart_armed(line, 0, &specification);
        if matches!(way, By::End | By::LastStep) {
            line.wait_ready();
            let status = line.instances[0].terminate(GRACE).unwrap();
            assert_killed(&line.instances[0], status, &specification);
        } else {
            await_death(&line.instances[0], &specification);
        }
    }
}

/// Cuts every state file, of an instance that had all of them.
fn damage(line: &mut Line) {
    restart_armed(line, 0, "");
    line.instances[0].wait_ready(LIMIT).unwrap();
    line.instances[0].kill();
    let state = line.instances[0].options().state_directory();
    let mut cut = 0;
    for entry in fs::read_dir(state).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "redb") {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
            cut += 1;
        }
    }
    assert_eq!(cut, FILES);
}

/// Dies every one of these deaths under load, and proves that nothing came of it.
fn die_and_prove(line: &mut Line, seed: u64, deaths: impl IntoIterator<Item = Death>) {
    under_load_of(line, seed, RATE, |line| {
        for death in deaths {
            let began = std::time::Instant::now();
            die(line, death);
            eprintln!(
                "{} at hit {}{} after {:?}",
                name(death.point),
                death.hit,
                if death.empty { ", empty" } else { "" },
                began.elapsed()
            );
        }
    });
    restart_armed(line, 0, "");
    line.wait_ready();
    line.prove();
    line.instances[0].kill();
}

/// A pipeline whose instance has settled payments of every kind, checkpoints among them, and was killed.
fn prepared(label: &str) -> Line {
    let line = Line::new(label).with_database();
    settled_and_killed(line, 71)
}

/// Each point once; every other one in an instance that has lost its directory.
fn once(label: &str, seed: u64, ways: &[By]) {
    let mut line = prepared(label);
    let deaths = reached(ways).into_iter().enumerate();
    let deaths: Vec<Death> = deaths
        .map(|(number, point)| Death {
            point,
            hit: first_hit(point),
            empty: number % 2 == 1,
        })
        .collect();
    die_and_prove(&mut line, seed, deaths);
    if !ways.contains(&By::Damage) {
        assert_undamaged(&line);
    }
}

/// The first hit that tells something: a new file of each task is written to before any checkpoint is.
fn first_hit(point: Point) -> usize {
    match point {
        Point::CheckpointWrite | Point::CheckpointDone => FILES + 1,
        _ => 1,
    }
}

#[test]
fn a_death_at_any_step_of_a_batch_changes_no_outcome_and_no_total() {
    once("crash-load", 72, &[By::Load]);
}

#[test]
fn a_death_at_any_step_of_a_start_a_recovery_or_an_end_changes_no_outcome_and_no_total() {
    once("crash-start", 73, &ALONE[1..]);
}

#[test]
#[ignore = "./dev crash"]
fn the_whole_matrix_of_one_instance() {
    for (number, points) in reached(ALONE).chunks(POINTS).enumerate() {
        let mut line = prepared("crash-matrix");
        for (place, point) in points.iter().enumerate() {
            let seed = 1000 + (number * POINTS + place) as u64;
            let deaths = HITS.into_iter().flat_map(|hit| {
                [false, true].map(|empty| Death {
                    point: *point,
                    hit,
                    empty,
                })
            });
            die_and_prove(&mut line, seed, deaths);
        }
        if points.iter().all(|point| by(*point) != By::Damage) {
            assert_undamaged(&line);
        }
    }
}
