//! Frames of known flows pass from netdev to netdev in the kernel, past the workers and their copies.
//!
//! Whoever switches says which flows these are, by [`Shortcut::insert`], once it has forwarded some frames of one: the
//! rest would be decided in the same way. A frame meets two programs on its way up from a netdev (see `program`). The
//! socket filter of the `packet` driver looks for its flow; if there is one, the frame is counted, kept from the
//! socket, and its way is noted. The host filter behind it, which drops all others, sends it there.
//!
//! What was decided must not outlive its reasons:
//! - The *epoch* is that of the whole configuration. A flow holds in the epoch that it was inserted for;
//!   while there is none ([`Shortcut::pause`]) no flow holds.
//! - *Generations* count the changes of where each address is, in slots that addresses share by their hash. A flow
//!   names those of its two addresses, as they were before they were looked up.
//!
//! Both are words of memory that the programs read for every frame, so a store ends a flow. The counters are there
//! too: they are added to before a frame leaves, each by one for a frame that is handed to a netdev as by any other
//! way out.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use crate::bpf::map::{self, LruHash, Plain};
use crate::bpf::{self, Insn, Line, LoadError};

pub(crate) mod program;

/// Ports that it can count for, from 0 on.
pub const PORTS: usize = 4096;
/// Networks that it can count for, from 0 on.
pub const NETWORKS: usize = 16384;
/// Slots of generations.
const GENERATIONS: usize = 1 << 16;
/// Flows that it knows at most; beyond, the least recently used goes.
const FLOWS: u32 = 16384;

/// Frames and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames, GSO frames as one.
    pub packets: u64,
    /// Their bytes without FCS, tag included.
    pub bytes: u64,
}

/// [`Traffic`] that the kernel counts.
#[repr(C)]
struct Count {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// Of one port: a cache line.
#[repr(C, align(64))]
struct PortCount {
    received: Count,
    transmitted: Count,
}

/// Memory that the programs see. All zero is valid.
#[repr(C)]
struct Board {
    /// 0: none.
    epoch: AtomicU64,
    /// What flows note as the time of their last frame: grows with each sweep.
    tick: AtomicU64,
    _line: [u64; 6],
    ports: [PortCount; PORTS],
    networks: [Count; NETWORKS],
    generations: [AtomicU32; GENERATIONS],
}

/// What tells the frames of a flow, in the order in which the bytes are in a frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Key {
    ifindex: u32,
    /// 0: untagged; else [`TAGGED`] and the VLAN ID.
    tag: u32,
    destination: [u8; 6],
    source: [u8; 6],
}

/// In a key: has an 802.1Q tag.
const TAGGED: u32 = 1 << 12;

/// What becomes of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Value {
    epoch: u64,
    /// The tick of the last frame.
    seen: u64,
    ifindex: u32,
    max_frame: u32,
    source: Mark,
    destination: Mark,
    ingress: u32,
    egress: u32,
    network: u32,
    _pad: u32,
}

/// A slot of generations, and the generation that it had.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Modulo [`Shortcut::generations`]' length.
    pub slot: u32,
    /// Its value.
    pub generation: u32,
}

/// The way of a frame, from the one program to the other on the same CPU.
#[repr(C)]
struct Passage {
    /// The address of its `sk_buff`; 0: the way is taken.
    skb: u64,
    /// The netdev that it came in by.
    from: u32,
    /// The netdev that it leaves by.
    to: u32,
}

// SAFETY: numbers of C's layout; their sizes leave no room for padding.
unsafe impl Plain for Key {}
// SAFETY: as above.
unsafe impl Plain for Value {}
const _: () = assert!(size_of::<Key>() == 20 && size_of::<Value>() == 56);

/// A flow: IPv4 and IPv6 frames of one source and destination that come in by one netdev in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Interface index of the netdev.
    pub ifindex: u32,
    /// VLAN ID of the 802.1Q tag; `None`: untagged.
    pub vid: Option<u16>,
    /// Source MAC.
    pub source: [u8; 6],
    /// Destination MAC.
    pub destination: [u8; 6],
}

