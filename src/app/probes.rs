//! What one part asks of another, as functions: HTTP of sink, disk and rules; the monitor of the
//! workers' tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::client::Settings;
use crate::broker::feeder::feed;
use crate::broker::ownerless;
use crate::broker::{Partition, Topic};
use crate::engine::status::{Kind, Status};
use crate::http::generator::FINISH;
use crate::http::{self, Generator, Owners, Probe};
use crate::rules;
use crate::sink;
use crate::state::directory::{Directory, Space};

pub fn sink(status: &Arc<sink::status::Status>) -> Probe<http::Sink> {
    let status = Arc::clone(status);
    Arc::new(move || http::Sink {
        connected: status.is_connected(),
        rows: status
            .rows()
            .map(|(table, rows)| (table.to_owned(), rows))
            .collect(),
        lag: status
            .partitions()
            .into_iter()
            .filter_map(|(partition, progress)| Some((partition, progress.lag?)))
            .collect(),
        commits: status.commits(),
        rewinds: status.rewinds(),
        unreadable: status.unreadable(),
        lost: status.lost(),
        problem: status.problem(),
    })
}

pub fn disk(directory: &Arc<Directory>) -> Probe<Space> {
    let directory = Arc::clone(directory);
    Arc::new(move || directory.space())
}

pub fn rules(status: &Arc<rules::Status>) -> Probe<http::Rules> {
    let status = Arc::clone(status);
    Arc::new(move || http::Rules {
        calls: rules::Outcome::all()
            .map(|outcome| (outcome.label(), status.calls(outcome)))
            .collect(),
        in_flight: status.waiting() as u64,
        outage: status.is_outage(),
        problem: status.last_failure(),
    })
}

pub fn generator(settings: &Settings, partitions: i32) -> Generator {
    let settings = settings.clone();
    Arc::new(move |payments| feed(&settings, partitions, payments, FINISH))
}

/// Tells those who answer for partitions of the source and of the bases.
pub fn set_owners(
    source: Owners,
    bases: Owners,
) -> Box<dyn Fn(Duration, BTreeMap<Partition, String>) + Send> {
    Box::new(move |asked_at, found| {
        let (mut of_source, mut of_bases) = (BTreeMap::new(), BTreeMap::new());
        for (partition, owner) in found {
            match partition.topic {
                Topic::Source => of_source.insert(partition.number, owner),
                _ => of_bases.insert(partition.number, owner),
            };
        }
        source.set(asked_at, of_source);
        bases.set(asked_at, of_bases);
    })
}

/// The workers' group and, with a database, the sink's.
pub fn watched_groups(settings: &Settings, has_sink: bool) -> Vec<ownerless::Watch> {
    let workers = ownerless::Watch::new(settings.application_id.clone(), &Topic::CONSUMED);
    let sink = || ownerless::Watch::new(settings.sink_group(), &sink::TOPICS);
    let sink = has_sink.then(sink);
    [Some(workers), sink].into_iter().flatten().collect()
}

pub fn watched_partitions(status: Status) -> Box<dyn Fn() -> Vec<Partition> + Send> {
    let partition = |(kind, number)| match kind {
        Kind::Ingest => Partition::new(Topic::Source, number),
        Kind::Settle => Partition::new(Topic::Bases, number),
    };
    Box::new(move || {
        let workers = status.workers.iter();
        let tasks = workers.flat_map(|worker| worker.tasks().into_keys());
        tasks.map(partition).collect()
    })
}
