//! One worker: its parts and one turn of its loop. Reactions: `react.rs`; assignment:
//! `assignment.rs`; restore: `restore.rs`; lost markers: `hanging.rs`; clients that read no more:
//! `standstill.rs`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::broker::Partition;
use crate::broker::classify;
use crate::broker::group::Members;
use crate::broker::monitor::Ends;
use crate::broker::port::{Consumer as _, Fetched as _, Polled, Port, Producer as _};
use crate::broker::transaction::Transaction;
use crate::clock;
use crate::engine::background::Background;
use crate::engine::failure::{Cause, Failure, Stopped, Todo};
use crate::engine::fixed::Fixed;
use crate::engine::former::FormerWriters;
use crate::engine::hanging::Lookout;
use crate::engine::markers::holds_no_record;
use crate::engine::outbox::Outbox;
use crate::engine::standstill::Standstill;
use crate::engine::status;
use crate::engine::takeovers::Takeovers;
use crate::engine::tasks::Tasks;
use crate::failpoint::{self, Point};
use crate::metrics::{Replacement, Worker as Metrics};
use crate::rules::Service;
use crate::state::directory::Directory;
use crate::state::ids::Window;
use crate::state::view::Views;

/// At least this much time between two commits: a transaction that begins right after another
/// meets its markers still under way.
const COMMIT_GAP: Duration = Duration::from_millis(5);

/// Longest wait for a record when there is nothing to do.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// The same while answers of the rule service are expected.
const ASKING_WAIT: Duration = Duration::from_millis(5);

/// The same while the logs of a restore have nothing to give.
const DRY_WAIT: Duration = Duration::from_millis(1);

/// A turn takes no more payload than this, whatever its record count.
const TURN_BYTES_MAX: usize = 16 << 20;

/// A task that waits, for a rule or for the broker, buffers this much payload at most; then its
/// partition pauses.
const INBOX_BYTES_MAX: usize = 8 << 20;

/// How long committed state may stay in memory only.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);

/// Whoever stood still for so long in one turn may have lost its partitions.
const STALL: Duration = Duration::from_secs(5);

/// So many takeovers of the transactional id within a minute are another process's.
const FENCINGS: usize = 3;

/// So many of the place in the group, when it cannot be told whose they were.
const REPLACEMENTS: usize = 2;

/// What a worker is made from.
pub struct Options<P> {
    pub number: usize,
    pub port: P,
    pub fixed: Fixed,
    pub directory: Arc<Directory>,
    pub window: Window,
    pub accept_shorter_window: bool,
    pub commit_interval: Duration,
    pub max_batch_records: usize,
    pub desk: Box<dyn Service>,
    pub background: Background,
    pub views: Views,
    pub status: Arc<status::Worker>,
    pub ends: Ends,
    pub members: Arc<Mutex<Members>>,
    pub stop: Arc<AtomicBool>,
}

pub struct Worker<P: Port> {
    pub(super) number: usize,
    pub(super) port: P,
    pub(super) fixed: Fixed,
    pub(super) directory: Arc<Directory>,
    pub(super) window: Window,
    pub(super) accept_shorter_window: bool,
    commit_interval: Duration,
    max_batch_records: usize,
    pub(super) consumer: P::Consumer,
    pub(super) reader: P::Reader,
    pub(super) producer: P::Producer,
    pub(super) desk: Box<dyn Service>,
    pub(super) tasks: Tasks,
    /// Running partitions whose inbox is full.
    pub(super) paused: BTreeSet<Partition>,
    pub(super) outbox: Outbox,
    pub(super) views: Views,
    pub(super) status: Arc<status::Worker>,
    pub(super) ends: Ends,
    pub(super) former_writers: FormerWriters,
    /// Whether nothing came from the logs that are read in the last turn.
    pub(super) are_logs_dry: bool,
    pub(super) lookout: Lookout,
    pub(super) standstill: Standstill,
    pub(super) metrics: Metrics,
    background: Background,
    checkpoint_at: Duration,
    pub(super) markers_at: Duration,
    committed_at: Duration,
    /// Takeovers of the transactional id.
    pub(super) fencings: Takeovers,
    /// Takeovers of the place in the group that may have been another process's.
    pub(super) replacements: Takeovers,
    /// Since when every turn has met a topic that is not there.
    pub(super) missing_since: Option<Duration>,
    /// It stood still or has lost its partitions since the producer was initialised: whoever took
    /// them over may have fenced it, which tells nothing of a rival.
    pub(super) was_away: bool,
    /// Why the producer will be replaced.
    pub(super) replacement: Replacement,
    pub(super) stop: Arc<AtomicBool>,
}

