//! The HTTP interface over real sockets, asked from outside.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod description;
mod limits;
mod operations;
mod page;
mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::Value;
use settle::domain::partition::of_key;
use settle::domain::totals::Totals;
use settle::http::Services;
use settle::state::view::Served;
use tokio::net::TcpListener;

use crate::server::{PARTITIONS, Server, body, pair};

const ONE_KEY: &str = "/api/aggregation-data?merchantNumber=m-1&paymentDateDailyStr=2025-05-26&actionTypeStr=PAYMENT&methodTypeStr=MONEY";
const ALL: &str = "/api/aggregation-data/all";

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
async fn what_the_group_has_given_to_another_instance_is_asked_of_that_one() {
    let all = [0, 1, 2, 3];
    let other = Server::start(|_| {}).await;
    other.own(&all, &keys(2), usize::MAX);
    let frozen = Server::start(|_| {}).await;
    // What the group said before these partitions came here is of no account.
    frozen.knows(&all, &other.address.to_string());
    frozen.own(&all, &BTreeMap::new(), usize::MAX);
    assert_eq!(frozen.get(ONE_KEY).await.status(), StatusCode::NOT_FOUND);
    frozen.knows(&all, &other.address.to_string());
    assert_eq!(frozen.json(ONE_KEY).await["count"], 2);
    let listed = frozen.json(ALL).await.as_array().unwrap().len();
    assert_eq!(listed, keys(2).len());
}

#[tokio::test]
async fn an_instance_that_the_group_does_not_answer_gives_no_totals() {
    let cut_off = Server::start(|services| services.session_timeout = Duration::ZERO).await;
    cut_off.own(&[0, 1, 2, 3], &keys(2), usize::MAX);
    assert_eq!(cut_off.json(ONE_KEY).await["count"], 2, "not asked yet");
    cut_off.knows(&[], "");
    assert_unavailable(cut_off.get(ONE_KEY).await).await;
    assert_unavailable(cut_off.get(ALL).await).await;
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
