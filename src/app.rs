//! Composition root: puts the parts together and runs them until the process is told to stop.

use crate::config::Config;
use crate::exit::Exit;
use crate::topics;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Topics(#[from] topics::Error),
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Error::Topics(error) => error.exit(),
        }
    }
}

pub fn run(config: &Config) -> Result<(), Error> {
    topics::ensure(config)?;
    Ok(())
}
