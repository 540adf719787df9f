//! `settle explain`.

use crate::cli::arguments::{ExplainArguments, Output};
use crate::cli::{Error, complain, pretty, print};
use crate::config::Loaded;
use crate::exit::Exit;
use crate::inspect::explain;

pub(super) fn execute(wanted: &ExplainArguments, loaded: &Loaded) -> Result<Exit, Error> {
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
