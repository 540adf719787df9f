//! A worker stands still while the heartbeats of its process go on: for longer than its session, its transaction, and
//! the patience of its group.
#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the clock; the service's decisions do not"
)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

use chaos::cluster::topics::Isolation;
use chaos::cluster::wait;
use chaos::tail::Tail;
use chaos::workload::send::{self, SendOptions};

use crate::line::{LIMIT, Line, plain};
use crate::operator::line;

/// Payments per second.
const RATE: u32 = 300;

/// Starts an instance whose failpoints can be armed while it runs.
fn add(line: &mut Line, patience: &str) {
    let properties = [
        ("session.timeout.ms", "2000"),
        ("transaction.timeout.ms", "5000"),
        ("max.poll.interval.ms", patience),
    ];
    let pairs = properties.map(|(name, value)| (name.to_owned(), value.into()));
    let options = line.options(line.instances.len());
    let socket = options.directory.join("failpoints");
    let options = options
        .set("kafka.properties", toml::Table::from_iter(pairs))
        .env("FAILPOINT_SOCKET", socket.to_str().unwrap());
    line.launch(options);
}

fn ask(line: &Line, request: &str) -> String {
    let socket: PathBuf = line.instances[0].options().directory.join("failpoints");
    let mut stream = UnixStream::connect(socket).unwrap();
    writeln!(stream, "{request}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Waits until the worker of the first instance stands at this point.
fn await_stall(line: &Line, point: &str) {
    wait::until(&format!("a stall at {point}"), LIMIT, || {
        let hits = ask(line, "hits");
        let fired = hits.lines().find_map(|hit| {
            let (_, fired) = hit
                .strip_prefix(point)?
                .strip_prefix(' ')?
                .split_once(' ')?;
            fired.parse::<u64>().ok()
        });
        Ok((fired > Some(0)).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", line.instances[0].tail()));
}

fn stall(line: &Line, point: &str) {
    assert_eq!(ask(line, &format!("arm {point}=pause")), "ok");
    await_stall(line, point);
}

fn go_on(line: &Line, point: &str) {
    assert_eq!(ask(line, &format!("resume {point}")), "ok");
}

/// Calls `work` while payments come, then proves that each has its one outcome.
fn under_load(line: &mut Line, seed: u64, work: impl FnOnce(&mut Line)) {
    let sending = SendOptions {
        per_second: Some(RATE),
        ..line.sending()
    };
    send::during(&sending, plain(seed, 1_000_000), || work(line)).unwrap();
    line.prove();
}

/// Waits until every partition shows a settlement that is newer than this moment.
fn progress(line: &Line, tail: &Tail, after: &str) {
    tail.mark(Instant::now()).unwrap();
    tail.wait_newer(after, LIMIT)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", line.tails()));
}

fn has_open_transaction(line: &Line) -> bool {
    // Whatever it settles or takes in, its position stands in one of them.
    let changelogs = [&line.names.changelog, &line.names.ingest_changelog];
    changelogs.into_iter().any(|topic| {
        let ends = |isolation| line.topics.ends(topic, isolation).unwrap();
        ends(Isolation::Committed) != ends(Isolation::Uncommitted)
    })
}

#[test]
fn a_worker_that_stalls_past_the_patience_of_its_group_is_replaced_and_commits_nothing() {
    let mut line = line("stalled");
    add(&mut line, "4000");
    line.wait_ready();
    add(&mut line, "4000");
    line.wait_ready();
    let tail = line.tail();
    under_load(&mut line, 361, |line| {
        progress(line, &tail, "the start");
        for point in [
            "begin.before",
            "flush.after",
            "commit.before",
            "commit.after",
        ] {
            stall(line, point);
            progress(line, &tail, "the takeover");
            go_on(line, point);
            progress(line, &tail, "the return");
            line.wait_ready();
        }
        // And while it restores.
        line.instances[0].kill();
        line.lose_state(0).unwrap();
        let options = line.instances[0].options().clone();
        let armed = options.env("FAILPOINTS", "restore.read=pause");
        line.instances[0].restart_with(armed).unwrap();
        wait::until("the socket", LIMIT, || {
            let socket = line.instances[0].options().directory.join("failpoints");
            Ok(UnixStream::connect(socket).is_ok().then_some(()))
        })
        .unwrap();
        await_stall(line, "restore.read");
        progress(line, &tail, "the takeover");
        go_on(line, "restore.read");
        line.wait_ready();
        progress(line, &tail, "the return");
        for instance in &line.instances {
            assert_eq!(instance.exit_status(), None, "{}", instance.tail());
        }
    });
}

#[test]
fn a_worker_that_stalls_past_its_transaction_keeps_its_partitions_and_commits_it_anew() {
    let mut line = line("patient");
    add(&mut line, "300000");
    line.wait_ready();
    let tail = line.tail();
    under_load(&mut line, 362, |line| {
        progress(line, &tail, "the start");
        for point in ["flush.after", "commit.before"] {
            stall(line, point);
            assert!(has_open_transaction(line));
            wait::until("the end of the transaction", LIMIT, || {
                Ok((!has_open_transaction(line)).then_some(()))
            })
            .unwrap();
            go_on(line, point);
            progress(line, &tail, "the stall");
            assert_eq!(line.instances[0].exit_status(), None);
        }
    });
}
