//! Composition root: puts the parts together and runs them until the process is told to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::broker::classify::Denial;
use crate::broker::client::Settings;
use crate::broker::feeder::feed;
use crate::broker::monitor::{self, Ends, Watch};
use crate::broker::ownerless;
use crate::broker::rights::{self, Purpose, Resource};
use crate::broker::{Partition, Topic};
use crate::clock;
use crate::config::Config;
use crate::domain::classify::Exclude;
use crate::engine::background::Background;
use crate::engine::failure::{Cause, Stopped};
use crate::engine::fixed::{Fixed, Partitions};
use crate::engine::status::{Kind, Status};
use crate::engine::worker::{Options, Worker};
use crate::exit::Exit;
use crate::failpoint;
use crate::http::generator::FINISH;
use crate::http::{self, Generator, Owners, Probe, Services, Tls};
use crate::metrics;
use crate::notify::Notifier;
use crate::rules::{self, Resolver};
use crate::sink;
use crate::state::directory::Directory;
use crate::state::ids::Window;
use crate::state::view::Views;
use crate::tls;
use crate::topics;

/// How often a waiting thread looks whether the process is to end.
const STOP_LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Topics(#[from] topics::Error),
    #[error(transparent)]
    State(#[from] crate::state::Error),
    #[error(transparent)]
    Rules(#[from] rules::Error),
    #[error(transparent)]
    Broker(#[from] crate::broker::classify::Error),
    #[error(transparent)]
    Sink(#[from] sink::Error),
    #[error("HTTPS (http.certificate_file, http.key_file, http.ca_file): {0}")]
    Tls(#[from] tls::Error),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The broker refused something in the middle of the work.
    #[error("{cause}; not allowed: {principal} lacks {missing}")]
    NotAllowed {
        cause: String,
        principal: String,
        /// By name, as far as the cluster tells.
        missing: String,
    },
    #[error("{attempt}: {reason}")]
    Start {
        attempt: &'static str,
        reason: String,
    },
    #[error(
        "not everything had stopped within shutdown.grace ({0:?}); the open transaction is ended by the next start"
    )]
    Grace(Duration),
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Topics(error) => error.exit(),
            Self::State(_) => Exit::State,
            Self::Rules(_) | Self::Tls(_) | Self::Sink(sink::Error::Database(_)) => {
                Exit::Configuration
            }
            Self::Sink(sink::Error::Lost { .. } | sink::Error::Ahead { .. }) => Exit::BrokenPromise,
            Self::NotAllowed { .. } | Self::Sink(sink::Error::NotAllowed { .. }) => {
                Exit::NotAllowed
            }
            Self::Sink(_) | Self::Broker(_) | Self::Start { .. } | Self::Grace(_) => Exit::Failed,
            Self::Stopped(stopped) => match stopped.cause {
                Cause::Failed => Exit::Failed,
                Cause::PromiseBroken => Exit::BrokenPromise,
                Cause::StateDirectory => Exit::State,
                Cause::NotAllowed(_) => Exit::NotAllowed,
            },
        }
    }
}

fn start_error(attempt: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::Start {
        attempt,
        reason: error.to_string(),
    }
}

/// Runs the service until SIGTERM or SIGINT, or until a person must act. SIGHUP calls `reread`.
pub fn run(config: &Config, reread: impl Fn() + Send + Sync + 'static) -> Result<(), Error> {
    let notifier = Notifier::start().map_err(start_error("start the thread that notifies"))?;
    let result = start(config, reread, &notifier);
    notifier.ended(result.as_ref().err().map(ToString::to_string));
    result
}

fn start(
    config: &Config,
    reread: impl Fn() + Send + Sync + 'static,
    notifier: &Notifier,
) -> Result<(), Error> {
    failpoint::listen();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(start_error("start the runtime"))?;
    let stop = Arc::new(AtomicBool::new(false));
    let has_begun = Arc::new(AtomicBool::new(false));
    reread_on_signal(&runtime, reread)?;
    let directory = Arc::new(Directory::open(&config.state.directory)?);
    stop_on_signal(&runtime, &stop, &has_begun)?;
    let topics = topics::ensure(config)?;
    has_begun.store(true, Ordering::SeqCst);
    metrics::install();
    runtime.spawn(metrics::upkeep());
    let result = run_parts(
        config,
        &directory,
        topics,
        (runtime.handle(), notifier),
        &stop,
    );
    runtime.shutdown_background();
    result.map_err(|error| name_missing_rights(config, error))
}

/// Adds to a refusal which rights are missing: the broker's answer does not say it.
fn name_missing_rights(config: &Config, error: Error) -> Error {
    let denial = match &error {
        Error::Stopped(Stopped {
            cause: Cause::NotAllowed(denial),
            ..
        })
        | Error::Sink(sink::Error::NotAllowed { denial, .. }) => *denial,
        _ => return error,
    };
    let missing = match denial {
        Denial::Login => vec!["valid credentials in kafka.properties".to_owned()],
        Denial::TransactionalId => rights::needed(config, Purpose::Run)
            .into_iter()
            .filter(|right| matches!(right.resource, Resource::TransactionalIds(_)))
            .map(|right| right.to_string())
            .collect(),
        Denial::Cluster | Denial::Topic | Denial::Group => {
            let found = topics::missing_rights(config).unwrap_or_default();
            found.iter().map(ToString::to_string).collect()
        }
    };
    let missing = match missing.as_slice() {
        [] => "a right that the cluster does not name: compare with `settle acls`".to_owned(),
        rights => rights.join(", "),
    };
    Error::NotAllowed {
        cause: error.to_string(),
        principal: rights::principal_hint(config),
        missing,
    }
}

/// SIGTERM and SIGINT ask for an orderly end. Before anything has begun there is nothing to end.
#[expect(clippy::exit, reason = "nothing holds anything that must be put down")]
fn stop_on_signal(
    runtime: &tokio::runtime::Runtime,
    stop: &Arc<AtomicBool>,
    has_begun: &Arc<AtomicBool>,
) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let _entered = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(start_error("listen for signals"))?;
        let (stop, has_begun) = (Arc::clone(stop), Arc::clone(has_begun));
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                tracing::info!("asked to stop");
                if !has_begun.load(Ordering::SeqCst) {
                    std::process::exit(i32::from(Exit::Clean.code()));
                }
                stop.store(true, Ordering::SeqCst);
            }
        });
    }
    Ok(())
}

