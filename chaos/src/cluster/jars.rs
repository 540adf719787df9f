//! Where the broker's jars are. `./dev jars` owns fetching them; here it is only asked.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

/// Names a directory of jars to use instead of those that `./dev jars` provides.
pub const JARS_VARIABLE: &str = "CHAOS_KAFKA_JARS";

static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// The directory that holds the jars of Kafka, filled when it was not.
pub fn directory() -> Result<&'static Path> {
    DIRECTORY
        .get_or_init(|| find().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow!("{error}"))
}

fn find() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os(JARS_VARIABLE) {
        return Ok(PathBuf::from(given));
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(repository.join("dev"))
        .arg("jars")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("run ./dev jars")?;
    ensure!(output.status.success(), "./dev jars failed: see above");
    let text = String::from_utf8(output.stdout).context("read the answer of ./dev jars")?;
    let line = text
        .lines()
        .last()
        .context("./dev jars named no directory")?;
    Ok(PathBuf::from(line))
}
