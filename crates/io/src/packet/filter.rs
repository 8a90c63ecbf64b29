//! Refuses frames that would block the receive ring, and leaves to the shortcut those of its flows.
//!
//! A vnet header knows GSO of TCP and of UDP (`UDP_SEGMENT`). For a frame of any other GSO type (SCTP; the UDP
//! fragmentation of a hostile guest, who only has to write `gso_type` 3) the kernel's `tpacket_rcv` marks the ring's
//! next slot as taken, finds that it can make no header, drops the frame, and forgets the mark: the slot is never
//! filled, and since slots are filled in order no frame is received any more (seen with Linux 6.18).
//!
//! So they are kept from the ring by a socket filter, which the kernel runs before it takes a slot. A program sees
//! the segment size, but not the GSO type, and the bytes do not tell (UDP has two types, and the sender may lie);
//! so the type is read from the skb itself, whose layout the kernel's BTF describes. Without a shortcut, frames
//! without GSO are let in after three instructions.
//!
//! Where there is no filter (see [`Filter::attach`]) the queue finds out that its ring is blocked, and has its port
//! opened anew.
//!
//! Other ways are worse: TPACKET_V3 leaves a garbage entry in its block instead, and hands out frames late; a new ring
//! costs two grace periods of RCU for each such frame, which its sender may repeat at will.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::socket::Socket;
use crate::bpf::kernel::{function, skb};
use crate::bpf::{self, Cond, Insn, Line, LoadError, Reg};
use crate::btf::{self, SkbFields};
use crate::shortcut::Shortcut;
use crate::shortcut::program::{self, GSO_SIZE, SKB, STAY};

/// The kernel's `SKB_GSO_TCPV4`, `SKB_GSO_TCPV6` and `SKB_GSO_UDP_L4`: what a vnet header can say.
const KNOWN_GSO: i32 = 1 | 1 << 4 | 1 << 17;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    #[error("the kernel has no type information (CONFIG_DEBUG_INFO_BTF)")]
    NoBtf,
    #[error("the kernel refused to {step}: {source}")]
    System { step: &'static str, source: io::Error },
    /// The verifier's log is left out: it is the whole program, and what is missing is the right.
    #[error("the kernel refused its program, which needs CAP_BPF and CAP_PERFMON: {}", .0.source)]
    Program(#[from] LoadError),
}

/// Counts what a socket's filter refused.
#[derive(Debug)]
pub(super) struct Filter {
    refused: OwnedFd,
    has_shortcut: bool,
}

impl Filter {
    /// Puts a filter of its own before the socket. Needs CAP_BPF, and CAP_PERFMON to read the skb.
    /// With a `shortcut`, frames that may pass by it are kept from the socket as well.
    pub(super) fn attach(socket: &Socket, shortcut: Option<&Shortcut>) -> Result<Self, FilterError> {
        let at = |step| move |source| FilterError::System { step, source };
        let fields = btf::skb_fields().ok_or(FilterError::NoBtf)?;
        let refused = bpf::map::array(size_of::<u64>() as u32, 1).map_err(at("make a counter"))?;
        let load = |shortcut: Option<&Shortcut>| {
            bpf::load(&bpf::Program {
                kind: bpf::PROG_TYPE_SOCKET_FILTER,
                insns: &filter(fields, &refused, shortcut),
                flags: 0,
                ifindex: 0,
                attach: 0,
            })
        };
        let (program, has_shortcut) = match shortcut.and_then(|shortcut| load(Some(shortcut)).ok()) {
            Some(program) => (program, true),
            // A verifier that does not follow the whole may follow the part that the ring needs.
            None => (load(None)?, false),
        };
        socket.filter(program.as_fd()).map_err(at("attach a filter"))?;
        Ok(Self { refused, has_shortcut })
    }

    /// Whether it looks for flows of the shortcut.
    pub(super) fn has_shortcut(&self) -> bool {
        self.has_shortcut
    }

    /// Frames refused since it was attached.
    pub(super) fn refused(&self) -> io::Result<u64> {
        bpf::map::first_value(self.refused.as_fd())
    }
}

/// Keeps all bytes of a frame; or none where its GSO type is unknown (or cannot be read), or where it passes by the
/// shortcut.
fn filter(fields: SkbFields, refused: &OwnedFd, shortcut: Option<&Shortcut>) -> Vec<Insn> {
    use Line::{Do, If, Label};
    use Reg::{Frame, R0, R1, R2, R3};
    // On the stack.
    const HEAD: i16 = -8;
    const END: i16 = -16;
    const GSO_TYPE: i16 = -24;
    let read = |to: i16, len| {
        [
            Do(Insn::copy(R1, Frame)), // (to, len, from)
            Do(Insn::add(R1, to.into())),
            Do(Insn::set(R2, len)),
            Do(Insn::call(function::PROBE_READ_KERNEL)),
        ]
    };
    let read_field = |to, len, field: u16| {
        let from = [Do(Insn::copy(R3, SKB)), Do(Insn::add(R3, field.into()))];
        from.into_iter().chain(read(to, len))
    };
    let [counter, counter_high] = Insn::map_value(R1, refused.as_fd(), 0);
    let mut lines = vec![Do(Insn::copy(SKB, R1)), Do(Insn::load(GSO_SIZE, SKB, skb::GSO_SIZE))];
    lines.extend(shortcut.iter().flat_map(|shortcut| program::begin(shortcut.maps())));
    lines.push(If(Cond::Is(GSO_SIZE, 0), "sound"));
    lines.extend(read_field(HEAD, 8, fields.head));
    lines.extend(read_field(END, 4, fields.end));
    lines.extend([
        Do(Insn::load_long(R3, Frame, HEAD)),
        Do(Insn::load(R1, Frame, END)),
        Do(Insn::add_register(R3, R1)),
        Do(Insn::add(R3, fields.gso_type.into())),
    ]);
    lines.extend(read(GSO_TYPE, 4));
    lines.extend([
        Do(Insn::load(R0, Frame, GSO_TYPE)),
        Do(Insn::and(R0, KNOWN_GSO)),
        If(Cond::NotEqual(R0, 0), "sound"),
        Do(counter),
        Do(counter_high),
        Do(Insn::set(R2, 1)),
        Do(Insn::add_atomic(R1, 0, R2)),
        Do(Insn::set(R0, 0)),
        Do(Insn::exit()),
        Label("sound"),
    ]);
    lines.extend(shortcut.iter().flat_map(|shortcut| program::decide(shortcut.maps())));
    lines.extend([Label(STAY), Do(Insn::set(R0, -1)), Do(Insn::exit())]);
    bpf::assemble(&lines)
}
