//! Changelogs that were cut, deleted, made anew, or written to by others.

use std::fs;

use chaos::cluster::scratch::copy_files;
use chaos::cluster::tools::Tool;
use chaos::cluster::wait;

use crate::line::{LIMIT, Line, count, day};
use crate::operator::{
    BROKEN_PROMISE, FAILED, assert_contains, delete_topic, ends, entries, kafka, line, positions,
    refused,
};
use crate::parts::Parts;

const PARTS: Parts = Parts {
    day,
    seed: 301,
    size: 700,
};

/// A stopped pipeline that has settled the first part of a day.
fn stopped(name: &str) -> Line {
    let mut line = line(name);
    line.start(1);
    PARTS.send(&line, 0);
    line.settle();
    line.terminate(0);
    line
}

/// Goes on with the next part and repeats of the first, and proves everything.
fn goes_on(line: &mut Line, number: usize) {
    line.restart(0);
    PARTS.send(line, number);
    line.send(PARTS.day().take(100));
    let proof = line.prove();
    assert!(count(&proof, "DUPLICATE") >= 70, "{:?}", proof.tally);
    line.terminate(0);
}

/// As a careless operator would.
fn cut(line: &Line, topic: &str, partition: i32, before: i64) {
    line.topics
        .configure(topic, "cleanup.policy", "delete")
        .unwrap();
    // The partition's leader learns of it a moment later.
    wait::until("the deletion of records", LIMIT, || {
        let deleted = line.topics.delete_records(topic, partition, before);
        Ok(deleted.is_ok().then_some(()))
    })
    .unwrap();
    line.topics
        .configure(topic, "cleanup.policy", "compact")
        .unwrap();
}

#[test]
fn a_changelog_of_totals_that_was_cut_is_told_of_and_refused_where_totals_are_missing() {
    let mut line = stopped("cut");
    let changelog = line.names.changelog.clone();
    let end = ends(&line, &changelog)[0];
    // The local state reaches beyond what was deleted.
    cut(&line, &changelog, 0, end - 10);
    goes_on(&mut line, 1);
    let told = entries(&line.log(0), "records of this changelog were deleted");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["from"], end - 10);
    // Nobody else can take the partition over.
    line.lose_state(0).unwrap();
    let log = refused(&mut line, BROKEN_PROMISE);
    let begins = format!(
        "the changelog begins at {}, the local state ends at 0",
        end - 10
    );
    assert_contains(
        &log,
        &[
            &begins,
            &format!("{changelog}/0"),
            "settle positions rebuild",
        ],
    );
    let (code, printed) = positions(&line, &["rebuild"]);
    assert_eq!(code, FAILED, "{printed}");
    assert_contains(&printed, &["delete the topic first", &changelog]);
    delete_topic(&line, &changelog);
    let (code, printed) = positions(&line, &["rebuild"]);
    assert_eq!(code, 0, "{printed}");
    assert_eq!(
        printed.matches("with the totals of").count(),
        4,
        "{printed}"
    );
    goes_on(&mut line, 2);
}

#[test]
fn a_changelog_that_was_cut_behind_an_older_state_is_rebuilt_for_ingest_and_refused_for_totals() {
    let mut line = stopped("behind");
    let state = line.instances[0].options().state_directory();
    let old = state.with_extension("old");
    copy_files(&state, &old).unwrap();
    goes_on(&mut line, 1);
    let ingest = line.names.ingest_changelog.clone();
    let totals = line.names.changelog.clone();
    // Each still has its last transaction.
    for partition in 0..4 {
        let index = usize::try_from(partition).unwrap();
        cut(&line, &ingest, partition, ends(&line, &ingest)[index] - 2);
    }
    fs::remove_dir_all(&state).unwrap();
    copy_files(&old, &state).unwrap();
    line.restart(0);
    PARTS.send(&line, 2);
    line.send(PARTS.day().take(100));
    assert!(count(&line.prove(), "DUPLICATE") >= 170);
    let log = line.log(0);
    let aside = entries(&log, "local state is damaged");
    assert_eq!(aside.len(), 4, "{aside:?}");
    assert_contains(&log, &["the record it ends with was deleted"]);
    line.terminate(0);
    for partition in 0..4 {
        let index = usize::try_from(partition).unwrap();
        cut(&line, &totals, partition, ends(&line, &totals)[index] - 2);
    }
    fs::remove_dir_all(&state).unwrap();
    copy_files(&old, &state).unwrap();
    let log = refused(&mut line, BROKEN_PROMISE);
    assert_contains(
        &log,
        &["the changelog begins at", "settle positions rebuild"],
    );
    delete_topic(&line, &totals);
    let (code, printed) = positions(&line, &["rebuild"]);
    assert_eq!(code, 0, "{printed}");
    // The old files would fit into the new log.
    goes_on(&mut line, 3);
    assert_contains(&line.log(0), &["its changelog was made anew since"]);
}

