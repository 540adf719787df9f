//! `settle health`: the check of a container, and what a script waits for between two restarts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use crate::cli::{Error, complain, print};
use crate::clock;
use crate::config::Loaded;
use crate::exit::Exit;
use crate::http;

/// Between two questions while it waits.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct HealthArguments {
    /// Ask only whether the process turns (/livez), not whether it is ready (/readyz)
    #[arg(long)]
    live: bool,
    /// Ask again for so many seconds until the answer is yes
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u32,
}

pub(super) fn execute(wanted: &HealthArguments, loaded: &Loaded) -> Result<Exit, Error> {
    let address = reachable(loaded.config.http.listen).to_string();
    let path = if wanted.live { "/livez" } else { "/readyz" };
    let until = clock::now() + Duration::from_secs(wanted.wait.into());
    loop {
        let answer = http::ask::get(&address, path);
        if let Ok((200, body)) = &answer {
            print(&format!("{body}\n"))?;
            return Ok(Exit::Clean);
        }
        if clock::now() >= until {
            complain(&match answer {
                Ok((status, body)) => format!("{address}{path} answers {status}: {body}"),
                Err(reason) => format!("{address}{path} does not answer: {reason}"),
            });
            return Ok(Exit::Failed);
        }
        thread::sleep(PAUSE);
    }
}

/// Where this machine reaches what listens there: on all addresses means on loopback too.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn what_listens_everywhere_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.0.0.5:8080", "10.0.0.5:8080"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked);
        }
    }
}