/// SIGHUP never ends the process.
fn reread_on_signal(
    runtime: &tokio::runtime::Runtime,
    reread: impl Fn() + Send + Sync + 'static,
) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let _entered = runtime.enter();
    let mut signals = signal(SignalKind::hangup()).map_err(start_error("listen for signals"))?;
    let reread = Arc::new(reread);
    runtime.spawn(async move {
        while signals.recv().await.is_some() {
            let reread = Arc::clone(&reread);
            // It reads a file. A panic in it is its own end only.
            drop(tokio::task::spawn_blocking(move || reread()).await);
        }
    });
    Ok(())
}

fn run_parts(
    config: &Config,
    directory: &Arc<Directory>,
    topics: topics::Partitions,
    (runtime, notifier): (&tokio::runtime::Handle, &Notifier),
    stop: &Arc<AtomicBool>,
) -> Result<(), Error> {
    let mut settings = Settings::new(config);
    settings.batch_bytes_max = topics.batch_bytes_max;
    let resolver = resolver(config, runtime)?;
    let views = Views::default();
    let status = Status::new(config.pipeline.workers);
    let (source_owners, owners) = (Owners::default(), Owners::default());
    let sink = start_sink(config, &settings)?;
    let services = Services {
        instance: config.kafka.instance_id.clone(),
        advertise: config.http.advertise.clone(),
        views: views.clone(),
        status: status.clone(),
        source_partitions: topics.source,
        bases_partitions: topics.bases,
        source_owners: source_owners.clone(),
        owners: owners.clone(),
        token: token(config),
        tls: config.http.tls.as_ref().map(Tls::new).transpose()?,
        generator: config
            .http
            .generator
            .then(|| generator(&settings, topics.source)),
        sink: sink.as_ref().map(|sink| sink_probe(&sink.status())),
        rules: rules_probe(&resolver.status()),
        disk: disk_probe(directory),
    };
    let server = serve(config, services.clone(), runtime, stop)?;
    let log_ends = Ends::default();
    let members = Arc::default();
    let watch = Watch {
        partitions: watched_partitions(status.clone()),
        ends: Arc::clone(&log_ends),
        members: Arc::clone(&members),
        owners: set_owners(source_owners, owners),
        groups: watched_groups(&settings, sink.is_some()),
    };
    monitor::spawn(&settings, watch, Arc::clone(stop))?;

    let (ended, ends) = mpsc::channel();
    let ending = Arc::default();
    for number in 0..config.pipeline.workers {
        let options = Options {
            number,
            port: settings.clone(),
            fixed: fixed(config, topics, &settings, number, &ending),
            directory: Arc::clone(directory),
            window: Window::new(config.dedup.window),
            accept_shorter_window: config.dedup.accept_shorter_window,
            commit_interval: config.pipeline.commit_interval,
            max_batch_records: config.pipeline.max_batch_records,
            desk: Box::new(resolver.subscribe()),
            background: Background::start(),
            views: views.clone(),
            status: Arc::clone(&status.workers[number]),
            ends: Arc::clone(&log_ends),
            members: Arc::clone(&members),
            stop: Arc::clone(stop),
        };
        spawn_worker(options, ended.clone())?;
    }
    drop(ended);
    let describe = Box::new(move || http::summary(&services));
    notifier.running(status, describe);
    let result = wait((config, notifier), stop, &ends, sink.as_ref());
    stop.store(true, Ordering::SeqCst);
    let sunk = sink.map_or(Ok(()), |sink| {
        sink.stop();
        sink.join()
    });
    runtime.block_on(async { server.await.ok() });
    result.and(sunk.map_err(Error::from))
}

