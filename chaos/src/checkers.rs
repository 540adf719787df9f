//! The tools of `./dev tools`, which check what is written for other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

/// Where they are, once they were fetched.
static DIRECTORY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A tool of `tests/requirements.txt`, fetched when it is not there.
pub fn checker(name: &str) -> Result<Command> {
    let mut directory = DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner);
    if directory.is_none() {
        *directory = Some(fetch()?);
    }
    let directory = directory.as_ref().context("it was just fetched")?;
    Ok(Command::new(directory.join(name)))
}

fn fetch() -> Result<PathBuf> {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev"))
        .arg("tools")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("./dev tools")?;
    ensure!(output.status.success(), "./dev tools failed: see above");
    let text = String::from_utf8(output.stdout)?;
    let last = text.lines().last().context("./dev tools printed nothing")?;
    Ok(PathBuf::from(last))
}
