//! One worker: the loop, the transaction, and the reactions to failures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::broker::classify::{self, Stop};
use crate::broker::client::Settings;
use crate::broker::consumer::{Consumer, Polled};
use crate::broker::monitor::{Members, StableEnds};
use crate::broker::producer::Producer;
use crate::broker::reader::Reader;
use crate::broker::{Partition, Topic};
use crate::clock;
use crate::engine::background::Background;
use crate::engine::failure::{Cause, Failure, Stopped, Todo};
use crate::engine::fixed::Fixed;
use crate::engine::former::FormerWriters;
use crate::engine::outbox::Outbox;
use crate::engine::status::{self, Kind, Phase};
use crate::engine::tasks::{Life, Tasks};
use crate::metrics::{Replacement, Worker as Metrics};
use crate::rules::Desk;
use crate::state::directory::Directory;
use crate::state::ids::Window;
use crate::state::view::Views;
use crate::state::{self, file};

/// At least this much time between two commits: a transaction that begins right after another
/// meets its markers still under way.
const COMMIT_GAP: Duration = Duration::from_millis(5);

/// Longest wait for a record when there is nothing to do.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// The same while answers of the rule service are expected.
const ASKING_WAIT: Duration = Duration::from_millis(5);

/// Pause after a failure that only time can cure.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A turn takes no more payload than this, whatever its record count.
const TURN_BYTES_MAX: usize = 16 << 20;

/// A task that waits for a rule buffers this much payload at most; then its partition pauses.
const INBOX_BYTES_MAX: usize = 8 << 20;

/// How long committed state may stay in memory only.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);

/// How often idle tasks are moved past control markers.
const MARKERS_INTERVAL: Duration = Duration::from_secs(30);

/// Two fencings within this time mean that another process lives with our identity.
const DUEL: Duration = Duration::from_secs(60);

/// What a worker is made from.
pub struct Options {
    pub number: usize,
    pub settings: Settings,
    pub fixed: Fixed,
    pub directory: Arc<Directory>,
    pub window: Window,
    pub accept_shorter_window: bool,
    pub commit_interval: Duration,
    pub max_batch_records: usize,
    pub desk: Desk,
    pub views: Views,
    pub status: Arc<status::Worker>,
    pub stable_ends: StableEnds,
    pub members: Arc<Mutex<Members>>,
    pub stop: Arc<AtomicBool>,
}

pub struct Worker {
    pub(super) number: usize,
    pub(super) settings: Settings,
    pub(super) fixed: Fixed,
    pub(super) directory: Arc<Directory>,
    pub(super) window: Window,
    pub(super) accept_shorter_window: bool,
    commit_interval: Duration,
    max_batch_records: usize,
    pub(super) consumer: Consumer,
    pub(super) reader: Reader,
    producer: Producer,
    pub(super) desk: Desk,
    pub(super) tasks: Tasks,
    /// Running partitions whose inbox is full.
    pub(super) paused: BTreeSet<Partition>,
    outbox: Outbox,
    pub(super) views: Views,
    pub(super) status: Arc<status::Worker>,
    stable_ends: StableEnds,
    pub(super) former_writers: FormerWriters,
    pub(super) metrics: Metrics,
    background: Background,
    checkpoint_at: Duration,
    markers_at: Duration,
    committed_at: Duration,
    fenced_at: Option<Duration>,
    /// Why the producer will be replaced.
    replacement: Replacement,
    stop: Arc<AtomicBool>,
}

impl Worker {
    /// Joins the group.
    pub fn new(options: Options) -> Result<Self, Stopped> {
        let failed = |error: classify::Error| {
            let failure = Failure::from(error);
            match failure.todo() {
                Todo::Stop(cause) => failure.stop(cause),
                _ => failure.stop(Cause::Failed),
            }
        };
        let number = options.number;
        Ok(Self {
            number,
            consumer: Consumer::join(&options.settings, number).map_err(failed)?,
            reader: Reader::new(&options.settings, number).map_err(failed)?,
            producer: Producer::new(&options.settings, number),
            settings: options.settings,
            fixed: options.fixed,
            directory: options.directory,
            window: options.window,
            accept_shorter_window: options.accept_shorter_window,
            commit_interval: options.commit_interval,
            max_batch_records: options.max_batch_records,
            desk: options.desk,
            tasks: Tasks::default(),
            paused: BTreeSet::new(),
            outbox: Outbox::default(),
            views: options.views,
            status: options.status,
            stable_ends: options.stable_ends,
            former_writers: FormerWriters::new(options.members),
            metrics: Metrics::new(number),
            background: Background::start(),
            checkpoint_at: clock::now(),
            markers_at: clock::now(),
            committed_at: Duration::ZERO,
            fenced_at: None,
            replacement: Replacement::Start,
            stop: options.stop,
        })
    }

