//! Keeps the host's own network stack off the netdev of a port.
//!
//! Frames that come in by a port belong to the switch alone. A tcx ingress program drops them all, after packet
//! sockets saw them and before IP does: no address on the netdev answers, no bridge or macvlan above it hears anything.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::bpf::{self, Insn, Reg};

/// `TC_ACT_SHOT` of linux/pkt_cls.h.
const DROP: i32 = 2;

/// Drops everything that the netdev hands to the stack, as long as the result lives.
///
/// # Errors
/// What the kernel said; before Linux 6.6 there is no tcx.
pub(crate) fn keep_off(ifindex: u32) -> io::Result<OwnedFd> {
    let program = bpf::load(&bpf::Program {
        kind: bpf::PROG_TYPE_SCHED_CLS,
        insns: &[Insn::set(Reg::R0, DROP), Insn::exit()],
        flags: 0,
        ifindex: 0,
        attach: bpf::ATTACH_TCX_INGRESS,
    })
    .map_err(|e| e.source)?;
    bpf::link(program.as_fd(), ifindex, bpf::ATTACH_TCX_INGRESS, 0)
}
