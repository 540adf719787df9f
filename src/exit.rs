//! Exit codes of the process: the one list of them. They follow `sysexits.h` where it has a fitting code, so that a
//! supervisor can tell what is worth a restart.

use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Clean = 0,
    Failed = 1,
    Usage = 64,
    Unavailable = 69,
    BrokenPromise = 70,
    State = 74,
    NotAllowed = 77,
    Configuration = 78,
}

/// Every code with its meaning, as `--help` lists them.
pub const MEANINGS: &str = "\
Exit codes:
   0  clean
   1  failed
  64  wrong usage of the command line
  69  a dependency (Kafka, PostgreSQL) is unavailable
  70  a promise is broken: a person must look, do not restart in a loop
  74  the state directory cannot be used
  77  not allowed: credentials or access rights are missing
  78  the configuration or the topics are not valid";

impl Exit {
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::{Exit, MEANINGS};

    #[test]
    fn help_lists_every_exit_code() {
        let all = [
            Exit::Clean,
            Exit::Failed,
            Exit::Usage,
            Exit::Unavailable,
            Exit::BrokenPromise,
            Exit::State,
            Exit::NotAllowed,
            Exit::Configuration,
        ];
        for exit in all {
            let code = format!("{:>4}  ", exit.code());
            assert!(
                MEANINGS.lines().any(|line| line.starts_with(&code)),
                "{exit:?}"
            );
        }
        assert_eq!(MEANINGS.lines().count(), all.len() + 1);
    }
}
