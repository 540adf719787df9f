//! The command line: reads what is asked, has it done, and says with which exit code it ends.
//!
//! [`arguments`] is what can be asked; each family of commands has a file that prints what the
//! module behind it answers.

mod acls;
mod arguments;
mod config;
mod explain;
mod health;
mod letters;
mod manual;
mod positions;
mod rules;
mod run;
mod state;
mod status;
mod topics;
mod verify;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap::Parser;
use clap::error::ErrorKind;

use crate::broker::admin;
use crate::cli::arguments::{Arguments, Command, ConfigCommand};
use crate::config::problem::Errors;
use crate::config::{Loaded, Users, default_file};
use crate::exit::Exit;
use crate::inspect;
use crate::operate;
use crate::telemetry::{self, Logs};

/// The usual variable for what is logged.
const RUST_LOG: &str = "RUST_LOG";

/// Read when no other file is named, if it is there.
const DEFAULT_FILE: &str = "settle.toml";

/// Why a command ended otherwise than clean.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] Errors),
    #[error("{RUST_LOG}: {0}")]
    Telemetry(#[from] telemetry::Error),
    #[error(transparent)]
    Topics(#[from] crate::topics::Error),
    #[error(transparent)]
    Verify(#[from] crate::verify::Error),
    #[error(transparent)]
    Logs(#[from] crate::broker::logs::Error),
    #[error(transparent)]
    Inspect(#[from] inspect::Error),
    #[error(transparent)]
    State(#[from] inspect::state::Error),
    #[error(transparent)]
    Operate(#[from] operate::Error),
    #[error(transparent)]
    Positions(#[from] crate::positions::Error),
    #[error("HTTPS: {0}")]
    Tls(#[from] crate::tls::Error),
    #[error("write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    fn exit(&self) -> Exit {
        match self {
            Error::Config(_) | Error::Telemetry(_) | Error::Tls(_) => Exit::Configuration,
            Error::Topics(error) => error.exit(),
            Error::Verify(error) => error.exit(),
            Error::Logs(error) => error.exit(),
            Error::Inspect(error) => error.exit(),
            Error::State(error) => error.exit(),
            Error::Operate(error) => error.exit(),
            Error::Positions(error) => error.exit(),
            // The reader of a pipe has seen enough.
            Error::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Clean,
            Error::Output(_) => Exit::Failed,
        }
    }
}

/// Runs one command to its end. `environment` holds all variables of the process.
pub fn main(arguments: impl Iterator<Item = OsString>, environment: &[(String, String)]) -> Exit {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    match execute(&arguments, environment) {
        Ok(exit) => exit,
        Err(error) => {
            let exit = error.exit();
            if exit != Exit::Clean {
                complain(&error.to_string());
            }
            exit
        }
    }
}

/// Clap prints; only its exit codes differ from ours.
fn usage(error: &clap::Error) -> Exit {
    let asked = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    match error.print() {
        Ok(()) | Err(_) if asked => Exit::Clean,
        _ => Exit::Usage,
    }
}

fn complain(text: &str) {
    // Nobody is left to hear that standard error is closed.
    let _ = writeln!(io::stderr(), "settle: {text}");
}

fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn execute(arguments: &Arguments, environment: &[(String, String)]) -> Result<Exit, Error> {
    match &arguments.command {
        Command::Config(ConfigCommand::Default) => {
            print(&default_file())?;
            return Ok(Exit::Clean);
        }
        Command::Completions(wanted) => return manual::completions(wanted),
        Command::Man(wanted) => return manual::man(wanted),
        _ => {}
    }
    let loaded = load(arguments.config.as_deref(), environment)?;
    match &arguments.command {
        Command::Run => {
            let instance = loaded.config.kafka.instance_id.as_str();
            let logs = start_logging(arguments, environment, &loaded, Some(instance))?;
            Ok(run::execute(
                &loaded,
                logs,
                arguments.config.clone(),
                environment,
            ))
        }
        Command::Config(ConfigCommand::Dump) => {
            print(&loaded.dump())?;
            Ok(Exit::Clean)
        }
        // Completions and manual have been answered above.
        Command::Config(_) | Command::Completions(_) | Command::Man(_) => config::check(&loaded),
        Command::Health(wanted) => health::execute(wanted, &loaded),
        Command::Acls(wanted) => acls::execute(wanted, &loaded),
        Command::Topics(command) => {
            start_logging(arguments, environment, &loaded, None)?;
            topics::execute(command, &loaded)
        }
        Command::Verify(wanted) => {
            start_logging(arguments, environment, &loaded, None)?;
            verify::execute(wanted, &loaded)
        }
        Command::Explain(wanted) => {
            start_logging(arguments, environment, &loaded, None)?;
            explain::execute(wanted, &loaded)
        }
        Command::Status(wanted) => {
            start_logging(arguments, environment, &loaded, None)?;
            status::execute(wanted, &loaded)
        }
        Command::Offsets(wanted) => {
            start_logging(arguments, environment, &loaded, None)?;
            status::offsets(wanted, &loaded)
        }
        Command::Rules(wanted) => {
            start_logging(arguments, environment, &loaded, None)?;
            rules::execute(wanted, &loaded)
        }
        Command::State(wanted) => {
            start_logging(arguments, environment, &loaded, None)?;
            state::execute(wanted, &loaded)
        }
        Command::DeadLetters(wanted) => {
            start_logging(arguments, environment, &loaded, None)?;
            letters::execute(wanted, &loaded)
        }
        Command::Positions(wanted) => {
            start_logging(arguments, environment, &loaded, None)?;
            positions::execute(wanted, &loaded)
        }
    }
}

/// The file that was named, or else the usual one if it is there.
fn load(named: Option<&Path>, environment: &[(String, String)]) -> Result<Loaded, Error> {
    let usual = Path::new(DEFAULT_FILE);
    let path = named.or_else(|| usual.exists().then_some(usual));
    let users = Users {
        property: admin::check_property,
        filter: |text| telemetry::check(text).map_err(|error| error.to_string()),
    };
    Ok(Loaded::load(path, environment.iter().cloned(), users)?)
}

/// `RUST_LOG` wins over `log.filter`.
fn filter_in(environment: &[(String, String)]) -> Option<&str> {
    let filter = environment.iter().find(|(name, _)| name == RUST_LOG);
    filter.map(|(_, value)| value.as_str())
}

fn start_logging(
    arguments: &Arguments,
    environment: &[(String, String)],
    loaded: &Loaded,
    instance: Option<&str>,
) -> Result<Logs, Error> {
    let log = &loaded.config.log;
    let format = arguments.log_format;
    let format = format.unwrap_or_else(|| telemetry::Format::of(&log.format));
    let filter = filter_in(environment).unwrap_or(&log.filter);
    Ok(telemetry::init(format, filter, instance)?)
}

fn pretty(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("texts and numbers are JSON");
    text.push('\n');
    text
}
