//! Runs settle on real parts: the demonstration, the parts alone, and the measurements.

use std::process::ExitCode;

use anyhow::Result;
use chaos::bench::{self, BenchOptions};
use chaos::cluster::serve_rules::{self, ServeRulesOptions};
use chaos::demo::{self, DemoOptions};
use chaos::interrupt;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Runs settle on a real Kafka, PostgreSQL and rule service, and proves what it did."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Settle a day of payments with two instances, kill one half-way, and prove the result
    Demo(DemoOptions),
    /// Start everything without load, until Ctrl-C
    Up,
    /// Measure throughput, latency and recovery on this machine
    Bench(BenchOptions),
    /// Serve payout rules alone
    Rules(ServeRulesOptions),
}

#[expect(clippy::print_stderr, reason = "a program for people")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whatever was started is gone when run returns.
        Err(_) if interrupt::is_asked() => {
            eprintln!(
                "\n== Interrupted. Nothing is left running; start again with the same command."
            );
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("\n== It failed, and nothing is left running: {error:#}");
            eprintln!(
                "== What to do: the message names the part; logs are quoted above. Then run the command again."
            );
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    interrupt::listen()?;
    match command {
        Command::Demo(options) => demo::run(options),
        Command::Up => demo::up(),
        Command::Bench(options) => bench::run(options),
        Command::Rules(options) => serve_rules::run(options),
    }
}
