//! What can be asked of the program: commands, their arguments, and what `--help` says of them.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::cli::health::HealthArguments;
use crate::cli::manual::{CompletionsArguments, ManArguments};
use crate::exit;
use crate::positions::Target;
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
  settle acls                             see which access rights the service needs
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

    /// How log lines look [default: log.format]
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
    /// Print the access rights that the service needs on the Kafka cluster, and no more
    Acls(AclsArguments),
    /// Tell how every instance is, and who owns which partition
    #[command(long_about = STATUS)]
    Status(StatusArguments),
    /// Tell where everything stands that remembers a position
    #[command(subcommand, arg_required_else_help = true)]
    Offsets(OffsetsCommand),
    /// Prove from the committed topics and the database that every promise holds
    #[command(long_about = VERIFY)]
    Verify(VerifyArguments),
    /// Tell every fact about one payment: received, decided, dated, counted, stored
    Explain(ExplainArguments),
    /// Look at the payout rule of a key, publish one, or have it forgotten
    #[command(subcommand, arg_required_else_help = true)]
    Rules(RulesCommand),
    /// Look into the state directory of a stopped instance
    #[command(subcommand, arg_required_else_help = true, long_about = STATE)]
    State(StateCommand),
    /// Look at the messages that are no payments, or send one again
    #[command(subcommand, arg_required_else_help = true)]
    DeadLetters(LettersCommand),
    /// See or decide where partitions go on, after their logs were damaged
    #[command(subcommand, arg_required_else_help = true)]
    Positions(PositionsCommand),
    /// Ask the instance of this configuration whether it is ready; exit code 1 means no
    Health(HealthArguments),
    /// Print the completions of a shell
    Completions(CompletionsArguments),
    /// Print the manual page settle(1), or write the pages of all commands
    Man(ManArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct AclsArguments {
    /// Who the broker takes the service for [default: User: and sasl.username, or User:settle]
    #[arg(long, value_name = "TYPE:NAME", value_parser = principal)]
    pub(super) principal: Option<String>,
    /// How the list looks: commands of kafka-acls.sh, or JSON
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "commands")]
    pub(super) output: AclsOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum AclsOutput {
    Commands,
    Json,
}

/// `User:settle`, as Kafka writes a principal.
fn principal(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok(text.to_owned()),
        _ => Err("must be a type and a name, such as User:settle".to_owned()),
    }
}

const STATUS: &str = "\
Tell how every instance is, and who owns which partition.

Asks Kafka for the members of the group, and each of their instances for /readyz and /api/status, with http.token if it \
is set. The instance of this configuration (http.advertise) is asked even if it is no member. Changes nothing.

Exit code 0: all are ready and every partition has an owner. 1: one is not ready, or a partition has no owner. 69: an \
instance, or Kafka, does not answer.";

#[derive(Debug, clap::Args)]
pub(super) struct StatusArguments {
    /// Ask the instance at this host:port only, and not Kafka
    #[arg(long, value_name = "ADDRESS")]
    pub(super) instance: Option<String>,
    /// Look again every second, until Ctrl-C
    #[arg(long)]
    pub(super) watch: bool,
    /// How the answer looks; with --watch, JSON has a line for each look
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(super) output: Output,
}

const OFFSETS: &str = "\
Tell where everything stands that remembers a position.

For each partition of the source and of the bases: the consumer group's offset, the position record (which decides where \
the service goes on), where the log starts and ends, how far the service is behind, and what belongs to open \
transactions. For each partition that PostgreSQL gets: the next offset there. Where two of them differ, a note says what \
it means. Reads both changelogs; changes nothing.";

#[derive(Debug, Subcommand)]
pub(super) enum OffsetsCommand {
    /// Every position, and what it means where two differ
    #[command(long_about = OFFSETS)]
    Show {
        /// How the answer looks
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Output,
    },
}

const KEY: &str = "merchantNumber/paymentDay/paymentActionType/paymentMethodType, such as \
    merchant-4436/2025-05-26/PAYMENT/MONEY";

const PUT: &str = "\
Publish the payout rule of a key.

Writes one record to the key's partition of the rules topic. It is in force for the settlements that are made after the \
service has read it; those that are made already keep their dates. Without --yes nothing is changed: what is in force \
and what would be written is printed.";

const FORGET: &str = "\
Have the payout rule of a key forgotten.

Writes a tombstone to the key's partition of the rules topic. For the next payment of the key the rule service is asked \
again; settlements that are made already keep their dates. Without --yes nothing is changed: what is in force is printed.";

