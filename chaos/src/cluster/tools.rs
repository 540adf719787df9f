//! Kafka's own tools, as an operator runs them: `kafka-topics.sh` and the like are these classes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cluster::jars;

/// A tool, by the class that its script starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `kafka-topics.sh`
    Topics,
    /// `kafka-consumer-groups.sh`
    ConsumerGroups,
    /// `kafka-transactions.sh`
    Transactions,
}

impl Tool {
    const fn class(self) -> &'static str {
        match self {
            Self::Topics => "org.apache.kafka.tools.TopicCommand",
            Self::ConsumerGroups => "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            Self::Transactions => "org.apache.kafka.tools.TransactionsCommand",
        }
    }

    /// Runs it against these brokers; what it printed, or an error with that.
    pub fn run(self, bootstrap: &str, arguments: &[&str]) -> Result<String> {
        let output = java()
            .args(["-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx96m"])
            .arg("-cp")
            .arg(classpath()?)
            .arg(self.class())
            .args(["--bootstrap-server", bootstrap])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start {}", self.class()))?;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        ensure!(
            output.status.success(),
            "{} {arguments:?}: {}\n{printed}",
            self.class(),
            output.status
        );
        Ok(printed)
    }
}

/// The tools before the broker, which brings the libraries of others that they need.
fn classpath() -> Result<String> {
    let jars = jars::directory()?.display();
    Ok(format!("{jars}/tools/*:{jars}/*"))
}

/// The Java that runs Kafka.
pub fn java() -> Command {
    Command::new(std::env::var_os("JAVA_HOME").map_or_else(
        || PathBuf::from("java"),
        |home| Path::new(&home).join("bin/java"),
    ))
}
