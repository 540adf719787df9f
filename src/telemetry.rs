//! Logs: to standard error, as text for people or JSON lines for machines. `RUST_LOG` filters.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

impl Format {
    /// Text when a person is watching.
    fn of_standard_error() -> Self {
        if std::io::stderr().is_terminal() {
            Format::Text
        } else {
            Format::Json
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("RUST_LOG is not a filter for logs: {0}")]
pub struct Error(#[from] ParseError);

/// Installs the subscriber of the process; once.
pub fn init(format: Option<Format>, filter: Option<&str>) -> Result<(), Error> {
    let filter = self::filter(filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format.unwrap_or_else(Format::of_standard_error) {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

fn filter(text: Option<&str>) -> Result<EnvFilter, Error> {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    Ok(builder.parse(text.unwrap_or_default())?)
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn without_a_filter_information_is_logged() {
        assert_eq!(filter(None).unwrap().to_string(), "info");
        assert_eq!(
            filter(Some("settle=debug")).unwrap().to_string(),
            "settle=debug"
        );
    }

    #[test]
    fn a_filter_that_does_not_parse_is_refused() {
        assert!(filter(Some("settle=loud")).is_err());
    }
}
