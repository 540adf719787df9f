//! Stops one thread of a child process while the others go on: what a loop that is stuck looks like from outside.

use std::fs;
use std::marker::PhantomData;
use std::{io, ptr};

use anyhow::{Context, Result, bail};

/// A thread that stands still until this is dropped. Only the thread that stopped it can let it go.
#[derive(Debug)]
pub struct Stuck {
    thread: libc::pid_t,
    not_send: PhantomData<*const ()>,
}

impl Stuck {
    /// Stops the thread of `process` that is called `name`.
    pub fn stop(process: libc::pid_t, name: &str) -> Result<Self> {
        let thread = find(process, name)?;
        attach(thread).with_context(|| format!("stop the thread {name} of {process}"))?;
        Ok(Self {
            thread,
            not_send: PhantomData,
        })
    }
}

impl Drop for Stuck {
    #[expect(unsafe_code, reason = "ptrace(2) is called with integers only")]
    fn drop(&mut self) {
        // SAFETY: no pointers. Fails when the process has ended.
        unsafe {
            libc::ptrace(
                libc::PTRACE_DETACH,
                self.thread,
                ptr::null_mut::<libc::c_void>(),
                0,
            );
        }
    }
}

fn find(process: libc::pid_t, name: &str) -> Result<libc::pid_t> {
    let tasks = format!("/proc/{process}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("read {tasks}"))? {
        let task = task?;
        let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if comm.trim_end() == name {
            return Ok(task.file_name().to_string_lossy().parse()?);
        }
    }
    bail!("{process} has no thread {name}")
}

#[expect(
    unsafe_code,
    reason = "ptrace(2) and waitpid(2) are called with integers only"
)]
fn attach(thread: libc::pid_t) -> io::Result<()> {
    let checked = |result: libc::c_long| match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: no memory of ours is touched: addresses and data of these requests are null, and so is the status.
    unsafe {
        checked(libc::ptrace(libc::PTRACE_SEIZE, thread, nothing, nothing))?;
        checked(libc::ptrace(
            libc::PTRACE_INTERRUPT,
            thread,
            nothing,
            nothing,
        ))?;
        checked(libc::waitpid(thread, ptr::null_mut(), libc::__WALL).into())
    }
}
