//! From a payment's record timestamp to the sight of its settlement by a `read_committed` reader, at a steady load.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::{self, BenchOptions, backlog};
use crate::cluster::instance::Instance;
use crate::model::Place;
use crate::model::outgoing::Settlement;
use crate::oracle::settled;
use crate::pipeline::Pipeline;
use crate::report::grouped;
use crate::tail::{Tail, Watched};
use crate::workload::day::{Day, DayOptions};
use crate::workload::send::{self, SendOptions};
use crate::{interrupt, topics_reader};

const READY: Duration = Duration::from_secs(60);
/// What the first seconds show is the start, not the load.
const WARM_UP_SECONDS: u32 = 5;

pub fn run(options: &BenchOptions) -> Result<()> {
    let (pipeline_options, mut pipeline) = bench::prepare()?;
    let payments = u64::from(options.rate) * u64::from(options.seconds + WARM_UP_SECONDS);
    let day = DayOptions {
        is_plain: true,
        ..DayOptions::new(2, payments, bench::PARTITIONS)
    };
    backlog::publish_rules(&pipeline, Day::new(day.clone()))?;
    let instance = pipeline.instance(&pipeline_options, 0)?;
    pipeline.instances.push(Instance::start(instance)?);
    pipeline.instances[0].wait_ready(READY)?;
    bench::tell(&format!(
        "\nLatency: {} payments a second for {} s, one instance, rules known, no PostgreSQL",
        grouped(options.rate),
        options.seconds
    ));
    let tail = Tail::start(&pipeline.bootstrap(), &Watched::of(&pipeline.names))?;
    tail.keep_times();
    let sending = SendOptions {
        per_second: Some(options.rate),
        ..SendOptions::new(&pipeline.bootstrap(), &pipeline.names.source)
    };
    send::send(&sending, Day::new(day), |_| !interrupt::is_asked())?;
    interrupt::check()?;
    settled::wait_settled(&pipeline.run(), READY)?;
    let mut delays = delays(&pipeline, &tail, options.rate * WARM_UP_SECONDS)?;
    delays.sort_unstable();
    let show = |name: &str, thousandths| {
        let value = bench::quantile(&delays, thousandths).context("no settlement was seen")?;
        bench::tell(&format!("  {name:<6}{value:>8} ms"));
        Ok::<(), anyhow::Error>(())
    };
    show("p50", 500)?;
    show("p90", 900)?;
    show("p99", 990)?;
    show("p99.9", 999)?;
    show("max", 1000)
}

/// Milliseconds of each settlement, those of the first payments left out.
fn delays(pipeline: &Pipeline, tail: &Tail, skip: u32) -> Result<Vec<i64>> {
    let bootstrap = pipeline.bootstrap();
    let mut due: HashMap<Place, i64> = HashMap::new();
    topics_reader::read(&bootstrap, &pipeline.names.source, |record| {
        due.insert(record.place(), record.timestamp);
    })?;
    let mut stamps: Vec<i64> = due.values().copied().collect();
    stamps.sort_unstable();
    let warm = stamps
        .get(usize::try_from(skip)?)
        .copied()
        .unwrap_or(i64::MIN);
    let seen: HashMap<Place, i64> = tail
        .times()
        .into_iter()
        .map(|(partition, offset, at)| (Place { partition, offset }, at))
        .collect();
    let mut delays = Vec::new();
    topics_reader::read(&bootstrap, &pipeline.names.settlements, |record| {
        let source = record
            .value
            .and_then(Settlement::read)
            .map(|settlement| settlement.source);
        let sent = source
            .and_then(|source| due.get(&source))
            .filter(|sent| **sent >= warm);
        if let (Some(sent), Some(at)) = (sent, seen.get(&record.place())) {
            delays.push(at - sent);
        }
    })?;
    Ok(delays)
}
