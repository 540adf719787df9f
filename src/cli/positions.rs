//! `settle positions`.

use crate::cli::arguments::PositionsCommand;
use crate::cli::{Error, print};
use crate::config::Loaded;
use crate::exit::Exit;
use crate::positions;

pub(super) fn execute(command: &PositionsCommand, loaded: &Loaded) -> Result<Exit, Error> {
    let config = &loaded.config;
    match command {
        PositionsCommand::Show => {
            let rows = positions::show(config)?;
            for row in &rows {
                print(&format!("{row}\n"))?;
            }
            let is_refused = rows.iter().any(|row| row.refusal.is_some());
            return Ok(if is_refused {
                Exit::BrokenPromise
            } else {
                Exit::Clean
            });
        }
        PositionsCommand::Set {
            topic,
            partition,
            offset,
        } => {
            let change = positions::set(config, topic, *partition, *offset)?;
            print(&format!("{change}\n"))?;
        }
        PositionsCommand::Rebuild => {
            let mut lines = Vec::new();
            let mut unknown = Vec::new();
            let done = positions::rebuild(
                config,
                |change| lines.push(format!("{change}\n")),
                |place| unknown.push(place.to_owned()),
            );
            // What was written before it failed stays written.
            print(&lines.concat())?;
            done?;
            if lines.is_empty() && unknown.is_empty() {
                print("every partition has its position\n")?;
            }
            if !unknown.is_empty() {
                let places = unknown.join(" ");
                print(&format!(
                    "no position, and none of the group either: {places}. Where one has run, \
                     `settle positions set` says where it goes on\n"
                ))?;
            }
        }
    }
    Ok(Exit::Clean)
}
