//! Mounts that do not show outside.

use std::ffi::CStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};

const NOTHING: Option<&str> = None;

/// Gives the command a mount namespace of its own: what is mounted in it does not show outside.
#[allow(unsafe_code)]
pub fn isolate_mounts(command: &mut Command) {
    // SAFETY: between fork and exec only system calls are made: no allocation, no lock.
    unsafe { command.pre_exec(|| Ok(isolate()?)) };
}

/// Moves the calling process into a mount namespace of its own. Makes system calls alone.
pub(crate) fn isolate() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    match stop_propagation() {
        // The root of a chroot is no mount point, and then nothing can be said about what is mounted below it.
        Err(Errno::EINVAL) => {
            make_root_a_mount()?;
            stop_propagation()
        }
        done => done,
    }
}

fn stop_propagation() -> nix::Result<()> {
    mount(NOTHING, "/", NOTHING, MsFlags::MS_SLAVE | MsFlags::MS_REC, NOTHING)
}

/// Moves from a folder that is the root of a chroot to the same folder as a mount. It has to be mounted somewhere
/// where that does not show outside: over `/proc`, which is a mount in every usable chroot.
fn make_root_a_mount() -> nix::Result<()> {
    let mut buffer = [0; libc::PATH_MAX as usize];
    let folder = current_folder(&mut buffer)?;
    mount(NOTHING, "/proc", NOTHING, MsFlags::MS_PRIVATE, NOTHING)?;
    mount(Some("/"), "/proc", NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)?;
    chroot("/proc")?;
    chdir(folder)
}

/// The current folder, without an allocation.
#[allow(unsafe_code)]
fn current_folder(buffer: &mut [u8]) -> nix::Result<&CStr> {
    // SAFETY: the buffer is as long as we say.
    let path = unsafe { libc::getcwd(buffer.as_mut_ptr().cast(), buffer.len()) };
    if path.is_null() {
        return Err(Errno::last());
    }
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::ENAMETOOLONG)
}
