//! Store of an ingest task: the first payment of every id inside the duplicate window.
//!
//! The source topic is the log of this store: what stands here follows from the records below the
//! committed position, by the same reading. New ids gather in memory; a checkpoint writes them as
//! one sorted run and merges small runs. Runs expire whole.
//!
//! The window is a promise of at least. An entry is kept for [`Window::kept`] of partition time,
//! counted from its own timestamp or from the moment it came, whichever is later; and for
//! [`KEPT_AT_LEAST`] by the clock of this machine, so that one record of today among those of last
//! month does not end the window of the latter.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::broker::transaction::Committed;
use crate::clock;
use crate::codec::stored::WindowStart;
use crate::state::Error;
use crate::state::file::{StateFile, checksum};
use crate::state::ids::{Ids, Window, earlier};
use crate::state::pending::{Background, Pending};
use crate::state::run::{self, Builder, Header, Life, Seen};

pub(super) const RUNS: TableDefinition<u64, &[u8]> = TableDefinition::new("runs");
const BLOCKS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("blocks");
pub(super) const POSITIONS: TableDefinition<&str, &[u8]> = TableDefinition::new("positions");

/// Runs of one generation and like size that are merged into one.
const MERGE_RUNS: usize = 4;

/// Generations into which the kept time is cut; expiry drops one at a time.
const GENERATIONS: i64 = 8;

/// How long entries are kept whatever partition time does, in milliseconds of the wall clock.
const KEPT_AT_LEAST: i64 = 3_600_000;

/// What the store corresponds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// Next offset of the source partition; -1 while none is known.
    pub source: i64,
    /// Next offset of the ingest changelog.
    pub changelog: i64,
    /// Highest record timestamp so far, but never later than this machine's clock was.
    pub time: i64,
    /// Number of the last transaction that is included.
    pub transaction: u64,
}

impl Default for Positions {
    fn default() -> Self {
        Self {
            source: -1,
            changelog: 0,
            time: 0,
            transaction: 0,
        }
    }
}

pub struct Store {
    file: StateFile,
    window: Window,
    active: Ids,
    frozen: Option<Arc<Ids>>,
    /// By number; a higher number is newer.
    runs: Arc<BTreeMap<u64, Header>>,
    /// The file as `runs` describes it. A checkpoint merges runs, and is in the file before its
    /// result is collected.
    snapshot: ReadTransaction,
    positions: Positions,
    checkpoint: Pending<Runs>,
}

type Runs = BTreeMap<u64, Header>;

