//! `settle config`.

use crate::cli::{Error, print};
use crate::config::Loaded;
use crate::exit::Exit;

pub(super) fn check(loaded: &Loaded) -> Result<Exit, Error> {
    let mut text = String::from("configuration is valid\n");
    for warning in loaded.warnings() {
        text.push_str("warning: ");
        text.push_str(&warning);
        text.push('\n');
    }
    print(&text)?;
    Ok(Exit::Clean)
}
