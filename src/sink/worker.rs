//! The thread that reads: gathers records into batches and keeps the group's member alive,
//! whatever the database does.
//!
//! One command is with the database at any time while the next batch is gathered. When that one is
//! full too the partitions are paused, so what waits in memory is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use crate::broker::Partition;
use crate::broker::client::Settings;
use crate::broker::sink_consumer::{self, Change, SinkConsumer};
use crate::clock;
use crate::failpoint::{self, Point};
use crate::sink::Error;
use crate::sink::batch::Batch;
use crate::sink::rows::{self, Row};
use crate::sink::service::{Answer, Command};
use crate::sink::standstill::Standstill;
use crate::sink::start::{Start, start};
use crate::sink::status::{Progress, Status, Throttle};
use crate::sink::writer::Positions;

/// A batch waits this long for company.
const GATHER: Duration = Duration::from_millis(100);
/// With a full batch waiting this long for the database, reading pauses.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the positions are looked at, so that a wiped database is noticed when nothing comes.
const CHECK: Duration = Duration::from_secs(5);
const TRY_AGAIN: Duration = Duration::from_secs(1);
const REPORT: Duration = Duration::from_secs(1);
const POLL_BUSY: Duration = Duration::from_millis(10);
const POLL_IDLE: Duration = Duration::from_millis(100);
/// How long the database may lead the log: a new leader may show an old end at first.
const AHEAD_MAX: Duration = Duration::from_secs(30);
/// How long a stop waits for the write under way.
const FINISH: Duration = Duration::from_secs(3);

/// An assigned partition.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    /// Where the database stands, as last heard.
    stored: Option<i64>,
    /// Where it will stand when everything handed over is written: the next part expects it.
    expected: Option<i64>,
    /// The next offset to gather; `None`: not being read yet.
    next: Option<i64>,
    ahead_since: Option<Duration>,
}

/// What is with the database.
enum UnderWay {
    Positions,
    /// Positions after the write.
    Write(BTreeMap<Partition, i64>),
}

/// How an attempt to read a partition ended.
enum Begun {
    Reading,
    /// The reason passes by itself.
    TryLater(sink_consumer::Error),
}

impl Begun {
    fn not(error: sink_consumer::Error) -> Result<Self, Error> {
        match error {
            sink_consumer::Error::NotAllowed { .. } => Err(error.into()),
            error => Ok(Self::TryLater(error)),
        }
    }
}

pub struct Worker {
    settings: Settings,
    member: SinkConsumer,
    commands: Sender<Command>,
    answers: Receiver<Answer>,
    status: Arc<Status>,
    stop: Arc<AtomicBool>,
    cursors: BTreeMap<Partition, Cursor>,
    gathered: Batch,
    gathering_since: Duration,
    under_way: Option<UnderWay>,
    paused: bool,
    locate_at: Duration,
    check_at: Duration,
    report_at: Duration,
    standstill: Standstill,
    kafka: Throttle,
    unreadable: Throttle,
}

impl Worker {
    pub fn new(
        (settings, member): (Settings, SinkConsumer),
        (commands, answers): (Sender<Command>, Receiver<Answer>),
        status: Arc<Status>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self {
            settings,
            member,
            commands,
            answers,
            status,
            stop,
            cursors: BTreeMap::new(),
            gathered: Batch::default(),
            gathering_since: Duration::ZERO,
            under_way: None,
            paused: false,
            locate_at: Duration::ZERO,
            check_at: Duration::ZERO,
            report_at: Duration::ZERO,
            standstill: Standstill::default(),
            kafka: Throttle::default(),
            unreadable: Throttle::default(),
        }
    }

    /// Until it is told to stop, or a person must act.
    pub fn run(mut self) -> Result<(), Error> {
        while !self.is_stopping() {
            self.turn()?;
        }
        if let Some(UnderWay::Write(_)) = self.under_way {
            // What is not answered now is found again through the positions.
            let _ = self.answers.recv_timeout(FINISH);
        }
        Ok(())
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn turn(&mut self) -> Result<(), Error> {
        if self.gathered.is_full() && self.under_way.is_some() && !self.paused {
            match self.answers.recv_timeout(PATIENCE) {
                Ok(answer) => self.take(answer)?,
                Err(RecvTimeoutError::Timeout) => self.pause(),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Died),
            }
        } else {
            self.read()?;
            match self.answers.try_recv() {
                Ok(answer) => self.take(answer)?,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(Error::Died),
            }
        }
        self.command();
        self.report();
        self.look_for_standstill()
    }

    fn look_for_standstill(&mut self) -> Result<(), Error> {
        if self.paused {
            return Ok(());
        }
        let next = self.cursors.iter();
        let next = next.filter_map(|(at, cursor)| Some((*at, cursor.next?)));
        let missed = self
            .standstill
            .look(&self.member, &self.settings, &next.collect());
        missed.map_or(Ok(()), |(at, offset)| {
            Err(Error::StandsStill {
                partition: format!("{}/{}", self.member.topic(at), at.number),
                offset,
            })
        })
    }

