//! PostgreSQL comes and goes; the pipeline does not wait for it.

use chaos::cluster::postgres::{self, Postgres};
use chaos::cluster::scratch::Scratch;
use chaos::cluster::wait;
use chaos::oracle::database::Database;

use crate::line::{LIMIT, Line, day};

#[test]
fn the_pipeline_does_not_wait_for_a_killed_database_and_the_rows_are_complete_afterwards() {
    let scratch = Scratch::new().unwrap();
    let postgres = Postgres::start(&scratch.path().join("postgres")).unwrap();
    let mut line = Line::new("postgres");
    line.database = Some(postgres.url());
    line.start(2);
    let tail = line.tail();
    let mut messages = day(31, 6000);
    let await_outcomes = |total: u64| {
        wait::until("outcomes without the database", LIMIT, || {
            Ok((tail.seen()?.total() >= total).then_some(()))
        })
        .unwrap();
    };
    // Killed while it is being written to.
    line.send(messages.by_ref().take(1500));
    postgres.kill();
    line.send(messages.by_ref().take(1500));
    await_outcomes(3000);
    postgres.restart().unwrap();
    line.send(messages.by_ref().take(1000));
    postgres.stop().unwrap();
    line.send(messages.by_ref().take(500));
    await_outcomes(4500);
    postgres.restart().unwrap();
    // A server that neither answers nor closes.
    postgres.pause();
    line.send(messages.by_ref());
    await_outcomes(6004);
    postgres.resume();
    line.prove();
    for index in 0..2 {
        line.terminate(index);
    }
}

#[test]
fn a_database_dropped_under_load_is_filled_again_from_the_topics() {
    let mut line = Line::new("dropped").with_database();
    line.start(1);
    let mut messages = day(32, 4000);
    line.send(messages.by_ref().take(2000));
    line.settle();
    line.send(messages.by_ref().take(1000));
    let (server, name) = (line.cluster.postgres(), line.names.database.clone());
    let drop = format!("DROP DATABASE \"{name}\" WITH (FORCE)");
    postgres::execute(&server.url(), &drop).unwrap();
    line.send(messages);
    server.create_database(&name).unwrap();
    wait::until("the schema being there again", LIMIT, || {
        Ok(Database::connect(&server.url_of(&name))?.positions().ok())
    })
    .unwrap();
    line.prove();
}

#[test]
fn without_a_database_it_runs_and_a_database_given_later_gets_everything() {
    let mut line = Line::new("later");
    line.start(1);
    let mut messages = day(33, 3000);
    line.send(messages.by_ref().take(2000));
    line.prove();
    line.terminate(0);
    line = line.with_database();
    let options = line.options(0);
    line.instances[0].restart_with(options).unwrap();
    line.wait_ready();
    line.send(messages);
    line.prove();
}
