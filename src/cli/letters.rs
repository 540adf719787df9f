//! `settle dead-letters`.

use crate::cli::arguments::{LettersCommand, Output, ReplayArguments};
use crate::cli::{Error, complain, pretty, print};
use crate::config::Loaded;
use crate::exit::Exit;
use crate::inspect::letters;
use crate::operate::replay::{self, Request};

pub(super) fn execute(wanted: &LettersCommand, loaded: &Loaded) -> Result<Exit, Error> {
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
        LettersCommand::Replay(wanted) => replay(wanted, loaded),
    }
}

fn replay(wanted: &ReplayArguments, loaded: &Loaded) -> Result<Exit, Error> {
    let request = Request {
        partition: wanted.partition,
        offset: wanted.offset,
        by: wanted.by.clone(),
        reason: wanted.reason.clone(),
        is_meant: wanted.consent.is_given(),
    };
    let done = replay::replay(&loaded.config, &request)?;
    match wanted.output {
        Output::Text => print(&done.text())?,
        Output::Json => print(&pretty(&done))?,
    }
    Ok(Exit::Clean)
}
