//! `settle state`.

use crate::cli::arguments::{Output, StateCommand};
use crate::cli::{Error, complain, pretty, print};
use crate::config::Loaded;
use crate::exit::Exit;
use crate::inspect::state;

pub(super) fn execute(command: &StateCommand, loaded: &Loaded) -> Result<Exit, Error> {
    let config = &loaded.config;
    match command {
        StateCommand::Describe { output } => {
            let files = state::describe(config)?;
            match output {
                Output::Text => print(&state::text(&files))?,
                Output::Json => print(&pretty(&files))?,
            }
            let is_whole = files.iter().all(|file| file.problem.is_none());
            Ok(if is_whole { Exit::Clean } else { Exit::State })
        }
        StateCommand::Get { rule_key, output } => {
            let found = state::get(config, rule_key)?;
            if found.is_empty() {
                complain("the files have nothing of this key");
                return Ok(Exit::Failed);
            }
            match output {
                Output::Text => {
                    let texts: Vec<String> = found.iter().map(state::Total::text).collect();
                    print(&texts.join("\n"))?;
                }
                Output::Json => print(&pretty(&found))?,
            }
            Ok(Exit::Clean)
        }
        StateCommand::Export => {
            let mut broken = None;
            state::export(config, |total| {
                let line = serde_json::to_string(&total).expect("texts and numbers are JSON");
                if broken.is_none() {
                    broken = print(&(line + "\n")).err();
                }
            })?;
            broken.map_or(Ok(Exit::Clean), Err)
        }
    }
}
