//! `docs/openapi.yaml` against the servers: requests of every kind that it allows, and of many that it does not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chaos::checkers::checker;
use serde_norway::Value;
use tokio::task::spawn_blocking;

use crate::keys;
use crate::server::pair;

const TOKEN: &str = "a token that is long enough";

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_gets_an_answer_that_the_description_does_not_promise() {
    let check = spawn_blocking(|| checker("schemathesis"));
    let mut check = check.await.unwrap().unwrap();
    let notes = tempfile::tempdir().unwrap();
    let (one, other) = pair(&keys(20), |services| {
        services.token = Some(TOKEN.into());
        services.generator = Some(Arc::new(|payments| Ok(payments.take(1).count() as u64)));
        let worker = &services.status.workers[0];
        worker.set_connected(true);
        worker.set_assigned(true);
        worker.turn(u64::MAX);
    })
    .await;
    check
        // Where it leaves what it remembers of a run.
        .current_dir(notes.path())
        .arg("run")
        .arg(document("openapi.yaml"))
        .args(["--url", &format!("http://{}", one.address)])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        // What a parameter has to be is more than a schema says: bytes, days that exist, any case. That an owner does not
        // answer in time is described.
        .args([
            "--exclude-checks",
            "positive_data_acceptance,negative_data_rejection,not_a_server_error",
        ])
        .args(["--max-examples", "100", "--seed", "1", "--no-color"]);
    let output = spawn_blocking(move || check.output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    drop(other);
}

#[test]
fn every_path_of_the_contract_is_described() {
    let contract = fs::read_to_string(document("contract.md")).unwrap();
    let spans = contract
        .split('`')
        .filter_map(|span| span.strip_prefix("GET "));
    let promised = spans.map(|path| path.split('?').next().unwrap());
    let promised: BTreeSet<&str> = promised.collect();
    let description = fs::read(document("openapi.yaml")).unwrap();
    let description: Value = serde_norway::from_slice(&description).unwrap();
    let paths = description["paths"].as_mapping().unwrap().keys();
    let described: BTreeSet<&str> = paths.map(|path| path.as_str().unwrap()).collect();
    assert_eq!(described, promised);
    assert!(!described.is_empty());
}
