//! `settle acls`.

use crate::broker::{acls, rights};
use crate::cli::arguments::{AclsArguments, AclsOutput};
use crate::cli::{Error, pretty, print};
use crate::config::Loaded;
use crate::exit::Exit;

const DEFAULT_PRINCIPAL: &str = "User:settle";

pub(super) fn execute(wanted: &AclsArguments, loaded: &Loaded) -> Result<Exit, Error> {
    let config = &loaded.config;
    let given = wanted.principal.clone();
    let principal = given.or_else(|| rights::principal(config));
    let principal = principal.unwrap_or_else(|| DEFAULT_PRINCIPAL.to_owned());
    match wanted.output {
        AclsOutput::Commands => print(&acls::commands(config, &principal))?,
        AclsOutput::Json => print(&pretty(&acls::entries(config, &principal)))?,
    }
    Ok(Exit::Clean)
}
