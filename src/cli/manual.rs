//! `settle completions` and `settle man`: what the command line says of itself, for shells and for man(1).

use std::io;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::arguments::Arguments;
use crate::cli::{Error, print};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArguments {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct ManArguments {
    /// Write settle.1 and a page for each command into this directory instead
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

pub(super) fn completions(wanted: &CompletionsArguments) -> Result<Exit, Error> {
    let mut script = Vec::new();
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(wanted.shell, &mut command, name, &mut script);
    written(&script)
}

pub(super) fn man(wanted: &ManArguments) -> Result<Exit, Error> {
    // The pages of the commands are named after what is typed: settle-config-check(1).
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    if let Some(directory) = &wanted.directory {
        clap_mangen::generate_to(command, directory)?;
        return Ok(Exit::Clean);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    written(&page)
}

fn written(text: &[u8]) -> Result<Exit, Error> {
    let text = str::from_utf8(text).map_err(io::Error::other)?;
    print(text)?;
    Ok(Exit::Clean)
}
