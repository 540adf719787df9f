//! `/api/status` for people and programs, `/metrics` for Prometheus: the same statuses twice.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::engine::status::{Kind, Phase, Task};
use crate::http::health::{Checks, is_alive, turn_age};
use crate::http::routes::App;
use crate::http::{Rules, Services, Sink};
use crate::metrics::{self, Observed};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One task of one worker.
#[derive(Serialize)]
struct Partition {
    kind: &'static str,
    #[serde(rename = "partition")]
    number: i32,
    worker: usize,
    phase: &'static str,
    position: i64,
    lag: Option<i64>,
    /// Records that a restore has still to read.
    remaining: i64,
    #[serde(skip)]
    task: Task,
}

impl Partition {
    fn new(worker: usize, (kind, number): (Kind, i32), task: Task) -> Self {
        Self {
            kind: kind.as_str(),
            number,
            worker,
            phase: task.phase.as_str(),
            position: task.position,
            lag: task.lag,
            remaining: match task.phase {
                Phase::Restoring { remaining } => remaining,
                Phase::Running | Phase::WaitingForRule => 0,
            },
            task,
        }
    }
}

fn partitions(services: &Services) -> Vec<Partition> {
    let workers = services.status.workers.iter().enumerate();
    workers
        .flat_map(|(number, worker)| {
            let tasks = worker.tasks().into_iter();
            tasks.map(move |(of, task)| Partition::new(number, of, task))
        })
        .collect()
}

pub(super) async fn get(State(app): State<Arc<App>>) -> Json<Value> {
    let services = &app.services;
    let workers = services.status.workers.iter();
    let workers: Vec<_> = workers
        .map(|worker| {
            json!({
                "connected": worker.is_connected(),
                "assigned": worker.is_assigned(),
                "turnedMillisAgo": millis(turn_age(worker)),
                "lastProblem": worker.last_problem().map(|(problem, _)| problem),
                "lastProblemMillisAgo": worker.last_problem().map(|(_, at)| millis(since(at))),
            })
        })
        .collect();
    let owners: Map<_, _> = (0..services.bases_partitions)
        .map(|partition| (partition.to_string(), owner(services, partition).into()))
        .collect();
    let source_owners: Map<_, _> = (0..services.source_partitions)
        .map(|partition| {
            (
                partition.to_string(),
                source_owner(services, partition).into(),
            )
        })
        .collect();
    let checks = Checks::of(services);
    Json(json!({
        "instance": services.instance,
        "address": services.advertise,
        "version": VERSION,
        "upMillis": millis(clock::now()),
        "alive": is_alive(&services.status),
        "ready": checks.are_ready(),
        "checks": checks,
        "workers": workers,
        "partitions": partitions(services),
        "owners": owners,
        "sourceOwners": source_owners,
        "sink": services.sink.as_ref().map(|sink| sink_json(&sink())),
        "rules": rules_json(&(services.rules)()),
    }))
}

fn owner(services: &Services, partition: i32) -> Option<String> {
    match services.views.of(partition) {
        Some(_) => Some(services.advertise.clone()),
        None => services.owners.of(partition),
    }
}

/// The group's answer is up to a second old; the own tasks are known.
fn source_owner(services: &Services, partition: i32) -> Option<String> {
    let mut workers = services.status.workers.iter();
    let is_own = workers.any(|worker| worker.tasks().contains_key(&(Kind::Ingest, partition)));
    match services.source_owners.of(partition) {
        _ if is_own => Some(services.advertise.clone()),
        // It has just been given up.
        Some(owner) if owner == services.advertise => None,
        owner => owner,
    }
}

