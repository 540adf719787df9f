//! Committed topics into PostgreSQL, once. The only place that names `tokio_postgres`.
//!
//! ```text
//! topics ──member──► worker: rows, batches ──► service ──► writer ──► PostgreSQL
//!                       ▲        (one command at a time)      │
//!                       └── written · moved: read from there ◄┘
//! ```
//! Rows and the position behind them change in one database transaction, and only from the
//! position this sink believes in. The position in the database is the truth: the consumer group
//! only hands out partitions. A database that lost its rows together with its positions is filled
//! again from the beginning of the topics.
//!
//! A position is the offset behind the last record read. Behind that may stand control records of
//! a transaction, so a position that is one or two short of the end of the log is normal.

pub mod batch;
pub mod connection;
pub mod jsonb;
pub mod read;
pub mod rows;
mod schema;
mod service;
mod standstill;
mod start;
mod statements;
pub mod status;
mod worker;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::broker::classify::Denial;
use crate::broker::client::SINK_ROLE;
use crate::broker::client::Settings;
use crate::broker::group::holder;
use crate::broker::port::Holder;
use crate::broker::sink_consumer::{self, SinkConsumer};
use crate::config::Postgres;
use crate::sink::connection::Database;
pub use crate::sink::rows::TOPICS;
use crate::sink::service::Service;
use crate::sink::status::Status;
use crate::sink::worker::Worker;
use crate::sink::writer::Writer;

/// Why the sink has stopped: a person must act, unless a new member helps. Whatever else passes by
/// itself is no error of this type.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Database(#[from] connection::Error),
    #[error("Kafka, as the sink sees it: {0}")]
    Kafka(String),
    #[error("Kafka refuses the sink: {text}")]
    NotAllowed { denial: Denial, text: String },
    #[error(
        "another live process has joined the sink's group with this kafka.instance_id; give every \
         live instance its own"
    )]
    Replaced,
    #[error(
        "records {from} to {to} of {partition} were deleted before they were written to the \
         database: its retention must be unlimited. To go on without them, set next_offset = {to} \
         in settle.sink_position"
    )]
    Lost {
        partition: String,
        from: i64,
        to: i64,
    },
    #[error(
        "the database stands at {position} of {partition}, which ends at {end}: the topic was \
         truncated or created anew, or this is another cluster's database"
    )]
    Ahead {
        partition: String,
        position: i64,
        end: i64,
    },
    #[error("{partition}: offset {offset} has not come for a while")]
    StandsStill { partition: String, offset: i64 },
    #[error("start a thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error("a thread of the sink has died")]
    Died,
}

impl From<sink_consumer::Error> for Error {
    /// What ends a member; weather does not.
    fn from(error: sink_consumer::Error) -> Self {
        match error {
            sink_consumer::Error::NotAllowed { denial, text } => Self::NotAllowed { denial, text },
            sink_consumer::Error::Replaced => Self::Replaced,
            other => Self::Kafka(other.to_string()),
        }
    }
}

/// The running sink.
pub struct Handle {
    status: Arc<Status>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Handle {
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Returns at once; [`Handle::join`] waits until the write under way is answered, or 3 s.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it has stopped, by itself or when told to.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    pub fn join(self) -> Result<(), Error> {
        self.thread.join().unwrap_or(Err(Error::Died))
    }
}

/// Starts the sink on two threads of its own. Kafka and the database may be away: it waits for
/// them.
pub fn spawn(settings: Settings, postgres: &Postgres) -> Result<Handle, Error> {
    let database = Database::new(postgres)?;
    let status = Arc::new(Status::default());
    let stop = Arc::new(AtomicBool::new(false));
    let (told, stopped) = (Arc::clone(&status), Arc::clone(&stop));
    let work = move || {
        let outcome = loop {
            let service = Service {
                writer: Writer::new(database.clone(), settings.topics.clone()),
                status: Arc::clone(&told),
            };
            match run(&settings, service, Arc::clone(&told), Arc::clone(&stopped)) {
                Err(Error::Replaced) if may_rejoin(&settings, &stopped) => {}
                Err(error @ Error::StandsStill { .. }) => {
                    tracing::warn!(%error, "the sink stands still; joining its group again");
                }
                outcome => break outcome,
            }
        };
        if let Err(error) = &outcome {
            told.set_problem(error.to_string());
        }
        outcome
    };
    let thread = std::thread::Builder::new().name("settle-sink".to_owned());
    Ok(Handle {
        status,
        stop,
        thread: thread.spawn(work)?,
    })
}

/// Whether the place in the group is ours to take again; waits while the group cannot be asked.
fn may_rejoin(settings: &Settings, stop: &AtomicBool) -> bool {
    while !stop.load(Ordering::Relaxed) {
        match holder(settings, &settings.sink_group(), SINK_ROLE) {
            // Should another process be there after all, the workers find out.
            Ok(holder) => return holder != Holder::Another,
            Err(error) => tracing::warn!(%error, "waiting to join the sink's group again"),
        }
    }
    true
}

fn run(
    settings: &Settings,
    service: Service,
    status: Arc<Status>,
    stop: Arc<AtomicBool>,
) -> Result<(), Error> {
    let (commands, received) = tokio::sync::mpsc::channel(1);
    let (answered, answers) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let database = std::thread::Builder::new()
        .name("settle-sink-db".to_owned())
        .spawn(move || runtime.block_on(service.serve(received, answered)))?;
    let opened = SinkConsumer::open(settings, &TOPICS).map_err(Error::from);
    let outcome = opened.and_then(|member| {
        Worker::new(
            (settings.clone(), member),
            (commands, answers),
            status,
            stop,
        )
        .run()
    });
    // The worker has dropped its end of the channel: the other thread gives up what it does.
    let ended = database.join().map_err(|_| Error::Died);
    outcome.and(ended)
}
