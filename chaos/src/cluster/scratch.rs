//! Temporary directories: removed on drop, and by the next start when their owner was killed.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

const PREFIX: &str = "settle-cluster-";
const LOCK: &str = "owner.lock";

/// A directory of one owner, locked as long as it lives.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    _lock: File,
}

impl Scratch {
    pub fn new() -> Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&parent)
            .with_context(|| format!("create a directory in {}", parent.display()))?;
        // Locked before it has its name: one who sweeps takes an unlocked lock file for that of a dead owner.
        let unnamed = directory.path().join("owner.new");
        let lock = File::create(&unnamed).context("create the lock file")?;
        lock.lock().context("lock the directory")?;
        fs::rename(&unnamed, lock_file(directory.path())).context("name the lock file")?;
        // PostgreSQL runs as another user when we are root.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes the directory before the drop; what cannot be removed goes with a later start.
    pub fn remove(&self) {
        let _ = fs::remove_dir_all(self.path());
    }
}

/// Copies the files of a directory into another, which is made when it is not there.
pub fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Removes directories whose owner is gone.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if is_ours(&path) && is_abandoned(&path) {
            // Another process may sweep the same directory; what is left goes with the next start.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn is_ours(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(PREFIX))
}

fn is_abandoned(path: &Path) -> bool {
    // Without a lock file the owner may be about to create it.
    File::open(lock_file(path)).is_ok_and(|lock| lock.try_lock().is_ok())
}

fn lock_file(path: &Path) -> PathBuf {
    path.join(LOCK)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nobody_sweeps_what_another_has_just_made() {
        let makers: Vec<_> = (0..8)
            .map(|_| {
                thread::spawn(|| {
                    for _ in 0..50 {
                        let scratch = Scratch::new().unwrap();
                        assert!(lock_file(scratch.path()).exists());
                    }
                })
            })
            .collect();
        for maker in makers {
            maker.join().unwrap();
        }
    }
}
