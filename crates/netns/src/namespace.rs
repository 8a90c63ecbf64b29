//! A network namespace, held by a descriptor.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::{fs, io, thread};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;

use crate::{Error, Process, Result, mounts};

/// The calling *thread's* namespace: the main thread's would be `/proc/self/ns/net`.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// A network namespace. Clones share it; it goes with the last clone, process and link reference.
#[derive(Clone, Debug)]
pub struct Namespace {
    descriptor: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes an empty namespace: loopback up, IPv6 addresses usable at once (no duplicate address
    /// detection, RFC 4862 section 5.4, which would cost every address its first second).
    pub fn new() -> Result<Self> {
        let namespace = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(Error::errno("create a network namespace"))?;
            Self::current()
        })?;
        namespace.set_up("lo")?;
        // The larger of the two decides for links to come.
        namespace.ipv6_sysctl("all", "accept_dad", "0")?;
        namespace.ipv6_sysctl("default", "accept_dad", "0")?;
        Ok(namespace)
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        Self::open(CURRENT)
    }

    /// Moves the calling thread into a fresh namespace without any link and returns the one that it has
    /// left. Do it before anything opens a socket: every socket keeps the namespace that it was opened in.
    pub fn leave() -> Result<Self> {
        let left = Self::current()?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(Error::errno("create a network namespace"))?;
        Ok(left)
    }

    /// The namespace behind a path such as `/run/netns/NAME`, `/proc/PID/ns/net` or `/proc/PID/fd/N`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file =
            File::open(path).map_err(Error::system(format!("open network namespace {}", path.display())))?;
        Ok(Self { descriptor: Arc::new(file.into()) })
    }

    /// Where other processes find this namespace for as long as this process holds it (`nsenter --net=...`).
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.descriptor.as_raw_fd())
    }

    /// The kernel's number of this namespace, the one in `readlink /proc/PID/ns/net`.
    pub fn inode(&self) -> Result<u64> {
        fs::metadata(self.path()).map(|meta| meta.ino()).map_err(Error::system("stat a network namespace"))
    }

    /// Runs `work` on a thread inside this namespace and hands on its result or panic.
    ///
    /// Sockets opened by `work` stay in this namespace wherever they are used. A [`Process`] must not be
    /// started by `work`: it would be killed with the thread.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| {
            setns(self.as_fd(), CloneFlags::CLONE_NEWNET)
                .map_err(Error::errno("enter a network namespace"))?;
            Ok(work())
        })
    }

    /// Writes a sysctl of this namespace; `key` is its path, such as `net/ipv6/conf/all/forwarding`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| fs::write(format!("/proc/sys/{key}"), value))?
            .map_err(Error::system(format!("set sysctl {key} to {value}")))
    }

    /// Keeps the namespace's own IPv6 off a link: no link-local address, and so no frame that nobody asked
    /// for. The end of a veth that belongs to a switch is such a link.
    pub fn disable_ipv6(&self, link: &str) -> Result<()> {
        self.ipv6_sysctl(link, "disable_ipv6", "1")
    }

    /// A kernel without IPv6 has no such sysctls, and needs none.
    fn ipv6_sysctl(&self, link: &str, key: &str, value: &str) -> Result<()> {
        if !Path::new("/proc/sys/net/ipv6").exists() {
            return Ok(());
        }
        self.sysctl(&format!("net/ipv6/conf/{link}/{key}"), value)
    }

    /// A command that will run inside this namespace, with a `/sys` that shows the devices in it (as
    /// `ip netns exec` does); everything else is inherited. It lives its own life, see [`Process`] for
    /// one that does not.
    #[allow(unsafe_code)]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let namespace = self.clone();
        let mut command = Command::new(program);
        // SAFETY: between fork and exec only system calls are made: no allocation, no lock.
        unsafe { command.pre_exec(move || enter_for_exec(namespace.as_fd())) };
        command
    }

    /// Runs a program to its end inside this namespace; its stdout, or an error that says all.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
        let mut command = self.command(program);
        command.args(args);
        Process::run(command)
    }

    /// Ids of the processes that have a place in this namespace, except the calling process.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let inode = self.inode()?;
        let here = |pid: &u32| {
            *pid != std::process::id()
                && fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| meta.ino() == inode)
        };
        let entries = fs::read_dir("/proc").map_err(Error::system("read /proc"))?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(pids.filter(here).collect())
    }

    /// Kills every process in this namespace (except the calling one) and waits until they are gone.
    pub fn kill_processes(&self) -> Result<()> {
        loop {
            let pids = self.processes()?;
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids {
                crate::process::kill_and_wait(pid, Signal::SIGKILL)?;
            }
        }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// What a forked child does to become a process of a namespace.
fn enter_for_exec(namespace: BorrowedFd<'_>) -> io::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    mounts::isolate()?;
    // A system without /sys is no error; the mount below decides.
    let _ = umount2("/sys", MntFlags::MNT_DETACH);
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
    Ok(())
}

/// Runs `work` on a thread of its own, because namespaces belong to threads.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
