//! Health, status, metrics, the generator, and what no path answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use settle::clock;
use settle::engine::status::{Kind, Phase, Status, Task, Unstable, Waiting};
use settle::http::{Generator, Rules, Sink};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::{Server, body};

#[tokio::test]
async fn readiness_waits_for_connection_assignment_and_restore_but_not_for_the_database() {
    let server = Server::start(|services| services.sink = Some(Arc::new(Sink::default))).await;
    let worker = &server.services.status.workers[0];
    let task = |phase| {
        let task = Task {
            phase,
            position: 5,
            lag: Some(3),
            waiting: Waiting::default(),
            unstable: Unstable::default(),
            oldest: None,
        };
        BTreeMap::from([((Kind::Settle, 1), task)])
    };
    let failing = async || {
        let response = server.get("/readyz").await;
        let status = response.status().as_u16();
        let body = body(response).await;
        let checks = body["checks"].as_object().unwrap().iter();
        let failing = checks.filter(|(_, check)| check["ok"] == json!(false));
        let mut failing: Vec<_> = failing.map(|(name, _)| name.as_str()).collect();
        failing.sort_unstable();
        (status, failing.join(" "))
    };
    worker.set_tasks(task(Phase::Restoring { remaining: 9 }));
    let all = "assigned connected restored sink";
    assert_eq!(failing().await, (503, all.to_owned()));
    worker.set_connected(true);
    worker.set_assigned(true);
    assert_eq!(failing().await, (503, "restored sink".to_owned()));
    worker.set_tasks(task(Phase::Running));
    assert_eq!(failing().await, (200, "sink".to_owned()));
    worker.turn(u64::MAX);
    assert_eq!(server.get("/livez").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stuck_loop_is_not_alive_and_a_dependency_that_is_down_is_no_stuck_loop() {
    let server = Server::start(|services| {
        services.status = Status::new(2);
        services.sink = Some(Arc::new(Sink::default));
        services.rules = Arc::new(|| Rules {
            outage: true,
            ..Rules::default()
        });
    })
    .await;
    let workers = &server.services.status.workers;
    let alive = async || {
        let response = server.get("/livez").await;
        let status = response.status().as_u16();
        let body = body(response).await;
        let workers = body["workers"].as_array().unwrap().iter();
        let ok: Vec<_> = workers.map(|worker| worker["ok"] == true).collect();
        assert_eq!(body["alive"] == true, status == 200);
        (status, ok)
    };
    // This thread serves too, by this clock.
    clock::simulate(Duration::from_secs(100));
    workers[0].turn(100_000);
    workers[1].turn(41_000);
    // Not connected, not assigned, no database, no rules.
    assert_eq!(
        server.get("/readyz").await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(alive().await, (200, vec![true, true]));
    clock::simulate(Duration::from_secs(102));
    assert_eq!(alive().await, (503, vec![true, false]));
    workers[1].turn(102_000);
    assert_eq!(alive().await, (200, vec![true, true]));
}

/// A server whose every status has something to show.
async fn busy() -> Server {
    let server = Server::start(|services| {
        services.sink = Some(Arc::new(|| Sink {
            connected: true,
            rows: BTreeMap::from([("settlement".into(), 12)]),
            lag: BTreeMap::from([(("settlements".into(), 2), 34)]),
            ..Sink::default()
        }));
        services.rules = Arc::new(|| Rules {
            calls: BTreeMap::from([("rule", 5)]),
            in_flight: 2,
            ..Rules::default()
        });
    })
    .await;
    let worker = &server.services.status.workers[0];
    worker.turn(u64::try_from(clock::now().as_millis()).unwrap());
    worker.set_problem("the broker went away".into());
    let task = Task {
        phase: Phase::Running,
        position: 81,
        lag: Some(7),
        waiting: Waiting::default(),
        unstable: Unstable {
            records: 4,
            stuck: Duration::from_millis(2500),
        },
        oldest: Some(Duration::from_millis(1500)),
    };
    worker.set_tasks(BTreeMap::from([((Kind::Ingest, 3), task)]));
    server
}

#[tokio::test]
async fn status_shows_tasks_owners_sink_and_rules() {
    let server = busy().await;
    server.own(&[1], &BTreeMap::new(), usize::MAX);
    server.knows(&[2], "10.0.0.2:8080");
    let status = server.json("/api/status").await;
    assert_eq!(status["instance"], server.services.instance.as_str());
    let partition = &status["partitions"][0];
    assert_eq!(partition["position"], 81);
    assert_eq!(partition["lag"], 7);
    assert_eq!(partition["phase"], "running");
    assert_eq!(status["workers"][0]["lastProblem"], "the broker went away");
    assert_eq!(status["sink"]["rows"]["settlement"], 12);
    assert_eq!(status["rules"]["inFlight"], 2);
    let own = &server.services.advertise;
    let owners = json!({"0": null, "1": own, "2": "10.0.0.2:8080", "3": null});
    assert_eq!(status["owners"], owners);
    // The task of ingest is one of this instance.
    assert_eq!(
        status["sourceOwners"],
        json!({"0": null, "1": null, "2": null, "3": own})
    );
    assert_eq!(status["address"], own.as_str());
    assert!(status["workers"][0]["lastProblemMillisAgo"].is_u64());
}

#[tokio::test]
async fn metrics_show_the_same_and_forget_a_partition_that_left() {
    let server = busy().await;
    let response = server.get("/metrics").await;
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/plain"));
    let text = response.text().await.unwrap();
    for line in [
        "settle_lag_records{kind=\"ingest\",partition=\"3\"} 7",
        "settle_position_offset{kind=\"ingest\",partition=\"3\"} 81",
        "settle_task_phase{kind=\"ingest\",partition=\"3\",phase=\"running\"} 1",
        "settle_task_phase{kind=\"ingest\",partition=\"3\",phase=\"restoring\"} 0",
        "settle_sink_lag_records{topic=\"settlements\",partition=\"2\"} 34",
        "settle_sink_rows_total{table=\"settlement\"} 12",
        "settle_rule_calls_total{result=\"rule\"} 5",
        "settle_rules_in_flight 2",
        "settle_stable_offset_gap_records{kind=\"ingest\",partition=\"3\"} 4",
        "settle_stable_offset_stuck_seconds{kind=\"ingest\",partition=\"3\"} 2.5",
        "settle_oldest_unsettled_seconds{kind=\"ingest\",partition=\"3\"} 1.5",
        "settle_partitions_without_owner 4",
        "settle_ready 0",
        "settle_build_info{version=\"0.1.0\"} 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    // Those of all servers of this process.
    let asked = "settle_http_requests_total{route=\"/api/status\",code=\"200\"} ";
    assert!(text.lines().any(|line| line.starts_with(asked)), "{text}");
    let worker = &server.services.status.workers[0];
    worker.set_tasks(BTreeMap::new());
    let text = server.get("/metrics").await.text().await.unwrap();
    assert!(!text.contains("settle_lag_records"), "{text}");
}

#[tokio::test]
async fn the_generator_is_there_only_when_it_is_configured() {
    let server = Server::start(|_| {}).await;
    let status = server.get("/api/payment/send/3").await.status();
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_generator_sends_what_was_asked_for_one_request_at_a_time() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let (begun, mut begin) = tokio::sync::mpsc::unbounded_channel();
    let generator: Generator = Arc::new(move |payments| {
        begun.send(()).unwrap();
        released.lock().unwrap().recv().unwrap();
        Ok(payments.count() as u64)
    });
    let server = Server::start(|services| services.generator = Some(generator)).await;
    for count in ["0", "-1", "x", "1000001"] {
        let response = server.get(&format!("/api/payment/send/{count}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{count}");
    }
    let second = async {
        begin.recv().await.unwrap();
        let response = server.get("/api/payment/send/3").await;
        release.send(()).unwrap();
        response.status()
    };
    let (first, second) = tokio::join!(server.get("/api/payment/send/3"), second);
    assert_eq!(first.text().await.unwrap(), r#"{"sent":3}"#);
    assert_eq!(second, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn unknown_paths_other_methods_and_endless_heads_are_refused() {
    let server = Server::start(|_| {}).await;
    let response = server.get("/api/unknown").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(body(response).await["error"].is_string());
    let url = format!("http://{}/api/status", server.address);
    let response = server.client.post(url).body("x").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(response.headers().contains_key("allow"));

    let mut raw = TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n", "y".repeat(64 * 1024));
    // The server may hang up before it has read all of it.
    drop(raw.write_all(head.as_bytes()).await);
    let mut answer = Vec::new();
    drop(raw.read_to_end(&mut answer).await);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_closes_the_door() {
    let server = Server::start(|_| {}).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    server.get("/livez").await;
    server.stop.send(()).unwrap();
    let limit = Duration::from_secs(20);
    timeout(limit, server.ended).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
    drop(silent);
}
