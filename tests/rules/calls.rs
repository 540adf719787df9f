//! One call per key: shared, cancelled, bounded, and what an outage does to them.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use settle::rules::{
    Answer, Error, Failure, Options, Outcome, Resolver, Service as _, Subscription,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::service::{Service, failed, key, rule, rule_of, status_only, take, until};

#[test]
fn a_hundred_requests_of_many_subscriptions_are_one_call() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let service = Service::start(move |question| {
        held.lock().unwrap().recv().unwrap();
        rule_of(question)
    });
    let resolver = service.resolver();
    let mut subscriptions: Vec<Subscription> = (0..10).map(|_| resolver.subscribe()).collect();
    for _ in 0..10 {
        for subscription in &mut subscriptions {
            subscription.request(&key(1));
        }
    }
    assert_eq!(resolver.status().waiting(), 1);
    until("the question arrives", || resolver.status().on_wire() == 1);
    release.send(()).unwrap();
    for subscription in &mut subscriptions {
        assert_eq!(take(subscription, 1), [(key(1), rule())]);
        assert!(subscription.take_answers().is_empty());
    }
    assert_eq!(service.questions().len(), 1);
    assert_eq!(resolver.status().waiting(), 0);
}

#[test]
fn a_key_can_be_asked_again_after_its_answer_was_taken() {
    let service = Service::start(|_| status_only(404));
    let mut subscription = service.resolver().subscribe();
    for _ in 0..3 {
        subscription.request(&key(1));
        assert_eq!(take(&mut subscription, 1), [(key(1), Answer::NoRule)]);
    }
    assert_eq!(service.questions().len(), 3);
}

#[test]
fn a_cancelled_key_is_asked_no_more_and_leaves_no_answer() {
    let service = Service::start(|question| {
        if question.body.contains("merchant-1\"") {
            status_only(503)
        } else {
            rule_of(question)
        }
    });
    let resolver = service.resolver();
    let mut subscription = resolver.subscribe();
    subscription.request(&key(1));
    until("the first failure", || {
        failed(&resolver.status(), Failure::ServerError) > 0
    });
    subscription.cancel(&key(1));
    assert_eq!(
        (subscription.in_flight(), resolver.status().waiting()),
        (0, 0)
    );
    let asked = service.questions().len();
    // Longer than the first waits of the back-off: a call still under way would have asked.
    std::thread::sleep(Duration::from_millis(700));
    assert!(
        service.questions().len() <= asked + 1,
        "one may have been on the wire"
    );
    subscription.request(&key(2));
    assert_eq!(take(&mut subscription, 1), [(key(2), rule())]);
    until("the wire is empty", || resolver.status().on_wire() == 0);
}

#[test]
fn a_cancelled_key_is_answered_for_the_others() {
    let healthy = Arc::new(AtomicUsize::new(0));
    let switch = Arc::clone(&healthy);
    let service = Service::start(move |question| match switch.load(SeqCst) {
        0 => status_only(503),
        _ => rule_of(question),
    });
    let resolver = service.resolver();
    let (mut stays, mut leaves) = (resolver.subscribe(), resolver.subscribe());
    stays.request(&key(1));
    leaves.request(&key(1));
    leaves.cancel(&key(1));
    healthy.store(1, SeqCst);
    assert_eq!(take(&mut stays, 1), [(key(1), rule())]);
    assert!(leaves.take_answers().is_empty());
}

#[test]
fn an_answer_that_came_before_its_cancellation_is_not_taken() {
    let service = Service::start(rule_of);
    let resolver = service.resolver();
    let mut subscription = resolver.subscribe();
    subscription.request(&key(1));
    until("the answer is there", || {
        resolver.status().calls(Outcome::Rule) == 1 && resolver.status().waiting() == 0
    });
    subscription.cancel(&key(1));
    assert!(subscription.take_answers().is_empty());
    subscription.request(&key(1));
    assert_eq!(take(&mut subscription, 1), [(key(1), rule())]);
}

#[test]
fn a_subscription_that_goes_takes_its_calls_along() {
    let service = Service::start(|_| status_only(503));
    let resolver = service.resolver();
    let mut subscription = resolver.subscribe();
    (0..20).for_each(|n| subscription.request(&key(n)));
    assert_eq!(resolver.status().waiting(), 20);
    drop(subscription);
    assert_eq!(resolver.status().waiting(), 0);
    until("the wire is empty", || resolver.status().on_wire() == 0);
}

#[test]
fn no_more_questions_are_on_the_wire_than_allowed() {
    let service = Service::start(rule_of);
    let options = Options {
        max_concurrent: 4,
        ..service.options()
    };
    let resolver = Resolver::new(&options, service.runtime.handle().clone()).unwrap();
    let mut subscription = resolver.subscribe();
    (0..500).for_each(|n| subscription.request(&key(n)));
    assert_eq!(take(&mut subscription, 500).len(), 500);
    let open_max = service.counter.open_max.load(SeqCst);
    assert!((1..=4).contains(&open_max), "{open_max}");
}

