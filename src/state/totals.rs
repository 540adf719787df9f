//! Store of a settle task: totals and rules by rule key, and the positions they correspond to.
//!
//! What was committed since the last checkpoint lies in memory, in front of the file. A checkpoint
//! freezes that part, writes it in the background in key order, and drops it. Readers on other
//! threads see memory and file as one.

use std::collections::BTreeMap;
#[expect(
    clippy::disallowed_types,
    reason = "looked up by key; iterated only after sorting"
)]
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use redb::{TableDefinition, TableError};
use serde::{Deserialize, Serialize};

use crate::broker::transaction::Committed;
use crate::codec::stored::{KeyState, StoredRule};
use crate::domain::rule::RuleKey;
use crate::domain::totals::Totals;
use crate::state::file::{StateFile, checksum};
use crate::state::pending::{Background, Pending};
use crate::state::{Error, view};

pub(super) const KEYS: TableDefinition<&str, &[u8]> = TableDefinition::new("keys");
pub(super) const POSITIONS: TableDefinition<&str, &[u8]> = TableDefinition::new("positions");

#[expect(
    clippy::disallowed_types,
    reason = "looked up by key; iterated only after sorting"
)]
type Changes = HashMap<RuleKey, KeyState>;

/// What the state corresponds to. All are next offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// Of the bases partition; -1 while none is known.
    pub source: i64,
    pub changelog: i64,
    pub rules: i64,
    /// Number of the last transaction that is included.
    pub transaction: u64,
}

impl Default for Positions {
    fn default() -> Self {
        Self {
            source: -1,
            changelog: 0,
            rules: 0,
            transaction: 0,
        }
    }
}

struct Memory {
    /// Committed since the last checkpoint began.
    active: Changes,
    /// Being written by the checkpoint that is under way.
    frozen: Option<Arc<Changes>>,
    positions: Positions,
}

struct Shared {
    file: StateFile,
    memory: RwLock<Memory>,
}

pub struct Store {
    shared: Arc<Shared>,
    checkpoint: Pending<()>,
}

/// What a batch changes in the store.
pub struct Batch {
    pub keys: Vec<(RuleKey, KeyState)>,
    pub positions: Positions,
}

impl Store {
    pub fn open(path: &Path, identity: &str, cache_bytes: usize) -> Result<Self, Error> {
        let file = StateFile::open(path, identity, cache_bytes)?;
        let positions = file.guard(|| read_positions(&file))?;
        let memory = Memory {
            active: Changes::default(),
            frozen: None,
            positions,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                file,
                memory: RwLock::new(memory),
            }),
            checkpoint: Pending::default(),
        })
    }

    pub fn path(&self) -> &Path {
        self.shared.file.path()
    }

    pub fn positions(&self) -> Positions {
        self.shared
            .memory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .positions
    }

    /// What is committed for a key.
    pub fn get(&self, key: &str) -> Result<Option<KeyState>, Error> {
        let (state, _) = self.shared.file.guard(|| self.shared.get(key))?;
        Ok(state)
    }

    /// Advances the state by a committed batch.
    pub fn apply(&mut self, batch: Batch, _permit: &Committed) {
        self.put(batch);
    }

    /// Takes over what was read from the log, where only committed records are read.
    pub fn replay(&mut self, batch: Batch) {
        self.put(batch);
    }

    fn put(&mut self, batch: Batch) {
        let mut memory = self
            .shared
            .memory
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        memory.active.extend(batch.keys);
        memory.positions = batch.positions;
    }

    /// How many keys wait for a checkpoint.
    pub fn unsaved(&self) -> usize {
        let memory = self
            .shared
            .memory
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        memory.active.len() + memory.frozen.as_ref().map_or(0, |frozen| frozen.len())
    }

    /// A view for queries on other threads.
    pub fn view(&self) -> Arc<dyn view::Source> {
        Arc::clone(&self.shared) as Arc<dyn view::Source>
    }

    /// Begins to make the state durable on `background`; nothing when one is still under way.
    pub fn begin_checkpoint(&mut self, background: Background) {
        if !self.checkpoint.is_under_way() {
            let (frozen, positions) = self.freeze();
            let shared = Arc::clone(&self.shared);
            self.checkpoint
                .begin(background, move || write(&shared.file, &frozen, positions));
        }
    }

    /// Collects a checkpoint that has ended.
    pub fn poll_checkpoint(&mut self) -> Result<(), Error> {
        let ended = self.checkpoint.poll();
        ended.map_or(Ok(()), |result| self.finish_checkpoint(result))
    }

    /// Makes the state durable before it returns.
    pub fn checkpoint(&mut self) -> Result<(), Error> {
        if let Some(result) = self.checkpoint.wait() {
            self.finish_checkpoint(result)?;
        }
        let (frozen, positions) = self.freeze();
        let result = write(&self.shared.file, &frozen, positions);
        drop(frozen);
        self.finish_checkpoint(result)
    }

    fn freeze(&mut self) -> (Arc<Changes>, Positions) {
        let mut memory = self
            .shared
            .memory
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let frozen = Arc::new(std::mem::take(&mut memory.active));
        memory.frozen = Some(Arc::clone(&frozen));
        (frozen, memory.positions)
    }

    fn finish_checkpoint(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        let mut memory = self
            .shared
            .memory
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let frozen = memory.frozen.take();
        if result.is_err()
            && let Some(frozen) = frozen
        {
            // Still only in memory: newer values win.
            let mut merged = Changes::clone(&frozen);
            merged.extend(std::mem::take(&mut memory.active));
            memory.active = merged;
        }
        result
    }
}