    /// Runs until told to stop, or until a person must act.
    pub fn run(mut self) -> Result<(), Stopped> {
        while !self.stop.load(Ordering::Relaxed) {
            if let Err(failure) = self.turn() {
                self.react(&failure)?;
            }
            self.report();
        }
        self.shut_down()
    }

    fn turn(&mut self) -> Result<(), Failure> {
        self.fixed.now = clock::now();
        self.fixed.wall_now = clock::wall_millis();
        self.gather()?;
        self.trust_producer()?;
        self.begin_restores()?;
        self.follow_logs()?;
        self.take_answers();
        let positions = self.stage()?;
        if !positions.is_empty() {
            self.commit(&positions)?;
        }
        self.former_writers.end_transactions(&self.settings);
        self.hold_back()?;
        self.checkpoint()
    }

    /// Polls records into the inboxes until the input runs dry, the batch is full or the commit
    /// interval is over.
    fn gather(&mut self) -> Result<(), Failure> {
        let began = clock::now();
        let mut taken = 0;
        let mut bytes = 0;
        loop {
            let wait = self.gather_wait(taken);
            match self.consumer.poll(wait)? {
                Polled::Record(fetched) => {
                    let record = fetched.record();
                    bytes += record.value.map_or(0, <[u8]>::len);
                    self.tasks.accept(&record);
                    taken += 1;
                }
                Polled::Rebalance(change) => self.rebalance(&change)?,
                Polled::Nothing if self.may_commit() => break,
                Polled::Nothing => {}
            }
            let full = taken >= self.max_batch_records || bytes >= TURN_BYTES_MAX;
            // The clock is read once in a while only.
            let late = taken % 64 == 0 && clock::now() - began >= self.commit_interval;
            if full || late {
                break;
            }
        }
        Ok(())
    }

    fn may_commit(&self) -> bool {
        clock::now() >= self.committed_at + COMMIT_GAP
    }

    fn gather_wait(&self, taken: usize) -> Duration {
        if taken > 0 {
            let gap_ends = self.committed_at + COMMIT_GAP;
            return gap_ends.saturating_sub(clock::now()).min(COMMIT_GAP);
        }
        if self.tasks.is_restoring() {
            Duration::ZERO
        } else if self.desk.in_flight() > 0 {
            ASKING_WAIT
        } else {
            IDLE_WAIT
        }
    }

    /// A producer that is suspect or gone is replaced before anything is decided with it.
    fn trust_producer(&mut self) -> Result<(), Failure> {
        self.producer.poll();
        if self.producer.is_trusted() {
            return Ok(());
        }
        self.producer.replace()?;
        self.metrics.producer_replaced(self.replacement);
        if self.replacement == Replacement::Suspect {
            tracing::warn!(
                worker = self.number,
                "a request of the last transaction had no answer; the producer was replaced"
            );
        }
        self.replacement = Replacement::Suspect;
        Ok(())
    }

    fn take_answers(&mut self) {
        for (key, answer) in self.desk.take_answers() {
            let partitions = self.fixed.partitions.bases;
            let number = crate::domain::partition::of_key(key.as_str().as_bytes(), partitions);
            if let Some(task) = self.tasks.settle.get_mut(&number) {
                task.answer(key, answer, &self.fixed);
            }
        }
    }

    /// Decides everything that can be decided: source positions of the batch, none if empty.
    fn stage(&mut self) -> Result<Vec<(Partition, i64)>, Failure> {
        self.outbox.clear();
        let mut positions = Vec::new();
        let past_markers = self.past_markers()?;
        for task in self.tasks.ingest.values_mut() {
            let past_markers = past_markers.get(&task.partition()).copied();
            if let Some(next) = task.stage(&self.fixed, past_markers, &mut self.outbox)? {
                positions.push((task.partition(), next));
            }
        }
        for task in self.tasks.settle.values_mut() {
            let past_markers = past_markers.get(&task.partition()).copied();
            let (desk, out) = (&mut self.desk, &mut self.outbox);
            if let Some(next) = task.stage(&self.fixed, desk, past_markers, out)? {
                positions.push((task.partition(), next));
            }
        }
        Ok(positions)
    }

