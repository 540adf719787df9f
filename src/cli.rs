//! The command line: what can be asked of the program, and which exit code each end has.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::app;
use crate::broker::admin;
use crate::config::problem::Errors;
use crate::config::{Config, Loaded, Log, default_file};
use crate::exit::{self, Exit};
use crate::inspect::{explain, letters};
use crate::telemetry::{self, Logs};
use crate::topics;
use crate::verify;
use crate::verify::terms::Scope;

/// Read when no other file is named, if it is there.
const DEFAULT_FILE: &str = "settle.toml";

/// The usual variable for what is logged.
const RUST_LOG: &str = "RUST_LOG";

const ABOUT: &str = "Settles payments from Kafka, each exactly once";

const LONG_ABOUT: &str = "\
Settles payments from Kafka, each exactly once.

Reads payments from a topic, turns each into at most one settlement, looks up when it is paid out, keeps running \
totals, and publishes all of it in the Kafka transaction that also moves the input forward. Without a configuration \
file the defaults hold: Kafka at 127.0.0.1:9092, no database, queries at http://127.0.0.1:8080.";

const EXAMPLES: &str = "\
Examples:
  settle config default > settle.toml     write a commented configuration file
  settle config check                     find every mistake in it
  settle topics plan                      see which topics would be created
  settle run                              settle payments until SIGTERM
  settle verify                           prove from the topics that every promise holds
  SETTLE_PIPELINE__WORKERS=2 settle run   override one key for this run";

#[derive(Debug, Parser)]
#[command(name = "settle", version, about = ABOUT, long_about = LONG_ABOUT)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::MEANINGS))]
struct Arguments {
    /// Configuration file [default: settle.toml, if it exists]; environment variables override it
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// How log lines look [default: log.format]
    #[arg(long, value_enum, value_name = "FORMAT", global = true)]
    log_format: Option<telemetry::Format>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Settle payments until SIGTERM or SIGINT
    Run,
    /// Check or print the configuration
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),
    /// Compare the topics with what they should be, or create the missing ones
    #[command(subcommand, arg_required_else_help = true)]
    Topics(TopicsCommand),
    /// Prove from the committed topics and the database that every promise holds
    #[command(long_about = VERIFY)]
    Verify(VerifyArguments),
    /// Tell every fact about one payment: received, decided, dated, counted, stored
    Explain(ExplainArguments),
    /// Look at the messages that are no payments
    #[command(subcommand, arg_required_else_help = true)]
    DeadLetters(LettersCommand),
}

const VERIFY: &str = "\
Prove from the committed topics and the database that every promise holds.

Reads everything that is committed up to now and computes again from the source what must have come out. Runs beside \
live instances and changes nothing. Judges by the configuration it is given. Exit code 1 means that a promise is broken.";