fn resolver(config: &Config, runtime: &tokio::runtime::Handle) -> Result<Resolver, rules::Error> {
    let options = rules::Options {
        url: config.rules.url.clone(),
        timeout: config.rules.timeout,
        max_concurrent: config.rules.max_concurrent,
        on_call: |_, took| metrics::rule_called(took),
    };
    Resolver::new(&options, runtime.clone())
}

fn spawn_worker(options: Options<Settings>, ended: mpsc::Sender<Ended>) -> Result<(), Error> {
    let thread = thread::Builder::new().name(format!("worker-{}", options.number));
    let work = move || {
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Worker::new(options)?.run()));
        // The receiver is gone when the grace time is over.
        let _ = ended.send(result);
    };
    thread.spawn(work).map_err(start_error("start a worker"))?;
    Ok(())
}

/// Starts to answer HTTP.
fn serve(
    config: &Config,
    services: Services,
    runtime: &tokio::runtime::Handle,
    stop: &Arc<AtomicBool>,
) -> Result<tokio::task::JoinHandle<()>, Error> {
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(config.http.listen))
        .map_err(|error| Error::Start {
            attempt: "listen for HTTP (http.listen)",
            reason: format!("{}: {error}", config.http.listen),
        })?;
    tracing::info!(address = %config.http.listen, "HTTP is served");
    let stop = Arc::clone(stop);
    let asked_to_stop = async move {
        while !stop.load(Ordering::SeqCst) {
            tokio::time::sleep(STOP_LOOK).await;
        }
    };
    Ok(runtime.spawn(http::serve(listener, services, asked_to_stop)))
}

fn token(config: &Config) -> Option<String> {
    let token = config.http.token.as_ref();
    token.map(|token| token.expose().to_owned())
}

/// The sink, when there is a database.
fn start_sink(config: &Config, settings: &Settings) -> Result<Option<sink::Handle>, Error> {
    let Some(postgres) = &config.postgres else {
        return Ok(None);
    };
    Ok(Some(sink::spawn(settings.clone(), postgres)?))
}

fn sink_probe(status: &Arc<sink::status::Status>) -> Probe<http::Sink> {
    let status = Arc::clone(status);
    Arc::new(move || http::Sink {
        connected: status.is_connected(),
        rows: status
            .rows()
            .map(|(table, rows)| (table.to_owned(), rows))
            .collect(),
        lag: status
            .partitions()
            .into_iter()
            .filter_map(|(partition, progress)| Some((partition, progress.lag?)))
            .collect(),
        commits: status.commits(),
        rewinds: status.rewinds(),
        unreadable: status.unreadable(),
        lost: status.lost(),
        problem: status.problem(),
    })
}

fn disk_probe(directory: &Arc<Directory>) -> Probe<http::Disk> {
    let directory = Arc::clone(directory);
    Arc::new(move || {
        let space = directory.space();
        http::Disk {
            used: space.used,
            free: space.free,
            size: space.size,
        }
    })
}

fn rules_probe(status: &Arc<rules::Status>) -> Probe<http::Rules> {
    let status = Arc::clone(status);
    Arc::new(move || http::Rules {
        calls: rules::Outcome::all()
            .map(|outcome| (outcome.label(), status.calls(outcome)))
            .collect(),
        in_flight: status.waiting() as u64,
        outage: status.is_outage(),
        problem: status.last_failure(),
    })
}

