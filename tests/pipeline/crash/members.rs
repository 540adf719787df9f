//! Deaths while partitions change hands.

use std::time::Instant;

use chaos::cluster::wait;
use settle::failpoint::Point;

use crate::crash::by::{By, reached};
use crate::crash::{RATE, armed, await_death, name, restart_armed};
use crate::line::{LIMIT, Line};
use crate::moving::{progress, under_load_of};

/// An instance dies at the k-th time that a joining one takes partitions from it.
fn die_when_others_join(point: Point, hit: usize) {
    let specification = format!("{}=kill@{hit}", name(point));
    let mut line = Line::new("crash-join").with_database();
    let options = armed(&line.options(0), &specification);
    line.launch(options);
    line.wait_ready();
    under_load_of(&mut line, 81, RATE, |line| {
        for joining in 1..=hit {
            let options = line.options(joining);
            line.launch(options);
            if joining < hit {
                line.wait_ready();
            }
        }
        await_death(&line.instances[0], &specification);
        restart_armed(line, 0, "");
        line.wait_ready();
    });
    line.prove();
}

/// An instance is frozen until the group has given its partitions away, and dies as it hears of it.
fn die_when_lost(point: Point) {
    let specification = format!("{}=kill", name(point));
    let mut line = Line::new("crash-lost").with_database();
    let options = armed(&line.options(0), &specification);
    line.launch(options);
    line.start(1);
    let tail = line.tail();
    under_load_of(&mut line, 82, RATE, |line| {
        progress(&tail, "the start");
        let before = assigned(line, 1);
        line.instances[0].pause();
        wait::until("the partitions being given away", LIMIT, || {
            Ok((assigned(line, 1) > before).then_some(()))
        })
        .unwrap();
        line.instances[0].resume();
        await_death(&line.instances[0], &specification);
        restart_armed(line, 0, "");
        line.wait_ready();
    });
    line.prove();
}

/// How often an instance has been given partitions.
fn assigned(line: &Line, index: usize) -> usize {
    let log = line.log(index);
    let given = |line: &&str| line.contains("\"partitions assigned\"") && line.contains("number: ");
    log.lines().filter(given).count()
}

/// An instance dies as it ends what a dead one has left, so that a third start has to.
fn die_when_taking_over(point: Point) {
    let specification = format!("{}=kill", name(point));
    let mut line = Line::new("crash-takeover").with_database();
    // Inside a transaction, so that there is something to end.
    let victim = armed(&line.options(0), "commit.before=kill@50");
    line.launch(victim);
    line.wait_ready();
    let heir = armed(&line.options(1), &specification);
    line.launch(heir);
    under_load_of(&mut line, 83, RATE, |line| {
        await_death(&line.instances[0], "commit.before");
        let died = Instant::now();
        await_death(&line.instances[1], &specification);
        eprintln!("the heir followed after {:?}", died.elapsed());
        restart_armed(line, 1, "");
        line.instances[1].wait_ready(crate::line::LIMIT).unwrap();
    });
    line.prove();
}

#[test]
fn a_death_while_partitions_are_given_away_changes_no_outcome_and_no_total() {
    for point in reached(&[By::Join]) {
        die_when_others_join(point, 1);
    }
}

#[test]
fn a_death_on_hearing_that_partitions_are_lost_changes_no_outcome_and_no_total() {
    for point in reached(&[By::Freeze]) {
        die_when_lost(point);
    }
}

#[test]
fn a_death_while_ending_what_another_left_changes_no_outcome_and_no_total() {
    for point in reached(&[By::Takeover]) {
        die_when_taking_over(point);
    }
}

#[test]
#[ignore = "./dev crash"]
fn the_whole_matrix_of_several_instances() {
    for point in reached(&[By::Join]) {
        for hit in 1..=3 {
            die_when_others_join(point, hit);
        }
    }
}
