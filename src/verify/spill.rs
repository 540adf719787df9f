//! Facts by bucket, in files of a temporary directory once they are many: what lies in memory is
//! one bucket, and at most [`BUFFERED_MAX`] that waits to be written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that wait in memory before they are written to the files.
const BUFFERED_MAX: usize = 24 << 20;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory of its own, gone with this value.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Below `TMPDIR`; readable by this user alone.
    pub fn new() -> io::Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("settle-verify-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nobody is left to tell; the directory is a temporary one.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub struct Spill {
    directory: PathBuf,
    name: &'static str,
    buffers: BTreeMap<u64, Vec<u8>>,
    buffered: usize,
    written: BTreeSet<u64>,
}

impl Spill {
    pub fn new(scratch: &Scratch, name: &'static str) -> Self {
        Self {
            directory: scratch.0.clone(),
            name,
            buffers: BTreeMap::new(),
            buffered: 0,
            written: BTreeSet::new(),
        }
    }

    pub fn push(&mut self, bucket: u64, fact: &impl Serialize) -> io::Result<()> {
        let buffer = self.buffers.entry(bucket).or_default();
        let before = buffer.len();
        let taken = std::mem::take(buffer);
        *buffer = postcard::to_extend(fact, taken).expect("memory takes whatever is written to it");
        self.buffered += buffer.len() - before;
        if self.buffered >= BUFFERED_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for (bucket, buffer) in std::mem::take(&mut self.buffers) {
            let path = file(&self.directory, self.name, bucket);
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            file.write_all(&buffer)?;
            self.written.insert(bucket);
        }
        self.buffered = 0;
        Ok(())
    }

    /// The buckets that hold anything.
    pub fn buckets(&self) -> BTreeSet<u64> {
        let buffered = self.buffers.keys().copied();
        buffered.chain(self.written.iter().copied()).collect()
    }

    /// Everything of a bucket in the order in which it came; the bucket is empty afterwards.
    pub fn take<T: DeserializeOwned>(&mut self, bucket: u64) -> io::Result<Vec<T>> {
        let mut bytes = Vec::new();
        if self.written.remove(&bucket) {
            let path = file(&self.directory, self.name, bucket);
            File::open(&path)?.read_to_end(&mut bytes)?;
            fs::remove_file(path)?;
        }
        if let Some(buffer) = self.buffers.remove(&bucket) {
            self.buffered -= buffer.len();
            bytes.extend_from_slice(&buffer);
        }
        let mut rest = bytes.as_slice();
        let mut facts = Vec::new();
        while !rest.is_empty() {
            let (fact, after) = postcard::take_from_bytes(rest)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a spilled fact"))?;
            facts.push(fact);
            rest = after;
        }
        Ok(facts)
    }
}

fn file(directory: &Path, name: &str, bucket: u64) -> PathBuf {
    directory.join(format!("{name}-{bucket:x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spilled_comes_back_in_order_and_the_directory_goes_away() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.0.clone();
        let mut spill = Spill::new(&scratch, "numbers");
        for number in 0..1000_u32 {
            spill.push(u64::from(number % 3), &number).unwrap();
            if number == 700 {
                spill.flush().unwrap();
            }
        }
        assert_eq!(spill.buckets().len(), 3);
        let one: Vec<u32> = spill.take(1).unwrap();
        assert!(one.iter().copied().eq((0..1000).filter(|n| n % 3 == 1)));
        assert_eq!(spill.buckets().len(), 2);
        drop(scratch);
        assert!(!path.exists());
    }
}