fn generator(settings: &Settings, partitions: i32) -> Generator {
    let settings = settings.clone();
    Arc::new(move |payments| feed(&settings, partitions, payments, FINISH))
}

type Ended = thread::Result<Result<(), Stopped>>;

/// Waits until every worker has ended. The first that ends stops the others.
fn wait(
    (config, notifier): (&Config, &Notifier),
    stop: &AtomicBool,
    ends: &mpsc::Receiver<Ended>,
    sink: Option<&sink::Handle>,
) -> Result<(), Error> {
    let mut first = Ok(());
    let mut deadline = None;
    for _ in 0..config.pipeline.workers {
        let ended = loop {
            match ends.recv_timeout(STOP_LOOK) {
                Ok(ended) => break ended,
                Err(mpsc::RecvTimeoutError::Disconnected) => return first,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if sink.is_some_and(sink::Handle::is_finished) {
                // It says why when it is joined.
                stop.store(true, Ordering::SeqCst);
            }
            if stop.load(Ordering::SeqCst) {
                let now = clock::now();
                if deadline.is_none() {
                    notifier.stopping();
                }
                if now > *deadline.get_or_insert(now + config.shutdown.grace) {
                    return first.and(Err(Error::Grace(config.shutdown.grace)));
                }
            }
        };
        stop.store(true, Ordering::SeqCst);
        let result = ended.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let message = format!("an invariant is broken: {}", text.unwrap_or_default());
            Err(Stopped {
                cause: Cause::PromiseBroken,
                message,
            })
        });
        first = first.and(result.map_err(Error::from));
    }
    first
}

/// Tells those who answer for partitions of the source and of the bases.
fn set_owners(source: Owners, bases: Owners) -> Box<dyn Fn(BTreeMap<Partition, String>) + Send> {
    Box::new(move |found| {
        let (mut of_source, mut of_bases) = (BTreeMap::new(), BTreeMap::new());
        for (partition, owner) in found {
            match partition.topic {
                Topic::Source => of_source.insert(partition.number, owner),
                _ => of_bases.insert(partition.number, owner),
            };
        }
        source.set(of_source);
        bases.set(of_bases);
    })
}

/// The workers' group and, with a database, the sink's.
fn watched_groups(settings: &Settings, has_sink: bool) -> Vec<ownerless::Watch> {
    let workers = ownerless::Watch::new(settings.application_id.clone(), &Topic::CONSUMED);
    let sink = || ownerless::Watch::new(settings.sink_group(), &sink::TOPICS);
    let sink = has_sink.then(sink);
    [Some(workers), sink].into_iter().flatten().collect()
}

fn watched_partitions(status: Status) -> Box<dyn Fn() -> Vec<Partition> + Send> {
    let partition = |(kind, number)| match kind {
        Kind::Ingest => Partition::new(Topic::Source, number),
        Kind::Settle => Partition::new(Topic::Bases, number),
    };
    Box::new(move || {
        let workers = status.workers.iter();
        let tasks = workers.flat_map(|worker| worker.tasks().into_keys());
        tasks.map(partition).collect()
    })
}

fn fixed(
    config: &Config,
    topics: topics::Partitions,
    settings: &Settings,
    worker: usize,
    ending: &Arc<Mutex<BTreeSet<String>>>,
) -> Fixed {
    // Every task has a file; at most so many live in this process.
    let tasks = u64::try_from(topics.source + topics.bases)
        .unwrap_or(1)
        .max(1);
    let partitions = Partitions {
        source: topics.source,
        bases: topics.bases,
        exclusions: topics.exclusions,
        dead_letter: topics.dead_letter,
    };
    Fixed {
        application_id: settings.application_id.clone(),
        transactional_id: settings.transactional_id(worker),
        names: settings.topics.clone(),
        partitions,
        written: partitions.written().into(),
        exclude: Exclude::new(&config.exclude.merchants, &config.exclude.test_merchants),
        default_payout_days: config.rules.default_payout_days,
        absent_ttl: config.rules.absent_ttl,
        dead_letter_bytes_max: topics.dead_letter_bytes_max,
        cache_per_task: usize::try_from(config.state.cache / tasks).unwrap_or(usize::MAX),
        ending: Arc::clone(ending),
        wall_now: clock::wall_millis(),
        now: clock::now(),
    }
}
