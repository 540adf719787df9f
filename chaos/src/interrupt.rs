//! Ctrl-C and SIGTERM as a condition that long waits ask for, so that whoever owns processes can end them in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Starts to listen; a second signal ends the process at once, and its children with it.
pub fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = runtime
        .block_on(async {
            Ok::<_, std::io::Error>((
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            ))
        })
        .context("listen to signals")?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if ASKED.swap(true, Ordering::Relaxed) {
                        end_now();
                    }
                }
            });
        })?;
    Ok(())
}

#[expect(clippy::exit, reason = "asked twice: without waiting for anything")]
fn end_now() -> ! {
    std::process::exit(130)
}

pub fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// An error once somebody has asked for the end.
pub fn check() -> Result<()> {
    if is_asked() {
        bail!("interrupted");
    }
    Ok(())
}
