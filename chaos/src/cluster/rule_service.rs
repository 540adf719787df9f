//! A real HTTP server that answers for payout rules, on a thread of its own, with faults that can be switched and a
//! ledger of every call.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::connect_info::ConnectInfo;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::{oneshot, watch};

use crate::cluster::ports;
use crate::cluster::rule_faults::{Fault, Plan};
use crate::cluster::rule_listener::{Listener, Peer};
use crate::cluster::rules::{self, KeyFields, Rule, RuleKey};

const PATH: &str = "/payout-rules";
const SLOW_PIECES: u32 = 10;

/// How a [`RuleService`] is made.
#[derive(Debug, Clone, Copy)]
pub struct RuleServiceOptions {
    /// Decides all answers, with the rule key.
    pub seed: u64,
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether the ledger is kept; a service that runs for days does without.
    pub keep_calls: bool,
}

impl Default for RuleServiceOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            keep_calls: true,
        }
    }
}

/// One call that reached the service.
#[derive(Debug, Clone)]
pub struct Call {
    /// `None` when the request was not one for a rule.
    pub key: Option<RuleKey>,
    pub at: Instant,
    pub answer: Answer,
}

/// What a call was answered with.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The rule of the key.
    Rule,
    /// 404 or 204: the merchant has none.
    Absent,
    /// 400: not a request for a rule.
    BadRequest,
    /// What the switched fault makes of it.
    Faulty(Fault),
}

/// A running service; stopped on drop.
#[derive(Debug)]
pub struct RuleService {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    keep_calls: bool,
    plan: Mutex<Plan>,
    calls: Mutex<Vec<Call>>,
    /// Whether somebody listens.
    open: watch::Sender<bool>,
}

impl RuleService {
    /// Starts the service and returns when it listens.
    pub fn start(options: &RuleServiceOptions) -> Result<Self> {
        let mut address = options.listen;
        if address.port() == 0 {
            address.set_port(ports::free()?);
        }
        let shared = Arc::new(Shared {
            seed: options.seed,
            keep_calls: options.keep_calls,
            plan: Mutex::new(Plan::new(Fault::Healthy, 1.0)),
            calls: Mutex::new(Vec::new()),
            open: watch::Sender::new(true),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("rule-service")
            .enable_all()
            .build()
            .context("start a runtime")?;
        let listener = runtime
            .block_on(Listener::bind(address, shared.open.subscribe()))
            .with_context(|| format!("listen on {address}"))?;
        let (stop, stopped) = oneshot::channel();
        let router = Router::new()
            .route(PATH, post(answer))
            .with_state(Arc::clone(&shared));
        let service = router.into_make_service_with_connect_info::<Peer>();
        let thread = thread::Builder::new()
            .name("rule-service".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = axum::serve(listener, service).into_future() => {}
                        _ = stopped => {}
                    }
                });
                // Calls that hang must not hold up the end.
                runtime.shutdown_background();
            })
            .context("start a thread")?;
        Ok(Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where rules are asked for.
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// The rule this service has for a key.
    pub fn rule_of(&self, key: &RuleKey) -> Option<Rule> {
        rules::rule_of(self.shared.seed, key)
    }

    /// Switches what happens to every call from now on.
    pub fn set_fault(&self, fault: Fault) {
        self.set_fault_for(fault, 1.0);
    }

    /// Switches what happens to a share of the calls, 0 to 1; the others are answered rightly. [`Fault::Refused`]
    /// always hits all.
    pub fn set_fault_for(&self, fault: Fault, fraction: f64) {
        let plan = Plan::new(fault, fraction);
        *lock(&self.shared.plan) = plan;
        self.shared.open.send_replace(!plan.refuses());
    }

    /// Every call since the start or the last [`RuleService::forget_calls`], in order.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    pub fn call_count(&self) -> usize {
        lock(&self.shared.calls).len()
    }

    /// How often each key was asked for.
    pub fn calls_by_key(&self) -> BTreeMap<RuleKey, usize> {
        let mut counts = BTreeMap::new();
        for key in lock(&self.shared.calls)
            .iter()
            .filter_map(|call| call.key.clone())
        {
            *counts.entry(key).or_insert(0) += 1;
        }
        counts
    }

    /// Empties the ledger.
    pub fn forget_calls(&self) {
        lock(&self.shared.calls).clear();
    }
}

