//! The state directory: one process at a time, one file per task.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::state::Error;

/// The disk under the state directory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// In the files of the directory.
    pub used: u64,
    /// Left for this process.
    pub free: u64,
    /// Of the whole file system.
    pub size: u64,
}

/// The locked state directory. The lock ends with the process, however it ends.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Creates the directory if needed, takes its lock and sees that files can be written.
    pub fn open(path: &Path) -> Result<Self, Error> {
        fs::create_dir_all(path)
            .map_err(|error| Error::unusable(path, "create the state directory", error))?;
        let lock_path = path.join("LOCK");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| Error::unusable(&lock_path, "open the lock file", error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(Error::unusable(
                path,
                "lock the state directory",
                "another live process uses it",
            )),
            Err(TryLockError::Error(error)) => {
                Err(Error::unusable(path, "lock the state directory", error))
            }
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// How much there is and how much is left; 0 for what the system does not say.
    pub fn space(&self) -> Space {
        let files = fs::read_dir(&self.path).into_iter().flatten();
        let sizes = files.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
        let disk = rustix::fs::statvfs(&self.path).ok();
        let blocks = |count: fn(&rustix::fs::StatVfs) -> u64| {
            let disk = disk.as_ref();
            disk.map_or(0, |disk| count(disk).saturating_mul(disk.f_frsize))
        };
        Space {
            used: sizes.sum(),
            free: blocks(|disk| disk.f_bavail),
            size: blocks(|disk| disk.f_blocks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let first = Directory::open(&path).unwrap();
        let refused = Directory::open(&path).unwrap_err().to_string();
        assert!(refused.contains("another live process"), "{refused}");
        drop(first);
        Directory::open(&path).unwrap();
    }

    #[test]
    fn space_counts_the_files_and_what_is_left() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::open(parent.path()).unwrap();
        fs::write(directory.file("ingest-0.redb"), [0; 1000]).unwrap();
        let space = directory.space();
        assert_eq!(space.used, 1000);
        assert!(0 < space.free && space.free < space.size, "{space:?}");
    }
}
