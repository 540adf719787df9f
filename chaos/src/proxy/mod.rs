//! A TCP proxy between Kafka and its clients that reads the requests that pass, and holds, delays, repeats or drops
//! those that a rule names, or their answers.
//!
//! What a network can do to a request this does on demand, at a place in a transaction that a test chooses. Requests
//! are told apart by API key and client id. A cluster that is started with
//! [`crate::cluster::kafka::KafkaOptions::behind_proxy`] has one proxy before a listener of its own, so that clients
//! that come through it are led back to it, and others are left alone.

mod api;
mod connection;
mod frame;
mod rule;

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::proxy::rule::Book;

pub use crate::proxy::api::Api;
pub use crate::proxy::rule::{Armed, Fate, Rule, Side, Stage};

/// From a loopback port that clients use to the one that a broker listens on.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub clients: u16,
    pub broker: u16,
}

/// A running proxy; its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    book: Arc<Book>,
    routes: Vec<Route>,
    runtime: Option<Runtime>,
}

impl Proxy {
    pub fn start(routes: &[Route]) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .context("start the proxy's runtime")?;
        let book = Arc::<Book>::default();
        for route in routes {
            let listener = runtime
                .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, route.clients)))
                .with_context(|| format!("listen on port {}", route.clients))?;
            runtime.spawn(accept(listener, route.broker, Arc::clone(&book)));
        }
        Ok(Self {
            book,
            routes: routes.to_vec(),
            runtime: Some(runtime),
        })
    }

    /// `host:port` of every route, separated by commas.
    pub fn bootstrap(&self) -> String {
        let addresses = self.routes.iter();
        let addresses: Vec<String> = addresses
            .map(|route| format!("127.0.0.1:{}", route.clients))
            .collect();
        addresses.join(",")
    }

    /// Puts a rule into force until the handle is dropped.
    #[must_use = "dropping it takes the rule back"]
    pub fn arm(&self, rule: Rule) -> Armed {
        self.book.arm(rule)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, broker: u16, book: Arc<Book>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let book = Arc::clone(&book);
        tokio::spawn(async move {
            // A client of a broker that is down finds the connection closed and comes again.
            if let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)).await {
                connection::carry(client, broker, book).await;
            }
        });
    }
}