#[test]
fn an_outage_is_probed_and_recovery_asks_each_key_once() {
    const KEYS: usize = 2000;
    let healthy = Arc::new(AtomicUsize::new(0));
    let switch = Arc::clone(&healthy);
    let service = Service::start(move |question| match switch.load(SeqCst) {
        0 => status_only(503),
        _ => rule_of(question),
    });
    let options = Options {
        max_concurrent: 16,
        ..service.options()
    };
    let resolver = Resolver::new(&options, service.runtime.handle().clone()).unwrap();
    let mut subscription = resolver.subscribe();
    (0..KEYS).for_each(|n| subscription.request(&key(n)));
    let status = resolver.status();
    until("the outage is noticed", || status.is_outage());
    until("probes go on", || status.consecutive_failures() >= 22);
    let during = service.questions().len();
    assert!(during < 60, "{during} questions");
    healthy.store(1, SeqCst);
    let answers = take(&mut subscription, KEYS);
    assert!(answers.iter().all(|(_, answer)| *answer == rule()));
    assert!(!status.is_outage());
    assert_eq!(status.calls(Outcome::Rule), KEYS as u64);
    assert_eq!(service.asked().len(), KEYS);
    assert_eq!((status.waiting(), status.on_wire()), (0, 0));
}

#[test]
fn a_key_the_service_cannot_answer_does_not_hold_up_the_others() {
    let service = Service::start(|question| {
        if question.body.contains("merchant-0\"") {
            status_only(500)
        } else {
            rule_of(question)
        }
    });
    let resolver = service.resolver();
    let mut subscription = resolver.subscribe();
    (0..300).for_each(|n| subscription.request(&key(n)));
    let answers = take(&mut subscription, 299);
    assert!(answers.iter().all(|(answered, _)| *answered != key(0)));
    assert_eq!(subscription.in_flight(), 1);
    assert!(!resolver.status().is_outage());
}

#[test]
fn a_key_that_was_not_told_to_wait_is_asked_while_others_wait() {
    const TOLD: usize = 8;
    let service = Service::start(|question| {
        let told = (0..TOLD).any(|n| question.body.contains(&format!("merchant-{n}\"")));
        if told {
            (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "60")]).into_response()
        } else {
            rule_of(question)
        }
    });
    let resolver = service.resolver();
    let mut subscription = resolver.subscribe();
    (0..TOLD).for_each(|n| subscription.request(&key(n)));
    until("the outage is noticed", || resolver.status().is_outage());
    let began = Instant::now();
    subscription.request(&key(TOLD));
    assert_eq!(take(&mut subscription, 1), [(key(TOLD), rule())]);
    assert!(began.elapsed() < Duration::from_secs(10), "{began:?}");
    assert!(!resolver.status().is_outage());
    assert_eq!(service.questions().len(), TOLD + 1);
}

#[test]
fn a_service_that_starts_later_is_found() {
    let runtime = Runtime::new().unwrap();
    let place = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let options = Options {
        url: format!("http://{address}/payout-rules"),
        timeout: Duration::from_secs(5),
        max_concurrent: 2,
        on_call: |_, _| {},
    };
    let resolver = Resolver::new(&options, runtime.handle().clone()).unwrap();
    let mut subscription = resolver.subscribe();
    subscription.request(&key(1));
    let status = resolver.status();
    until("refused", || failed(&status, Failure::NotConnected) > 0);
    let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
    let router = Router::new().fallback(|| async { StatusCode::NOT_FOUND });
    runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
    assert_eq!(take(&mut subscription, 1), [(key(1), Answer::NoRule)]);
}

#[test]
fn every_call_is_reported_with_its_outcome() {
    static RULES: AtomicUsize = AtomicUsize::new(0);
    static FAILURES: AtomicUsize = AtomicUsize::new(0);
    let service = Service::start(|question| match question.number {
        0 => status_only(503),
        _ => rule_of(question),
    });
    let options = Options {
        on_call: |outcome, _took| {
            let count = match outcome {
                Outcome::Failed(_) => &FAILURES,
                Outcome::Rule | Outcome::NoRule => &RULES,
            };
            count.fetch_add(1, SeqCst);
        },
        ..service.options()
    };
    let resolver = Resolver::new(&options, service.runtime.handle().clone()).unwrap();
    let mut subscription = resolver.subscribe();
    subscription.request(&key(1));
    take(&mut subscription, 1);
    assert_eq!((FAILURES.load(SeqCst), RULES.load(SeqCst)), (1, 1));
}

#[test]
fn outcomes_have_different_names() {
    let labels: std::collections::BTreeSet<_> = Outcome::all().map(Outcome::label).collect();
    assert_eq!(labels.len(), Outcome::all().count());
}

#[test]
fn options_that_cannot_work_are_refused() {
    let service = Service::start(rule_of);
    for url in [
        "",
        "payout-rules",
        "127.0.0.1:8090/payout-rules",
        "ftp://127.0.0.1/",
    ] {
        let options = Options {
            url: url.to_owned(),
            ..service.options()
        };
        let refused = Resolver::new(&options, service.runtime.handle().clone());
        assert!(matches!(refused.err(), Some(Error::Url { .. })), "{url}");
    }
    let options = Options {
        max_concurrent: 0,
        ..service.options()
    };
    let refused = Resolver::new(&options, service.runtime.handle().clone());
    assert!(matches!(refused.err(), Some(Error::NoConcurrency)));
}