    fn read(&mut self) -> Result<(), Error> {
        let idle = self.under_way.is_none() && self.gathered.is_empty();
        let read = match self.member.poll(if idle { POLL_IDLE } else { POLL_BUSY }) {
            Ok(None) => Ok(None),
            Ok(Some(record)) => {
                let bytes =
                    record.value().map_or(0, <[u8]>::len) + record.key().map_or(0, <[u8]>::len);
                let row = rows::row(record.partition.topic, &record);
                Ok(Some((record.partition, record.offset(), row, bytes)))
            }
            Err(error) => Err(error),
        };
        for change in self.member.changes() {
            self.reassign(change);
        }
        match read {
            Ok(None) => {}
            Ok(Some((partition, offset, row, bytes))) => {
                let row = row.unwrap_or_else(|why| {
                    self.pass_over(partition, offset, why);
                    None
                });
                self.gather(partition, offset, row, bytes);
            }
            Err(
                error @ (sink_consumer::Error::Replaced
                | sink_consumer::Error::NotAllowed { .. }
                | sink_consumer::Error::Fatal(_)),
            ) => return Err(error.into()),
            Err(sink_consumer::Error::Weather(why)) => self.complain(&why),
            Err(sink_consumer::Error::OutOfRange(why)) => {
                // The client does not say which partition: look for all of them.
                self.complain(&why);
                for cursor in self.cursors.values_mut() {
                    cursor.next = None;
                }
                self.gathered = Batch::default();
            }
        }
        Ok(())
    }

    fn gather(&mut self, at: Partition, offset: i64, row: Option<Row>, bytes: usize) {
        let Some(cursor) = self.cursors.get_mut(&at) else {
            return;
        };
        if cursor.next.is_none_or(|next| offset < next) {
            return;
        }
        if self.gathered.is_empty() {
            self.gathering_since = clock::now();
        }
        self.gathered
            .push(at, cursor.expected, offset, (row, bytes));
        cursor.next = Some(offset + 1);
    }

    fn pass_over(&mut self, at: Partition, offset: i64, why: rows::Unreadable) {
        self.status.passed_over();
        if let Some(held_back) = self.unreadable.pass() {
            tracing::error!(
                topic = self.member.topic(at),
                partition = at.number,
                offset,
                suppressed = held_back,
                error = %why,
                "record passed over"
            );
        }
    }

    fn reassign(&mut self, change: Change) {
        match change {
            Change::Assigned(partitions) => {
                for at in partitions {
                    self.gathered.drop_partition(at);
                    self.cursors.insert(at, Cursor::default());
                }
                self.locate_at = clock::now();
            }
            Change::Revoked(partitions) => {
                for at in partitions {
                    self.gathered.drop_partition(at);
                    self.cursors.remove(&at);
                }
            }
        }
    }

    fn pause(&mut self) {
        let started = self.started();
        if started.is_empty() {
            return;
        }
        match self.member.pause(&started) {
            Ok(()) => self.paused = true,
            Err(error) => self.complain(&error.to_string()),
        }
    }

    fn started(&self) -> BTreeSet<Partition> {
        let started = self
            .cursors
            .iter()
            .filter(|(_, cursor)| cursor.next.is_some());
        started.map(|(at, _)| *at).collect()
    }

    fn take(&mut self, answer: Answer) -> Result<(), Error> {
        failpoint::hit(Point::SinkAnswered);
        let under_way = self.under_way.take();
        match (answer, under_way) {
            (Answer::Stopped(error), _) => return Err(Error::Database(error)),
            (Answer::Written, Some(UnderWay::Write(ends))) => {
                for (at, end) in ends {
                    if let Some(cursor) = self.cursors.get_mut(&at) {
                        cursor.stored = Some(end);
                    }
                }
            }
            (Answer::Moved(positions), Some(UnderWay::Write(ends))) => {
                let ends = ends.into_iter();
                self.compare(ends.map(|(at, end)| (at, Some(end))).collect(), &positions)?;
            }
            (Answer::Positions(positions), _) => {
                let stored = self.cursors.iter().map(|(at, cursor)| (*at, cursor.stored));
                self.compare(stored.collect(), &positions)?;
            }
            (Answer::Written | Answer::Moved(_), _) => unreachable!("answers follow commands"),
        }
        if self.paused {
            self.paused = false;
            if let Err(error) = self.member.resume(&self.started()) {
                self.complain(&error.to_string());
                self.paused = true;
            }
        }
        Ok(())
    }