#[test]
fn changelogs_that_were_deleted_are_refused_and_rebuilt_from_what_was_published() {
    let mut line = stopped("deleted");
    let changelogs = [
        line.names.changelog.clone(),
        line.names.ingest_changelog.clone(),
    ];
    for (number, changelog) in (1..).zip(&changelogs) {
        delete_topic(&line, changelog);
        // The start makes it anew, empty; local state is there, and then it is not.
        for is_lost in [false, true] {
            if is_lost {
                line.lose_state(0).unwrap();
            }
            let log = refused(&mut line, BROKEN_PROMISE);
            let parts = [
                "the changelog holds no position",
                "settle positions rebuild",
            ];
            assert_contains(&log, &parts);
        }
        let (code, printed) = positions(&line, &["show"]);
        assert_eq!(code, BROKEN_PROMISE, "{printed}");
        assert_contains(
            &printed,
            &["position none", "refused: the changelog holds no position"],
        );
        let (code, printed) = positions(&line, &["rebuild"]);
        assert_eq!(code, 0, "{printed}");
        let (code, printed) = positions(&line, &["show"]);
        assert_eq!(code, 0, "{printed}");
        goes_on(&mut line, number);
    }
}

#[test]
fn changelogs_and_offsets_that_were_both_deleted_are_no_first_start() {
    let mut line = stopped("forgotten");
    let topics = [line.names.source.clone(), line.names.bases.clone()];
    let group = line.names.application_id.clone();
    let stood = topics
        .clone()
        .map(|topic| line.topics.committed(&group, &topic).unwrap());
    // The group lets go of the stopped instance first.
    let (code, _) = positions(&line, &["rebuild"]);
    assert_eq!(code, 0);
    kafka(
        &line,
        Tool::ConsumerGroups,
        &["--delete", "--group", &group],
    );
    delete_topic(&line, &line.names.changelog);
    delete_topic(&line, &line.names.ingest_changelog);
    for is_lost in [false, true] {
        if is_lost {
            line.lose_state(0).unwrap();
        }
        let log = refused(&mut line, BROKEN_PROMISE);
        let parts = ["a position, but", "has a record at", "--reset-offsets"];
        assert_contains(&log, &parts);
    }
    let (code, printed) = positions(&line, &["rebuild"]);
    assert_eq!(code, 0, "{printed}");
    assert_contains(&printed, &["no position, and none of the group either"]);
    for (topic, offsets) in topics.iter().zip(&stood) {
        for (partition, offset) in offsets.iter().enumerate() {
            let place = format!("{topic}:{partition}");
            let offset = offset.unwrap().to_string();
            let reset = ["--reset-offsets", "--group", &group, "--topic", &place];
            let to = ["--to-offset", &offset, "--execute"];
            kafka(&line, Tool::ConsumerGroups, &[&reset[..], &to].concat());
        }
    }
    let (code, printed) = positions(&line, &["rebuild"]);
    assert_eq!(code, 0, "{printed}");
    goes_on(&mut line, 1);
}

#[test]
fn a_changelog_that_another_has_written_to_is_refused_and_rebuilt() {
    let mut line = stopped("foreign");
    let changelogs = [
        line.names.changelog.clone(),
        line.names.ingest_changelog.clone(),
    ];
    for (number, changelog) in (1..).zip(&changelogs) {
        let offset = ends(&line, changelog)[2];
        line.produce(changelog, 2, "someone else's", Some("nonsense"));
        let log = refused(&mut line, BROKEN_PROMISE);
        let place = format!("{changelog}/2: the record at {offset} is none of this service's");
        assert_contains(
            &log,
            &[
                &place,
                "kafka-topics.sh --delete",
                "settle positions rebuild",
            ],
        );
        delete_topic(&line, changelog);
        let (code, printed) = positions(&line, &["rebuild"]);
        assert_eq!(code, 0, "{printed}");
        goes_on(&mut line, number);
    }
}
