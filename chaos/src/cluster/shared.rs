//! One cluster for all tests of a binary, started by the first that asks, stopped when the process exits.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};

use crate::cluster::{Cluster, ClusterOptions};

static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();

/// The cluster of this process. Tests that use it take their names from [`crate::cluster::names::Names::unique`] and
/// switch no fault that another test would feel: those start a part of their own.
pub fn cluster() -> Result<&'static Cluster> {
    cluster_of(&ClusterOptions::default())
}

/// The same, made of what the first that asks wants.
pub fn cluster_of(options: &ClusterOptions) -> Result<&'static Cluster> {
    CLUSTER
        .get_or_init(|| start(options).map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}

#[expect(
    unsafe_code,
    reason = "statics are not dropped; atexit(3) is where the cluster can be stopped"
)]
fn start(options: &ClusterOptions) -> Result<Cluster> {
    // SAFETY: `stop` is an `extern "C"` function without arguments.
    unsafe {
        libc::atexit(stop);
    }
    let mut options = options.clone();
    // None of its brokers dies or stands still on purpose, and on a busy machine none is to be taken for dead.
    let properties = &mut options.kafka.properties;
    let session = "broker.session.timeout.ms".to_owned();
    properties.entry(session).or_insert("30000".to_owned());
    Cluster::start(&options)
}

extern "C" fn stop() {
    if let Some(Ok(cluster)) = CLUSTER.get() {
        cluster.stop();
    }
}
