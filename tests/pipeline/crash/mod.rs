//! The crash matrix: the process dies at every step there is, starts again on what it left or on nothing, and the
//! proof from the raw input still holds.
//!
//! A test here passes only when the process died where it was told to: a point that is never reached fails it.
#![expect(
    clippy::print_stderr,
    reason = "what was done belongs to the report of a failure"
)]

mod by;
mod errors;
mod matrix;
mod members;
mod remote;

use std::os::unix::process::ExitStatusExt;

use std::process::ExitStatus;

use chaos::cluster::instance::{Instance, InstanceOptions};
use settle::failpoint::Point;

use crate::line::{LIMIT, Line};

/// Payments per second while processes die.
const RATE: u32 = 300;

/// The name a point is armed by.
fn name(point: Point) -> &'static str {
    let known = Point::ALL.iter().find(|(known, _)| *known == point);
    known.unwrap().1
}

/// The options with these failpoints armed from the start, and no others.
fn armed(options: &InstanceOptions, specification: &str) -> InstanceOptions {
    options.clone().env("FAILPOINTS", specification)
}

/// Starts an instance again, with these failpoints armed.
fn restart_armed(line: &mut Line, index: usize, specification: &str) {
    let options = armed(line.instances[index].options(), specification);
    line.instances[index].restart_with(options).unwrap();
}

/// Waits until a failpoint has killed the instance; nothing else sends it a SIGKILL.
fn await_death(instance: &Instance, specification: &str) {
    let status = instance
        .wait_exit(LIMIT)
        .unwrap_or_else(|error| panic!("{specification} was never reached: {error:#}"));
    assert_killed(instance, status, specification);
}

/// What the files held was never wrong: a store that leads its log is repaired like any damage, and would not show in
/// the outcomes.
fn assert_undamaged(line: &Line) {
    let log = line.log(0);
    let damaged: Vec<_> = log
        .lines()
        .filter(|line| line.contains("local state is damaged"))
        .collect();
    assert!(damaged.is_empty(), "{damaged:#?}");
}

fn assert_killed(instance: &Instance, status: ExitStatus, specification: &str) {
    assert_eq!(
        status.signal(),
        Some(libc::SIGKILL),
        "{specification}: {status}\n{}",
        instance.tail()
    );
}
