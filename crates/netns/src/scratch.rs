//! A folder without a name.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::ptr;

use nix::errno::Errno;

use crate::{Error, Result};

/// An empty folder in memory: a tmpfs that is mounted nowhere and held by a descriptor. It goes, with all that is
/// in it, when its owner drops it or ends in any way; there is no name in `/tmp` that could be left over.
///
/// Files, sockets and folders in it are used by [`Scratch::path`] as anywhere else, by other processes of the
/// same user too. It cannot be found by a path that something has resolved (realpath(3)).
#[derive(Debug)]
pub struct Scratch {
    mount: OwnedFd,
}

impl Scratch {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let mount = mount_tmpfs().map_err(Error::errno("make a folder in memory"))?;
        Ok(Self { mount })
    }

    /// Where it is, for as long as this process holds it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.mount.as_raw_fd()).into()
    }
}

/// fsopen(2), fsconfig(2) and fsmount(2), without the move_mount(2) that would give the mount a place.
#[allow(unsafe_code)]
fn mount_tmpfs() -> nix::Result<OwnedFd> {
    const TMPFS: &CStr = c"tmpfs";
    // SAFETY: the name ends with a zero and lives for ever.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, TMPFS.as_ptr(), libc::FSOPEN_CLOEXEC) };
    let context = owned(context)?;
    let (none, create) = (ptr::null::<libc::c_void>(), libc::FSCONFIG_CMD_CREATE);
    // SAFETY: this command takes no key, no value and no number.
    let created = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), create, none, none, 0) };
    Errno::result(created)?;
    // SAFETY: the call takes integers alone; the descriptor is open.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, 0) })
}

/// What a system call has returned: a descriptor, or an error.
#[allow(unsafe_code)]
fn owned(returned: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = Errno::result(returned)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
