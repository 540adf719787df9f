//! The demonstration: two instances settle a day of payments, one of them is killed half-way, and the proof is shown.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::interrupt;
use crate::oracle::{self, settled};
use crate::pipeline::{Pipeline, PipelineOptions};
use crate::report;
use crate::tail::{Tail, Watched};
use crate::workload::day::{Day, DayOptions};
use crate::workload::send::{self, SendOptions, Sent};

const LOOK: Duration = Duration::from_millis(100);
/// Where there is no terminal, a line this often.
const LINE: Duration = Duration::from_secs(2);
/// Without any new outcome for so long something is wrong.
const STALLED: Duration = Duration::from_secs(60);
const REST_LIMIT: Duration = Duration::from_secs(120);
/// A partition that gets no more payments after the kill is waited for no longer.
const RECOVERY_LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Args)]
pub struct DemoOptions {
    /// Payments to send
    #[arg(long, default_value_t = 100_000)]
    pub payments: u64,
    /// Payments a second
    #[arg(long, default_value_t = 8_000)]
    pub rate: u32,
    /// Decides what the day is made of
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Leave everything running afterwards, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
}

/// Runs it; an error when a promise is broken.
pub fn run(options: &DemoOptions) -> Result<()> {
    say("Starting Kafka, PostgreSQL, the rule service and two instances of settle");
    let mut pipeline = Pipeline::start(&PipelineOptions::new()?)?;
    interrupt::check()?;
    say(&format!(
        "Sending {} payments of one day",
        report::grouped(options.payments)
    ));
    let recovery = settle_the_day(options, &mut pipeline)?;
    say("All payments have their outcome; waiting until PostgreSQL has them too");
    let run = pipeline.run();
    settled::wait_settled(&run, REST_LIMIT)?;
    pipeline.check_alive()?;
    say("Computing from the raw input what must have come out");
    let proof = oracle::prove(&run, &pipeline.contract, &pipeline.service())?;
    print(&format!(
        "\n{}\n{}\n{recovery}\n{}",
        report::outcomes(&proof),
        report::largest(&proof),
        report::proof(&proof)
    ));
    if options.keep {
        keep(&pipeline)?;
    }
    let broken = proof.findings.broken().len();
    ensure!(
        broken == 0,
        "{broken} of the promises are broken, see above"
    );
    say("Every promise holds.");
    Ok(())
}

/// Starts the parts and leaves them running.
pub fn up() -> Result<()> {
    say("Starting Kafka, PostgreSQL, the rule service and two instances of settle");
    let pipeline = Pipeline::start(&PipelineOptions::new()?)?;
    keep(&pipeline)
}

fn keep(pipeline: &Pipeline) -> Result<()> {
    print("\nRunning until Ctrl-C:\n");
    for (name, address) in pipeline.addresses() {
        print(&format!("  {name:<14}{address}\n"));
    }
    let http = pipeline
        .instances
        .first()
        .context("an instance runs")?
        .http();
    print(&format!(
        "\n  send 1000 random payments:  curl {http}/api/payment/send/1000\n"
    ));
    while !interrupt::is_asked() {
        pipeline.check_alive()?;
        thread::sleep(LOOK);
    }
    say("Stopping everything; start again with the same command.");
    Ok(())
}

/// Sends, kills half-way, and returns what is to be said about the recovery.
fn settle_the_day(options: &DemoOptions, pipeline: &mut Pipeline) -> Result<String> {
    let names = &pipeline.names;
    let tail = Tail::start(&pipeline.bootstrap(), &Watched::of(names))?;
    let day = DayOptions::new(options.seed, options.payments, pipeline.partitions);
    let total = Day::total(&day);
    let sending = SendOptions {
        per_second: Some(options.rate),
        ..SendOptions::new(&pipeline.bootstrap(), &names.source)
    };
    let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            send::send(&sending, Day::new(day), |count| {
                sent.store(count, Ordering::Relaxed);
                !stop.load(Ordering::Relaxed) && !interrupt::is_asked()
            })
        });
        let watched = watch(pipeline, &tail, &sent, total);
        stop.store(true, Ordering::Relaxed);
        let sent: Result<Sent> = sender
            .join()
            .map_err(|_| anyhow!("the thread that sends panicked"))?;
        let recovery = watched?;
        sent?;
        Ok(recovery)
    })
}

