//! Where the tests run: a machine within the machine.
//!
//! `unshare` gives them network, mount and process namespaces of their own and an empty `/run`, in memory, for
//! their temporary files too. So no test, however wrong, touches the links of this machine; what it leaves behind
//! is there to be seen, exactly and with nobody else's beside it; and when the runner ends, in whatever way, the
//! kernel ends all of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use vswitch_netns::{Process, isolate_mounts};

use crate::shell;
use crate::{Error, Result};

/// The sandbox's own folder: temporary files belong here.
pub(crate) const FOLDER: &str = "/run";

/// Runs this program again inside a sandbox, to its end.
pub(crate) fn enter(args: &[&str]) -> Result<()> {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    // By its path: the file that we run from may have been replaced by a build.
    command.arg(shell::bin_dir()?.join(env!("CARGO_BIN_NAME"))).args(args);
    isolate_mounts(&mut command);
    let mut sandbox = Process::spawn(command)?;
    let status = sandbox.child().wait()?;
    if status.success() { Ok(()) } else { Err("see above".into()) }
}

/// What can be left behind, one line for each thing.
pub(crate) struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Makes a fresh sandbox usable and looks at it. This process is its init (process 1).
    pub(crate) async fn first() -> Result<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "tmpfs", FOLDER]);
        let mut loopback = Command::new("ip");
        loopback.args(["link", "set", "lo", "up"]);
        for command in [mount, loopback] {
            shell::quiet_success(command).await?;
        }
        Self::take().await
    }

    /// Waits until the sandbox looks as it did; an error that lists what is left.
    pub(crate) async fn expect_again(&self) -> Result<()> {
        let mut left = BTreeSet::new();
        // The kernel ends orphans and namespaces on its own time.
        let clean = shell::wait_until("nothing is left", Duration::from_secs(5), async || {
            left = Self::take().await?.0.symmetric_difference(&self.0).cloned().collect();
            Ok(left.is_empty())
        });
        clean.await.map_err(|error| {
            let list = left.iter().map(|line| format!("\n    {line}")).collect::<String>();
            Error::from(format!("the tests have left something behind ({error}):{list}"))
        })
    }

    async fn take() -> Result<Self> {
        reap();
        let mut things = BTreeSet::new();
        for (what, args) in
            [("link", &["-br", "link"][..]), ("namespace", &["netns"]), ("address", &["-br", "address"])]
        {
            let mut command = Command::new("ip");
            command.args(args);
            let lines = shell::quiet(command).await?.stdout;
            things.extend(lines.lines().map(|line| format!("{what} {line}")));
        }
        things.extend(processes()?);
        things.extend(files(Path::new(FOLDER))?);
        Ok(Self(things))
    }
}

/// Ends the zombies that the kernel has handed to init.
fn reap() {
    while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

/// Every process of the sandbox but this one.
fn processes() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid != std::process::id() {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            found.push(format!("process {pid} {}", words.replace('\0', " ")));
        }
    }
    Ok(found)
}

/// Every file below a folder.
fn files(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(format!("file {}", entry.path().display()));
        }
    }
    Ok(found)
}