    /// Goes on where the database stands, for the partitions that are not read yet and those that
    /// do not stand at the end that this sink believes in.
    fn compare(
        &mut self,
        believed: Vec<(Partition, Option<i64>)>,
        positions: &Positions,
    ) -> Result<(), Error> {
        let mut unread = Vec::new();
        for (at, believed) in believed {
            let found = positions.get(&at).copied();
            let Some(cursor) = self.cursors.get_mut(&at) else {
                continue;
            };
            cursor.stored = found;
            if cursor.next.is_some() && found == believed {
                continue;
            }
            if cursor.next.take().is_some() {
                self.status.rewound();
                tracing::warn!(
                    topic = self.member.topic(at),
                    partition = at.number,
                    believed,
                    found,
                    "another writer, or a wiped database, moved the position: reading from there"
                );
            }
            self.gathered.drop_partition(at);
            unread.push((at, found));
        }
        for (at, found) in unread {
            if self.is_stopping() {
                return Ok(());
            }
            // One that cannot be read keeps no other.
            if let Begun::TryLater(error) = self.begin(at, found)? {
                self.complain(&error.to_string());
                self.locate_at = clock::now() + TRY_AGAIN;
            }
        }
        Ok(())
    }

    /// Reads on from what the database has.
    fn begin(&mut self, at: Partition, found: Option<i64>) -> Result<Begun, Error> {
        let bounds = match self.member.bounds(at) {
            Ok(bounds) => bounds,
            Err(error) => return Begun::not(error),
        };
        let cursor = self.cursors.get_mut(&at).expect("of an assigned partition");
        let now = clock::now();
        let place = || format!("{}/{}", self.member.topic(at), at.number);
        let from = match start(at.topic, found, bounds) {
            Start::At(from) => from,
            Start::Gap { from, to } => {
                tracing::error!(
                    topic = self.member.topic(at),
                    partition = at.number,
                    from,
                    to,
                    "records were deleted by retention before they were written: payment_log lacks them"
                );
                self.status.lost_records(to.abs_diff(from));
                to
            }
            Start::Lost { from, to } => {
                return Err(Error::Lost {
                    partition: place(),
                    from,
                    to,
                });
            }
            Start::Ahead { position, end } => {
                let since = *cursor.ahead_since.get_or_insert(now);
                let error = Error::Ahead {
                    partition: place(),
                    position,
                    end,
                };
                if now > since + AHEAD_MAX {
                    return Err(error);
                }
                return Begun::not(sink_consumer::Error::Weather(error.to_string()));
            }
        };
        failpoint::hit(Point::SinkStart);
        if let Err(error) = self.member.start(at, from) {
            return Begun::not(error);
        }
        *cursor = Cursor {
            stored: found,
            expected: found,
            next: Some(from),
            ahead_since: None,
        };
        Ok(Begun::Reading)
    }

    /// Gives the database its next work when it has none.
    fn command(&mut self) {
        if self.under_way.is_some() {
            return;
        }
        let now = clock::now();
        let unread = self.cursors.values().any(|cursor| cursor.next.is_none());
        let due = self.gathered.is_full() || now >= self.gathering_since + GATHER;
        let (command, under_way) = if unread && now >= self.locate_at {
            self.locate_at = now + TRY_AGAIN;
            (Command::Positions, UnderWay::Positions)
        } else if due && !self.gathered.is_empty() {
            let batch = std::mem::take(&mut self.gathered);
            let ends: BTreeMap<_, _> = batch
                .parts
                .iter()
                .map(|(at, part)| (*at, part.next))
                .collect();
            for (at, end) in &ends {
                if let Some(cursor) = self.cursors.get_mut(at) {
                    cursor.expected = Some(*end);
                }
            }
            (Command::Write(batch), UnderWay::Write(ends))
        } else if now >= self.check_at {
            (Command::Positions, UnderWay::Positions)
        } else {
            return;
        };
        self.check_at = now + CHECK;
        if self.commands.try_send(command).is_ok() {
            self.under_way = Some(under_way);
        }
    }

    fn complain(&mut self, why: &str) {
        self.status.set_problem(format!("Kafka: {why}"));
        if let Some(held_back) = self.kafka.pass() {
            tracing::warn!(
                suppressed = held_back,
                error = why,
                "the sink reads no further for now"
            );
        }
    }

    fn report(&mut self) {
        let now = clock::now();
        if now < self.report_at {
            return;
        }
        self.report_at = now + REPORT;
        let ends = self.member.ends();
        let read = self.member.read_positions().unwrap_or_default();
        let partitions = self.cursors.iter().map(|(at, cursor)| {
            let waiting = self.gathered.parts.contains_key(at) || cursor.stored != cursor.expected;
            let lag = ends.get(at).map(|end| {
                // Behind the last record there may be control records, which no row stands for.
                let all_read = read.get(at).is_some_and(|read| read >= end);
                let position = cursor.stored.or(cursor.next).unwrap_or(0);
                if all_read && !waiting {
                    0
                } else {
                    (end - position).max(0)
                }
            });
            let name = (self.member.topic(*at).to_owned(), at.number);
            (
                name,
                Progress {
                    position: cursor.stored,
                    lag,
                },
            )
        });
        self.status.set_partitions(partitions.collect());
    }
}
