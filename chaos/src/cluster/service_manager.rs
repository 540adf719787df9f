//! What a service manager hears of a service, by the protocol of `sd_notify(3)`.

use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::cluster::instance::InstanceOptions;
use crate::cluster::wait;

/// Longer than any message.
const MESSAGE_BYTES: usize = 64 * 1024;

/// The socket on which one service reports.
#[derive(Debug)]
pub struct ServiceManager {
    lines: Receiver<String>,
    /// Short enough for the address of a socket.
    directory: TempDir,
    /// Nobody reads it.
    _deaf: Option<UnixDatagram>,
}

impl ServiceManager {
    pub fn start() -> Result<Self> {
        let (directory, socket) = bind()?;
        let (sender, lines) = mpsc::channel();
        // Ends with the process: the socket has no end.
        thread::spawn(move || {
            let mut buffer = vec![0; MESSAGE_BYTES];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                for line in text.lines() {
                    if sender.send(line.to_owned()).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self {
            lines,
            directory,
            _deaf: None,
        })
    }

    /// One that hears nothing: soon, whoever tells it something waits.
    pub fn deaf() -> Result<Self> {
        let (directory, socket) = bind()?;
        Ok(Self {
            lines: mpsc::channel().1,
            directory,
            _deaf: Some(socket),
        })
    }

    /// Has an instance report here, with a sign of life at least once in `watchdog`.
    #[must_use]
    pub fn of(&self, options: InstanceOptions, watchdog: Duration) -> InstanceOptions {
        let path = self.directory.path().join("notify");
        options
            .env("NOTIFY_SOCKET", &path.display().to_string())
            .env("WATCHDOG_USEC", &watchdog.as_micros().to_string())
    }

    /// The lines that have come since they were asked for last, such as `READY=1`.
    pub fn heard(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Waits for a line that begins so, and returns it; what came before it is gone.
    pub fn hear(&self, begin: &str, limit: Duration) -> Result<String> {
        wait::until(&format!("to hear {begin}"), limit, || {
            Ok(self.lines.try_iter().find(|line| line.starts_with(begin)))
        })
    }
}

fn bind() -> Result<(TempDir, UnixDatagram)> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).with_context(|| format!("bind {}", path.display()))?;
    Ok((directory, socket))
}
