//! PostgreSQL for these tests: a database for each of them, and questions to it.

use std::sync::atomic::{AtomicU32, Ordering};

use chaos::cluster::postgres::Postgres;
use chaos::cluster::scratch::Scratch;
use chaos::cluster::shared;
use tokio_postgres::{Client, NoTls};

/// A server of its own, for a test that hurts it.
pub struct Server {
    pub postgres: Postgres,
    _scratch: Scratch,
}

impl Server {
    pub fn start() -> Self {
        let scratch = Scratch::new().unwrap();
        Self {
            postgres: Postgres::start(&scratch.path().join("postgres")).unwrap(),
            _scratch: scratch,
        }
    }
}

/// The address of a new, empty database on the server that all tests share.
pub fn new_database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("sink_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let create = || {
        let postgres = shared::cluster().unwrap().postgres();
        postgres.create_database(&name).unwrap();
        postgres.url_of(&name)
    };
    // The calls above run a runtime of their own, which a test's runtime would not allow.
    std::thread::scope(|scope| scope.spawn(create).join().unwrap())
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// One line per row, columns as text.
pub async fn ask(client: &Client, query: &str) -> Vec<String> {
    let answer = client.simple_query(query).await.unwrap();
    let rows = answer.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let line = |row: &tokio_postgres::SimpleQueryRow| {
        let columns = (0..row.len()).map(|at| row.get(at).unwrap_or("-").to_owned());
        columns.collect::<Vec<_>>().join("|")
    };
    rows.map(line).collect()
}
