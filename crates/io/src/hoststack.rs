//! Keeps the host's own network stack off the netdev of a port.
//!
//! Frames that come in by a port belong to the switch alone. A tcx ingress program drops them all, save those that
//! take the shortcut ([`crate::shortcut`]), after XDP programs and packet sockets saw them and before IP does: no
//! address on the netdev answers, no bridge or macvlan above it hears anything. It depends on no driver, so it can
//! stay while the port has another device, or none.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use crate::bpf::kernel::DROP;
use crate::bpf::{self, Insn, Reg};
use crate::shortcut::Shortcut;

/// Drops everything that a netdev hands to the stack, as long as it lives; save, where it has a [`Shortcut`], what
/// takes that.
#[derive(Debug)]
pub struct HostFilter {
    _link: bpf::Attached,
}

impl HostFilter {
    /// On the netdev with this interface index in the calling thread's network namespace. It comes before all tcx
    /// programs that are there: one that accepts a frame would end their chain. The kernel lets a process have one
    /// for each netdev.
    ///
    /// # Errors
    /// What the kernel said; before Linux 6.6 there is no tcx.
    pub fn attach(ifindex: u32, shortcut: Option<&Shortcut>) -> io::Result<Self> {
        let program = match shortcut {
            Some(shortcut) => shortcut.host_filter(),
            None => program()?,
        };
        let link = bpf::link(program, ifindex, bpf::ATTACH_TCX_INGRESS, bpf::F_BEFORE)?;
        Ok(Self { _link: link })
    }
}

/// The one program of all ports, loaded for the first of them and for the life of the process. It costs some
/// milliseconds, and knows nothing of a netdev.
fn program() -> io::Result<BorrowedFd<'static>> {
    static PROGRAM: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(program) = PROGRAM.get() {
        return Ok(program.as_fd());
    }
    let program = bpf::load(&bpf::Program {
        kind: bpf::PROG_TYPE_SCHED_CLS,
        insns: &[Insn::set(Reg::R0, DROP), Insn::exit()],
        flags: 0,
        ifindex: 0,
        attach: bpf::ATTACH_TCX_INGRESS,
    })
    .map_err(|e| e.source)?;
    // Another thread may have been faster: then this one is closed again.
    Ok(PROGRAM.get_or_init(|| program).as_fd())
}
