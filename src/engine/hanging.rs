//! Transactions whose markers a broker has lost.
//!
//! A broker that is killed or fenced at the wrong moment can forget to write the markers of a
//! transaction that its coordinator holds for ended (docs/kafka.md, section 7). Its records hang:
//! readers of committed records stop before them, and the next marker of the same transactional id
//! decides them, whatever the first decision was. So before an id commits anything, its records
//! that hang are looked for, and ended the way the rest of their transaction was: committed when
//! any record of it is committed, else aborted, which undoes a transaction that nobody has seen.
//! Local state may hold what was undone so; restoring finds that (I3).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker::Partition;
use crate::broker::classify::Reaction;
use crate::broker::client::STEADFAST_TRANSACTION_TIMEOUT;
use crate::broker::mark::Mark;
use crate::broker::native::Outgoing;
use crate::broker::port::{GroupOffsets, Port, Producer, Reader as _};
use crate::broker::scan::{Isolation, Range};
use crate::broker::transaction::Transaction;
use crate::clock;
use crate::codec::stored::TOUCH_KEY;
use crate::engine::failure::Failure;
use crate::engine::fixed::Fixed;
use crate::engine::worker::Worker;
use crate::failpoint::{self, Point};
use crate::metrics;

/// How often a running worker looks for log ends that stand still.
const INTERVAL: Duration = Duration::from_secs(10);

/// How far the clocks of a broker and of this machine may differ.
const CLOCKS_DIFFER_MILLIS: i64 = 60_000;

/// A transaction of a running worker that began so long ago has ended, and its markers are written.
const MARKERS_MILLIS: i64 = 10_000;

/// Longest that brokers let a transaction live when nothing is said
/// (`transaction.max.timeout.ms`).
const TRANSACTION_MILLIS_MAX: i64 = 900_000;

/// Pause between two looks at records that stand behind another writer's.
const PAUSE: Duration = Duration::from_millis(200);

/// Longest wait for the other writer: its transaction has timed out then.
const PATIENCE: Duration = Duration::from_secs(30);

/// No open transaction lives so long when nothing is said (`transaction.max.timeout.ms`).
const BEHIND_AT_MOST: Duration = Duration::from_secs(16 * 60);

/// What a search has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// Records of ours lie behind another writer's undecided ones, and may be committed: not known
    /// before those end.
    Behind(Partition),
    /// A transaction was ended again: what the logs say has changed.
    Ended,
}

/// What stands in one log from its stable end on.
struct Trail {
    stable: i64,
    /// Where transactions of the id in question begin.
    begins: BTreeMap<Mark, i64>,
    /// Right behind the last offset without a record. Only markers take such offsets here, where
    /// nothing is compacted yet: what begins behind them is undecided.
    marker: i64,
    /// The next offset to look at.
    next: i64,
}

impl Trail {
    fn at(stable: i64) -> Self {
        Self {
            stable,
            begins: BTreeMap::new(),
            marker: stable,
            next: stable,
        }
    }

    /// The next record, or the end of the log, is at `offset`.
    fn come_to(&mut self, offset: i64) {
        if offset > self.next {
            self.marker = offset;
        }
    }
}

/// Looks for hanging records, and ends their transactions.
pub struct Search<'a, P: Port> {
    pub port: &'a P,
    pub reader: &'a P::Reader,
    pub fixed: &'a Fixed,
}

