//! Processes that end with their owner.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::wait;
use nix::unistd::{Pid, getppid, setsid};

use crate::{Error, Result};

/// A child process that is killed when this value is dropped, and by the kernel when the thread that
/// started it ends in any way (prctl(2), `PR_SET_PDEATHSIG`). Start it on a thread that outlives it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command`.
    pub fn spawn(mut command: Command) -> Result<Self> {
        tie_to_owner(&mut command);
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(Error::system(format!("start {name}")))?;
        Ok(Self { child, name })
    }

    /// Runs `command` to its end; its stdout, or an error with its status and stderr.
    pub fn run(mut command: Command) -> Result<String> {
        tie_to_owner(&mut command);
        let text = describe(&command);
        let Output { status, stdout, stderr } =
            command.stdin(Stdio::null()).output().map_err(Error::system(format!("run {text}")))?;
        if !status.success() {
            let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
            return Err(Error::Failed { command: text, status, stderr });
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, to take its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(pid(self.id()), signal).map_err(Error::errno(format!("send {signal} to {}", self.name)))
    }

    /// The exit status once the process has ended; `None` if it still runs after `timeout`.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        // A reaped child has no descriptor any more, so ask for a known status first.
        let known = self.child.try_wait().map_err(Error::system(format!("wait for {}", self.name)))?;
        if known.is_some() || !ended_within(self.id(), Some(timeout))? {
            return Ok(known);
        }
        self.child.wait().map(Some).map_err(Error::system(format!("wait for {}", self.name)))
    }

    /// Asks the process to end (SIGTERM) and waits; kills it and fails when it takes longer than `timeout`.
    pub fn stop(mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_timeout(timeout)?.ok_or_else(|| Error::Timeout(format!("the end of {}", self.name)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a child that is gone already, and that is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Leaves the session of the terminal, so that neither Ctrl-C nor its closing reaches this process.
///
/// Fails in a process-group leader, such as a program that a shell started.
pub fn leave_terminal() -> Result<()> {
    setsid().map(drop).map_err(Error::errno("leave the session of the terminal"))
}

/// Makes this process the parent of descendants whose own parent has ended (prctl(2),
/// `PR_SET_CHILD_SUBREAPER`), until [`reap_orphans`].
pub fn adopt_orphans() -> Result<()> {
    set_child_subreaper(true).map_err(Error::errno("become the parent of orphans"))
}

/// Waits for the end of every child, adopted or own, so that no zombie is left to init.
pub fn reap_orphans() {
    // ECHILD: there is none any more.
    while wait().is_ok() {}
}

/// Sends `signal` to any process, a child or not, and waits for its end; one that is gone is no error.
pub(crate) fn kill_and_wait(id: u32, signal: Signal) -> Result<()> {
    match kill(pid(id), signal) {
        Ok(()) => ended_within(id, None).map(drop),
        Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::errno(format!("send {signal} to process {id}"))(errno)),
    }
}

/// Makes the kernel kill the child-to-be when the thread that starts it ends in any way, as that of a [`Process`].
#[allow(unsafe_code)]
pub fn tie_to_owner(command: &mut Command) {
    let owner = pid(std::process::id());
    let tie = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // The owner may have ended before the line above, and then nobody would send the signal.
        if getppid() == owner { Ok(()) } else { Err(io::Error::other("the owner has ended")) }
    };
    // SAFETY: between fork and exec only system calls are made: no allocation on the path to exec, no lock.
    unsafe { command.pre_exec(tie) };
}

/// Waits for the end of any process, for ever without a timeout; true if it has ended.
fn ended_within(id: u32, timeout: Option<Duration>) -> Result<bool> {
    let Some(descriptor) = open_process(id)? else { return Ok(true) };
    let timeout = match timeout {
        None => PollTimeout::NONE,
        Some(timeout) => PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
    };
    let mut fds = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::errno(format!("wait for process {id}"))(errno)),
        }
    }
}

/// A descriptor that becomes readable when the process ends (pidfd_open(2)); `None` if it is gone.
#[allow(unsafe_code)]
fn open_process(id: u32) -> Result<Option<OwnedFd>> {
    // SAFETY: the call takes two integers and no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
    match Errno::result(fd) {
        // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })),
        Err(Errno::ESRCH) => Ok(None),
        Err(errno) => Err(Error::errno(format!("watch process {id}"))(errno)),
    }
}

fn pid(id: u32) -> Pid {
    // Linux process ids end at 2^22.
    Pid::from_raw(id as i32)
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
