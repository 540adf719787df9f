//! Child processes that cannot outlive this one: parent death signal, own process group, output in a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::cluster::wait;

/// Lines of a log that an error shows.
const TAIL_LINES: usize = 25;
/// More than so many lines need.
const TAIL_BYTES: u64 = 64 * 1024;
const REAP_LIMIT: Duration = Duration::from_secs(20);

/// A running or finished child; killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    pid: libc::pid_t,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        detach(&mut command, out)?;
        let child = spawn(command).with_context(|| format!("start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            log: log.to_owned(),
            pid: libc::pid_t::try_from(child.id()).expect("the kernel's pids fit pid_t"),
            child: Mutex::new(child),
        })
    }

    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .try_wait()
            .expect("the child is ours to wait for")
    }

    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// Sends a signal; a process that has ended is left alone.
    pub fn signal(&self, signal: libc::c_int) {
        if self.is_running() {
            send(self.pid, signal);
        }
    }

    /// Waits for the end; the error shows the last lines of the log.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        wait::until(&format!("the end of {}", self.name), limit, || {
            Ok(self.exit_status())
        })
        .map_err(|error| anyhow!("{error}\n{}", self.tail()))
    }

    /// SIGKILL, and the end of the process.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
        // A killed process that is not reaped in this time hangs in the kernel; its death signal stays.
        let _ = self.wait(REAP_LIMIT);
    }

    /// SIGTERM, and the exit status.
    pub fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM);
        self.wait(limit)
    }

    /// Waits for `condition` and fails at once, with the log, when the process ends before it holds.
    pub fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait::until(what, limit, || match condition()? {
            Some(value) => Ok(Some(value)),
            None => match self.exit_status() {
                Some(status) => bail!("{} ended with {}", self.name, describe(status)),
                None => Ok(None),
            },
        })
        .map_err(|error| anyhow!("{error:#}\n{}", self.tail()))
    }

    /// The last lines of the log, with its path.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The exit code, or the signal that ended the process.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The last lines of a log, with its path.
pub fn tail(log: &Path) -> String {
    let text = end_of(log).unwrap_or_else(|error| error.to_string().into_bytes());
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    format!("last lines of {}:\n{}", log.display(), last.join("\n"))
}

fn end_of(log: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// From the terminal: output goes to `out`, Ctrl-C does not reach it, and it ends with this process.
fn detach(command: &mut Command, out: File) -> Result<()> {
    command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .process_group(0);
    die_with_parent(command);
    Ok(())
}

/// Runs a short command to its end; the error carries what it printed.
pub fn run(name: &str, mut command: Command, log: &Path) -> Result<()> {
    let out = File::create(log).with_context(|| format!("create {}", log.display()))?;
    detach(&mut command, out)?;
    let status = spawn(command)
        .with_context(|| format!("start {name}"))?
        .wait()?;
    if !status.success() {
        bail!("{name} ended with {}\n{}", describe(status), tail(log));
    }
    Ok(())
}

/// All descendants of a process, as far as `/proc` shows them.
pub fn descendants(pid: libc::pid_t) -> Vec<libc::pid_t> {
    let parents: Vec<(libc::pid_t, libc::pid_t)> = fs::read_dir("/proc")
        .map(|entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .filter_map(|child| Some((child, parent_of(child)?)))
                .collect()
        })
        .unwrap_or_default();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(child, _)| *child),
        );
        next += 1;
    }
    found.split_off(1)
}

/// Whether a process exists and is no zombie.
pub fn is_alive(pid: libc::pid_t) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

fn parent_of(pid: libc::pid_t) -> Option<libc::pid_t> {
    stat(pid)?.get(1)?.parse().ok()
}

/// The fields of `/proc/<pid>/stat` from the third (state) on.
pub fn stat(pid: libc::pid_t) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may itself contain any character.
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

#[expect(
    unsafe_code,
    reason = "kill(2) takes two integers and touches no memory of ours"
)]
pub fn send(pid: libc::pid_t, signal: libc::c_int) {
    // SAFETY: no pointers. The caller holds a child that is not reaped or names a descendant it has just seen.
    unsafe {
        libc::kill(pid, signal);
    }
}

#[expect(
    unsafe_code,
    reason = "the death signal has to be set between fork and exec"
)]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: the closure runs in the forked child and calls prctl(2) and getppid(2) only: both are
    // async-signal-safe and allocate nothing.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the signal was set.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

type Request = (Command, Sender<io::Result<Child>>);

/// The parent death signal follows the *thread* that forked, so one thread that never ends forks all children.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<Request>();
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    // Who asked may have panicked meanwhile: then the child is reaped by its handle's absence.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(requests)
    });
    let (answer, child) = mpsc::channel();
    spawner
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .send((command, answer))
        .map_err(|_| anyhow!("the spawner thread has ended"))?;
    Ok(child.recv().context("the spawner thread has ended")??)
}