impl Store {
    pub fn open(
        path: &Path,
        identity: &str,
        cache_bytes: usize,
        window: Window,
    ) -> Result<Self, Error> {
        let file = StateFile::open(path, identity, cache_bytes)?;
        let snapshot = file.read()?;
        let (positions, runs) = file.guard(|| load(&file, &snapshot))?;
        Ok(Self {
            file,
            snapshot,
            window,
            active: Ids::decided_since(i64::MAX),
            frozen: None,
            runs: Arc::new(runs),
            positions,
            checkpoint: Pending::default(),
        })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub fn positions(&self) -> Positions {
        self.positions
    }

    pub fn window(&self) -> Window {
        self.window
    }

    /// Where the entries begin, those of a batch included; at `next` when there are none.
    pub fn start_with(&self, batch: &Ids, next: i64, wall_now: i64) -> WindowStart {
        let runs = self.runs.values().map(|header| header.life.start);
        let memory = [Some(&self.active), self.frozen.as_deref(), Some(batch)];
        let memory = memory.into_iter().flatten().map(Ids::start);
        let nothing = WindowStart {
            offset: next,
            decided_since: wall_now,
        };
        runs.chain(memory).fold(nothing, earlier)
    }

    /// The first payment that `payment` repeats: of those of its id inside the window one with the
    /// same bytes, else the newest.
    pub fn find(&self, payment: &Seen) -> Result<Option<Seen>, Error> {
        let memory = [Some(&self.active), self.frozen.as_deref()];
        let mut newest = None;
        for ids in memory.into_iter().flatten() {
            match ids.find(payment, self.window) {
                Some(found) if found.fingerprint == payment.fingerprint => return Ok(Some(found)),
                found => newest = newest.or(found),
            }
        }
        let in_file = self.file.guard(|| self.find_in_file(payment))?;
        let same = in_file.filter(|found| found.fingerprint == payment.fingerprint);
        Ok(same.or(newest).or(in_file))
    }

    fn find_in_file(&self, payment: &Seen) -> Result<Option<Seen>, Error> {
        let timestamp = payment.timestamp;
        let mut newest = None;
        for (number, header) in self.runs.iter().rev() {
            let near = timestamp >= header.oldest.saturating_sub(self.window.length())
                && timestamp <= header.newest.saturating_add(self.window.length());
            if !near || !header.may_hold(payment.id) {
                continue;
            }
            match self.find_in_run(*number, header, payment)? {
                Some(found) if found.fingerprint == payment.fingerprint => return Ok(Some(found)),
                found => newest = newest.or(found),
            }
        }
        Ok(newest)
    }

    fn find_in_run(
        &self,
        number: u64,
        header: &Header,
        payment: &Seen,
    ) -> Result<Option<Seen>, Error> {
        let table = self
            .snapshot
            .open_table(BLOCKS)
            .map_err(|error| self.file.table_error(&error))?;
        let (mut newest, mut same) = (None, None);
        for block in header.blocks_of(payment.id) {
            let stored = table
                .get((number, block))
                .map_err(|error| self.file.storage_error(&error))?
                .ok_or_else(|| self.file.damaged("a block of a run is missing"))?;
            let bytes = checked_block(&self.file, (number, block), stored.value())?;
            let found = run::find(bytes, payment.id)
                .ok_or_else(|| self.file.damaged("a block has an impossible length"))?;
            for seen in found.filter(|seen| self.window.holds(seen.timestamp, payment.timestamp)) {
                newest = Some(seen);
                if seen.fingerprint == payment.fingerprint {
                    same = Some(seen);
                }
            }
        }
        Ok(same.or(newest))
    }

    /// Advances the store by a committed batch.
    pub fn apply(&mut self, ids: Ids, positions: Positions, _permit: &Committed) {
        self.replay(ids, positions);
    }

    /// Takes over what was read again from the log.
    pub fn replay(&mut self, ids: Ids, positions: Positions) {
        self.active.extend(ids);
        self.positions = positions;
    }

    /// How many ids wait for a checkpoint.
    pub fn unsaved(&self) -> usize {
        self.active.len() + self.frozen.as_ref().map_or(0, |frozen| frozen.len())
    }

    /// Begins to make the store durable on `background`; nothing when one is still under way.
    pub fn begin_checkpoint(&mut self, background: Background) {
        if !self.checkpoint.is_under_way() {
            let job = self.freeze();
            self.checkpoint.begin(background, move || job.write());
        }
    }

    /// Collects a checkpoint that has ended.
    pub fn poll_checkpoint(&mut self) -> Result<(), Error> {
        let ended = self.checkpoint.poll();
        ended.map_or(Ok(()), |result| self.finish_checkpoint(result))
    }

    /// Makes the store durable before it returns.
    pub fn checkpoint(&mut self) -> Result<(), Error> {
        if let Some(result) = self.checkpoint.wait() {
            self.finish_checkpoint(result)?;
        }
        let result = self.freeze().write();
        self.finish_checkpoint(result)
    }

    fn freeze(&mut self) -> Checkpoint {
        let nothing = Ids::decided_since(i64::MAX);
        let frozen = Arc::new(std::mem::replace(&mut self.active, nothing));
        self.frozen = Some(Arc::clone(&frozen));
        Checkpoint {
            file: self.file.clone(),
            ids: frozen,
            runs: Arc::clone(&self.runs),
            positions: self.positions,
            window: self.window,
            wall_now: clock::wall_millis(),
        }
    }

    fn finish_checkpoint(&mut self, result: Result<Runs, Error>) -> Result<(), Error> {
        let frozen = self.frozen.take();
        match result {
            Ok(runs) => {
                self.snapshot = self.file.read()?;
                self.runs = Arc::new(runs);
                Ok(())
            }
            Err(error) => {
                if let Some(frozen) = frozen {
                    let newer = std::mem::replace(&mut self.active, Ids::clone(&frozen));
                    self.active.extend(newer);
                }
                Err(error)
            }
        }
    }
}

fn load(file: &StateFile, read: &ReadTransaction) -> Result<(Positions, Runs), Error> {
    let positions = match read.open_table(POSITIONS) {
        Err(TableError::TableDoesNotExist(_)) => Positions::default(),
        Err(error) => return Err(file.table_error(&error)),
        Ok(table) => match table
            .get("positions")
            .map_err(|error| file.storage_error(&error))?
        {
            None => Positions::default(),
            Some(value) => decode(file, b"positions", value.value())?,
        },
    };
    let mut runs = Runs::new();
    match read.open_table(RUNS) {
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(file.table_error(&error)),
        Ok(table) => {
            for entry in table.iter().map_err(|error| file.storage_error(&error))? {
                let (number, value) = entry.map_err(|error| file.storage_error(&error))?;
                let number = number.value();
                runs.insert(number, decode(file, &number.to_be_bytes(), value.value())?);
            }
        }
    }
    Ok((positions, runs))
}

fn encode(key: &[u8], value: &impl Serialize) -> Vec<u8> {
    let mut bytes = postcard::to_stdvec(value).expect("numbers and vectors of numbers");
    let sum = checksum(key, &bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

fn decode<T: for<'a> Deserialize<'a>>(
    file: &StateFile,
    key: &[u8],
    stored: &[u8],
) -> Result<T, Error> {
    let value = match stored.split_last_chunk::<4>() {
        Some((value, sum)) if checksum(key, value) == *sum => value,
        _ => return Err(file.damaged("wrong checksum of a header")),
    };
    postcard::from_bytes(value).map_err(|_| file.damaged("a header cannot be read"))
}

fn block_key((run, block): (u64, u32)) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&run.to_be_bytes());
    key[8..].copy_from_slice(&block.to_be_bytes());
    key
}

fn checked_block<'a>(
    file: &StateFile,
    at: (u64, u32),
    stored: &'a [u8],
) -> Result<&'a [u8], Error> {
    match stored.split_last_chunk::<4>() {
        Some((block, sum)) if checksum(&block_key(at), block) == *sum => Ok(block),
        _ => Err(file.damaged("wrong checksum of a block")),
    }
}

