//! The HTTP interface over real sockets: one or two servers on loopback whose partitions are
//! served from memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use settle::clock;
use settle::domain::partition::of_key;
use settle::domain::totals::Totals;
use settle::engine::status::{Kind, Phase, Status, Task};
use settle::http::{self, Generator, Owners, Rules, Services, Sink};
use settle::state::view::{Error, Served, Source, Views};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PARTITIONS: i32 = 4;
const ONE_KEY: &str = "/api/aggregation-data?merchantNumber=m-1&paymentDateDailyStr=2025-05-26&actionTypeStr=PAYMENT&methodTypeStr=MONEY";
const ALL: &str = "/api/aggregation-data/all";

/// A partition in memory; reading fails from the n-th page on.
struct Memory {
    totals: BTreeMap<String, Totals>,
    pages_left: AtomicUsize,
}

impl Source for Memory {
    fn get(&self, rule_key: &str) -> Result<(Option<Totals>, i64), Error> {
        Ok((self.totals.get(rule_key).copied(), 17))
    }

    fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(String, Totals)>, i64), Error> {
        let take = |left: usize| left.checked_sub(1);
        self.pages_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .map_err(|_| Error("damaged".into()))?;
        let after = after.unwrap_or_default();
        let rest = self.totals.iter().filter(|(key, _)| key.as_str() > after);
        let page = rest.take(limit).map(|(key, totals)| (key.clone(), *totals));
        Ok((page.collect(), 17))
    }
}

/// One running server.
struct Server {
    address: SocketAddr,
    services: Services,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
    client: Client,
}

impl Server {
    async fn start(adapt: impl FnOnce(&mut Services)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut services = Services {
            instance: format!("settle-{}", address.port()),
            advertise: address.to_string(),
            views: Views::default(),
            status: Status::new(1),
            bases_partitions: PARTITIONS,
            owners: Owners::default(),
            token: None,
            generator: None,
            sink: None,
            rules: Arc::new(Rules::default),
        };
        adapt(&mut services);
        let (stop, stopped) = oneshot::channel();
        let serving = http::serve(listener, services.clone(), async {
            stopped.await.unwrap_or_default();
        });
        Self {
            address,
            services,
            stop,
            ended: tokio::spawn(serving),
            client: Client::new(),
        }
    }

    async fn get(&self, path: &str) -> Response {
        let url = format!("http://{}{path}", self.address);
        self.client.get(url).send().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        body(response).await
    }

    /// Serves `partitions` of `keys`; reading fails after so many pages of each.
    fn own(&self, partitions: &[i32], keys: &BTreeMap<String, Totals>, pages: usize) {
        for partition in partitions {
            let of = |key: &str| of_key(key.as_bytes(), PARTITIONS);
            let own = keys.iter().filter(|(key, _)| of(key) == *partition);
            let source = Memory {
                totals: own.map(|(key, totals)| (key.clone(), *totals)).collect(),
                pages_left: AtomicUsize::new(pages),
            };
            let views = &self.services.views;
            views.serve(*partition, Served::Ready(Arc::new(source)));
        }
    }

    fn knows(&self, partitions: &[i32], owner: &str) {
        let owners = partitions.iter().map(|of| (*of, owner.to_owned()));
        self.services.owners.set(owners.collect());
    }
}

/// Two servers with two partitions each, which know each other.
async fn pair(keys: &BTreeMap<String, Totals>, adapt: fn(&mut Services)) -> (Server, Server) {
    let one = Server::start(adapt).await;
    let other = Server::start(adapt).await;
    one.own(&[0, 1], keys, usize::MAX);
    other.own(&[2, 3], keys, usize::MAX);
    one.knows(&[2, 3], &other.address.to_string());
    other.knows(&[0, 1], &one.address.to_string());
    (one, other)
}

/// Keys of so many merchants on two days.
fn keys(merchants: i64) -> BTreeMap<String, Totals> {
    let days = ["2025-05-26", "2025-05-27"];
    let keys = (0..merchants).flat_map(|merchant| days.map(|day| (merchant, day)));
    let entry = |(merchant, day)| {
        let amount = merchant - 3;
        let key = format!("m-{merchant}/{day}/PAYMENT/MONEY");
        (key, Totals { amount, count: 2 })
    };
    keys.map(entry).collect()
}