    /// Where idle tasks could go on behind the control markers that end their logs. Committed now
    /// and then, so that retention which removes a processed log with its markers does not look
    /// like a gap.
    fn past_markers(&mut self) -> Result<BTreeMap<Partition, i64>, Failure> {
        if self.fixed.now < self.markers_at + MARKERS_INTERVAL {
            return Ok(BTreeMap::new());
        }
        self.markers_at = self.fixed.now;
        let ingest = self.tasks.ingest.values().map(|task| {
            let next = task.store.positions().source;
            (task.partition(), task.inbox.is_done_before(next))
        });
        let settle = self.tasks.settle.values().map(|task| {
            let next = task.store.positions().source;
            (task.partition(), task.inbox.is_done_before(next))
        });
        let mut found = BTreeMap::new();
        for (partition, _) in ingest.chain(settle).filter(|(_, is_idle)| *is_idle) {
            if let Some(position) = self.consumer.position(partition)? {
                found.insert(partition, position);
            }
        }
        Ok(found)
    }

    /// Commits the batch in one transaction, then advances the stores.
    fn commit(&mut self, positions: &[(Partition, i64)]) -> Result<(), Failure> {
        let began = clock::now();
        let mut transaction = self.producer.begin()?;
        for record in self.outbox.iter() {
            transaction.send(&record)?;
        }
        let committed = transaction.commit(positions, || self.consumer.membership())?;
        self.committed_at = clock::now();
        self.fixed.wall_now = clock::wall_millis();
        for task in self.tasks.ingest.values_mut() {
            task.apply(&committed, &self.metrics);
        }
        for task in self.tasks.settle.values_mut() {
            task.apply(&committed, &self.fixed, &self.metrics);
        }
        self.metrics.transactions_committed.increment(1);
        self.metrics
            .transaction_records
            .record(count(self.outbox.iter().len()));
        self.metrics
            .commit_duration
            .record((self.committed_at - began).as_secs_f64());
        self.status.set_connected(true);
        Ok(())
    }

    /// Pauses partitions whose tasks have enough to wait with, and resumes them.
    fn hold_back(&mut self) -> Result<(), Failure> {
        for task in self.tasks.settle.values() {
            let partition = task.partition();
            let full = task.inbox.bytes() >= INBOX_BYTES_MAX
                || task.inbox.len() >= 2 * self.max_batch_records;
            if full && self.paused.insert(partition) {
                self.consumer.pause(partition)?;
            } else if task.inbox.bytes() < INBOX_BYTES_MAX / 2
                && task.inbox.len() < self.max_batch_records
                && self.paused.remove(&partition)
            {
                self.consumer.resume(partition)?;
            }
        }
        Ok(())
    }

    /// Makes committed state durable every now and then, off this thread.
    fn checkpoint(&mut self) -> Result<(), Failure> {
        let due = self.fixed.now >= self.checkpoint_at + CHECKPOINT_INTERVAL;
        if due {
            self.checkpoint_at = self.fixed.now;
        }
        let background = |job| self.background.run(job);
        for task in self.tasks.ingest.values_mut() {
            task.store.poll_checkpoint()?;
            if due && task.store.unsaved() > 0 {
                task.store.begin_checkpoint(&background);
            }
        }
        for task in self.tasks.settle.values_mut() {
            task.store.poll_checkpoint()?;
            if due && task.store.unsaved() > 0 {
                task.store.begin_checkpoint(&background);
            }
        }
        Ok(())
    }

    /// The one place that obeys failures.
    fn react(&mut self, failure: &Failure) -> Result<(), Stopped> {
        self.status.set_problem(failure.to_string());
        match failure.todo() {
            Todo::Wait => {
                self.status.set_connected(false);
                tracing::warn!(worker = self.number, %failure, "waiting");
                std::thread::sleep(RETRY_PAUSE);
            }
            Todo::Recover { fenced } => {
                tracing::warn!(worker = self.number, %failure, "taking up again from the log");
                if fenced {
                    self.fenced()?;
                }
                self.recover();
            }
            Todo::Rebuild => {
                if let Failure::State(state::Error::Damaged { path, reason }) = failure {
                    self.set_aside(path, reason)?;
                }
                self.recover();
            }
            Todo::Stop(cause) => {
                tracing::error!(worker = self.number, %failure, "stopping");
                return Err(failure.stop(cause));
            }
        }
        Ok(())
    }

