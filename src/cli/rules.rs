//! `settle rules`.

use crate::cli::arguments::{Consent, Output, RulesCommand};
use crate::cli::{Error, pretty, print};
use crate::config::Loaded;
use crate::exit::Exit;
use crate::operate::rules::{self, Typed};

pub(super) fn execute(command: &RulesCommand, loaded: &Loaded) -> Result<Exit, Error> {
    match command {
        RulesCommand::Get { rule_key, output } => {
            let found = rules::look(&loaded.config, &rules::key(rule_key)?)?;
            match output {
                Output::Text => print(&found.text())?,
                Output::Json => print(&pretty(&found))?,
            }
            Ok(Exit::Clean)
        }
        RulesCommand::Put {
            rule_key,
            payout_date,
            confirm_date,
            rule_id,
            consent,
            output,
        } => {
            let typed = Typed {
                payout_date: payout_date.clone(),
                confirm_date: confirm_date.clone(),
                rule_id: rule_id.clone(),
            };
            change(loaded, rule_key, Some(&typed), (*consent, *output))
        }
        RulesCommand::Forget {
            rule_key,
            consent,
            output,
        } => change(loaded, rule_key, None, (*consent, *output)),
    }
}

fn change(
    loaded: &Loaded,
    rule_key: &str,
    typed: Option<&Typed>,
    (consent, output): (Consent, Output),
) -> Result<Exit, Error> {
    let key = rules::key(rule_key)?;
    let done = rules::change(&loaded.config, &key, typed, consent.is_given())?;
    match output {
        Output::Text => print(&done.text())?,
        Output::Json => print(&pretty(&done))?,
    }
    Ok(Exit::Clean)
}