/// A checkpoint: writes new ids as a run, merges runs of like size, drops what has expired.
struct Checkpoint {
    file: StateFile,
    ids: Arc<Ids>,
    runs: Arc<Runs>,
    positions: Positions,
    window: Window,
    /// Milliseconds since the epoch.
    wall_now: i64,
}

impl Checkpoint {
    fn write(self) -> Result<Runs, Error> {
        let mut runs = Runs::clone(&self.runs);
        let file = self.file.clone();
        file.write(|write, file| {
            self.drop_expired(write, file, &mut runs)?;
            if !self.ids.is_empty() {
                let number = runs.keys().next_back().map_or(0, |last| last + 1);
                let entries = Ids::clone(&self.ids).sorted();
                let life = self.life(&entries);
                let header = self.write_run(write, file, (number, life), &entries)?;
                runs.insert(number, header);
                self.merge(write, file, &mut runs)?;
            }
            let mut table = write
                .open_table(POSITIONS)
                .map_err(|error| file.table_error(&error))?;
            let value = encode(b"positions", &self.positions);
            table
                .insert("positions", value.as_slice())
                .map_err(|error| file.storage_error(&error))?;
            Ok(())
        })?;
        Ok(runs)
    }

    fn drop_expired(
        &self,
        write: &WriteTransaction,
        file: &StateFile,
        runs: &mut Runs,
    ) -> Result<(), Error> {
        let is_over = |life: &Life| {
            let is_old = life.written_at.saturating_add(KEPT_AT_LEAST) < self.wall_now;
            is_old && life.expires_at < self.positions.time
        };
        let expired: Vec<u64> = runs
            .iter()
            .filter(|(_, header)| is_over(&header.life))
            .map(|(number, _)| *number)
            .collect();
        for number in expired {
            remove_run(write, file, number, runs)?;
        }
        Ok(())
    }

    /// Of new entries. A timestamp is believed as far as the window is ahead of partition time.
    fn life(&self, entries: &[Seen]) -> Life {
        let time = self.positions.time;
        let newest = entries.iter().map(|entry| entry.timestamp).max();
        let believed = time.saturating_add(self.window.length());
        let counted_from = newest.map_or(time, |newest| newest.clamp(time, believed));
        Life {
            start: self.ids.start(),
            expires_at: counted_from.saturating_add(self.window.kept()),
            written_at: self.wall_now,
        }
    }