/// Where its frames leave, as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// [`Shortcut::epoch`], as it was before all else here was looked up.
    pub epoch: u64,
    /// Interface index of the netdev.
    pub ifindex: u32,
    /// The longest frame, or segment of one, in bytes from the destination MAC on without tag. Longer ones
    /// are left to the socket.
    pub max_frame: u32,
    /// What is known of the source.
    pub source: Mark,
    /// What is known of the destination.
    pub destination: Mark,
    /// The port that frames count as received by, below [`PORTS`].
    pub ingress: u16,
    /// The port that they count as transmitted by.
    pub egress: u16,
    /// The network that they count in, below [`NETWORKS`].
    pub network: u16,
}

/// A flow that holds, for [`Shortcut::sweep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The port that its frames come in by.
    pub ingress: u16,
    /// Their network.
    pub network: u16,
    /// Their source.
    pub source: [u8; 6],
    /// Whole sweeps since its last frame: 0 where it had one since the last.
    pub idle: u64,
}

/// Why there is no shortcut.
#[derive(Debug, thiserror::Error)]
pub enum ShortcutError {
    /// The kernel refused a step.
    #[error("the kernel refused to {step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It refused a program; needed are CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
    #[error("the kernel refused a program: {0}")]
    Program(io::Error),
}

impl From<LoadError> for ShortcutError {
    /// The verifier's log is left out: it is the whole program, and what is missing is the right.
    fn from(error: LoadError) -> Self {
        Self::Program(error.source)
    }
}

/// The shortcut of this process. One is made for its whole life.
pub struct Shortcut {
    board: &'static Board,
    board_map: OwnedFd,
    flows: LruHash<Key, Value>,
    passage: OwnedFd,
    /// Drops a frame, or sends it where its passage says.
    host_filter: OwnedFd,
    /// The epoch before this one, or the last one.
    last_epoch: AtomicU64,
    /// A flow was inserted since the last pause.
    is_used: AtomicBool,
}

