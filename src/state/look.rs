//! Looks into the files of a stopped instance, without changing them. One that was left open by a
//! process that died is read from a copy.
//!
//! Values are compared with their checksums. Pages are not, as only a writer can: a damaged page
//! can hide a key from here. The service looks at the pages whenever it opens a file.

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    ReadableTable as _, TableDefinition, TableError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock;
use crate::codec::stored::KeyState;
use crate::state::directory::Directory;
use crate::state::file::{META, checksum};
use crate::state::run::Header;
use crate::state::{Error, seen, totals};

/// The state directory, locked so that no instance begins to use it meanwhile.
pub struct Look {
    path: PathBuf,
    _directory: Directory,
}

/// One file of the directory.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Described {
    pub file: String,
    pub bytes: u64,
    /// `null` for a file that is no state, such as a damaged one that was set aside.
    pub content: Option<Content>,
    /// Why it cannot be read.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// `ingest` or `settle`.
    pub kind: &'static str,
    pub partition: i32,
    /// Of the tables; another one is rebuilt from the log.
    pub layout: String,
    /// Application, consumed topic and partition.
    pub belongs_to: String,
    /// Next offset of the consumed partition; -1 while none is known.
    pub position: i64,
    /// Next offset of the changelog.
    pub changelog: i64,
    /// Next offset of the rules topic, of settle.
    pub rules: Option<i64>,
    /// Rule keys, of settle.
    pub keys: Option<u64>,
    /// Payment ids of the duplicate window, of ingest.
    pub ids: Option<u64>,
}

/// What a settle file holds of one rule key.
#[derive(Debug, Clone)]
pub struct Held {
    pub file: String,
    /// Next offset of the bases that the file has.
    pub position: i64,
    pub state: KeyState,
}