    fn write_run(
        &self,
        write: &WriteTransaction,
        file: &StateFile,
        (number, life): (u64, Life),
        entries: &[Seen],
    ) -> Result<Header, Error> {
        let generation = self
            .positions
            .time
            .div_euclid((self.window.kept() / GENERATIONS).max(1));
        let mut builder = Builder::new(generation, life, entries.len());
        let mut blocks = write
            .open_table(BLOCKS)
            .map_err(|error| file.table_error(&error))?;
        let mut put = |(block, mut bytes): (u32, Vec<u8>)| -> Result<(), Error> {
            let sum = checksum(&block_key((number, block)), &bytes);
            bytes.extend_from_slice(&sum);
            blocks
                .insert((number, block), bytes.as_slice())
                .map_err(|error| file.storage_error(&error))?;
            Ok(())
        };
        for entry in entries {
            if let Some(block) = builder.push(entry) {
                put(block)?;
            }
        }
        let (last, header) = builder.finish();
        last.map_or(Ok(()), &mut put)?;
        let mut table = write
            .open_table(RUNS)
            .map_err(|error| file.table_error(&error))?;
        let value = encode(&number.to_be_bytes(), &header);
        table
            .insert(number, value.as_slice())
            .map_err(|error| file.storage_error(&error))?;
        Ok(header)
    }

    /// Merges the newest runs while enough of one generation have about the same size.
    fn merge(
        &self,
        write: &WriteTransaction,
        file: &StateFile,
        runs: &mut Runs,
    ) -> Result<(), Error> {
        while let Some(parts) = mergeable(runs) {
            let mut entries = Vec::new();
            for number in &parts {
                let blocks = runs[number].blocks();
                let table = write
                    .open_table(BLOCKS)
                    .map_err(|error| file.table_error(&error))?;
                for block in 0..blocks {
                    let stored = table
                        .get((*number, block))
                        .map_err(|error| file.storage_error(&error))?
                        .ok_or_else(|| file.damaged("a block of a run is missing"))?;
                    let bytes = checked_block(file, (*number, block), stored.value())?;
                    let read = run::entries(bytes)
                        .ok_or_else(|| file.damaged("a block has an impossible length"))?;
                    entries.extend(read);
                }
            }
            entries.sort_unstable();
            // A restore that was interrupted remembers the same payments again.
            entries.dedup();
            let lives = parts.iter().map(|number| runs[number].life);
            let life = lives.reduce(Life::with).expect("several runs are merged");
            for number in &parts {
                remove_run(write, file, *number, runs)?;
            }
            let number = *parts.last().expect("several runs are merged");
            let header = self.write_run(write, file, (number, life), &entries)?;
            runs.insert(number, header);
        }
        Ok(())
    }
}

/// The newest runs that are worth one: [`MERGE_RUNS`] in a row of one generation, none of them
/// more than that many times larger than the newest.
fn mergeable(runs: &Runs) -> Option<Vec<u64>> {
    let (_, newest) = runs.last_key_value()?;
    let limit = newest.entries.max(1024) * MERGE_RUNS as u64;
    let parts: Vec<u64> = runs
        .iter()
        .rev()
        .take_while(|(_, header)| header.generation == newest.generation && header.entries <= limit)
        .map(|(number, _)| *number)
        .collect();
    (parts.len() >= MERGE_RUNS).then(|| parts.into_iter().rev().collect())
}

fn remove_run(
    write: &WriteTransaction,
    file: &StateFile,
    number: u64,
    runs: &mut Runs,
) -> Result<(), Error> {
    let header = runs.remove(&number).expect("only known runs are removed");
    let mut blocks = write
        .open_table(BLOCKS)
        .map_err(|error| file.table_error(&error))?;
    for block in 0..header.blocks() {
        blocks
            .remove((number, block))
            .map_err(|error| file.storage_error(&error))?;
    }
    let mut table = write
        .open_table(RUNS)
        .map_err(|error| file.table_error(&error))?;
    table
        .remove(number)
        .map_err(|error| file.storage_error(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests;
