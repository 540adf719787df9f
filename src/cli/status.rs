//! `settle status` and `settle offsets`.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use crate::broker::logs;
use crate::cli::arguments::{OffsetsCommand, Output, StatusArguments};
use crate::cli::{Error, pretty, print};
use crate::config::Loaded;
use crate::exit::Exit;
use crate::inspect::offsets;
use crate::inspect::status::{Seen, Watcher};

/// Between two looks of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// Puts the cursor of a terminal into its corner and clears what it shows.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn execute(wanted: &StatusArguments, loaded: &Loaded) -> Result<Exit, Error> {
    let watcher = Watcher::new(&loaded.config, wanted.instance.as_deref());
    let watcher = watcher.map_err(logs::Error::from)?;
    if !wanted.watch {
        let seen = watcher.look();
        match wanted.output {
            Output::Text => print(&seen.text())?,
            Output::Json => print(&pretty(&seen))?,
        }
        return Ok(seen.exit());
    }
    let clear = if io::stdout().is_terminal() {
        CLEAR
    } else {
        ""
    };
    // SIGINT ends it.
    loop {
        let seen = watcher.look();
        match wanted.output {
            Output::Text => print(&format!("{clear}{}", seen.text()))?,
            Output::Json => print(&line(&seen))?,
        }
        thread::sleep(INTERVAL);
    }
}

fn line(seen: &Seen) -> String {
    serde_json::to_string(seen).expect("texts and numbers are JSON") + "\n"
}

pub(super) fn offsets(command: &OffsetsCommand, loaded: &Loaded) -> Result<Exit, Error> {
    let OffsetsCommand::Show { output } = command;
    let offsets = offsets::show(&loaded.config)?;
    match output {
        Output::Text => print(&offsets.text())?,
        Output::Json => print(&pretty(&offsets))?,
    }
    Ok(Exit::Clean)
}
