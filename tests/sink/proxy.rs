//! A TCP proxy before PostgreSQL that cuts connections around COMMIT.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Where a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server never hears of the COMMIT.
    Before,
    /// The server commits; the client never hears of it.
    After,
}

/// Forwards to one server, and cuts as planned.
pub struct Proxy {
    pub port: u16,
    commits: Arc<AtomicUsize>,
}

impl Proxy {
    /// `plan` says for each COMMIT, by its number from 0, whether it is cut.
    pub async fn start(server: u16, plan: fn(usize) -> Option<Cut>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let commits = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&commits);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(forward(client, server, plan, Arc::clone(&counter)));
            }
        });
        Self { port, commits }
    }

    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }
}

async fn forward(
    mut client: TcpStream,
    server: u16,
    plan: fn(usize) -> Option<Cut>,
    commits: Arc<AtomicUsize>,
) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut cut = None;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(1..) = read else { return };
                let bytes = &asked[..read.unwrap()];
                if is_commit(bytes) {
                    cut = plan(commits.fetch_add(1, Ordering::Relaxed));
                    if cut == Some(Cut::Before) {
                        return;
                    }
                }
                if server.write_all(bytes).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(1..) = read else { return };
                if cut == Some(Cut::After) {
                    return;
                }
                if client.write_all(&answered[..read.unwrap()]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The driver sends it in a message of its own, which ends what it writes at once.
fn is_commit(bytes: &[u8]) -> bool {
    bytes.ends_with(b"COMMIT\0")
}
