//! Servers on loopback whose partitions are served from memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use settle::clock;
use settle::domain::partition::of_key;
use settle::domain::totals::Totals;
use settle::engine::status::Status;
use settle::http::{self, Owners, Rules, Services};
use settle::state::directory::Space;
use settle::state::view::{Error, Served, Source, Views};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const PARTITIONS: i32 = 4;

/// A partition in memory; reading fails from the n-th page on.
struct Memory {
    totals: BTreeMap<String, Totals>,
    pages_left: AtomicUsize,
}

impl Source for Memory {
    fn get(&self, rule_key: &str) -> Result<(Option<Totals>, i64), Error> {
        Ok((self.totals.get(rule_key).copied(), 17))
    }

    fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(String, Totals)>, i64), Error> {
        let take = |left: usize| left.checked_sub(1);
        self.pages_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .map_err(|_| Error("damaged".into()))?;
        let after = after.unwrap_or_default();
        let rest = self.totals.iter().filter(|(key, _)| key.as_str() > after);
        let page = rest.take(limit).map(|(key, totals)| (key.clone(), *totals));
        Ok((page.collect(), 17))
    }
}

/// One running server.
pub struct Server {
    pub address: SocketAddr,
    pub services: Services,
    pub stop: oneshot::Sender<()>,
    pub ended: JoinHandle<()>,
    pub client: Client,
}

impl Server {
    pub async fn start(adapt: impl FnOnce(&mut Services)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut services = Services {
            instance: format!("settle-{}", address.port()),
            advertise: address.to_string(),
            views: Views::default(),
            status: Status::new(1),
            source_partitions: PARTITIONS,
            bases_partitions: PARTITIONS,
            source_owners: Owners::default(),
            owners: Owners::default(),
            // Who the members are is told once.
            session_timeout: Duration::from_secs(3600),
            token: None,
            tls: None,
            generator: None,
            sink: None,
            rules: Arc::new(Rules::default),
            disk: Arc::new(Space::default),
        };
        adapt(&mut services);
        let (stop, stopped) = oneshot::channel();
        let serving = http::serve(listener, services.clone(), async {
            stopped.await.unwrap_or_default();
        });
        Self {
            address,
            services,
            stop,
            ended: tokio::spawn(serving),
            client: Client::new(),
        }
    }

    pub async fn get(&self, path: &str) -> Response {
        let url = format!("http://{}{path}", self.address);
        self.client.get(url).send().await.unwrap()
    }

    pub async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        body(response).await
    }

    /// Serves `partitions` of `keys`; reading fails after so many pages of each.
    pub fn own(&self, partitions: &[i32], keys: &BTreeMap<String, Totals>, pages: usize) {
        for partition in partitions {
            let of = |key: &str| of_key(key.as_bytes(), PARTITIONS);
            let own = keys.iter().filter(|(key, _)| of(key) == *partition);
            let source = Memory {
                totals: own.map(|(key, totals)| (key.clone(), *totals)).collect(),
                pages_left: AtomicUsize::new(pages),
            };
            let views = &self.services.views;
            views.serve(*partition, Served::Ready(Arc::new(source)));
        }
    }

    pub fn knows(&self, partitions: &[i32], owner: &str) {
        let owners = partitions.iter().map(|of| (*of, owner.to_owned()));
        self.services.owners.set(clock::now(), owners.collect());
    }
}

/// Two servers with two partitions each, which know each other.
pub async fn pair(keys: &BTreeMap<String, Totals>, adapt: fn(&mut Services)) -> (Server, Server) {
    let one = Server::start(adapt).await;
    let other = Server::start(adapt).await;
    one.own(&[0, 1], keys, usize::MAX);
    other.own(&[2, 3], keys, usize::MAX);
    one.knows(&[2, 3], &other.address.to_string());
    other.knows(&[0, 1], &one.address.to_string());
    (one, other)
}

pub async fn body(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}
