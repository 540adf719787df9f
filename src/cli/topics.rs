//! `settle topics`.

use crate::cli::arguments::TopicsCommand;
use crate::cli::{Error, print};
use crate::config::Loaded;
use crate::exit::Exit;
use crate::topics;

pub(super) fn execute(command: &TopicsCommand, loaded: &Loaded) -> Result<Exit, Error> {
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
