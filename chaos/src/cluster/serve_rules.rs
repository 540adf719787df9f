//! The rule service alone, as a program: what the containers run.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::rule_service::{RuleService, RuleServiceOptions};

#[derive(Debug, Clone, Args)]
pub struct ServeRulesOptions {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,
    /// Decides all answers, with the key that is asked for
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Serves until Ctrl-C or SIGTERM, which a container's first process has to ask for.
#[expect(
    clippy::print_stderr,
    reason = "a program on a terminal says where it listens"
)]
pub fn run(options: &ServeRulesOptions) -> Result<()> {
    let service = RuleService::start(&RuleServiceOptions {
        seed: options.seed,
        listen: options.listen,
        keep_calls: false,
    })?;
    eprintln!("payout rules: POST {}", service.url());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::io::Result::Ok(())
        })
        .context("listen to signals")
}