impl Look {
    /// Refuses where an instance runs, and where there is no directory.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let attempt = "look into the state directory (state.directory)";
        let found = fs::metadata(path).map_err(|error| Error::unusable(path, attempt, error))?;
        if !found.is_dir() {
            return Err(Error::unusable(path, attempt, "it is no directory"));
        }
        Ok(Self {
            path: path.to_owned(),
            _directory: Directory::open(path)?,
        })
    }

    /// Every file, by name.
    pub fn describe(&self) -> Result<Vec<Described>, Error> {
        let describe = |name: String| {
            let path = self.path.join(&name);
            let bytes = fs::metadata(&path).map_or(0, |found| found.len());
            let (content, problem) = match kind_of(&name) {
                None => (None, None),
                Some(kind) => match content(&path, kind) {
                    Ok(content) => (Some(content), None),
                    Err(error) => (None, Some(error.to_string())),
                },
            };
            Described {
                file: name,
                bytes,
                content,
                problem,
            }
        };
        Ok(self.names()?.into_iter().map(describe).collect())
    }

    /// What the settle files hold of a key; more than one only where one is left from before.
    pub fn get(&self, rule_key: &str) -> Result<Vec<Held>, Error> {
        let mut found = Vec::new();
        self.settle_files(|file, name, position| {
            let Some(keys) = file.table(totals::KEYS)? else {
                return Ok(());
            };
            let value = keys.get(rule_key).map_err(|error| file.damaged(&error))?;
            if let Some(value) = value {
                found.push(Held {
                    file: name.to_owned(),
                    position,
                    state: file.key_state(rule_key, value.value())?,
                });
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Hands every rule key of the settle files to `each`, in the order of files and keys.
    pub fn each(&self, mut each: impl FnMut(&str, Held)) -> Result<(), Error> {
        self.settle_files(|file, name, position| {
            file.each_key(|key, state| {
                let held = Held {
                    file: name.to_owned(),
                    position,
                    state,
                };
                each(key, held);
            })
        })
    }

    fn settle_files(
        &self,
        mut visit: impl FnMut(&StateFile, &str, i64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for name in self.names()? {
            if let Some(("settle", _)) = kind_of(&name) {
                let path = self.path.join(&name);
                guard(&path, || {
                    let file = StateFile::open(&path)?;
                    let positions = file.positions::<totals::Positions>(totals::POSITIONS)?;
                    visit(&file, &name, positions.unwrap_or_default().source)
                })?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let failed = |error| Error::unusable(&self.path, "list the state directory", error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            names.push(
                entry
                    .map_err(failed)?
                    .file_name()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
        names.retain(|name| name != "LOCK");
        // By kind and number; what is none of them comes last.
        names.sort_by_key(|name| (kind_of(name).is_none(), kind_of(name), name.clone()));
        Ok(names)
    }
}

/// `settle-3.redb` is of settle, partition 3.
fn kind_of(name: &str) -> Option<(&'static str, i32)> {
    let (kind, number) = name.strip_suffix(".redb")?.rsplit_once('-')?;
    let kind = ["ingest", "settle"]
        .into_iter()
        .find(|known| *known == kind)?;
    Some((kind, number.parse().ok()?))
}

/// The library panics over what a damaged page says.
fn guard<T>(path: &Path, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(damaged(path, &"reading it panicked")))
}

fn damaged(path: &Path, reason: &dyn fmt::Display) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn content(path: &Path, (kind, partition): (&'static str, i32)) -> Result<Content, Error> {
    guard(path, || {
        let file = StateFile::open(path)?;
        let meta = file.table(META)?;
        let text = |name| -> Result<String, Error> {
            let value = meta.as_ref().map(|meta| meta.get(name)).transpose();
            let value = value.map_err(|error| file.damaged(&error))?.flatten();
            Ok(value.map_or_else(|| "unknown".to_owned(), |value| value.value().to_owned()))
        };
        let (layout, belongs_to) = (text("layout")?, text("identity")?);
        let content = if kind == "settle" {
            let positions: totals::Positions =
                file.positions(totals::POSITIONS)?.unwrap_or_default();
            let mut keys = 0;
            file.each_key(|_, _| keys += 1)?;
            Content {
                kind,
                partition,
                layout,
                belongs_to,
                position: positions.source,
                changelog: positions.changelog,
                rules: Some(positions.rules),
                keys: Some(keys),
                ids: None,
            }
        } else {
            let positions: seen::Positions = file.positions(seen::POSITIONS)?.unwrap_or_default();
            Content {
                kind,
                partition,
                layout,
                belongs_to,
                position: positions.source,
                changelog: positions.changelog,
                rules: None,
                keys: None,
                ids: Some(file.ids()?),
            }
        };
        Ok(content)
    })
}

/// A copy of a file that was not closed in order, to be read once it is repaired: the file itself
/// stays as it is. Nothing is left of it when it is closed.
fn repaired_copy(path: &Path) -> Result<Database, Error> {
    let attempt = "copy a file to the temporary directory, to read it";
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (process, now) = (std::process::id(), clock::wall_micros());
    let copy = std::env::temp_dir().join(format!("settle-look-{process}-{now}-{name}"));
    let copied = fs::copy(path, &copy);
    let opened = copied.map(|_| Database::open(&copy));
    // It lives on as long as it is open.
    let removed = fs::remove_file(&copy);
    let opened = opened.and_then(|opened| removed.map(|()| opened));
    let opened = opened.map_err(|error| Error::unusable(path, attempt, error))?;
    opened.map_err(|error| damaged(path, &error))
}

/// A file that is only read.
struct StateFile {
    read: ReadTransaction,
    path: PathBuf,
    /// Nothing can be read any more once it is dropped.
    _database: Box<dyn ReadableDatabase>,
}

impl StateFile {
    fn open(path: &Path) -> Result<Self, Error> {
        let database: Box<dyn ReadableDatabase> = match ReadOnlyDatabase::open(path) {
            Ok(database) => Box::new(database),
            Err(DatabaseError::RepairAborted) => Box::new(repaired_copy(path)?),
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(Error::Busy {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(damaged(path, &error)),
        };
        let read = database.begin_read();
        Ok(Self {
            read: read.map_err(|error| damaged(path, &error))?,
            path: path.to_owned(),
            _database: database,
        })
    }

    fn damaged(&self, reason: &dyn fmt::Display) -> Error {
        damaged(&self.path, reason)
    }

    fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        definition: TableDefinition<K, V>,
    ) -> Result<Option<ReadOnlyTable<K, V>>, Error> {
        match self.read.open_table(definition) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(self.damaged(&error)),
        }
    }

    /// The value without its checksum.
    fn checked<'a>(&self, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], Error> {
        match stored.split_last_chunk::<4>() {
            Some((value, sum)) if checksum(key, value) == *sum => Ok(value),
            _ => Err(self.damaged(&format!(
                "wrong checksum at {:?}",
                String::from_utf8_lossy(key)
            ))),
        }
    }

    fn positions<T: DeserializeOwned>(
        &self,
        definition: TableDefinition<&str, &[u8]>,
    ) -> Result<Option<T>, Error> {
        let name = "positions";
        let Some(table) = self.table(definition)? else {
            return Ok(None);
        };
        let value = table.get(name).map_err(|error| self.damaged(&error))?;
        let Some(value) = value else {
            return Ok(None);
        };
        let bytes = self.checked(name.as_bytes(), value.value())?;
        let positions = postcard::from_bytes(bytes).map_err(|error| self.damaged(&error))?;
        Ok(Some(positions))
    }

    fn key_state(&self, key: &str, stored: &[u8]) -> Result<KeyState, Error> {
        let value = self.checked(key.as_bytes(), stored)?;
        KeyState::decode(value).map_err(|error| self.damaged(&error))
    }

    /// Hands every rule key to `each`, each compared with its checksum.
    fn each_key(&self, mut each: impl FnMut(&str, KeyState)) -> Result<(), Error> {
        let Some(keys) = self.table(totals::KEYS)? else {
            return Ok(());
        };
        for entry in keys.iter().map_err(|error| self.damaged(&error))? {
            let (key, value) = entry.map_err(|error| self.damaged(&error))?;
            each(key.value(), self.key_state(key.value(), value.value())?);
        }
        Ok(())
    }

    /// Entries of all runs.
    fn ids(&self) -> Result<u64, Error> {
        let Some(runs) = self.table(seen::RUNS)? else {
            return Ok(0);
        };
        let mut ids = 0;
        for entry in runs.iter().map_err(|error| self.damaged(&error))? {
            let (number, stored) = entry.map_err(|error| self.damaged(&error))?;
            let bytes = self.checked(&number.value().to_be_bytes(), stored.value())?;
            let header: Header =
                postcard::from_bytes(bytes).map_err(|error| self.damaged(&error))?;
            ids += header.entries;
        }
        Ok(ids)
    }
}
