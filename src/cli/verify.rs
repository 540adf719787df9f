//! `settle verify`.

use crate::cli::arguments::{Output, VerifyArguments};
use crate::cli::{Error, print};
use crate::config::Loaded;
use crate::exit::Exit;
use crate::verify;
use crate::verify::terms::Scope;

pub(super) fn execute(wanted: &VerifyArguments, loaded: &Loaded) -> Result<Exit, Error> {
    let scope = Scope {
        day: wanted.day.clone(),
        merchant: wanted.merchant.clone(),
        partition: wanted.partition,
        from_offset: wanted.from_offset,
        to_offset: wanted.to_offset,
    };
    let report = verify::run(&loaded.config, scope, wanted.at_rest)?;
    match wanted.output {
        Output::Text => print(&report.text())?,
        Output::Json => print(&format!("{:#}\n", report.json()))?,
    }
    Ok(if report.findings.hold() {
        Exit::Clean
    } else {
        Exit::Failed
    })
}
