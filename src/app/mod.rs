//! Composition root: puts the parts together and runs them until the process is told to stop.

mod error;
mod probes;
mod signals;
mod wait;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

use crate::app::error::{name_missing_rights, start_error};
use crate::app::wait::{STOP_LOOK, WorkerResult};
use crate::broker::client::Settings;
use crate::broker::group::Members;
use crate::broker::monitor::{self, Ends, Watch};
use crate::clock;
use crate::config::Config;
use crate::domain::classify::Exclude;
use crate::engine::background::Background;
use crate::engine::fixed::{Fixed, Partitions};
use crate::engine::status::Status;
use crate::engine::worker::{Options, Worker};
use crate::failpoint;
use crate::http::{self, Owners, Services, Tls};
use crate::metrics;
use crate::notify::Notifier;
use crate::rules::{self, Resolver};
use crate::sink;
use crate::state::directory::Directory;
use crate::state::ids::Window;
use crate::state::view::Views;
use crate::topics;

pub use error::Error;

/// What every part of the process is started with.
struct Process<'a> {
    config: &'a Config,
    directory: &'a Arc<Directory>,
    runtime: &'a Handle,
    notifier: &'a Notifier,
    /// Set when the process is to end.
    stop: &'a Arc<AtomicBool>,
}

/// What workers and others tell each other.
#[derive(Default)]
struct Shared {
    views: Views,
    status: Status,
    log_ends: Ends,
    members: Arc<Mutex<Members>>,
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
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(start_error("start the runtime"))?;
    let stop = Arc::new(AtomicBool::new(false));
    let has_begun = Arc::new(AtomicBool::new(false));
    signals::reread_on_signal(&runtime, reread)?;
    let directory = Arc::new(Directory::open(&config.state.directory)?);
    signals::stop_on_signal(&runtime, &stop, &has_begun)?;
    let topics = topics::ensure(config)?;
    has_begun.store(true, Ordering::SeqCst);
    metrics::install();
    runtime.spawn(metrics::upkeep());
    let process = Process {
        config,
        directory: &directory,
        runtime: runtime.handle(),
        notifier,
        stop: &stop,
    };
    let result = run_parts(&process, topics);
    runtime.shutdown_background();
    result.map_err(|error| name_missing_rights(config, error))
}

fn run_parts(process: &Process, topics: topics::Partitions) -> Result<(), Error> {
    let Process { config, stop, .. } = *process;
    let mut settings = Settings::new(config);
    settings.batch_bytes_max = topics.batch_bytes_max;
    settings.stop = Arc::clone(stop);
    let resolver = resolver(config, process.runtime)?;
    let shared = Shared {
        status: Status::new(config.pipeline.workers),
        ..Shared::default()
    };
    let (source_owners, owners) = (Owners::default(), Owners::default());
    let sink = start_sink(config, &settings)?;
    let services = Services {
        instance: config.kafka.instance_id.clone(),
        advertise: config.http.advertise.clone(),
        views: shared.views.clone(),
        status: shared.status.clone(),
        source_partitions: topics.source,
        bases_partitions: topics.bases,
        source_owners: source_owners.clone(),
        owners: owners.clone(),
        token: token(config),
        tls: config.http.tls.as_ref().map(Tls::new).transpose()?,
        generator: config
            .http
            .generator
            .then(|| probes::generator(&settings, topics.source)),
        sink: sink.as_ref().map(|sink| probes::sink(&sink.status())),
        rules: probes::rules(&resolver.status()),
        disk: probes::disk(process.directory),
    };
    let server = serve(process, services.clone())?;
    let watch = Watch {
        partitions: probes::watched_partitions(shared.status.clone()),
        ends: Arc::clone(&shared.log_ends),
        members: Arc::clone(&shared.members),
        owners: probes::set_owners(source_owners, owners),
        groups: probes::watched_groups(&settings, sink.is_some()),
    };
    monitor::spawn(&settings, watch, Arc::clone(stop))?;
    let results = start_workers(process, topics, &settings, &resolver, &shared)?;
    let describe = Box::new(move || http::summary(&services));
    process.notifier.running(shared.status, describe);
    wait::until_ended(process, &results, sink, server)
}

/// Starts the workers; each tells what it came to.
fn start_workers(
    process: &Process,
    topics: topics::Partitions,
    settings: &Settings,
    resolver: &Resolver,
    shared: &Shared,
) -> Result<mpsc::Receiver<WorkerResult>, Error> {
    let config = process.config;
    let (result_sender, results) = mpsc::channel();
    let ending = Arc::default();
    for number in 0..config.pipeline.workers {
        let options = Options {
            number,
            port: settings.clone(),
            fixed: fixed(config, topics, settings, number, &ending),
            directory: Arc::clone(process.directory),
            window: Window::new(config.dedup.window),
            accept_shorter_window: config.dedup.accept_shorter_window,
            commit_interval: config.pipeline.commit_interval,
            max_batch_records: config.pipeline.max_batch_records,
            desk: Box::new(resolver.subscribe()),
            background: Background::start(),
            views: shared.views.clone(),
            status: Arc::clone(&shared.status.workers[number]),
            ends: Arc::clone(&shared.log_ends),
            members: Arc::clone(&shared.members),
            stop: Arc::clone(process.stop),
        };
        spawn_worker(options, result_sender.clone())?;
    }
    Ok(results)
}

fn resolver(config: &Config, runtime: &Handle) -> Result<Resolver, rules::Error> {
    let options = rules::Options {
        url: config.rules.url.clone(),
        timeout: config.rules.timeout,
        max_concurrent: config.rules.max_concurrent,
        on_call: |_, took| metrics::rule_called(took),
    };
    Resolver::new(&options, runtime.clone())
}

fn spawn_worker(
    options: Options<Settings>,
    result_sender: mpsc::Sender<WorkerResult>,
) -> Result<(), Error> {
    let thread = thread::Builder::new().name(format!("worker-{}", options.number));
    let work = move || {
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Worker::new(options)?.run()));
        // The receiver is gone when the grace time is over.
        let _ = result_sender.send(result);
    };
    thread.spawn(work).map_err(start_error("start a worker"))?;
    Ok(())
}

/// Starts to answer HTTP.
fn serve(process: &Process, services: Services) -> Result<JoinHandle<()>, Error> {
    let Process {
        config,
        runtime,
        stop,
        ..
    } = *process;
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