#[derive(Debug, clap::Args)]
struct VerifyArguments {
    /// Only payments of this day, such as 2025-05-26, and their totals
    #[arg(long, value_name = "DAY")]
    day: Option<String>,
    /// Only payments of this merchant, and their totals
    #[arg(long, value_name = "NUMBER")]
    merchant: Option<String>,
    /// Only this partition of the source; totals are judged all the same
    #[arg(long, value_name = "NUMBER")]
    partition: Option<i32>,
    /// Only source records from this offset on
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    from_offset: Option<i64>,
    /// Only source records below this offset
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    to_offset: Option<i64>,
    /// Nothing runs and nothing may be left to do: what is on its way is a breach too
    #[arg(long)]
    at_rest: bool,
    /// How the report looks
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct ExplainArguments {
    /// The record key of the payment
    payment_id: String,
    /// Look in this partition of the source only
    #[arg(long, value_name = "NUMBER")]
    partition: Option<i32>,
    /// How the answer looks
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum LettersCommand {
    /// One line for each: source record, time, reason, key, detail
    List {
        /// Only this reason, such as `NOT_JSON`
        #[arg(long, value_name = "REASON")]
        reason: Option<String>,
        /// Only messages of this partition of the source
        #[arg(long, value_name = "NUMBER")]
        partition: Option<i32>,
        /// Only letters written at this time or later, such as 2025-05-26T14:00:00Z
        #[arg(long, value_name = "TIME")]
        since: Option<jiff::Timestamp>,
        /// Only letters written before this time
        #[arg(long, value_name = "TIME")]
        until: Option<jiff::Timestamp>,
        /// How the answer looks; JSON has a line for each letter
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Output,
    },
    /// One of them, with the bytes that came
    Show {
        /// Partition of the source
        partition: i32,
        /// Offset in the source
        offset: i64,
        /// How the answer looks
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Output,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report every mistake at once, with file, line and key
    Check,
    /// Print what holds as TOML, each value with where it was given; secrets are left out
    Dump,
    /// Print a commented file with every key and its default
    Default,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Show what is missing and what breaks a rule; change nothing
    Plan,
    /// Create the missing topics; existing ones are not touched
    Apply,
}

/// Why a command ended otherwise than clean.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] Errors),
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    #[error(transparent)]
    Topics(#[from] topics::Error),
    #[error(transparent)]
    Verify(#[from] verify::Error),
    #[error("write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    fn exit(&self) -> Exit {
        match self {
            Error::Config(_) | Error::Telemetry(_) => Exit::Configuration,
            Error::Topics(error) => error.exit(),
            Error::Verify(error) => error.exit(),
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
    if let Command::Config(ConfigCommand::Default) = arguments.command {
        print(&default_file())?;
        return Ok(Exit::Clean);
    }
    let loaded = load(arguments.config.as_deref(), environment)?;
    match &arguments.command {
        Command::Run => {
            let instance = loaded.config.kafka.instance_id.as_str();
            let logs = start_logging(arguments, environment, &loaded, Some(instance))?;
            Ok(run(&loaded, logs, arguments.config.clone(), environment))
        }
        Command::Config(ConfigCommand::Dump) => {
            print(&loaded.dump())?;
            Ok(Exit::Clean)
        }
        Command::Config(_) => check(&loaded),
        Command::Topics(command) => {
            start_logging(arguments, environment, &loaded, None)?;
            topics(command, &loaded)
        }
        Command::Verify(wanted) => {
            start_logging(arguments, environment, &loaded, None)?;
            verify(wanted, &loaded)
        }
        Command::Explain(wanted) => {
            start_logging(arguments, environment, &loaded, None)?;
            explain(wanted, &loaded)
        }
        Command::DeadLetters(wanted) => {
            start_logging(arguments, environment, &loaded, None)?;
            dead_letters(wanted, &loaded)
        }
    }
}

/// The file that was named, or else the usual one if it is there; with the properties librdkafka does not take.
fn load(named: Option<&Path>, environment: &[(String, String)]) -> Result<Loaded, Error> {
    let usual = Path::new(DEFAULT_FILE);
    let path = named.or_else(|| usual.exists().then_some(usual));
    let loaded = Loaded::load(path, environment.iter().cloned())?;
    let refused = admin::refused_properties(&loaded.config);
    let properties = refused
        .iter()
        .map(|(name, text)| loaded.property_problem(name, text));
    let filter = telemetry::check(&loaded.config.log.filter).err();
    let filter = filter.map(|error| loaded.key_problem("log.filter", &error.to_string()));
    let problems: Vec<_> = properties.chain(filter).collect();
    if problems.is_empty() {
        Ok(loaded)
    } else {
        Err(Errors::new(problems).into())
    }
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

fn run(
    loaded: &Loaded,
    logs: Logs,
    file: Option<PathBuf>,
    environment: &[(String, String)],
) -> Exit {
    for warning in loaded.warnings() {
        tracing::warn!("{warning}");
    }
    let logs = Arc::new(logs);
    let (running, environment) = (loaded.config.clone(), environment.to_vec());
    let rereading = Arc::clone(&logs);
    let reread = move || reread(&running, &rereading, file.as_deref(), &environment);
    let exit = match app::run(&loaded.config, reread) {
        Ok(()) => Exit::Clean,
        Err(error) => {
            tracing::error!(exit = error.exit().code(), "{error}");
            error.exit()
        }
    };
    logs.flush();
    exit
}

/// SIGHUP: takes `log.filter` over from the configuration as it is now. Whatever is wrong with it,
/// the service goes on as before.
fn reread(running: &Config, logs: &Logs, file: Option<&Path>, environment: &[(String, String)]) {
    let next = match load(file, environment) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            tracing::error!(%error, "asked to read the configuration again: it is not valid, nothing is changed");
            return;
        }
    };
    let filter = filter_in(environment).unwrap_or(&next.log.filter);
    if let Err(error) = logs.set_filter(filter) {
        tracing::error!(%error, "asked to read the configuration again: nothing is changed");
        return;
    }
    let reason = match filter_in(environment) {
        Some(_) => RUST_LOG,
        None => "log.filter",
    };
    // A warning, so that it is seen where less is filtered out.
    tracing::warn!(
        filter,
        reason,
        "asked to read the configuration again: lines are filtered by this from now on"
    );
    let log = Log {
        filter: next.log.filter.clone(),
        ..running.log.clone()
    };
    let with_filter = Config {
        log,
        ..running.clone()
    };
    if with_filter != next {
        tracing::warn!("other keys of the configuration have changed: they are read at start only");
    }
}

fn check(loaded: &Loaded) -> Result<Exit, Error> {
    let mut text = String::from("configuration is valid\n");
    for warning in loaded.warnings() {
        text.push_str("warning: ");
        text.push_str(&warning);
        text.push('\n');
    }
    print(&text)?;
    Ok(Exit::Clean)
}

fn topics(command: &TopicsCommand, loaded: &Loaded) -> Result<Exit, Error> {
    let plan = match command {
        TopicsCommand::Plan => topics::look(&loaded.config)?,
        TopicsCommand::Apply => topics::apply(&loaded.config)?,
    };
    print(&plan.to_string())?;
    if !plan.violations.is_empty() {
        return Ok(Exit::Configuration);
    }
    let end = match (command, plan.create.len()) {
        (_, 0) => "nothing to do\n".to_owned(),
        (TopicsCommand::Plan, count) => format!("{count} to create: `settle topics apply`\n"),
        (TopicsCommand::Apply, count) => format!("{count} created\n"),
    };
    print(&end)?;
    Ok(Exit::Clean)
}

fn verify(wanted: &VerifyArguments, loaded: &Loaded) -> Result<Exit, Error> {
    let scope = Scope {
        day: wanted.day.clone(),
        merchant: wanted.merchant.clone(),
        partition: wanted.partition,
        from_offset: wanted.from_offset,
        to_offset: wanted.to_offset,
    };
    let report = verify::run(&loaded.config, scope, wanted.at_rest)?;
    match wanted.output {
        Output::Text => print(&report.text())?,
        Output::Json => print(&format!("{:#}\n", report.json()))?,
    }
    Ok(if report.findings.hold() {
        Exit::Clean
    } else {
        Exit::Failed
    })
}

fn explain(wanted: &ExplainArguments, loaded: &Loaded) -> Result<Exit, Error> {
    let story = explain::explain(&loaded.config, &wanted.payment_id, wanted.partition)?;
    if story.received.is_empty() {
        complain("no record of the source has this payment id");
        return Ok(Exit::Failed);
    }
    match wanted.output {
        Output::Text => print(&story.text())?,
        Output::Json => print(&pretty(&story))?,
    }
    Ok(Exit::Clean)
}

fn pretty(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("texts and numbers are JSON");
    text.push('\n');
    text
}

fn dead_letters(wanted: &LettersCommand, loaded: &Loaded) -> Result<Exit, Error> {
    match wanted {
        LettersCommand::List {
            reason,
            partition,
            since,
            until,
            output,
        } => {
            let filter = letters::Filter {
                reason: reason.clone(),
                partition: *partition,
                since: *since,
                until: *until,
            };
            let mut broken = None;
            letters::list(&loaded.config, &filter, |letter| {
                let line = match output {
                    Output::Text => letter.line(),
                    Output::Json => {
                        serde_json::to_string(&letter).expect("texts and numbers are JSON") + "\n"
                    }
                };
                if broken.is_none() {
                    broken = print(&line).err();
                }
                Ok(())
            })?;
            broken.map_or(Ok(Exit::Clean), Err)
        }
        LettersCommand::Show {
            partition,
            offset,
            output,
        } => {
            let Some(whole) = letters::show(&loaded.config, *partition, *offset)? else {
                complain("this source record has no dead letter");
                return Ok(Exit::Failed);
            };
            match output {
                Output::Text => print(&whole.text())?,
                Output::Json => print(&pretty(&whole))?,
            }
            Ok(Exit::Clean)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