impl<P: Port> Search<'_, P> {
    /// Ends what hangs of the producer's transactional id. The producer is initialised and has no
    /// transaction open, so nothing undecided of its id can be alive.
    pub fn end(&self, producer: &mut P::Producer) -> Result<Found, Failure> {
        self.withdraw_offsets(producer)?;
        let stables = self.stuck()?;
        self.end_in(&stables, i64::MAX, producer)
    }

    /// Offsets of the group that stay undecided are taken back, if they are of this id: the position
    /// records say what their transaction came to.
    fn withdraw_offsets(&self, producer: &mut P::Producer) -> Result<(), Failure> {
        let partitions = self.fixed.partitions.consumed();
        let GroupOffsets::Undecided(offsets) = self.reader.committed(&partitions)? else {
            return Ok(());
        };
        tracing::warn!(
            transactional_id = producer.transactional_id(),
            "offsets of the group are part of an undecided transaction; withdrawing those of this id"
        );
        let places = partitions.into_iter().zip(offsets);
        let places: Vec<(Partition, i64)> = places
            .map(|(partition, offset)| (partition, offset.unwrap_or(0)))
            .collect();
        let nobody = self.port.nobody();
        begin(producer)?.withdraw_offsets(&places, &nobody)?;
        Ok(())
    }

    /// Logs with undecided records, each with its stable end.
    fn stuck(&self) -> Result<BTreeMap<Partition, i64>, Failure> {
        // In this order: what is undecided at the high watermarks is below them.
        let highs = self
            .reader
            .ends(&self.fixed.written, Isolation::Uncommitted)?;
        let stables = self
            .reader
            .ends(&self.fixed.written, Isolation::Committed)?;
        let ends = self
            .fixed
            .written
            .iter()
            .zip(highs.into_iter().zip(stables));
        Ok(ends
            .filter(|(_, (high, stable))| stable < high)
            .map(|(partition, (_, stable))| (*partition, stable))
            .collect())
    }

    /// Ends what hangs in these logs, of transactions that began before `before` (microseconds since
    /// the epoch).
    fn end_in(
        &self,
        stables: &BTreeMap<Partition, i64>,
        before: i64,
        producer: &mut P::Producer,
    ) -> Result<Found, Failure> {
        let trails = self.trails(stables, producer.transactional_id())?;
        let mut hanging: BTreeMap<&Mark, Vec<Partition>> = BTreeMap::new();
        let mut hidden: BTreeMap<&Mark, Partition> = BTreeMap::new();
        for (partition, trail) in &trails {
            for (mark, offset) in trail.begins.iter().filter(|(mark, _)| mark.began < before) {
                if *offset == trail.stable || trail.marker <= *offset {
                    hanging.entry(mark).or_default().push(*partition);
                } else {
                    hidden.insert(mark, *partition);
                }
            }
        }
        let mut found = Found::Nothing;
        for (mark, partitions) in &hanging {
            let was_committed = self.was_committed(mark)?;
            if !was_committed && hidden.contains_key(mark) {
                continue; // A part that cannot be read yet may be committed.
            }
            let places = partitions.iter().map(|at| self.fixed.names.place(*at));
            tracing::warn!(
                transaction = %mark, committed = was_committed,
                partitions = places.collect::<Vec<_>>().join(" "),
                "a broker has lost markers of this transaction; ending it again"
            );
            if was_committed {
                self.commit_again(partitions, producer)?;
            } else {
                touch(partitions, false, producer)?;
            }
            metrics::transaction_ended_again(was_committed);
            found = Found::Ended;
        }
        match (found, hidden.into_values().next()) {
            (Found::Nothing, Some(partition)) => Ok(Found::Behind(partition)),
            _ => Ok(found),
        }
    }

    /// Commits with a producer of its own, which holds on when a broker dies meanwhile: an abort
    /// would take back a part of what others have seen.
    fn commit_again(
        &self,
        partitions: &[Partition],
        producer: &mut P::Producer,
    ) -> Result<(), Failure> {
        let mut steadfast = self.port.steadfast(producer.transactional_id());
        producer.retire();
        match steadfast.replace() {
            // The brokers allow no transaction that long.
            Err(error) if matches!(error.reaction, Reaction::Stop(_)) => {
                tracing::warn!(
                    %error,
                    "the brokers refuse a transaction time-out of {} min; ending it with the \
                     usual one",
                    STEADFAST_TRANSACTION_TIMEOUT.as_secs() / 60
                );
                touch(partitions, true, producer)
            }
            replaced => {
                replaced?;
                touch(partitions, true, &mut steadfast)
            }
        }
    }

    /// Where in these logs, from their stable ends on, transactions of `transactional_id` begin.
    fn trails(
        &self,
        stables: &BTreeMap<Partition, i64>,
        transactional_id: &str,
    ) -> Result<BTreeMap<Partition, Trail>, Failure> {
        let partitions: Vec<Partition> = stables.keys().copied().collect();
        let highs = self.reader.ends(&partitions, Isolation::Uncommitted)?;
        let ranges: Vec<Range> = stables
            .iter()
            .zip(highs)
            .map(|((partition, from), to)| Range {
                partition: *partition,
                from: *from,
                to,
            })
            .collect();
        let begin = |range: &Range| (range.partition, Trail::at(range.from));
        let mut trails: BTreeMap<Partition, Trail> = ranges.iter().map(begin).collect();
        let isolation = Isolation::Uncommitted;
        self.port.scan(isolation, &ranges, |record, mark| {
            let Some(trail) = trails.get_mut(&record.partition) else {
                return;
            };
            trail.come_to(record.offset);
            trail.next = record.offset + 1;
            if let Some(mark) = mark.filter(|mark| mark.transactional_id == transactional_id) {
                trail.begins.entry(mark).or_insert(record.offset);
            }
        })?;
        for range in ranges {
            if let Some(trail) = trails.get_mut(&range.partition) {
                trail.come_to(range.to);
            }
        }
        Ok(trails)
    }

    /// Whether any record of the transaction is committed. The group's offsets tell nothing:
    /// another writer may have come to the same ones.
    fn was_committed(&self, mark: &Mark) -> Result<bool, Failure> {
        let stables = self
            .reader
            .ends(&self.fixed.written, Isolation::Committed)?;
        let began = mark.began / 1000;
        let mut ranges = Vec::new();
        for (partition, stable) in self.fixed.written.iter().zip(stables) {
            let at = |time| self.reader.offset_at(*partition, time);
            let Some(from) = at(began - CLOCKS_DIFFER_MILLIS)? else {
                continue;
            };
            let after = at(began + TRANSACTION_MILLIS_MAX + CLOCKS_DIFFER_MILLIS)?;
            ranges.push(Range {
                partition: *partition,
                from,
                to: after.map_or(stable, |after| after.min(stable)),
            });
        }
        let mut is_seen = false;
        let isolation = Isolation::Committed;
        self.port.scan(isolation, &ranges, |_, seen| {
            is_seen |= seen.as_ref() == Some(mark);
        })?;
        Ok(is_seen)
    }
}