fn read_positions(file: &StateFile) -> Result<Positions, Error> {
    let read = file.read()?;
    let table = match read.open_table(POSITIONS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Positions::default()),
        Err(error) => return Err(file.table_error(&error)),
    };
    let value = table
        .get("positions")
        .map_err(|error| file.storage_error(&error))?;
    match value {
        None => Ok(Positions::default()),
        Some(value) => {
            let bytes = checked(file, b"positions", value.value())?;
            postcard::from_bytes(bytes).map_err(|_| file.damaged("its positions cannot be read"))
        }
    }
}

/// The value without its checksum.
fn checked<'a>(file: &StateFile, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], Error> {
    match stored.split_last_chunk::<4>() {
        Some((value, sum)) if checksum(key, value) == *sum => Ok(value),
        _ => Err(file.damaged(format!(
            "wrong checksum at {:?}",
            String::from_utf8_lossy(key)
        ))),
    }
}

fn with_checksum(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let sum = checksum(key, &value);
    value.extend_from_slice(&sum);
    value
}

fn write(file: &StateFile, changes: &Changes, positions: Positions) -> Result<(), Error> {
    let sorted: BTreeMap<&str, &KeyState> = changes
        .iter()
        .map(|(key, state)| (key.as_str(), state))
        .collect();
    file.write(|write, file| {
        let mut keys = write
            .open_table(KEYS)
            .map_err(|error| file.table_error(&error))?;
        for (key, state) in sorted {
            let value = with_checksum(key.as_bytes(), state.encode());
            keys.insert(key, value.as_slice())
                .map_err(|error| file.storage_error(&error))?;
        }
        let bytes = postcard::to_stdvec(&positions).expect("four numbers");
        let value = with_checksum(b"positions", bytes);
        let mut table = write
            .open_table(POSITIONS)
            .map_err(|error| file.table_error(&error))?;
        table
            .insert("positions", value.as_slice())
            .map_err(|error| file.storage_error(&error))?;
        Ok(())
    })
}

impl Shared {
    fn get(&self, key: &str) -> Result<(Option<KeyState>, i64), Error> {
        let (read, position) = {
            let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
            let frozen = || memory.frozen.as_ref().and_then(|frozen| frozen.get(key));
            if let Some(state) = memory.active.get(key).or_else(frozen) {
                return Ok((Some(state.clone()), memory.positions.source));
            }
            // Begun under the lock: a checkpoint cannot slip between memory and file.
            (self.file.read()?, memory.positions.source)
        };
        let table = match read.open_table(KEYS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok((None, position)),
            Err(error) => return Err(self.file.table_error(&error)),
        };
        let value = table
            .get(key)
            .map_err(|error| self.file.storage_error(&error))?;
        let state = value
            .map(|value| self.decode(key, value.value()))
            .transpose()?;
        Ok((state, position))
    }

    fn decode(&self, key: &str, stored: &[u8]) -> Result<KeyState, Error> {
        let value = checked(&self.file, key.as_bytes(), stored)?;
        KeyState::decode(value).map_err(|error| self.file.damaged(error.to_string()))
    }

    fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(String, Totals)>, i64), Error> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (mut found, read, position) = {
            let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
            let mut found: BTreeMap<String, Totals> = BTreeMap::new();
            let in_memory = memory.frozen.iter().flat_map(|frozen| frozen.iter());
            for (key, state) in in_memory.chain(&memory.active) {
                if state.totals.count > 0 && after.is_none_or(|after| key.as_str() > after) {
                    found.insert(key.as_str().to_owned(), state.totals);
                }
            }
            (found, self.file.read()?, memory.positions.source)
        };
        match read.open_table(KEYS) {
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(self.file.table_error(&error)),
            Ok(table) => {
                let from = after.map_or(Unbounded, Excluded);
                let range = table
                    .range::<&str>((from, Unbounded))
                    .map_err(|error| self.file.storage_error(&error))?;
                // The first `limit` of memory and file together stand among the first `limit` of
                // the file, or in memory.
                let mut left = limit;
                for entry in range {
                    if left == 0 {
                        break;
                    }
                    let (key, value) = entry.map_err(|error| self.file.storage_error(&error))?;
                    let totals = self.decode(key.value(), value.value())?.totals;
                    if totals.count > 0 {
                        left -= 1;
                        found.entry(key.value().to_owned()).or_insert(totals);
                    }
                }
            }
        }
        Ok((found.into_iter().take(limit).collect(), position))
    }
}

