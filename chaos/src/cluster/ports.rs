//! Free loopback ports. They lie below the range from which the kernel serves outgoing connections, so that a port
//! stays free while the process that owns it is down.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

const RANGE: std::ops::Range<u16> = 15_000..32_000;
const ATTEMPTS: usize = 1_000;

/// With the lock of each, by which other processes see that it is taken.
static TAKEN: Mutex<BTreeMap<u16, File>> = Mutex::new(BTreeMap::new());

/// A loopback port nobody listens on, and neither this process nor another of these tests has taken.
pub fn free() -> Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..ATTEMPTS {
        let port = rand::random_range(RANGE);
        if taken.contains_key(&port) {
            continue;
        }
        let Some(lock) = lock(port) else {
            continue;
        };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.insert(port, lock);
            return Ok(port);
        }
    }
    bail!("no free port in {RANGE:?} after {ATTEMPTS} attempts")
}

/// `None` where another process holds it. An empty file stays behind.
fn lock(port: u16) -> Option<File> {
    let directory = std::env::temp_dir().join("settle-ports");
    if fs::create_dir(&directory).is_ok() {
        // For tests of other users, too.
        fs::set_permissions(&directory, Permissions::from_mode(0o1777)).ok()?;
    }
    let file = File::create(directory.join(port.to_string())).ok()?;
    file.try_lock().is_ok().then_some(file)
}
