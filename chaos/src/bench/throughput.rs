//! How fast one instance with one worker settles a backlog when all rules are known.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::bench::{self, BenchOptions, backlog};
use crate::cluster::instance::Instance;
use crate::oracle::settled::Watch;
use crate::oracle::{self};
use crate::pipeline::Pipeline;
use crate::report::{self, grouped};
use crate::workload::day::{Day, DayOptions};
use crate::{interrupt, topics_reader};

const LOOK: Duration = Duration::from_millis(200);
const STALLED: Duration = Duration::from_secs(60);

pub fn run(options: &BenchOptions) -> Result<()> {
    let (pipeline_options, mut pipeline) = bench::prepare()?;
    let day = DayOptions {
        is_plain: true,
        ..DayOptions::new(1, options.payments, bench::PARTITIONS)
    };
    let keys = backlog::fill(&pipeline, Day::new(day))?;
    let title = format!(
        "\nThroughput: a backlog of {} payments with {} known rule keys in {} partitions, one instance, one worker, no PostgreSQL",
        grouped(options.payments),
        grouped(keys),
        bench::PARTITIONS
    );
    bench::tell(&title);
    let start = Instant::now();
    let instance = pipeline
        .instance(&pipeline_options, 0)?
        .set("pipeline.workers", 1);
    pipeline.instances.push(Instance::start(instance)?);
    let samples = watch(&pipeline, options.payments, start)?;
    let took = start.elapsed();
    print(options.payments, took, &samples, &pipeline)?;
    if options.prove {
        let proof = oracle::prove(&pipeline.run(), &pipeline.contract, &pipeline.service())?;
        bench::tell(&report::proof(&proof));
        ensure!(proof.findings.hold(), "a promise is broken, see above");
    }
    print_state(&pipeline.instances[0], options.payments, keys)
}

/// What the state takes on disk once all of it is there.
fn print_state(instance: &Instance, payments: u64, keys: usize) -> Result<()> {
    instance.terminate(STALLED)?;
    for (kind, of, count) in [
        ("ingest-", "payment id", payments),
        ("settle-", "rule key", u64::try_from(keys)?),
    ] {
        let bytes = disk_bytes(&instance.options().state_directory(), kind)?;
        bench::tell(&format!(
            "  state on disk for a {of}: {:>width$} bytes",
            bytes / count.max(1),
            width = 34 - of.len()
        ));
    }
    Ok(())
}

/// Allocated bytes of the files whose names begin so.
fn disk_bytes(directory: &Path, begin: &str) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(begin) {
            bytes += entry.metadata()?.blocks() * 512;
        }
    }
    Ok(bytes)
}

/// Looks how many settlements are stable, until nothing is left.
fn watch(pipeline: &Pipeline, payments: u64, start: Instant) -> Result<Vec<(Duration, i64)>> {
    pipeline.instances[0].wait_ready(STALLED)?;
    let run = pipeline.run();
    let watch = Watch::new(&run)?;
    let consumer = topics_reader::committed_consumer(&pipeline.bootstrap(), "none")?;
    let mut samples: Vec<(Duration, i64)> = Vec::new();
    let mut moved = Instant::now();
    loop {
        interrupt::check()?;
        pipeline.check_alive()?;
        let stable = stable(&consumer, &pipeline.names.settlements)?;
        if samples.last().is_none_or(|(_, before)| *before < stable) {
            moved = Instant::now();
            samples.push((start.elapsed(), stable));
        }
        if u64::try_from(stable)? >= payments && watch.behind()?.group == 0 {
            return Ok(samples);
        }
        ensure!(
            moved.elapsed() < STALLED,
            "no new settlement for {STALLED:?}\n{}",
            pipeline.instances[0].tail()
        );
        thread::sleep(LOOK);
    }
}

fn stable(consumer: &BaseConsumer, topic: &str) -> Result<i64> {
    (0..bench::PARTITIONS)
        .map(|partition| Ok(consumer.fetch_watermarks(topic, partition, STALLED)?.1))
        .sum()
}

fn print(
    payments: u64,
    took: Duration,
    samples: &[(Duration, i64)],
    pipeline: &Pipeline,
) -> Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "figures are rounded anyway")]
    let count = payments as f64;
    let end = samples.last().map_or(0, |(_, stable)| *stable);
    let reaches = |tenths: i64| {
        samples
            .iter()
            .find(|(_, stable)| *stable >= end * tenths / 10)
    };
    if let (Some((from, low)), Some((to, high))) = (reaches(1), reaches(9))
        && to > from
    {
        let steady = f64::from(i32::try_from(high - low)?) / to.saturating_sub(*from).as_secs_f64();
        bench::tell(&format!(
            "  settled a second, from 10 % to 90 % of the backlog: {steady:>10.0}"
        ));
    }
    let instance = &pipeline.instances[0];
    bench::tell(&format!(
        "  settled a second, from the start of the process:    {:>10.0}",
        count / took.as_secs_f64()
    ));
    bench::tell(&format!(
        "  CPU of the process for a payment:               {:>10.1} µs",
        instance.cpu_seconds()? * 1e6 / count
    ));
    bench::tell(&format!(
        "  most resident memory:                           {:>10} MiB",
        instance.peak_rss_bytes()? >> 20
    ));
    Ok(())
}