#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    /// What is in force for a key, by the committed rules topic
    Get {
        #[arg(help = KEY)]
        rule_key: String,
        /// How the answer looks
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Output,
    },
    /// Publish the rule of a key
    #[command(long_about = PUT)]
    Put {
        #[arg(help = KEY)]
        rule_key: String,
        /// Day on which payments of the key are paid out, such as 2025-06-10
        #[arg(long, value_name = "DAY")]
        payout_date: String,
        /// Day on which they are confirmed
        #[arg(long, value_name = "DAY")]
        confirm_date: String,
        /// Stands in the settlements that the rule dates [default: operator- and the time]
        #[arg(long, value_name = "ID")]
        rule_id: Option<String>,
        #[command(flatten)]
        consent: Consent,
        /// How the answer looks
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Output,
    },
    /// Have the rule of a key forgotten; the rule service is asked again
    #[command(long_about = FORGET)]
    Forget {
        #[arg(help = KEY)]
        rule_key: String,
        #[command(flatten)]
        consent: Consent,
        /// How the answer looks
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Output,
    },
}

const STATE: &str = "\
Look into the state directory (state.directory) of a stopped instance. Changes nothing in its files.

The files hold what the instance had written down: after an orderly end everything up to the positions that `describe` \
tells, after a kill up to some seconds less; the log makes up for it at the next start. While an instance runs on the \
directory it is refused (exit 74).";

#[derive(Debug, Subcommand)]
pub(super) enum StateCommand {
    /// Each file: what it belongs to, up to where, how much is in it
    Describe {
        /// How the answer looks
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Output,
    },
    /// Total and rule of a key
    Get {
        #[arg(help = KEY)]
        rule_key: String,
        /// How the answer looks
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
        output: Output,
    },
    /// Every total, a line of JSON each
    Export,
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
    /// Send the message of one of them to the source again, once
    #[command(long_about = REPLAY)]
    Replay(ReplayArguments),
}

const REPLAY: &str = "\
Send the message of a dead letter to the source again, once.

The same key and bytes are written to the end of the same partition of the source topic, with headers that name the \
first place of the message, who had it sent, and why. The service takes it as any other record: it gets an outcome of \
its own. Without --yes nothing is changed: what would be done is printed.

A message can be replayed ONE time, ever: the source partition is searched first, from the message to its end, and two \
operators cannot do it at once. Refused are a message that was replayed before, one whose part of the source is deleted \
by now, and a dead letter that was cut (header settle-truncated).

Helps where the message is read differently today: after an upgrade, or after a change of the configuration. What is \
still no payment becomes a dead letter again; `read as` in the answer says so beforehand. A payment that overflowed its \
total (AMOUNT_OVERFLOW) is the first of its id, so inside dedup.window the replay would be excluded as its DUPLICATE: it \
is refused until the window is over, and needs a source topic that is kept for longer than that.

If the answer is lost on the way (exit 69, \"whether it was written is not known\"), run the same command again.";

#[derive(Debug, clap::Args)]
pub(super) struct ReplayArguments {
    /// Partition of the source
    pub(super) partition: i32,
    /// Offset in the source
    pub(super) offset: i64,
    /// Who has it sent again; kept with the message
    #[arg(long, value_name = "NAME")]
    pub(super) by: String,
    /// Why; kept with the message
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
    #[command(flatten)]
    pub(super) consent: Consent,
    /// How the answer looks
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(super) output: Output,
}

/// Of commands that change something.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Consent {
    /// Do it; without this the command only says what it would do
    #[arg(long)]
    yes: bool,
    /// Only say what would be done, which is the default
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

impl Consent {
    pub(super) fn is_given(self) -> bool {
        self.yes && !self.dry_run
    }
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

#[derive(Debug, Subcommand)]
pub(super) enum PositionsCommand {
    /// One line for each partition of payments and bases, and why `run` would refuse it
    Show,
    /// Go on elsewhere; no instance may run. What lies between is given up
    Set {
        /// Name of the topic of payments or bases
        topic: String,
        /// Number of the partition
        partition: i32,
        /// An offset, or `earliest` for the first record that is still there
        #[arg(value_parser = target)]
        offset: Target,
    },
    /// Fill changelogs that were deleted: positions from the group, totals from the settlements; no instance may run
    Rebuild,
}

fn target(text: &str) -> Result<Target, String> {
    match (text, text.parse()) {
        ("earliest", _) => Ok(Target::Earliest),
        (_, Ok(offset)) => Ok(Target::Offset(offset)),
        _ => Err("neither an offset nor `earliest`".to_owned()),
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
