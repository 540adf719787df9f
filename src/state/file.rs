//! One redb file: opened, checked for whose it is, set aside when it is damaged.

use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, StorageError,
    TableDefinition, TableError, WriteTransaction,
};

use crate::clock;
use crate::failpoint::{self, Point};
use crate::state::Error;

/// Layout of the tables; another one is rebuilt from the log.
const LAYOUT: &str = "1";

pub(super) const META: TableDefinition<&str, &str> = TableDefinition::new("meta");

/// A file of state. Cheap to clone; the file closes with the last clone.
#[derive(Clone)]
pub struct StateFile {
    database: Arc<Database>,
    path: PathBuf,
}

impl StateFile {
    /// Opens or creates the file. A damaged file, or one that belongs to something else than
    /// `identity`, is set aside under another name and begun anew.
    pub fn open(path: &Path, identity: &str, cache_bytes: usize) -> Result<Self, Error> {
        failpoint::fail::<Error>(Point::FileOpen)?;
        let opened = match Self::open_or_create(path, identity, cache_bytes) {
            Err(Error::Damaged { reason, .. }) => {
                set_aside(path, &reason)?;
                Self::open_or_create(path, identity, cache_bytes)
            }
            result => result,
        };
        failpoint::hit(Point::FileOpened);
        opened
    }

