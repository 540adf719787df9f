//! What signals do: SIGTERM and SIGINT end the process in order, SIGHUP reads a file again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::error::{Error, start_error};
use crate::exit::Exit;

/// SIGTERM and SIGINT ask for an orderly end. Before anything has begun there is nothing to end.
#[expect(clippy::exit, reason = "nothing holds anything that must be put down")]
pub fn stop_on_signal(
    runtime: &Runtime,
    stop: &Arc<AtomicBool>,
    has_begun: &Arc<AtomicBool>,
) -> Result<(), Error> {
    let _entered = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(start_error("listen for signals"))?;
        let (stop, has_begun) = (Arc::clone(stop), Arc::clone(has_begun));
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                tracing::info!("asked to stop");
                if !has_begun.load(Ordering::SeqCst) {
                    std::process::exit(i32::from(Exit::Clean.code()));
                }
                stop.store(true, Ordering::SeqCst);
            }
        });
    }
    Ok(())
}

/// SIGHUP never ends the process.
pub fn reread_on_signal(
    runtime: &Runtime,
    reread: impl Fn() + Send + Sync + 'static,
) -> Result<(), Error> {
    let _entered = runtime.enter();
    let mut signals = signal(SignalKind::hangup()).map_err(start_error("listen for signals"))?;
    let reread = Arc::new(reread);
    runtime.spawn(async move {
        while signals.recv().await.is_some() {
            let reread = Arc::clone(&reread);
            // It reads a file. A panic in it is its own end only.
            drop(tokio::task::spawn_blocking(move || reread()).await);
        }
    });
    Ok(())
}