    /// One fencing is weather: a late request, or a transaction that timed out. Two are a duel.
    fn fenced(&mut self) -> Result<(), Stopped> {
        let now = clock::now();
        let before = self.fenced_at.replace(now);
        if before.is_some_and(|before| now - before < DUEL) {
            let message = "another live process uses this kafka.instance_id: its producer has \
                           fenced this one twice within a minute; give every live instance its own";
            let error = classify::Error::new(
                "keep the transactional id",
                message,
                classify::Reaction::Stop(Stop::Failed),
            );
            return Err(Failure::from(error).stop(Cause::Failed));
        }
        Ok(())
    }

    /// Forgets everything that is not committed. The new producer decides the open transaction,
    /// and every task reads from the log what became of it.
    fn recover(&mut self) {
        self.metrics.transactions_replaced.increment(1);
        self.outbox.clear();
        self.producer.retire();
        self.replacement = Replacement::Error;
        let running = self.tasks.in_life(|life| matches!(life, Life::Running));
        self.tasks.restart_all();
        self.paused.clear();
        for partition in running {
            if partition.topic == Topic::Bases {
                self.views
                    .serve(partition.number, crate::state::view::Served::Restoring);
            }
            if let Err(error) = self.consumer.pause(partition) {
                // Its records are dropped until the task runs again.
                tracing::debug!(%error, "pause while recovering");
            }
        }
    }

    fn set_aside(&mut self, path: &std::path::Path, reason: &str) -> Result<(), Stopped> {
        let ingest = self
            .tasks
            .ingest
            .values()
            .find(|task| task.store.path() == path);
        let settle = self
            .tasks
            .settle
            .values()
            .find(|task| task.store.path() == path);
        let partition = ingest
            .map(super::ingest::Task::partition)
            .or_else(|| settle.map(super::settle::Task::partition));
        if let Some(partition) = partition {
            self.tasks.drop_state(partition, &mut self.desk);
        }
        file::set_aside(path, reason)
            .map_err(|error| Failure::from(error).stop(Cause::StateDirectory))
    }

    /// Leaves in order: the last transaction is committed, state becomes durable. The static
    /// member does not leave its group, so that a restart finds its partitions waiting.
    fn shut_down(mut self) -> Result<(), Stopped> {
        let partitions: Vec<Partition> = self.tasks.lives.keys().copied().collect();
        for partition in partitions {
            if let Err(failure) = self.close(partition) {
                match failure.todo() {
                    Todo::Stop(cause) => return Err(failure.stop(cause)),
                    _ => tracing::warn!(%failure, "closing a task"),
                }
            }
        }
        Ok(())
    }

    /// Tells others how things stand.
    fn report(&self) {
        self.status
            .turn(u64::try_from(clock::now().as_millis()).unwrap_or(u64::MAX));
        let ends = self
            .stable_ends
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut tasks = BTreeMap::new();
        for (partition, life) in &self.tasks.lives {
            let number = partition.number;
            let (kind, position, waiting) = match partition.topic {
                Topic::Source => {
                    let task = self.tasks.ingest.get(&number);
                    (
                        Kind::Ingest,
                        task.map(|task| task.store.positions().source),
                        false,
                    )
                }
                _ => {
                    let task = self.tasks.settle.get(&number);
                    let position = task.map(|task| task.store.positions().source);
                    (
                        Kind::Settle,
                        position,
                        task.is_some_and(super::settle::Task::is_waiting),
                    )
                }
            };
            let phase = match life {
                Life::New => Phase::Restoring { remaining: 0 },
                Life::Restoring(_) => Phase::Restoring {
                    remaining: self.remaining(*partition),
                },
                Life::Running if waiting => Phase::WaitingForRule,
                Life::Running => Phase::Running,
            };
            let position = position.unwrap_or(-1);
            let lag = ends
                .get(partition)
                .map(|end| (end - position.max(0)).max(0));
            tasks.insert(
                (kind, number),
                status::Task {
                    phase,
                    position,
                    lag,
                },
            );
        }
        drop(ends);
        if self.producer.is_trusted() && !self.tasks.is_restoring() {
            self.status.set_connected(true);
        }
        self.status.set_tasks(tasks);
    }
}

/// A count as a sample of a histogram.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn count(records: usize) -> f64 {
    records as f64
}
