//! What can be asked of the program: commands, their arguments, and what `--help` says of them.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::cli::health::HealthArguments;
use crate::cli::manual::{CompletionsArguments, ManArguments};
use crate::exit;
use crate::telemetry;

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
pub(super) struct Arguments {
    /// Configuration file [default: settle.toml, if it exists]; environment variables override it
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,

    /// How log lines look [default: text on a terminal, json otherwise]
    #[arg(long, value_enum, value_name = "FORMAT", global = true)]
    pub(super) log_format: Option<telemetry::Format>,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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
    /// Ask the instance of this configuration whether it is ready; exit code 1 means no
    Health(HealthArguments),
    /// Print the completions of a shell
    Completions(CompletionsArguments),
    /// Print the manual page settle(1), or write the pages of all commands
    Man(ManArguments),
}

const VERIFY: &str = "\
Prove from the committed topics and the database that every promise holds.

Reads everything that is committed up to now and computes again from the source what must have come out. Runs beside \
live instances and changes nothing. Judges by the configuration it is given. Exit code 1 means that a promise is broken.";

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArguments {
    /// Only payments of this day, such as 2025-05-26, and their totals
    #[arg(long, value_name = "DAY")]
    pub(super) day: Option<String>,
    /// Only payments of this merchant, and their totals
    #[arg(long, value_name = "NUMBER")]
    pub(super) merchant: Option<String>,
    /// Only this partition of the source; totals are judged all the same
    #[arg(long, value_name = "NUMBER")]
    pub(super) partition: Option<i32>,
    /// Only source records from this offset on
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    pub(super) from_offset: Option<i64>,
    /// Only source records below this offset
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    pub(super) to_offset: Option<i64>,
    /// Nothing runs and nothing may be left to do: what is on its way is a breach too
    #[arg(long)]
    pub(super) at_rest: bool,
    /// How the report looks
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(super) output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExplainArguments {
    /// The record key of the payment
    pub(super) payment_id: String,
    /// Look in this partition of the source only
    #[arg(long, value_name = "NUMBER")]
    pub(super) partition: Option<i32>,
    /// How the answer looks
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(super) output: Output,
}

#[derive(Debug, Subcommand)]
pub(super) enum LettersCommand {
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
pub(super) enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Report every mistake at once, with file, line and key
    Check,
    /// Print what holds as TOML, each value with where it was given; secrets are left out
    Dump,
    /// Print a commented file with every key and its default
    Default,
}

#[derive(Debug, Subcommand)]
pub(super) enum TopicsCommand {
    /// Show what is missing and what breaks a rule; change nothing
    Plan,
    /// Create the missing topics; existing ones are not touched
    Apply,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