impl view::Source for Shared {
    fn get(&self, rule_key: &str) -> Result<(Option<Totals>, i64), view::Error> {
        let (state, position) = self
            .file
            .guard(|| self.get(rule_key))
            .map_err(|error| view::Error(error.to_string()))?;
        let totals = state
            .map(|state| state.totals)
            .filter(|totals| totals.count > 0);
        Ok((totals, position))
    }

    fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(String, Totals)>, i64), view::Error> {
        self.file
            .guard(|| self.page(after, limit))
            .map_err(|error| view::Error(error.to_string()))
    }
}

/// Folds a record of the rules topic into what is known of its key: the higher offset wins.
/// `None` as rule forgets. `None` as answer means that nothing changes.
pub fn fold_rule(
    known: Option<KeyState>,
    rule: Option<StoredRule>,
    offset: i64,
) -> Option<KeyState> {
    let mut state = known.unwrap_or_default();
    if state
        .rule
        .as_ref()
        .is_some_and(|stored| stored.offset >= offset)
    {
        return None;
    }
    if state.rule.is_none() && rule.is_none() {
        return None;
    }
    state.rule = rule;
    Some(state)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::domain::payment::{ActionType, MethodType};

    const KEYS_WRITTEN: u64 = 300;
    const COMMITS: i64 = 4;
    const DAMAGES: usize = 240;
    const PAGE: usize = 4096;

    fn key(number: u64) -> RuleKey {
        RuleKey::new(
            &format!("merchant-{number}"),
            "2025-05-26",
            ActionType::Payment,
            MethodType::Money,
        )
    }

    fn open(path: &Path) -> Result<Store, Error> {
        Store::open(path, "a/0", 1 << 20)
    }

    /// After each commit every key has been settled as often as there were commits, and so says
    /// the position.
    fn written(path: &Path) {
        let mut store = open(path).unwrap();
        for commit in 1..=COMMITS {
            let state = KeyState {
                totals: Totals {
                    amount: commit,
                    count: commit.unsigned_abs(),
                },
                rule: None,
            };
            let keys = (0..KEYS_WRITTEN).map(|number| (key(number), state.clone()));
            store.replay(Batch {
                keys: keys.collect(),
                positions: Positions {
                    source: commit,
                    ..Positions::default()
                },
            });
            store.checkpoint().unwrap();
        }
    }

    /// One of the ways in which a disk lies.
    fn damage(bytes: &mut Vec<u8>, kind: usize, rng: &mut fastrand::Rng) {
        let at = rng.usize(..bytes.len());
        match kind {
            // Behind the header, most of what is written lies in a few pages.
            0 | 1 => bytes[at] ^= 1 << rng.u8(..8),
            2 => {
                let page = at / PAGE * PAGE;
                let end = bytes.len().min(page + PAGE);
                bytes[page..end].fill(0);
            }
            3 => bytes.truncate(at),
            4 => bytes.extend((0..PAGE).map(|_| rng.u8(..))),
            _ => {
                // A page that was written to the wrong place.
                let from = rng.usize(..bytes.len() / PAGE) * PAGE;
                let to = rng.usize(..bytes.len() / PAGE) * PAGE;
                bytes.copy_within(from..from + PAGE, to);
            }
        }
    }

    #[test]
    fn whatever_is_damaged_in_the_file_no_total_is_wrong_and_none_is_missing() {
        let seed = fastrand::u64(..);
        let mut rng = fastrand::Rng::with_seed(seed);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settle.redb");
        written(&path);
        let whole = fs::read(&path).unwrap();
        let (mut noticed, mut read) = (0, 0);
        for number in 0..DAMAGES {
            let mut bytes = whole.clone();
            damage(&mut bytes, number % 6, &mut rng);
            fs::write(&path, bytes).unwrap();
            let what = format!("seed {seed}, damage {number}");
            let store = open(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
            let source = store.positions().source;
            if source < 0 {
                // Set aside: everything is read again from the log.
                noticed += 1;
                assert_eq!(store.positions(), Positions::default(), "{what}");
                assert_eq!(store.get(key(0).as_str()).unwrap(), None, "{what}");
                continue;
            }
            for number in 0..KEYS_WRITTEN {
                match store.get(key(number).as_str()) {
                    Ok(Some(state)) => assert_eq!(state.totals.amount, source, "{what}"),
                    Ok(None) => panic!("{what}: key {number} is missing at {source}"),
                    Err(Error::Damaged { .. }) => noticed += 1,
                    Err(error) => panic!("{what}: {error}"),
                }
            }
            read += 1;
        }
        assert!(noticed > DAMAGES / 10, "{noticed} damages noticed");
        assert!(read > DAMAGES / 10, "{read} files read");
    }
}
