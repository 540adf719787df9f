//! The program.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

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