/// Writes to these partitions in a transaction, so that their logs get its marker.
fn touch<P: Producer>(
    partitions: &[Partition],
    commit: bool,
    producer: &mut P,
) -> Result<(), Failure> {
    let mut transaction = begin(producer)?;
    for partition in partitions {
        transaction.send(&Outgoing {
            partition: *partition,
            key: Some(TOUCH_KEY),
            value: None,
            headers: &[],
            receipt: None,
        })?;
    }
    Ok(transaction.end_like(commit)?)
}

/// Begins a transaction; an earlier one of the same search may have left the producer suspect.
fn begin<P: Producer>(producer: &mut P) -> Result<Transaction<'_, P>, Failure> {
    if !producer.is_trusted() {
        producer.replace()?;
    }
    Ok(Transaction::begin(producer)?)
}

/// Ends everything that another instance has left: its open transaction, by taking its
/// transactional id over for a moment, and what hangs of that id. Should it live after all, it is
/// fenced once and takes up again.
pub fn end_left_by<P: Port>(
    port: &P,
    fixed: &Fixed,
    transactional_id: &str,
) -> Result<(), Failure> {
    let mut producer = port.successor(transactional_id);
    failpoint::fail::<Failure>(Point::FormerBefore)?;
    producer.replace()?;
    let reader = port.reader("successor")?;
    let search = Search {
        port,
        reader: &reader,
        fixed,
    };
    let deadline = clock::now() + PATIENCE;
    loop {
        match search.end(&mut producer)? {
            Found::Nothing => break,
            Found::Behind(partition) if clock::now() >= deadline => {
                tracing::warn!(
                    transactional_id,
                    topic = fixed.names.of(partition.topic),
                    partition = partition.number,
                    "another writer's open transaction hides whether records that a former owner \
                     has left are decided"
                );
                break;
            }
            Found::Behind(_) => clock::sleep(PAUSE),
            Found::Ended => {}
        }
    }
    failpoint::hit(Point::FormerAfter);
    Ok(())
}

/// When a worker has looked for hanging records, and what stood still then.
#[derive(Default)]
pub struct Lookout {
    /// The transactional id was taken over since the last search: it must not commit before the
    /// next.
    is_due: bool,
    next_at: Duration,
    stood: BTreeMap<Partition, i64>,
    /// Since when another writer's records hide what became of ours, and when that was told last.
    behind: Option<(Duration, Duration)>,
}

