//! Files of the repository, and what leads into them.

use std::fs;
use std::path::{Path, PathBuf};

pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

pub fn read(relative: &str) -> String {
    let path = path(relative);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Paths of the files directly in a directory with this extension.
pub fn list(directory: &str, extension: &str) -> Vec<String> {
    let entries = fs::read_dir(path(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let suffix = format!(".{extension}");
    let mut found: Vec<_> = names
        .filter(|name| name.ends_with(&suffix))
        .map(|name| format!("{directory}/{name}"))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{directory} has no {extension} files");
    found
}

/// The anchor of a heading, as GitHub makes it.
pub fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .replace(|c: char| !c.is_alphanumeric() && !"-_ ".contains(c), "");
    kept.replace(' ', "-")
}
