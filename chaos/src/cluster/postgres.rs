//! PostgreSQL from the system's binaries, in a data directory and on a port of its own.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use crate::cluster::certificates::Issued;
use crate::cluster::ports;
use crate::cluster::process::{self, Process};
use crate::cluster::wait;

/// Names the directory of `initdb` and `postgres` where it is none of the usual ones.
pub const BINARIES_VARIABLE: &str = "CHAOS_POSTGRES_BIN";

const USER: &str = "settle";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const QUERY_LIMIT: Duration = Duration::from_secs(30);

/// A running server; stopped on drop.
#[derive(Debug)]
pub struct Postgres {
    binaries: PathBuf,
    directory: PathBuf,
    port: u16,
    account: Option<Account>,
    process: Mutex<Option<Process>>,
}

/// PostgreSQL refuses to run as root, so root runs it as this user.
#[derive(Debug, Clone, Copy)]
struct Account {
    user: u32,
    group: u32,
}

impl Postgres {
    /// Makes a new server below `directory` and returns when it answers queries.
    pub fn start(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let account = is_root().then(Account::unprivileged).transpose()?;
        if let Some(Account { user, group }) = account {
            chown(directory, Some(user), Some(group))?;
        }
        let postgres = Self {
            binaries: binaries()?,
            directory: directory.to_owned(),
            port: ports::free()?,
            account,
            process: Mutex::new(None),
        };
        postgres.initialise()?;
        postgres.launch()?;
        Ok(postgres)
    }

    /// The address of a new, empty database called `settle`.
    pub fn url(&self) -> String {
        self.url_of(USER)
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates a database; it may exist already.
    pub fn create_database(&self, name: &str) -> Result<()> {
        let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        match self.execute("postgres", &statement) {
            Err(error) if code_of(&error) == Some(&SqlState::DUPLICATE_DATABASE) => Ok(()),
            result => result.with_context(|| format!("create the database {name}")),
        }
    }

    /// Shows this certificate from now on. The new role `name` may come in with TLS and its password
    /// only; everybody else as before.
    pub fn serve_tls(&self, issued: &Issued, name: &str, password: &str) -> Result<()> {
        for (from, to) in [
            (&issued.certificate, "server.crt"),
            (&issued.key, "server.key"),
        ] {
            let to = self.data().join(to);
            fs::copy(from, &to)?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600))?;
            if let Some(Account { user, group }) = self.account {
                chown(&to, Some(user), Some(group))?;
            }
        }
        let role = format!(
            "DROP ROLE IF EXISTS \"{name}\"; \
             CREATE ROLE \"{name}\" SUPERUSER LOGIN PASSWORD '{password}'; \
             ALTER SYSTEM SET ssl = on"
        );
        for statement in role.split("; ") {
            self.execute("postgres", statement)?;
        }
        let access = self.data().join("pg_hba.conf");
        let rules = format!(
            "hostssl all {name} all scram-sha-256\nhostnossl all {name} all reject\nhost all all all trust\n"
        );
        fs::write(access, rules)?;
        self.restart()
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.directory.join("postgres.log")
    }

    pub fn pid(&self) -> Option<libc::pid_t> {
        self.with(Process::pid)
    }

    pub fn is_running(&self) -> bool {
        self.with(Process::is_running).unwrap_or(false)
    }

    /// A fast shutdown: sessions are ended, transactions rolled back, data flushed.
    pub fn stop(&self) -> Result<()> {
        self.with(|process| {
            process.signal(libc::SIGINT);
            process.wait(STOP_LIMIT).map(drop)
        })
        .unwrap_or(Ok(()))
    }

    /// SIGKILL to the server and all of its sessions.
    pub fn kill(&self) {
        self.with(|process| {
            let sessions = process::descendants(process.pid());
            process.kill();
            for session in &sessions {
                process::send(*session, libc::SIGKILL);
            }
            // A session that lives holds the shared memory, and the next server refuses to start. One that does not
            // die is left to that error.
            let _ = wait::until("the end of all sessions", STOP_LIMIT, || {
                let gone = !sessions.iter().any(|pid| process::is_alive(*pid));
                Ok(gone.then_some(()))
            });
        });
    }

    /// SIGSTOP to the server and all of its sessions.
    pub fn pause(&self) {
        self.signal_all(libc::SIGSTOP);
    }

    /// SIGCONT to the server and all of its sessions.
    pub fn resume(&self) {
        self.signal_all(libc::SIGCONT);
    }

    /// Starts a stopped or killed server on its port and data.
    pub fn restart(&self) -> Result<()> {
        if self.is_running() {
            self.stop()?;
        }
        self.launch()
    }

    fn signal_all(&self, signal: libc::c_int) {
        self.with(|process| {
            process.signal(signal);
            for session in process::descendants(process.pid()) {
                process::send(session, signal);
            }
        });
    }

    fn with<T>(&self, call: impl FnOnce(&Process) -> T) -> Option<T> {
        let process = self
            .process
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        process.as_ref().map(call)
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn initialise(&self) -> Result<()> {
        let mut command = self.command("initdb");
        command
            .arg("--pgdata")
            .arg(self.data())
            .args(["--username", USER, "--auth", "trust", "--encoding", "UTF8"])
            .args(["--no-locale", "--no-sync"]);
        process::run("initdb", command, &self.directory.join("initdb.log"))
    }

    fn launch(&self) -> Result<()> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        let port = format!("port={}", self.port);
        let settings = [
            port.as_str(),
            "listen_addresses=127.0.0.1",
            // No socket file and no shared memory outside the data directory: nothing to leave behind.
            "unix_socket_directories=",
            "dynamic_shared_memory_type=mmap",
            "max_connections=100",
            "shared_buffers=64MB",
        ];
        for setting in settings {
            command.args(["-c", setting]);
        }
        let process = Process::start("PostgreSQL", command, &self.log())?;
        process.until("the start of PostgreSQL", START_LIMIT, || {
            match self.execute("postgres", "SELECT 1") {
                Ok(()) => Ok(Some(())),
                Err(_) => Ok(None),
            }
        })?;
        *self
            .process
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(process);
        self.create_database(USER)
    }

    fn command(&self, binary: &str) -> Command {
        let mut command = Command::new(self.binaries.join(binary));
        command.current_dir(&self.directory).env("LC_ALL", "C");
        if let Some(Account { user, group }) = self.account {
            command.uid(user).gid(group);
        }
        command
    }

    fn execute(&self, database: &str, statement: &str) -> Result<()> {
        execute(&self.url_of(database), statement)
    }
}

