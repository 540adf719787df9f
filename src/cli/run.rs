//! `settle run`: the service, and the configuration that it reads again while it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::app;
use crate::cli::{RUST_LOG, filter_in, load};
use crate::config::{Config, Loaded, Log};
use crate::exit::Exit;
use crate::telemetry::Logs;

pub(super) fn execute(
    loaded: &Loaded,
    logs: Logs,
    file: Option<PathBuf>,
    environment: &[(String, String)],
) -> Exit {
    for warning in loaded.warnings() {
        tracing::warn!("{warning}");
    }
    let logs = Arc::new(logs);
    let (running, environment) = (loaded.config.clone(), environment.to_vec());
    let rereading = Arc::clone(&logs);
    let reread = move || reread(&running, &rereading, file.as_deref(), &environment);
    let exit = match app::run(&loaded.config, reread) {
        Ok(()) => Exit::Clean,
        Err(error) => {
            tracing::error!(exit = error.exit().code(), "{error}");
            error.exit()
        }
    };
    logs.flush();
    exit
}

/// SIGHUP: takes `log.filter` over from the configuration as it is now. Whatever is wrong with it,
/// the service goes on as before.
fn reread(running: &Config, logs: &Logs, file: Option<&Path>, environment: &[(String, String)]) {
    let next = match load(file, environment) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            tracing::error!(%error, "asked to read the configuration again: it is not valid, nothing is changed");
            return;
        }
    };
    let filter = filter_in(environment).unwrap_or(&next.log.filter);
    if let Err(error) = logs.set_filter(filter) {
        tracing::error!(%error, "asked to read the configuration again: nothing is changed");
        return;
    }
    let reason = match filter_in(environment) {
        Some(_) => RUST_LOG,
        None => "log.filter",
    };
    // A warning, so that it is seen where less is filtered out.
    tracing::warn!(
        filter,
        reason,
        "asked to read the configuration again: lines are filtered by this from now on"
    );
    let log = Log {
        filter: next.log.filter.clone(),
        ..running.log.clone()
    };
    let with_filter = Config {
        log,
        ..running.clone()
    };
    if with_filter != next {
        tracing::warn!("other keys of the configuration have changed: they are read at start only");
    }
}
