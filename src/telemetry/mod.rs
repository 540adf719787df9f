//! Logs: to standard error, as text for people or JSON lines for machines. The only place that
//! names their library.
//!
//! What a line may hold is listed in [`fields`]; repeated warnings and errors pass [`limit`].

use std::io::IsTerminal;
use std::sync::Arc;
use std::thread;

use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

pub mod fields;
mod json;
mod limit;

use limit::{Gate, Limit};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

impl Format {
    /// What `log.format` says: `text`, `json`, or else text when a person is watching.
    pub fn of(name: &str) -> Self {
        match name {
            "text" => Self::Text,
            "json" => Self::Json,
            _ if std::io::stderr().is_terminal() => Self::Text,
            _ => Self::Json,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a filter for logs: {reason}")]
pub struct Error {
    text: String,
    reason: ParseError,
}

/// The logging of the process.
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    limit: Arc<Limit>,
}

/// Installs the subscriber of the process; once. Lines of JSON carry `instance`, if there is one.
pub fn init(format: Format, filter: &str, instance: Option<&str>) -> Result<Logs, Error> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let limit = Arc::new(Limit::default());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => lines.event_format(json::Lines::new(instance)).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(Gate(Arc::clone(&limit)))
        .init();
    let sweeper = Arc::clone(&limit);
    // Without this thread it is only told later how much was left out.
    drop(
        thread::Builder::new()
            .name("log".into())
            .spawn(move || sweeper.run()),
    );
    Ok(Logs {
        filter: handle,
        limit,
    })
}

impl Logs {
    /// Filters by this text from now on; nothing changes when it is no filter.
    pub fn set_filter(&self, text: &str) -> Result<(), Error> {
        let filter = parse(text)?;
        // Fails when the subscriber is gone: it lives as long as the process.
        let _ = self.filter.reload(filter);
        Ok(())
    }

    /// Tells what has been left out up to now.
    pub fn flush(&self) {
        self.limit.flush();
    }
}

/// Whether a text is a filter.
pub fn check(text: &str) -> Result<(), Error> {
    parse(text).map(drop)
}

fn parse(text: &str) -> Result<EnvFilter, Error> {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    builder.parse(text).map_err(|reason| Error {
        text: text.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::{check, parse};

    #[test]
    fn an_empty_filter_lets_information_through() {
        assert_eq!(parse("").unwrap().to_string(), "info");
        let filter = parse("settle=debug").unwrap();
        assert_eq!(filter.to_string(), "settle=debug");
    }

    #[test]
    fn a_filter_that_does_not_parse_is_refused() {
        let error = check("settle=loud").unwrap_err().to_string();
        assert!(error.contains("settle=loud"), "{error}");
    }
}
