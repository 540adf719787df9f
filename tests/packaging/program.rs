//! The program, and the tools of `./dev tools`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::files::path;

/// Runs the program without anything of this process's environment.
pub fn settle<'a>(
    arguments: impl IntoIterator<Item = &'a str>,
    directory: &Path,
    environment: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
) -> Output {
    Command::new(env!("CARGO_BIN_EXE_settle"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .envs(environment)
        .output()
        .unwrap()
}

pub fn said(output: &Output) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(said).unwrap()
}

/// A tool of `tests/packaging/requirements.txt`.
pub fn tool(name: &str) -> Command {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let output = Command::new(path("dev"))
            .arg("tools")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "./dev tools failed: see above");
        let text = String::from_utf8(output.stdout).unwrap();
        PathBuf::from(text.lines().last().unwrap())
    });
    Command::new(directory.join(name))
}