impl Drop for RuleService {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Response {
    let key = serde_json::from_slice::<KeyFields>(&body)
        .ok()
        .and_then(|fields| RuleKey::parse(&fields));
    let fault = lock(&shared.plan).next();
    let rule = key
        .as_ref()
        .and_then(|key| rules::rule_of(shared.seed, key));
    let answer = match (fault, &key, &rule) {
        (Fault::Healthy | Fault::Delay(_), None, _) => Answer::BadRequest,
        (Fault::Healthy | Fault::Delay(_), _, None) => Answer::Absent,
        (Fault::Healthy | Fault::Delay(_), _, Some(_)) => Answer::Rule,
        (fault, ..) => Answer::Faulty(fault),
    };
    if shared.keep_calls {
        lock(&shared.calls).push(Call {
            key: key.clone(),
            at: Instant::now(),
            answer,
        });
    }
    let Some(key) = key else {
        return (StatusCode::BAD_REQUEST, "not a request for a payout rule").into_response();
    };
    misbehave(fault, &key, rule, &peer).await
}

async fn misbehave(fault: Fault, key: &RuleKey, rule: Option<Rule>, peer: &Peer) -> Response {
    match fault {
        Fault::Healthy => right(key, rule),
        Fault::Delay(time) | Fault::Hang(time) => {
            tokio::time::sleep(time).await;
            right(key, rule)
        }
        Fault::Status { code, retry_after } => status(code, retry_after),
        Fault::Reset | Fault::Refused => {
            peer.reset_on_close();
            torn(&text(key, rule))
        }
        Fault::Garbage => json("<html>It works!</html>".to_owned()),
        Fault::WrongKey => json(text(&another(key), None)),
        Fault::SlowBody(time) => slow(&text(key, rule), time),
        Fault::Redirect => {
            let place = [(header::LOCATION, format!("{PATH}?elsewhere"))];
            (StatusCode::FOUND, place).into_response()
        }
    }
}

fn right(key: &RuleKey, rule: Option<Rule>) -> Response {
    match rule {
        Some(rule) => json(serialise(&rule)),
        // Both ways of saying "no rule" are in use.
        None if key.merchant_number.len().is_multiple_of(2) => {
            StatusCode::NO_CONTENT.into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn status(code: u16, retry_after: Option<u64>) -> Response {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match retry_after {
        Some(seconds) => (code, [(header::RETRY_AFTER, seconds.to_string())]).into_response(),
        None => code.into_response(),
    }
}

fn another(key: &RuleKey) -> RuleKey {
    RuleKey {
        merchant_number: format!("{}0", key.merchant_number),
        ..key.clone()
    }
}

/// The rule's text; one is made up where there is none, since a fault needs something to spoil.
fn text(key: &RuleKey, rule: Option<Rule>) -> String {
    let made_up = || Rule {
        rule_id: "00000000-0000-0000-0000-000000000000".to_owned(),
        payout_date: key.payment_day,
        confirm_date: key.payment_day,
        key: key.fields(),
    };
    serialise(&rule.unwrap_or_else(made_up))
}

fn serialise(rule: &Rule) -> String {
    serde_json::to_string(rule).expect("a rule has string fields only")
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn streamed(
    length: usize,
    pieces: impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response {
    let head = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    (head, Body::from_stream(pieces)).into_response()
}

fn torn(text: &str) -> Response {
    let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
    let pieces = futures_util::stream::unfold(Some(half), |half| async move {
        if let Some(half) = half {
            return Some((Ok(half), None));
        }
        // The half has to be on its way before the connection goes.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), None))
    });
    streamed(text.len(), pieces)
}

fn slow(text: &str, time: Duration) -> Response {
    let text = Bytes::copy_from_slice(text.as_bytes());
    let size = text.len().div_ceil(SLOW_PIECES as usize);
    let length = text.len();
    let pieces = futures_util::stream::unfold(text, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(time / SLOW_PIECES).await;
        let piece = rest.split_to(size.min(rest.len()));
        Some((Ok(piece), rest))
    });
    streamed(length, pieces)
}
