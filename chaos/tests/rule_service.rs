//! The rule service answers as its function says, and fails in every way it can be told to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use chaos::cluster::rule_faults::Fault;
use chaos::cluster::rule_service::{Answer, RuleService, RuleServiceOptions};
use chaos::cluster::rules::{KeyFields, Rule, RuleKey};
use reqwest::blocking::{Client, Response};

/// More than a stall of the machine takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn client() -> Client {
    client_of(PATIENCE)
}

fn client_of(timeout: Duration) -> Client {
    Client::builder()
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

fn key(number: usize) -> RuleKey {
    RuleKey {
        merchant_number: format!("merchant-{number}"),
        payment_day: "2025-05-26".parse().unwrap(),
        action_type: "PAYMENT".to_owned(),
        method_type: "MONEY".to_owned(),
    }
}

fn ask(client: &Client, service: &RuleService, fields: &KeyFields) -> reqwest::Result<Response> {
    client.post(service.url()).json(fields).send()
}

fn rule(client: &Client, service: &RuleService, key: &RuleKey) -> reqwest::Result<Rule> {
    ask(client, service, &key.fields())?.json()
}

fn start() -> RuleService {
    RuleService::start(&RuleServiceOptions::default()).unwrap()
}

/// A key that has a rule.
fn known(service: &RuleService) -> RuleKey {
    (0..1_000)
        .map(key)
        .find(|key| service.rule_of(key).is_some())
        .unwrap()
}

#[test]
fn answers_are_those_of_the_function_and_stand_in_the_ledger() {
    let service = start();
    let client = client();
    for key in (0..200).map(key) {
        let response = ask(&client, &service, &key.fields()).unwrap();
        match service.rule_of(&key) {
            Some(expected) => assert_eq!(response.json::<Rule>().unwrap(), expected),
            None => assert!(matches!(response.status().as_u16(), 204 | 404)),
        }
    }
    ask(&client, &service, &key(3).fields()).unwrap();
    let counts = service.calls_by_key();
    assert_eq!(counts.len(), 200);
    assert_eq!(counts[&key(3)], 2);
    service.forget_calls();
    assert_eq!(service.call_count(), 0);
}

#[test]
fn a_request_for_a_time_of_day_is_refused() {
    let service = start();
    let mut fields = key(1).fields();
    fields.payment_date = "2025-05-26T10:00:00".to_owned();
    let response = ask(&client(), &service, &fields).unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(service.calls()[0].answer, Answer::BadRequest);
}

#[test]
fn faults_that_answer_answer_wrongly() {
    let service = start();
    let client = client();
    let key = known(&service);
    service.set_fault(Fault::Status {
        code: 429,
        retry_after: Some(7),
    });
    let response = ask(&client, &service, &key.fields()).unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "7");
    service.set_fault(Fault::Redirect);
    assert_eq!(ask(&client, &service, &key.fields()).unwrap().status(), 302);
    service.set_fault(Fault::Garbage);
    assert!(rule(&client, &service, &key).unwrap_err().is_decode());
    service.set_fault(Fault::WrongKey);
    assert_ne!(rule(&client, &service, &key).unwrap().key, key.fields());
    assert_eq!(
        service.calls()[0].answer,
        Answer::Faulty(Fault::Status {
            code: 429,
            retry_after: Some(7)
        })
    );
    service.set_fault(Fault::Healthy);
    assert_eq!(
        rule(&client, &service, &key).unwrap(),
        service.rule_of(&key).unwrap()
    );
}

#[test]
fn faults_of_the_connection_break_it() {
    let service = start();
    let client = client();
    let key = known(&service);
    service.set_fault(Fault::Reset);
    let error = rule(&client, &service, &key).unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("ConnectionReset"), "{text}");
    service.set_fault(Fault::Refused);
    // The listener closes on its own thread.
    let refused = chaos::cluster::wait::until("refusal", PATIENCE, || {
        let error = std::net::TcpStream::connect(service.address()).err();
        Ok(error.filter(|error| error.kind() == std::io::ErrorKind::ConnectionRefused))
    });
    refused.unwrap();
    assert!(rule(&client, &service, &key).unwrap_err().is_connect());
    service.set_fault(Fault::Healthy);
    let answer = chaos::cluster::wait::until("recovery", PATIENCE, || {
        Ok(rule(&client, &service, &key).ok())
    });
    assert_eq!(answer.unwrap(), service.rule_of(&key).unwrap());
}

#[test]
fn faults_of_time_take_their_time() {
    let service = start();
    let client = client();
    let key = known(&service);
    let slow = Duration::from_millis(300);
    for fault in [Fault::Delay(slow), Fault::SlowBody(slow), Fault::Hang(slow)] {
        service.set_fault(fault);
        let start = Instant::now();
        assert_eq!(
            rule(&client, &service, &key).unwrap(),
            service.rule_of(&key).unwrap()
        );
        assert!(start.elapsed() >= slow, "{fault:?}");
    }
    service.set_fault(Fault::Hang(Duration::from_secs(60)));
    let impatient = client_of(Duration::from_secs(2));
    let error = rule(&impatient, &service, &key).unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    let start = Instant::now();
    drop(service);
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn a_share_of_the_calls_can_fail() {
    let service = start();
    let client = client();
    service.set_fault_for(
        Fault::Status {
            code: 503,
            retry_after: None,
        },
        0.5,
    );
    let failed = (0..20)
        .map(|number| ask(&client, &service, &key(number).fields()).unwrap())
        .filter(|response| response.status() == 503)
        .count();
    assert_eq!(failed, 10);
}
