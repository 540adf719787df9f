//! How long settlements stand still after SIGKILL: with a restart on the same directory, and with a takeover by another
//! instance.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::bench::{self, BenchOptions, backlog};
use crate::cluster::instance::Instance;
use crate::interrupt;
use crate::model::partition;
use crate::oracle::settled;
use crate::pipeline::Pipeline;
use crate::report::grouped;
use crate::tail::{Tail, Watched};
use crate::workload::Message;
use crate::workload::send::{self, SendOptions};

const READY: Duration = Duration::from_secs(120);
const RATE: u32 = 1000;
const LOOK: Duration = Duration::from_millis(2);
/// Load between two kills.
const CALM: Duration = Duration::from_secs(3);

pub fn run(options: &BenchOptions) -> Result<()> {
    let (pipeline_options, mut pipeline) = bench::prepare()?;
    backlog::fill(
        &pipeline,
        payments(options.keys, "first").take(usize::try_from(options.keys)?),
    )?;
    for index in 0..2 {
        let instance = pipeline.instance(&pipeline_options, index)?;
        pipeline.instances.push(Instance::start(instance)?);
        pipeline.instances[index].wait_ready(READY)?;
        // The second comes when the first has its state: then it takes over half of it.
        settled::wait_settled(&pipeline.run(), READY)?;
    }
    bench::tell(&format!(
        "\nRecovery: {} rule keys, {} payments a second, two instances; seconds until every partition shows a new settlement",
        grouped(options.keys),
        grouped(RATE)
    ));
    let tail = Tail::start(&pipeline.bootstrap(), &Watched::of(&pipeline.names))?;
    let sending = SendOptions {
        per_second: Some(RATE),
        ..SendOptions::new(&pipeline.bootstrap(), &pipeline.names.source)
    };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = payments(options.keys, "load");
        let sender = scope.spawn(|| {
            send::send(&sending, load, |_| {
                !stop.load(Ordering::Relaxed) && !interrupt::is_asked()
            })
        });
        let measured = measure(options.kills, &mut pipeline, &tail);
        stop.store(true, Ordering::Relaxed);
        sender
            .join()
            .map_err(|_| anyhow!("the thread that sends panicked"))??;
        measured
    })
}

fn measure(kills: usize, pipeline: &mut Pipeline, tail: &Tail) -> Result<()> {
    let mut restarts = Vec::new();
    for _ in 0..kills {
        calm(pipeline)?;
        pipeline.instances[0].kill();
        tail.mark(Instant::now())?;
        pipeline.instances[0].restart()?;
        restarts.push(recovered(tail)?);
        pipeline.instances[0].wait_ready(READY)?;
    }
    tell(
        "kill -9 and restart, from the start of the process:",
        restarts,
    );
    let mut takeovers = Vec::new();
    for _ in 0..kills {
        calm(pipeline)?;
        let killed = Instant::now();
        pipeline.instances[0].kill();
        tail.mark(killed)?;
        takeovers.push(recovered(tail)?);
        pipeline.instances[0].restart()?;
        pipeline.instances[0].wait_ready(READY)?;
    }
    tell("kill -9 without a restart, from the kill:", takeovers);
    Ok(())
}

fn calm(pipeline: &Pipeline) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < CALM {
        interrupt::check()?;
        pipeline.check_alive()?;
        thread::sleep(LOOK * 10);
    }
    Ok(())
}

/// Waits until each partition has shown a settlement that is newer than the mark.
fn recovered(tail: &Tail) -> Result<Duration> {
    let start = Instant::now();
    loop {
        interrupt::check()?;
        tail.seen()?;
        let firsts = tail.since_mark();
        if let Some(all) = firsts.iter().copied().collect::<Option<Vec<_>>>() {
            return all
                .into_iter()
                .max()
                .ok_or_else(|| anyhow!("no partition is watched"));
        }
        ensure!(
            start.elapsed() < READY,
            "not recovered after {READY:?}: {firsts:?}"
        );
        thread::sleep(LOOK);
    }
}

fn tell(title: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let list: Vec<String> = times
        .iter()
        .map(|time| format!("{:.2}", time.as_secs_f64()))
        .collect();
    bench::tell(&format!("  {title:<54}{}", list.join("  ")));
}

/// Payments without end, each of the next key; `run` sets their ids apart.
fn payments(keys: u64, run: &'static str) -> impl Iterator<Item = Message> {
    (0_u64..).map(move |number| {
        let id = format!("{run}-{number:012}").into_bytes();
        let merchant = number % keys;
        let value = format!(
            "{{\"channel\":\"ONLINE\",\"action\":\"PAYMENT\",\"data\":{{\"paymentType\":\"ONLINE\",\"amount\":{},\
             \"payoutDate\":\"2025-05-28\",\"confirmDate\":\"2025-05-27\",\"merchantNumber\":\"merchant-{merchant}\",\
             \"paymentDate\":\"2025-05-26T14:23:51.123456\",\"paymentActionType\":\"PAYMENT\",\
             \"paymentMethodType\":\"CARD\"}}}}",
            number % 100_000
        );
        let partition = partition::of(&id, bench::PARTITIONS);
        Message { key: Some(id), value: Some(value.into_bytes()), partition, intent: "SETTLED" }
    })
}