impl Lookout {
    pub fn demand(&mut self) {
        self.is_due = true;
    }
}

impl<P: Port> Worker<P> {
    /// Another writer's open transaction ends by itself, with its time-out at the latest. One that does
    /// not hangs, and no other than a person may end it.
    fn wait_behind(&mut self, partition: Partition) -> Result<(), Failure> {
        let now = self.fixed.now;
        let (since, told) = *self.lookout.behind.get_or_insert((now, now));
        let (topic, number) = (self.fixed.names.of(partition.topic), partition.number);
        if now.saturating_sub(since) >= BEHIND_AT_MOST {
            let isolation = Isolation::Committed;
            let offset = self.reader.ends(&[partition], isolation)?[0];
            return Err(Failure::Broken(format!(
                "{topic}/{number}: an undecided transaction of another writer has stood at offset \
                 {offset} for {} minutes, and hides whether records of an earlier one of this \
                 instance are committed. `kafka-transactions.sh describe-producers --topic {topic} \
                 --partition {number}` names that writer; when it is dead for good, end its \
                 transaction with `kafka-transactions.sh abort --topic {topic} --partition {number} \
                 --start-offset {offset}` and start this instance again (docs/kafka.md, section 7)",
                BEHIND_AT_MOST.as_secs() / 60
            )));
        }
        if now.saturating_sub(told) >= INTERVAL {
            self.lookout.behind = Some((since, now));
            tracing::warn!(
                topic,
                partition = number,
                "nothing is committed while another writer's open transaction hides whether \
                 records of an earlier one of this instance are decided"
            );
        }
        clock::sleep(PAUSE);
        Ok(())
    }

    /// Notes the other instances whose undecided records keep these logs from being read any further:
    /// who has taken their partitions over may have ended what they left, and failed.
    fn find_former_writers(&mut self, still: &BTreeMap<Partition, i64>) -> Result<(), Failure> {
        for (partition, stable) in still {
            let first = Range {
                partition: *partition,
                from: *stable,
                to: stable + 1,
            };
            let writer = self.undecided_writer(first)?;
            let is_other = |id: &String| {
                self.fixed.is_of_application(id) && *id != self.fixed.transactional_id
            };
            if let Some(writer) = writer.filter(is_other) {
                self.former_writers.add(writer);
            }
        }
        Ok(())
    }

    /// Who wrote the first record of a range that begins where nothing is decided.
    pub(super) fn undecided_writer(&self, range: Range) -> Result<Option<String>, Failure> {
        let mut first = None;
        self.port
            .scan(Isolation::Uncommitted, &[range], |_, mark| {
                first = first.take().or(mark);
            })?;
        Ok(first.map(|mark: Mark| mark.transactional_id))
    }

    /// Looks for hanging records when that is due. `false` while it is not known whether there are
    /// any: nothing may be committed.
    pub(super) fn look_out(&mut self) -> Result<bool, Failure> {
        let now = self.fixed.now;
        if !self.lookout.is_due && now < self.lookout.next_at {
            return Ok(true);
        }
        failpoint::fail::<Failure>(Point::LookOut)?;
        let search = Search {
            port: &self.port,
            reader: &self.reader,
            fixed: &self.fixed,
        };
        let mut still = BTreeMap::new();
        let found = if self.lookout.is_due {
            search.end(&mut self.producer)?
        } else {
            // Markers of the last transaction may be under way; what stood for a whole interval
            // hangs, or belongs to others.
            let stood = search.stuck()?;
            still = stood
                .iter()
                .filter(|(partition, end)| self.lookout.stood.get(partition) == Some(end))
                .map(|(partition, end)| (*partition, *end))
                .collect();
            self.lookout.stood = stood;
            let before = (self.fixed.wall_now - MARKERS_MILLIS) * 1000;
            search.end_in(&still, before, &mut self.producer)?
        };
        self.find_former_writers(&still)?;
        self.lookout.next_at = now + INTERVAL;
        match found {
            Found::Ended => self.recover(),
            Found::Behind(partition) if self.lookout.is_due => {
                self.wait_behind(partition)?;
                return Ok(false);
            }
            Found::Nothing | Found::Behind(_) => {}
        }
        self.lookout.behind = None;
        self.lookout.is_due = false;
        // What was ended again may have left the producer suspect.
        Ok(self.producer.is_trusted())
    }
}