fn since(at: Duration) -> Duration {
    clock::now().saturating_sub(at)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn sink_json(sink: &Sink) -> Value {
    let lag: Vec<_> = sink
        .lag
        .iter()
        .map(
            |((topic, partition), lag)| json!({"topic": topic, "partition": partition, "lag": lag}),
        )
        .collect();
    json!({
        "connected": sink.connected,
        "rows": sink.rows,
        "lag": lag,
        "lastProblem": sink.problem,
    })
}

fn rules_json(rules: &Rules) -> Value {
    json!({
        "outage": rules.outage,
        "calls": rules.calls,
        "inFlight": rules.in_flight,
        "lastProblem": rules.problem,
    })
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = metrics::render(&observe(&app.services));
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// The statuses as series.
fn observe(services: &Services) -> Observed {
    let observed = Observed::default();
    for task in partitions(services) {
        let partition = task.number.to_string();
        let labels = [task.kind, partition.as_str()];
        observed.set_whole(&metrics::POSITION, &labels, task.position);
        observed.set_whole(&metrics::RESTORE_REMAINING, &labels, task.remaining);
        if let Some(lag) = task.lag {
            observed.set_whole(&metrics::LAG, &labels, lag);
        }
        observe_delay(&observed, &task, &labels);
        let phases = [
            Phase::Restoring { remaining: 0 },
            Phase::Running,
            Phase::WaitingForRule,
        ];
        for phase in phases.map(Phase::as_str) {
            let labels = [task.kind, partition.as_str(), phase];
            observed.set_flag(&metrics::TASK_PHASE, &labels, task.phase == phase);
        }
    }
    for (number, worker) in services.status.workers.iter().enumerate() {
        let labels = &[number.to_string()];
        let labels = &labels.each_ref().map(String::as_str);
        observed.set_flag(&metrics::WORKER_CONNECTED, labels, worker.is_connected());
        observed.set_flag(&metrics::WORKER_ASSIGNED, labels, worker.is_assigned());
        let age = turn_age(worker).as_secs_f64();
        observed.set(&metrics::WORKER_TURN_AGE, labels, age);
        let in_doubt = worker.in_doubt().as_secs_f64();
        observed.set(&metrics::IN_DOUBT, labels, in_doubt);
    }
    let partitions = 0..services.bases_partitions;
    let without_owner = partitions.filter(|partition| owner(services, *partition).is_none());
    let without_owner = i64::try_from(without_owner.count()).unwrap_or(i64::MAX);
    observed.set_whole(&metrics::WITHOUT_OWNER, &[], without_owner);
    let disk = (services.disk)();
    observed.set_bytes(&metrics::STATE_BYTES, disk.used);
    observed.set_bytes(&metrics::STATE_FREE, disk.free);
    observed.set_bytes(&metrics::STATE_TOTAL, disk.size);
    observed.set_flag(&metrics::READY, &[], Checks::of(services).are_ready());
    observed.set_flag(&metrics::BUILD, &[VERSION], true);
    if let Some(sink) = &services.sink {
        observe_sink(&sink(), &observed);
    }
    let rules = (services.rules)();
    for (result, calls) in rules.calls {
        observed.set_total(&metrics::RULE_CALLS, &[result], calls);
    }
    let in_flight = i64::try_from(rules.in_flight).unwrap_or(i64::MAX);
    observed.set_whole(&metrics::RULES_IN_FLIGHT, &[], in_flight);
    observed.set_flag(&metrics::RULES_OUTAGE, &[], rules.outage);
    observed
}

/// How far a task is behind, in time and money.
fn observe_delay(observed: &Observed, partition: &Partition, labels: &[&str; 2]) {
    let task = partition.task;
    observed.set_whole(&metrics::STABLE_GAP, labels, task.unstable.records);
    let stuck = task.unstable.stuck.as_secs_f64();
    observed.set(&metrics::STABLE_STUCK, labels, stuck);
    if let Some(oldest) = task.oldest {
        observed.set(&metrics::OLDEST, labels, oldest.as_secs_f64());
    }
    if partition.kind == Kind::Settle.as_str() {
        let records = i64::try_from(task.waiting.records).unwrap_or(i64::MAX);
        observed.set_whole(&metrics::WAITING, &labels[1..], records);
        observed.set_whole(&metrics::WAITING_AMOUNT, &labels[1..], task.waiting.amount);
    }
}

fn observe_sink(sink: &Sink, observed: &Observed) {
    observed.set_flag(&metrics::SINK_CONNECTED, &[], sink.connected);
    observed.set_total(&metrics::SINK_COMMITS, &[], sink.commits);
    observed.set_total(&metrics::SINK_REWINDS, &[], sink.rewinds);
    observed.set_total(&metrics::SINK_UNREADABLE, &[], sink.unreadable);
    observed.set_total(&metrics::SINK_LOST, &[], sink.lost);
    for (table, rows) in &sink.rows {
        observed.set_total(&metrics::SINK_ROWS, &[table], *rows);
    }
    for ((topic, partition), lag) in &sink.lag {
        let labels = [topic.as_str(), &partition.to_string()];
        observed.set_whole(&metrics::SINK_LAG, &labels, *lag);
    }
}