impl<P: Port> Worker<P> {
    /// Joins the group.
    pub fn new(options: Options<P>) -> Result<Self, Stopped> {
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
            consumer: options.port.join(number).map_err(failed)?,
            reader: options.port.reader(&number.to_string()).map_err(failed)?,
            producer: options.port.producer(number),
            port: options.port,
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
            ends: options.ends,
            former_writers: FormerWriters::new(options.members),
            are_logs_dry: false,
            lookout: Lookout::default(),
            standstill: Standstill::default(),
            metrics: Metrics::new(number),
            background: options.background,
            checkpoint_at: clock::now(),
            markers_at: clock::now(),
            committed_at: Duration::ZERO,
            fencings: Takeovers::new(FENCINGS),
            replacements: Takeovers::new(REPLACEMENTS),
            missing_since: None,
            was_away: false,
            replacement: Replacement::Start,
            stop: options.stop,
        })
    }

    /// Runs until told to stop, or until a person must act.
    pub fn run(mut self) -> Result<(), Stopped> {
        while !self.stop.load(Ordering::Relaxed) {
            self.step()?;
        }
        self.shut_down()
    }

    /// One turn of the loop, and the reaction to its failure.
    pub fn step(&mut self) -> Result<(), Stopped> {
        let turned = self.turn();
        self.was_away |= clock::now().saturating_sub(self.fixed.now) >= STALL;
        match turned {
            Ok(()) => self.missing_since = None,
            Err(failure) => self.react(&failure)?,
        }
        self.report();
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Failure> {
        self.fixed.now = clock::now();
        self.fixed.wall_now = clock::wall_millis();
        self.gather()?;
        // Before anything that can fail again and again.
        self.hold_back()?;
        self.trust_producer()?;
        if !self.look_out()? {
            return Ok(());
        }
        self.begin_restores()?;
        self.follow_logs()?;
        self.take_answers();
        let positions = self.stage()?;
        if !positions.is_empty() {
            self.commit(&positions)?;
        }
        self.former_writers
            .end_transactions(&self.port, &self.fixed);
        self.hold_back()?;
        self.checkpoint()?;
        self.look_for_standstill()
    }

    /// Polls records into the inboxes until the input runs dry, the batch is full or the commit
    /// interval is over.
    fn gather(&mut self) -> Result<(), Failure> {
        let began = clock::now();
        let mut taken = 0;
        let mut bytes = 0;
        loop {
            let wait = self.gather_wait(taken);
            let change = match self.consumer.poll(wait)? {
                Polled::Record(fetched) => {
                    let record = fetched.record();
                    bytes += record.value.map_or(0, <[u8]>::len);
                    if let Some(gap) = self.tasks.accept(&record) {
                        // The record has left the consumer: only reading anew brings it again.
                        holds_no_record(&self.port, &self.fixed, &[gap])
                            .map_err(Failure::instead_of_waiting)?;
                        self.tasks.accept_behind_gap(&record);
                    }
                    failpoint::hit(Point::GatherRecord);
                    taken += 1;
                    None
                }
                Polled::Rebalance(change) => Some(change),
                Polled::Nothing if self.may_commit() => break,
                Polled::Nothing => None,
            };
            if let Some(change) = change {
                self.rebalance(&change)?;
            }
            let full = taken >= self.max_batch_records || bytes >= TURN_BYTES_MAX;
            // The clock is read once in a while only.
            let late =
                taken % 64 == 0 && clock::now().saturating_sub(began) >= self.commit_interval;
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
            if self.are_logs_dry {
                DRY_WAIT
            } else {
                Duration::ZERO
            }
        } else if self.desk.in_flight() > 0 {
            ASKING_WAIT
        } else {
            IDLE_WAIT
        }
    }

    /// A producer that is suspect or gone is replaced before anything is decided with it.
    ///
    /// Where nothing had failed, the tasks hold what the old one has committed. A broker may have
    /// died since and lost markers, and another instance, which took this one for dead, may have
    /// undone it: then it held the transactional id in between, and only the log tells.
    fn trust_producer(&mut self) -> Result<(), Failure> {
        self.producer.poll();
        if self.producer.is_trusted() {
            return Ok(());
        }
        self.producer.replace()?;
        self.was_away = false;
        self.lookout.demand();
        self.status.set_decided();
        self.metrics.producer_replaced(self.replacement);
        if self.replacement == Replacement::Suspect {
            tracing::warn!(
                worker = self.number,
                "a request of the last transaction had no answer, or a connection broke; the producer was \
                 replaced"
            );
            self.read_anew();
        }
        self.replacement = Replacement::Suspect;
        Ok(())
    }

    fn take_answers(&mut self) {
        for (key, answer) in self.desk.take_answers() {
            failpoint::hit(Point::RuleAnswer);
            let partitions = self.fixed.partitions.bases;
            let number = crate::domain::partition::of_key(key.as_str().as_bytes(), partitions);
            if let Some(task) = self.tasks.settle.get_mut(&number) {
                task.answer(key, answer, &self.fixed);
            }
        }
    }

    /// Decides everything that can be decided: source positions of the batch, none if empty.
    fn stage(&mut self) -> Result<Vec<(Partition, i64)>, Failure> {
        failpoint::fail::<Failure>(Point::StageBegin)?;
        self.outbox.clear();
        let mut positions = Vec::new();
        let past_markers = self.past_markers()?;
        for task in self.tasks.ingest.values_mut() {
            let past_markers = past_markers.get(&task.partition()).copied();
            if let Some(next) = task.stage(&self.fixed, past_markers, &mut self.outbox)? {
                failpoint::hit(Point::StageIngest);
                positions.push((task.partition(), next));
            }
        }
        for task in self.tasks.settle.values_mut() {
            let past_markers = past_markers.get(&task.partition()).copied();
            let (desk, out) = (self.desk.as_mut(), &mut self.outbox);
            if let Some(next) = task.stage(&self.fixed, desk, past_markers, out)? {
                failpoint::hit(Point::StageSettle);
                positions.push((task.partition(), next));
            }
        }
        Ok(positions)
    }

    /// Commits the batch in one transaction, then advances the stores.
    fn commit(&mut self, positions: &[(Partition, i64)]) -> Result<(), Failure> {
        let began = clock::now();
        failpoint::fail::<Failure>(Point::BeginBefore)?;
        let mut transaction = Transaction::begin(&mut self.producer)?;
        for record in self.outbox.iter() {
            transaction.send(&record)?;
        }
        let committed = transaction.commit(positions, || self.consumer.membership())?;
        self.committed_at = clock::now();
        self.fixed.wall_now = clock::wall_millis();
        for task in self.tasks.ingest.values_mut() {
            failpoint::hit(Point::ApplyIngest);
            task.apply(&committed, &self.metrics);
        }
        for task in self.tasks.settle.values_mut() {
            failpoint::hit(Point::ApplySettle);
            task.apply(&committed, &self.fixed, &self.metrics);
        }
        failpoint::hit(Point::ApplyAfter);
        self.metrics.transactions_committed.increment(1);
        self.metrics
            .transaction_records
            .record(count(self.outbox.iter().len()));
        self.metrics
            .commit_duration
            .record(self.committed_at.saturating_sub(began).as_secs_f64());
        Ok(())
    }

    /// Pauses partitions whose tasks have enough to wait with, and resumes them.
    fn hold_back(&mut self) -> Result<(), Failure> {
        for (partition, inbox, _) in self.tasks.inboxes() {
            let (bytes, records) = (inbox.bytes(), inbox.len());
            let full = bytes >= INBOX_BYTES_MAX || records >= 2 * self.max_batch_records;
            if full && self.paused.insert(partition) {
                self.consumer.pause(partition)?;
            } else if bytes < INBOX_BYTES_MAX / 2
                && records < self.max_batch_records
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
            failpoint::hit(Point::CheckpointBegin);
        }
        let duration = &self.metrics.checkpoint_duration;
        let background = |job: Box<dyn FnOnce() + Send>| {
            let duration = duration.clone();
            self.background.run(Box::new(move || {
                let began = clock::now();
                job();
                duration.record(clock::now().saturating_sub(began).as_secs_f64());
            }));
        };
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

    /// Leaves in order: the last transaction is committed, state becomes durable. The static
    /// member does not leave its group, so that a restart finds its partitions waiting.
    pub fn shut_down(mut self) -> Result<(), Stopped> {
        failpoint::hit(Point::ShutdownBegin);
        let closed = self.close_all();
        failpoint::hit(Point::ShutdownEnd);
        closed
    }

    /// Gives every task up, its committed state made durable.
    pub(super) fn close_all(&mut self) -> Result<(), Stopped> {
        let partitions: Vec<Partition> = self.tasks.lives.keys().copied().collect();
        for partition in partitions {
            if let Err(failure) = self.close(partition) {
                self.paused.remove(&partition);
                self.tasks.remove(partition, self.desk.as_mut());
                if let Todo::Stop(cause) = failure.todo() {
                    return Err(failure.stop(cause));
                }
                tracing::warn!(
                    topic = self.fixed.names.of(partition.topic),
                    partition = partition.number,
                    error = %failure,
                    "state of a task could not be saved on closing; it is read again from the log"
                );
            }
        }
        Ok(())
    }
}

/// A count as a sample of a histogram.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn count(records: usize) -> f64 {
    records as f64
}
