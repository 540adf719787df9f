//! One settle process: its configuration, its life, what it costs.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::cluster::ports;
use crate::cluster::process::{self, Process};

const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// What an [`Instance`] is started with.
#[derive(Debug, Clone)]
pub struct InstanceOptions {
    pub binary: PathBuf,
    pub name: String,
    /// Holds the configuration, the log and the state.
    pub directory: PathBuf,
    /// The configuration file, as a table.
    pub config: Table,
    pub environment: Vec<(String, String)>,
    port: u16,
}

impl InstanceOptions {
    /// An instance called `name` with a free HTTP port and its state below `directory`.
    pub fn new(binary: &Path, name: &str, directory: &Path) -> Result<Self> {
        let port = ports::free()?;
        let address = format!("127.0.0.1:{port}");
        let options = Self {
            binary: binary.to_owned(),
            name: name.to_owned(),
            directory: directory.to_owned(),
            config: Table::new(),
            environment: Vec::new(),
            port,
        };
        Ok(options
            .set("kafka.instance_id", name)
            .set(
                "state.directory",
                directory.join("state").display().to_string(),
            )
            .set("http.listen", address.as_str())
            .set("http.advertise", address.as_str()))
    }

    /// Sets one key of the configuration, `pipeline.workers` for example. A table is merged into the one there.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        insert(&mut self.config, path, value.into());
        self
    }

    /// Removes a key or a table of the configuration.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        let (parent, key) = path
            .rsplit_once('.')
            .map_or((None, path), |(p, k)| (Some(p), k));
        let mut table = Some(&mut self.config);
        for level in parent.into_iter().flat_map(|parent| parent.split('.')) {
            table = table.and_then(|table| table.get_mut(level)?.as_table_mut());
        }
        if let Some(table) = table {
            table.remove(key);
        }
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The file the configuration is written to.
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("settle.toml")
    }

    /// The directory of the local state.
    pub fn state_directory(&self) -> PathBuf {
        self.directory.join("state")
    }
}

fn insert(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        Some((level, rest)) => {
            let inner = table
                .entry(level)
                .or_insert_with(|| Value::Table(Table::new()));
            let inner = inner.as_table_mut().expect("a path leads through tables");
            insert(inner, rest, value);
        }
        None => match (table.get_mut(path), value) {
            (Some(Value::Table(old)), Value::Table(new)) => old.extend(new),
            (_, value) => {
                table.insert(path.to_owned(), value);
            }
        },
    }
}

/// A settle process; killed on drop.
#[derive(Debug)]
pub struct Instance {
    options: InstanceOptions,
    process: Process,
}

impl Instance {
    /// Writes the configuration and starts `settle run`.
    pub fn start(options: InstanceOptions) -> Result<Self> {
        let process = launch(&options)?;
        Ok(Self { options, process })
    }

    /// Starts it again, on the same state and port; ends it with SIGKILL first when it runs.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(&self.options)?;
        Ok(())
    }

    /// Starts it again with changed options.
    pub fn restart_with(&mut self, options: InstanceOptions) -> Result<()> {
        self.options = options;
        self.restart()
    }

    pub fn options(&self) -> &InstanceOptions {
        &self.options
    }

    pub fn name(&self) -> &str {
        &self.options.name
    }

    pub fn pid(&self) -> libc::pid_t {
        self.process.pid()
    }

    /// The address of its HTTP interface, `http://127.0.0.1:8080`.
    pub fn http(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.options.port))
    }

    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// The last lines of the log, with its path.
    pub fn tail(&self) -> String {
        self.process.tail()
    }

    /// SIGKILL, and its end.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// SIGTERM, and its exit status.
    pub fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        self.process.terminate(limit)
    }

    /// Waits for it to end by itself.
    pub fn wait_exit(&self, limit: Duration) -> Result<ExitStatus> {
        self.process.wait(limit)
    }

    /// `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.process.signal(libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.signal(libc::SIGCONT);
    }

    /// Waits until `GET /readyz` answers 200; the error shows the log.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        let what = format!("readiness of {}", self.options.name);
        self.process.until(&what, limit, || {
            Ok((get_status(self.address(), "/readyz").ok() == Some(200)).then_some(()))
        })
    }

    /// CPU time used so far, user and system.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let fields = process::stat(self.pid()).context("the process has ended")?;
        // Fields 14 and 15 of the file; the list starts with the third.
        let ticks = |index: usize| -> Result<f64> {
            let text = fields.get(index).context("/proc/<pid>/stat is short")?;
            text.parse().context("read CPU ticks")
        };
        Ok((ticks(11)? + ticks(12)?) / ticks_per_second())
    }

    /// Resident memory.
    pub fn rss_bytes(&self) -> Result<u64> {
        self.memory("VmRSS")
    }

    /// The most resident memory it has had.
    pub fn peak_rss_bytes(&self) -> Result<u64> {
        self.memory("VmHWM")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .context("the process has ended")?;
        let kibibytes: u64 = status
            .lines()
            .find_map(|line| {
                line.strip_prefix(field)?
                    .strip_prefix(':')?
                    .split_whitespace()
                    .next()
            })
            .with_context(|| format!("/proc/<pid>/status has no {field}"))?
            .parse()?;
        Ok(kibibytes * 1024)
    }
}

fn launch(options: &InstanceOptions) -> Result<Process> {
    fs::create_dir_all(&options.directory)
        .with_context(|| format!("create {}", options.directory.display()))?;
    let text = toml::to_string(&options.config).context("write the configuration")?;
    fs::write(options.config_file(), text)?;
    let mut command = Command::new(&options.binary);
    command
        .current_dir(&options.directory)
        .args(["run", "--config"])
        .arg(options.config_file())
        .envs(
            options
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        );
    let log = options.directory.join(format!("{}.log", options.name));
    Process::start(&options.name, command, &log)
}

/// The status of a `GET`.
pub fn get_status(address: SocketAddr, path: &str) -> Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, PROBE_LIMIT)?;
    stream.set_read_timeout(Some(PROBE_LIMIT))?;
    stream.set_write_timeout(Some(PROBE_LIMIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    line.split(' ')
        .nth(1)
        .context("the answer has no status")?
        .parse()
        .context("read the status")
}

#[expect(unsafe_code, reason = "sysconf(3) takes an integer")]
fn ticks_per_second() -> f64 {
    // SAFETY: no pointers.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    f64::from(i32::try_from(ticks).expect("the clock tick is a small number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_nest_tables_merge_and_can_be_removed() {
        let options = InstanceOptions::new(Path::new("settle"), "a", Path::new("/tmp/a"))
            .unwrap()
            .set("topics.partitions", 4)
            .set(
                "topics",
                Table::from_iter([("source".to_owned(), Value::from("p"))]),
            )
            .set("postgres.url", "x")
            .without("postgres")
            .without("http.advertise");
        let topics = options.config["topics"].as_table().unwrap();
        assert_eq!(topics["partitions"].as_integer(), Some(4));
        assert_eq!(topics["source"].as_str(), Some("p"));
        assert!(!options.config.contains_key("postgres"));
        assert!(
            !options.config["http"]
                .as_table()
                .unwrap()
                .contains_key("advertise")
        );
    }
}