impl Shortcut {
    /// Makes one, paused.
    ///
    /// # Errors
    /// [`ShortcutError`]: frames all go by the workers then.
    pub fn open() -> Result<&'static Self, ShortcutError> {
        let at = |step| move |source| ShortcutError::System { step, source };
        let board_map = map::array(size_of::<Board>() as u32, 1).map_err(at("make an array"))?;
        let board = map_board(&board_map).map_err(at("map an array"))?;
        let flows = LruHash::new(FLOWS).map_err(at("make a map of flows"))?;
        let passage = map::per_cpu(size_of::<Passage>() as u32).map_err(at("make an array for each CPU"))?;
        let host_filter = bpf::load(&bpf::Program {
            kind: bpf::PROG_TYPE_SCHED_CLS,
            insns: &program::obey(&passage),
            flags: 0,
            ifindex: 0,
            attach: bpf::ATTACH_TCX_INGRESS,
        })?;
        let (last_epoch, is_used) = (AtomicU64::new(0), AtomicBool::new(false));
        let shortcut = Self { board, board_map, flows, passage, host_filter, last_epoch, is_used };
        // Whether sockets may have the other one.
        bpf::load(&bpf::Program {
            kind: bpf::PROG_TYPE_SOCKET_FILTER,
            insns: &program::alone(&shortcut),
            flags: 0,
            ifindex: 0,
            attach: 0,
        })?;
        Ok(Box::leak(Box::new(shortcut)))
    }

    /// One word for each slot of generations: to be added to when what is known of an address of that slot has changed.
    pub fn generations(&self) -> &'static [AtomicU32] {
        &self.board.generations
    }

    /// What [`Way::epoch`] wants. `None` while it is paused.
    pub fn epoch(&self) -> Option<u64> {
        Some(self.board.epoch.load(Acquire)).filter(|&epoch| epoch > 0)
    }

    /// Ends all flows. On return no frame is on its way by one. Where flows were inserted this waits for the
    /// programs that run, some milliseconds.
    pub fn pause(&self) {
        self.board.epoch.store(0, Release);
        if self.is_used.swap(false, AcqRel) {
            const GLOBAL: libc::c_int = 1; // MEMBARRIER_CMD_GLOBAL: a grace period of RCU, which programs run under
            // SAFETY: plain numbers. A kernel that has no such call (nohz_full) has programs end microseconds later.
            let _ = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
        }
    }

    /// Lets flows be inserted: a new epoch. Whatever reads it sees all that was stored before the call.
    pub fn resume(&self) {
        let epoch = self.last_epoch.fetch_add(1, Relaxed) + 1;
        self.board.epoch.store(epoch, Release);
    }

    /// Has the frames of `flow` go this way from now on, as long as the epoch and both addresses stay as they are.
    ///
    /// # Errors
    /// What the kernel said; they go on as they went.
    pub fn insert(&self, flow: &Flow, way: &Way) -> io::Result<()> {
        self.is_used.store(true, Release);
        let tag = flow.vid.map_or(0, |vid| TAGGED | u32::from(vid));
        let Flow { ifindex, source, destination, .. } = *flow;
        let value = Value {
            epoch: way.epoch,
            seen: self.board.tick.load(Relaxed),
            ifindex: way.ifindex,
            max_frame: way.max_frame,
            source: way.source,
            destination: way.destination,
            ingress: way.ingress.into(),
            egress: way.egress.into(),
            network: way.network.into(),
            _pad: 0,
        };
        self.flows.insert(&Key { ifindex, tag, destination, source }, &value)
    }

    /// Takes out what holds no more, shows each other flow to `keep`, and takes it out where that is false.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn sweep(&self, mut keep: impl FnMut(&Seen) -> bool) -> io::Result<()> {
        if !self.is_used.load(Acquire) {
            return Ok(());
        }
        let tick = self.board.tick.load(Relaxed);
        let epoch = self.board.epoch.load(Acquire);
        self.flows.for_each(|key, value| {
            let seen = Seen {
                ingress: value.ingress as u16,
                network: value.network as u16,
                source: key.source,
                idle: tick.saturating_sub(value.seen),
            };
            let holds =
                value.epoch == epoch && self.is_current(value.source) && self.is_current(value.destination);
            if !holds || !keep(&seen) {
                self.flows.remove(key);
            }
        })?;
        self.board.tick.store(tick + 1, Relaxed);
        Ok(())
    }

    fn is_current(&self, mark: Mark) -> bool {
        self.board.generations[mark.slot as usize % GENERATIONS].load(Acquire) == mark.generation
    }

    /// What passed in by `port`, and out.
    pub fn port(&self, port: u16) -> (Traffic, Traffic) {
        let count = &self.board.ports[usize::from(port) % PORTS];
        (count.received.get(), count.transmitted.get())
    }

    /// What passed in `network`.
    pub fn network(&self, network: u16) -> Traffic {
        self.board.networks[usize::from(network) % NETWORKS].get()
    }

    /// Counts from 0 for a port; while no flow has it.
    pub fn clear_port(&self, port: u16) {
        let count = &self.board.ports[usize::from(port) % PORTS];
        count.received.clear();
        count.transmitted.clear();
    }

    /// Counts from 0 for a network; while no flow has it.
    pub fn clear_network(&self, network: u16) {
        self.board.networks[usize::from(network) % NETWORKS].clear();
    }

    /// What is to be the host filter of a netdev whose frames may pass.
    pub(crate) fn host_filter(&self) -> BorrowedFd<'_> {
        self.host_filter.as_fd()
    }

    /// The part of a socket's filter that lets a frame pass: see [`program::decide`].
    pub(crate) fn decide(&self) -> Vec<Line> {
        program::decide(self)
    }
}

impl Count {
    fn get(&self) -> Traffic {
        Traffic { packets: self.packets.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }

    fn clear(&self) {
        self.packets.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
    }
}

/// Maps the array for the life of the process.
fn map_board(array: &OwnedFd) -> io::Result<&'static Board> {
    let (len, protection) = (size_of::<Board>(), libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a new mapping touches no existing memory.
    let board =
        unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, array.as_raw_fd(), 0) };
    if board == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as large as a board and aligned to a page, never unmapped; any bits are valid, and all that changes in it
    // is atomic.
    Ok(unsafe { &*board.cast::<Board>() })
}

/// `dst` = the address of a field of the board.
fn on_board(shortcut: &Shortcut, dst: bpf::Reg, offset: usize) -> [Insn; 2] {
    Insn::map_value(dst, shortcut.board_map.as_fd(), offset)
}