/// Executes statements in the database of this URL.
pub fn execute(url: &str, statements: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let work = async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let connection = tokio::spawn(connection);
        let result = client.batch_execute(statements).await;
        drop(client);
        connection.abort();
        result
    };
    runtime
        .block_on(async { tokio::time::timeout(QUERY_LIMIT, work).await })
        .with_context(|| format!("no answer within {QUERY_LIMIT:?}"))?
        .with_context(|| format!("execute {statements}"))
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.halt();
    }
}

impl Postgres {
    /// An immediate shutdown, as fast as a kill, that frees what the kernel holds for the server.
    pub fn halt(&self) {
        self.signal_all(libc::SIGCONT);
        let ended = self.with(|process| {
            process.signal(libc::SIGQUIT);
            process.wait(STOP_LIMIT).is_ok()
        });
        if ended == Some(false) {
            self.kill();
        }
    }
}

fn code_of(error: &anyhow::Error) -> Option<&SqlState> {
    error.downcast_ref::<tokio_postgres::Error>()?.code()
}

impl Account {
    /// `postgres` where the system has it, else `nobody`.
    fn unprivileged() -> Result<Self> {
        let accounts = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::of(&accounts, name))
            .context("run PostgreSQL: the system has neither the user postgres nor nobody")
    }

    fn of(accounts: &str, name: &str) -> Option<Self> {
        let fields: Vec<&str> = accounts
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name))?;
        Some(Self {
            user: fields.get(2)?.parse().ok()?,
            group: fields.get(3)?.parse().ok()?,
        })
    }
}

#[expect(unsafe_code, reason = "geteuid(2) has no arguments and cannot fail")]
fn is_root() -> bool {
    // SAFETY: no arguments, no memory.
    unsafe { libc::geteuid() == 0 }
}

/// The directory of `initdb`: named by the environment, the newest under Debian's or Red Hat's roots, or in `PATH`.
fn binaries() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os(BINARIES_VARIABLE) {
        return Ok(PathBuf::from(given));
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, bin)| has_server(bin))
        .collect();
    versions.sort();
    if let Some((_, newest)) = versions.pop() {
        return Ok(newest);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|bin| has_server(bin))
        .with_context(|| {
            format!("find initdb and postgres: install PostgreSQL or set {BINARIES_VARIABLE}")
        })
}

fn has_server(bin: &Path) -> bool {
    File::open(bin.join("initdb")).is_ok() && File::open(bin.join("postgres")).is_ok()
}