    /// A new file gets its name when it is whole: half of one, from a process that died over it, would
    /// look like damage.
    fn open_or_create(path: &Path, identity: &str, cache_bytes: usize) -> Result<Self, Error> {
        if path.exists() {
            return Self::try_open(path, identity, cache_bytes);
        }
        let unusable = |error| Error::unusable(path, "create the state file", error);
        let mut unnamed = path.as_os_str().to_owned();
        unnamed.push(".new");
        let unnamed = PathBuf::from(unnamed);
        match fs::remove_file(&unnamed) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(unusable(error)),
            _ => {}
        }
        let mut file = Self::try_open(&unnamed, identity, cache_bytes)?;
        fs::rename(&unnamed, path).map_err(unusable)?;
        path.clone_into(&mut file.path);
        Ok(file)
    }

    fn try_open(path: &Path, identity: &str, cache_bytes: usize) -> Result<Self, Error> {
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let mut database = Database::builder()
                .set_cache_size(cache_bytes)
                .create(path)?;
            // A read does not look at the pages' checksums: a key on a damaged one would be
            // missing, and its total begin at zero. What an older commit still holds right is kept.
            database.check_integrity()?;
            Ok::<_, DatabaseError>(database)
        }));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(error)) => return Err(open_error(path, error)),
            Err(_) => return Err(damaged(path, "opening it panicked")),
        };
        let file = Self {
            database: Arc::new(database),
            path: path.to_owned(),
        };
        file.guard(|| file.check_identity(identity))?;
        Ok(file)
    }

    fn check_identity(&self, identity: &str) -> Result<(), Error> {
        let found = {
            let read = self.read()?;
            match read.open_table(META) {
                Err(TableError::TableDoesNotExist(_)) => None,
                Err(error) => return Err(self.table_error(&error)),
                Ok(meta) => {
                    let get = |key| -> Result<Option<String>, Error> {
                        let value = meta.get(key).map_err(|error| self.storage_error(&error))?;
                        Ok(value.map(|value| value.value().to_owned()))
                    };
                    Some((get("layout")?, get("identity")?))
                }
            }
        };
        match found {
            None => self.write(|write, file| {
                let mut meta = write
                    .open_table(META)
                    .map_err(|error| file.table_error(&error))?;
                for (key, value) in [("layout", LAYOUT), ("identity", identity)] {
                    meta.insert(key, value)
                        .map_err(|error| file.storage_error(&error))?;
                }
                Ok(())
            }),
            Some((layout, owner)) => {
                if layout.as_deref() != Some(LAYOUT) {
                    return Err(damaged(&self.path, format!("its layout is {layout:?}")));
                }
                if owner.as_deref() != Some(identity) {
                    return Err(damaged(&self.path, format!("it belongs to {owner:?}")));
                }
                Ok(())
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work`, which uses the file. redb checks its pages only when it repairs, and panics
    /// over what a damaged one says: that is damage, and not the end of the process.
    pub fn guard<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            #[expect(
                clippy::mem_forget,
                reason = "a panic may have poisoned its locks: dropping it would panic again"
            )]
            std::mem::forget(Arc::clone(&self.database));
            Err(self.damaged("reading or writing it panicked"))
        })
    }

    pub fn read(&self) -> Result<ReadTransaction, Error> {
        self.database.begin_read().map_err(|error| match error {
            redb::TransactionError::Storage(error) => self.storage_error(&error),
            other => damaged(&self.path, other.to_string()),
        })
    }

    /// Runs `fill` in a write transaction and makes it durable.
    pub fn write(
        &self,
        fill: impl FnOnce(&WriteTransaction, &Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.guard(|| self.write_unguarded(fill))
    }

    fn write_unguarded(
        &self,
        fill: impl FnOnce(&WriteTransaction, &Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut write = self.database.begin_write().map_err(|error| match error {
            redb::TransactionError::Storage(error) => self.storage_error(&error),
            other => damaged(&self.path, other.to_string()),
        })?;
        write
            .set_durability(Durability::Immediate)
            .map_err(|error| damaged(&self.path, error.to_string()))?;
        // Reopening after a crash must not walk the whole file.
        write.set_quick_repair(true);
        fill(&write, self)?;
        failpoint::fail::<Error>(Point::CheckpointWrite)?;
        write.commit().map_err(|error| match error {
            redb::CommitError::Storage(error) => self.storage_error(&error),
            other => damaged(&self.path, other.to_string()),
        })?;
        failpoint::fail::<Error>(Point::CheckpointDone)
    }

    pub fn table_error(&self, error: &TableError) -> Error {
        match error {
            TableError::Storage(error) => self.storage_error(error),
            other => damaged(&self.path, other.to_string()),
        }
    }

    pub fn storage_error(&self, error: &StorageError) -> Error {
        storage_error(&self.path, error)
    }

    pub fn damaged(&self, reason: impl Into<String>) -> Error {
        damaged(&self.path, reason)
    }
}

fn damaged(path: &Path, reason: impl Into<String>) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

fn storage_error(path: &Path, error: &StorageError) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error {
        StorageError::Io(io)
            if !matches!(io.kind(), InvalidData | InvalidInput | UnexpectedEof) =>
        {
            Error::unusable(path, "use the state file", io)
        }
        // After a failed write the library answers everything with this.
        StorageError::PreviousIo => Error::unusable(path, "use the state file", error),
        other => damaged(path, other.to_string()),
    }
}

fn open_error(path: &Path, error: DatabaseError) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen => Error::Busy {
            path: path.to_owned(),
        },
        DatabaseError::Storage(error) => storage_error(path, &error),
        other => damaged(path, other.to_string()),
    }
}

/// Moves a damaged file away, so that it can be looked at and the log fills a new one.
pub fn set_aside(path: &Path, reason: &str) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{}", clock::wall_millis()));
    let aside = PathBuf::from(name);
    tracing::error!(
        file = %path.display(), aside = %aside.display(), reason,
        "local state is damaged; the file is set aside and rebuilt from the log"
    );
    failpoint::fail::<Error>(Point::AsideBefore)?;
    fs::rename(path, &aside)
        .map_err(|error| Error::unusable(path, "set a damaged file aside", error))?;
    failpoint::hit(Point::AsideAfter);
    Ok(())
}

/// Four bytes of a cryptographic hash over what a value belongs to and the value itself: redb
/// checks its pages only when it repairs, and a flipped bit must never become a total.
pub fn checksum(key: &[u8], value: &[u8]) -> [u8; 4] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let hash = hasher.finalize();
    let bytes = hash.as_bytes();
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: usize = 1 << 20;

    fn aside(directory: &Path) -> usize {
        fs::read_dir(directory)
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_string_lossy().contains(".damaged-")
            })
            .count()
    }

    #[test]
    fn a_file_of_another_owner_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.redb");
        drop(StateFile::open(&path, "a/0", CACHE).unwrap());
        drop(StateFile::open(&path, "a/0", CACHE).unwrap());
        assert_eq!(aside(directory.path()), 0);
        drop(StateFile::open(&path, "a/1", CACHE).unwrap());
        assert_eq!(aside(directory.path()), 1);
    }

    #[test]
    fn a_file_of_another_layout_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.redb");
        let file = StateFile::open(&path, "a/0", CACHE).unwrap();
        file.write(|write, _| {
            let mut meta = write.open_table(META).unwrap();
            meta.insert("layout", "2").unwrap();
            Ok(())
        })
        .unwrap();
        drop(file);
        drop(StateFile::open(&path, "a/0", CACHE).unwrap());
        assert_eq!(aside(directory.path()), 1);
    }

    #[test]
    fn a_file_that_is_cut_zeroed_or_no_database_is_set_aside() {
        for damage in ["cut", "zero", "text"] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.redb");
            drop(StateFile::open(&path, "a/0", CACHE).unwrap());
            let length = fs::metadata(&path).unwrap().len();
            match damage {
                "cut" => {
                    fs::OpenOptions::new()
                        .write(true)
                        .open(&path)
                        .unwrap()
                        .set_len(length / 3)
                        .unwrap();
                }
                "zero" => {
                    let zeroes = vec![0; usize::try_from(length).unwrap()];
                    fs::write(&path, zeroes).unwrap();
                }
                _ => fs::write(&path, "not a database").unwrap(),
            }
            StateFile::open(&path, "a/0", CACHE).unwrap();
            assert_eq!(aside(directory.path()), 1, "{damage}");
        }
    }

    #[test]
    fn a_file_that_was_never_finished_is_no_damage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.redb");
        fs::write(directory.path().join("a.redb.new"), "the first half").unwrap();
        let file = StateFile::open(&path, "a/0", CACHE).unwrap();
        assert_eq!(file.path(), path);
        drop(file);
        drop(StateFile::open(&path, "a/0", CACHE).unwrap());
        let names = fs::read_dir(directory.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a.redb"]);
    }

    #[test]
    fn an_open_file_is_busy_and_an_unwritable_place_is_unusable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.redb");
        let _open = StateFile::open(&path, "a/0", CACHE).unwrap();
        assert!(matches!(
            StateFile::open(&path, "a/0", CACHE),
            Err(Error::Busy { .. })
        ));
        let nowhere = directory.path().join("none/a.redb");
        assert!(matches!(
            StateFile::open(&nowhere, "a/0", CACHE),
            Err(Error::Unusable { .. })
        ));
    }
}
