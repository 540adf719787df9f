//! The `settle` program; all it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let environment: Vec<_> = std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect();
    settle::cli::main(std::env::args_os(), &environment).into()
}