fn watch(pipeline: &mut Pipeline, tail: &Tail, sent: &AtomicU64, total: u64) -> Result<String> {
    let mut shown = Shown::new(total);
    let mut restarted = None;
    let mut last = (0, Instant::now());
    loop {
        interrupt::check()?;
        pipeline.check_alive()?;
        let seen = tail.seen()?;
        if seen.total() > last.0 {
            last = (seen.total(), Instant::now());
        }
        ensure!(
            last.1.elapsed() < STALLED,
            "no new outcome for {STALLED:?}, {} of {total} have one",
            seen.total()
        );
        if restarted.is_none() && seen.total() >= total / 2 {
            shown.tell("Half-way: SIGKILL for settle-0, and a new start");
            let killed = Instant::now();
            pipeline.instances[0].kill();
            tail.mark(killed)?;
            pipeline.instances[0].restart()?;
            restarted = Some(killed);
        }
        shown.update(sent.load(Ordering::Relaxed), seen, pipeline.instances.len());
        if seen.total() >= total && restarted.is_some() {
            shown.end();
            return recovery(tail);
        }
        thread::sleep(LOOK);
    }
}

fn recovery(tail: &Tail) -> Result<String> {
    let start = Instant::now();
    loop {
        let firsts = tail.since_mark();
        if firsts.iter().all(Option::is_some) || start.elapsed() > RECOVERY_LIMIT {
            let slowest = firsts
                .iter()
                .flatten()
                .max()
                .context("no settlement was seen after the kill")?;
            let list: Vec<String> = firsts
                .iter()
                .map(|first| {
                    first.map_or("-".to_owned(), |first| {
                        format!("{:.2}", first.as_secs_f64())
                    })
                })
                .collect();
            return Ok(format!(
                "Recovery after SIGKILL, seen by a read_committed reader\n  from the kill to the first new settlement of \
                 the slowest partition: {:.2} s\n  each partition, in seconds: {}\n",
                slowest.as_secs_f64(),
                list.join("  ")
            ));
        }
        interrupt::check()?;
        thread::sleep(LOOK);
    }
}

/// Live counts: a bar on a terminal, lines elsewhere.
struct Shown {
    bar: ProgressBar,
    total: u64,
    line: Instant,
}

impl Shown {
    fn new(total: u64) -> Self {
        let bar = ProgressBar::new(total);
        let style =
            ProgressStyle::with_template("{elapsed_precise} {bar:30} {percent:>3} %  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            total,
            line: Instant::now(),
        }
    }

    fn tell(&self, text: &str) {
        if self.bar.is_hidden() {
            say(text);
        } else {
            self.bar.println(format!("== {text}"));
        }
    }

    fn update(&mut self, sent: u64, seen: crate::tail::Seen, instances: usize) {
        let message = format!(
            "{} sent, {} settled, {} excluded, {} dead letters, {instances} instances",
            report::grouped(sent),
            report::grouped(seen.settlements),
            report::grouped(seen.exclusions),
            report::grouped(seen.dead_letters)
        );
        if !self.bar.is_hidden() {
            self.bar.set_position(seen.total());
            self.bar.set_message(message);
        } else if self.line.elapsed() >= LINE {
            self.line = Instant::now();
            say(&format!(
                "{:>3} %  {message}",
                seen.total() * 100 / self.total.max(1)
            ));
        }
    }

    fn end(&self) {
        self.bar.finish();
    }
}

/// Progress goes to standard error, results to standard output.
#[expect(clippy::print_stderr, reason = "a program for people")]
fn say(text: &str) {
    eprintln!("== {text}");
}

#[expect(
    clippy::print_stdout,
    reason = "the report is the output of this program"
)]
fn print(text: &str) {
    print!("{text}");
}
