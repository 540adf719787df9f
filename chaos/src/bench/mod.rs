//! Measurements of one machine: throughput from a backlog, latency under a steady load, recovery after a kill.
//! They print figures and judge nothing.

mod backlog;
mod latency;
mod recovery;
mod throughput;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::cluster::ClusterOptions;
use crate::interrupt;
use crate::pipeline::{Pipeline, PipelineOptions};
use crate::report;

const PARTITIONS: i32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Throughput,
    Latency,
    Recovery,
}

#[derive(Debug, Clone, Args)]
pub struct BenchOptions {
    /// Only this part (may be given several times)
    #[arg(long, value_enum)]
    pub only: Vec<Part>,
    /// Payments in the backlog of the throughput part
    #[arg(long, default_value_t = 2_000_000)]
    pub payments: u64,
    /// Payments a second of the latency part
    #[arg(long, default_value_t = 1000)]
    pub rate: u32,
    /// Seconds of the latency part
    #[arg(long, default_value_t = 60)]
    pub seconds: u32,
    /// Rule keys of the recovery part
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// Kills of the recovery part, with and without a restart
    #[arg(long, default_value_t = 5)]
    pub kills: usize,
    /// Prove the result of the throughput part as well
    #[arg(long)]
    pub prove: bool,
}

/// Runs the parts, each on a cluster of its own, without PostgreSQL.
pub fn run(options: &BenchOptions) -> Result<()> {
    tell(&format!(
        "Machine: {}; Kafka, the load and the reader run on it too",
        report::machine()
    ));
    let is_wanted = |part| options.only.is_empty() || options.only.contains(&part);
    if is_wanted(Part::Throughput) {
        throughput::run(options)?;
    }
    interrupt::check()?;
    if is_wanted(Part::Latency) {
        latency::run(options)?;
    }
    interrupt::check()?;
    if is_wanted(Part::Recovery) {
        recovery::run(options)?;
    }
    Ok(())
}

fn pipeline_options() -> Result<PipelineOptions> {
    let cluster = ClusterOptions {
        without_postgres: true,
        ..ClusterOptions::default()
    };
    Ok(PipelineOptions {
        instances: 1,
        partitions: PARTITIONS,
        cluster,
        ..PipelineOptions::new()?
    })
}

fn prepare() -> Result<(PipelineOptions, Pipeline)> {
    let options = pipeline_options()?;
    let mut pipeline = Pipeline::prepare(&options)?;
    pipeline.contract.has_foreign_rules = true;
    Ok((options, pipeline))
}

#[expect(
    clippy::print_stdout,
    reason = "figures are the output of this program"
)]
fn tell(text: &str) {
    println!("{text}");
}

/// The value below which this share of the sorted values lies.
fn quantile<T: Copy>(sorted: &[T], thousandths: usize) -> Option<T> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get(last * thousandths / 1000).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_taken_from_the_sorted_values() {
        let values: Vec<u32> = (0..=100).collect();
        assert_eq!(quantile(&values, 500), Some(50));
        assert_eq!(quantile(&values, 990), Some(99));
        assert_eq!(quantile(&values, 1000), Some(100));
        assert_eq!(quantile::<u32>(&[], 500), None);
    }
}
