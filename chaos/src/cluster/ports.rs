//! Free loopback ports. They lie below the range from which the kernel serves outgoing connections, so that a port
//! stays free while the process that owns it is down.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use anyhow::{Result, bail};

const RANGE: std::ops::Range<u16> = 15_000..32_000;
const ATTEMPTS: usize = 1_000;

static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A loopback port nobody listens on and this process has not handed out before.
pub fn free() -> Result<u16> {
    let mut taken = TAKEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    for _ in 0..ATTEMPTS {
        let port = rand::random_range(RANGE);
        if !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.insert(port);
            return Ok(port);
        }
    }
    bail!("no free port in {RANGE:?} after {ATTEMPTS} attempts")
}