fn path_of(merchant: i64) -> String {
    ONE_KEY.replace("m-1&", &format!("m-{merchant}&"))
}

async fn body(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn rule_keys(listing: &Value) -> Vec<String> {
    let entries = listing.as_array().unwrap().iter();
    entries
        .map(|entry| {
            let field = |name: &str| entry["key"][name].as_str().unwrap();
            let (merchant, day) = (field("merchantNumber"), field("paymentDateDaily"));
            let (action, method) = (field("paymentActionType"), field("paymentMethodType"));
            format!("{merchant}/{day}/{action}/{method}")
        })
        .collect()
}

async fn assert_unavailable(response: Response) {
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    assert!(body(response).await["error"].is_string());
}

#[tokio::test]
async fn any_instance_answers_for_every_key() {
    let (one, other) = pair(&keys(20), |_| {}).await;
    for merchant in 0..20 {
        let key = format!("m-{merchant}/2025-05-26/PAYMENT/MONEY");
        let position = format!("{}/17", of_key(key.as_bytes(), PARTITIONS));
        for server in [&one, &other] {
            let response = server.get(&path_of(merchant)).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()["settle-position"], position.as_str());
            assert_eq!(response.headers()["content-type"], "application/json");
            let expected = format!(r#"{{"totalAmount":{},"count":2}}"#, merchant - 3);
            assert_eq!(response.text().await.unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn a_key_without_settlements_is_not_found_wherever_it_lives() {
    let (one, other) = pair(&BTreeMap::new(), |_| {}).await;
    for server in [&one, &other] {
        let response = server.get(ONE_KEY).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(response.headers().contains_key("settle-position"));
    }
}

#[tokio::test]
async fn a_bad_parameter_is_named_and_enums_are_taken_in_any_case() {
    let server = Server::start(|_| {}).await;
    server.own(&[0, 1, 2, 3], &keys(2), usize::MAX);
    let bad = |from, to| ONE_KEY.replace(from, to);
    for (path, name) in [
        (bad("m-1", ""), "merchantNumber"),
        (bad("2025-05-26", "26.5.2025"), "paymentDateDailyStr"),
        (bad("PAYMENT", "REFUND"), "actionTypeStr"),
        (bad("&methodTypeStr=MONEY", ""), "methodTypeStr"),
        (format!("{ALL}?limit=none"), "limit"),
        (format!("{ALL}?after=x"), "after"),
    ] {
        let response = server.get(&path).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
        let body = body(response).await;
        assert_eq!(body["parameter"], name);
        assert!(body["error"].as_str().unwrap().contains(name));
    }
    let path = bad("PAYMENT", "payment").replace("MONEY", "Money");
    assert_eq!(server.json(&path).await["count"], 2);
}

#[tokio::test]
async fn a_restoring_owner_is_unavailable_here_and_through_another_instance() {
    let (one, other) = pair(&BTreeMap::new(), |_| {}).await;
    for server in [&one, &other] {
        for partition in server.services.views.all().into_keys() {
            server.services.views.serve(partition, Served::Restoring);
        }
    }
    for server in [&one, &other] {
        assert_unavailable(server.get(ONE_KEY).await).await;
        assert_unavailable(server.get(ALL).await).await;
    }
}

#[tokio::test]
async fn a_partition_without_a_reachable_owner_is_unavailable() {
    let server = Server::start(|_| {}).await;
    assert_unavailable(server.get(ONE_KEY).await).await;
    assert_unavailable(server.get(ALL).await).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    server.knows(&[0, 1, 2, 3], &address);
    assert_unavailable(server.get(ONE_KEY).await).await;
    assert_unavailable(server.get(ALL).await).await;
    server.knows(&[0, 1, 2, 3], &server.services.advertise);
    assert_unavailable(server.get(ONE_KEY).await).await;
}

#[tokio::test]
async fn a_forwarded_request_is_never_forwarded_again() {
    let one = Server::start(|_| {}).await;
    let other = Server::start(|_| {}).await;
    one.knows(&[0, 1, 2, 3], &other.address.to_string());
    other.knows(&[0, 1, 2, 3], &one.address.to_string());
    let response = one.get(ONE_KEY).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = response.text().await.unwrap();
    assert!(body.contains("is not served here"), "{body}");
    assert_unavailable(one.get(ALL).await).await;
}

#[tokio::test]
async fn the_listing_merges_all_instances_in_rule_key_order() {
    let keys = keys(3000);
    let (one, other) = pair(&keys, |_| {}).await;
    for server in [&one, &other] {
        let response = server.get(ALL).await;
        let positions = "0/17, 1/17, 2/17, 3/17";
        assert_eq!(response.headers()["settle-position"], positions);
        let listing = body(response).await;
        assert!(rule_keys(&listing).iter().eq(keys.keys()));
    }
    let first = one.get(&format!("{ALL}?limit=1")).await;
    let expected = r#"[{"key":{"merchantNumber":"m-0","paymentDateDaily":"2025-05-26","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"},"value":{"totalAmount":-3,"count":2}}]"#;
    assert_eq!(first.text().await.unwrap(), expected);
}

#[tokio::test]
async fn the_listing_is_filtered_and_paged() {
    let keys = keys(40);
    let (one, other) = pair(&keys, |_| {}).await;
    let merchant = one.json(&format!("{ALL}?merchantNumber=m-1")).await;
    let expected = ["2025-05-26", "2025-05-27"].map(|day| format!("m-1/{day}/PAYMENT/MONEY"));
    assert_eq!(rule_keys(&merchant), expected);
    let day = format!("{ALL}?paymentDateDailyStr=2025-05-27");
    let day = other.json(&day).await;
    let expected = keys.keys().filter(|key| key.contains("/2025-05-27/"));
    assert!(rule_keys(&day).iter().eq(expected));
    let nobody = one.get(&format!("{ALL}?merchantNumber=nobody")).await;
    assert_eq!(nobody.text().await.unwrap(), "[]");

    let mut walked = Vec::new();
    let mut path = format!("{ALL}?limit=7");
    loop {
        let page = rule_keys(&one.json(&path).await);
        let Some(last) = page.last() else { break };
        path = format!("{ALL}?limit=7&after={}", last.replace('/', "%2F"));
        walked.extend(page);
    }
    assert!(walked.iter().eq(keys.keys()));
}

#[tokio::test]
async fn a_listing_that_loses_a_partition_on_the_way_is_cut() {
    let keys = keys(6000);
    let (one, other) = pair(&keys, |_| {}).await;
    for server in [&one, &other] {
        one.own(&[0, 1], &keys, usize::MAX);
        other.own(&[2, 3], &keys, 2);
        let response = server.get(ALL).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.bytes().await.is_err());
        let refused = server.get(ALL).await.status();
        assert!(refused.is_server_error(), "{refused}");
    }
}

#[tokio::test]
async fn a_token_guards_all_but_health_and_metrics_and_travels_with_forwarded_requests() {
    let token = |services: &mut Services| services.token = Some("secret".into());
    let (one, _other) = pair(&keys(20), token).await;
    let request = |path: &str| one.client.get(format!("http://{}{path}", one.address));
    for path in ["/livez", "/readyz", "/metrics"] {
        let status = one.get(path).await.status();
        assert_ne!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let page = "/internal/totals?partition=0";
    for path in [ONE_KEY, ALL, "/api/status", page, "/unknown"] {
        let wrong = ["secre", "secret2", ""].map(|given| request(path).bearer_auth(given));
        for request in wrong.into_iter().chain([request(path)]) {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
        }
    }
    for path in (0..20).map(path_of).chain([ALL.to_owned()]) {
        let response = request(&path).bearer_auth("secret").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn readiness_waits_for_connection_assignment_and_restore_but_not_for_the_database() {
    let server = Server::start(|services| services.sink = Some(Arc::new(Sink::default))).await;
    let worker = &server.services.status.workers[0];
    let task = |phase| {
        let task = Task {
            phase,
            position: 5,
            lag: Some(3),
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
    assert_eq!(server.get("/livez").await.status(), StatusCode::OK);
}

/// A server whose every status has something to show.
async fn busy() -> Server {
    let server = Server::start(|services| {
        services.sink = Some(Arc::new(|| Sink {
            connected: true,
            rows: BTreeMap::from([("settlement".into(), 12)]),
            lag: BTreeMap::from([(("settlements".into(), 2), 34)]),
            problem: None,
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
        "settle_ready 0",
        "settle_build_info{version=\"0.1.0\"} 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
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
