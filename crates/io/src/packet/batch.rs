//! Sends small frames in batches: one system call, and one section without softirqs, for all of them.
//!
//! A packet socket ends such a section after each frame, and with it begins the receiver's work: on a veth pair
//! the peer's whole stack runs inline once for each frame. Here the frames are written into the slots of a BPF
//! array, and one `BPF_PROG_TEST_RUN` runs a program that loads one after the other into its skb and sends a
//! clone of it by the netdev that the slot names. The peer's stack runs once, after the last. (The kernel makes
//! clone and skb part before the next frame is written: `bpf_clone_redirect` copies the bytes.) Frames take the
//! netdev's normal way out, queueing discipline and all; no socket holds them back.
//!
//! The program finds a netdev by its index in the namespace of the thread that runs it. So a batch belongs to
//! one thread, knows that thread's namespace, and serves only the ports that live there.
//!
//! Invariants: nobody but the owner's own `BPF_PROG_TEST_RUN` reads or writes the slots; after it, each slot up to
//! the first empty one says what became of its frame.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use vswitch_wire::{FrameBuf, ethernet};

use crate::bpf::kernel::{function, skb};
use crate::bpf::{self, Cond, Insn, Line, LoadError, Reg};
use crate::{Frame, TxReport};

/// Frames of one system call.
const SLOTS: usize = 64;
/// The longest frame that goes by a slot, in bytes: one of MTU 1500 with tags and a tunnel's headers. A slot is
/// an odd number of cache lines, so that their beginnings do not share one set of the cache.
pub(super) const LIMIT: usize = 31 * 64 - SLOT_HEADER;
/// Bytes of a slot before the frame.
const SLOT_HEADER: usize = 16;
/// Bytes of the shortest skb: Ethernet's minimum (IEEE 802.3-2022 4.2.3.3) without FCS. Shorter frames are cut from it.
const SHORTEST: usize = 60;
/// `result` of a slot that the program has not seen.
const PENDING: i32 = i32::MIN;
/// What the program reads, and answers.
#[repr(C)]
struct Slot {
    /// Bytes of the frame; 0 ends the batch.
    len: u32,
    ifindex: u32,
    /// 0: sent; positive: dropped by the queueing discipline or the device (`NET_XMIT_*`); negative: an errno.
    result: i32,
    _pad: u32,
    frame: [u8; LIMIT],
}

const SLOT: usize = size_of::<Slot>();
const _: () = assert!(SLOT == SLOT_HEADER + LIMIT && (SLOT / 64) % 2 == 1 && SLOT.is_multiple_of(64));

/// For each slot up to the first empty one: makes the skb as long as the frame, writes the frame over it, sends a
/// clone, and stores what that said.
fn program(slots: &OwnedFd) -> Vec<Insn> {
    use Line::{Do, If, Label};
    use Reg::{R0, R1, R2, R3, R4, R5};
    const SKB: Reg = Reg::R6;
    const INDEX: Reg = Reg::R7;
    const SLOT: Reg = Reg::R8;
    const LEN: Reg = Reg::R9;
    const KEY: i16 = -4; // on the stack
    let [map, map_high] = Insn::map(R1, slots.as_fd());
    bpf::assemble(&[
        Do(Insn::copy(SKB, R1)),
        Do(Insn::set(INDEX, 0)),
        Label("slot"),
        Do(Insn::store(Reg::Frame, KEY, INDEX)),
        Do(map),
        Do(map_high),
        Do(Insn::copy(R2, Reg::Frame)),
        Do(Insn::add(R2, KEY as i32)),
        Do(Insn::call(function::MAP_LOOKUP_ELEM)),
        If(Cond::NotEqual(R0, 0), "found"), // always, but the verifier wants to see it
        Do(Insn::exit()),
        Label("found"),
        Do(Insn::copy(SLOT, R0)),
        Do(Insn::load(LEN, SLOT, std::mem::offset_of!(Slot, len) as i16)),
        If(Cond::Less(LEN, ethernet::HEADER_LEN as i32), "end"),
        If(Cond::Greater(LEN, LIMIT as i32), "end"),
        Do(Insn::load(R1, SKB, skb::LEN)),
        If(Cond::Equal(R1, LEN), "write"),
        Do(Insn::copy(R1, SKB)), // (skb, len, flags)
        Do(Insn::copy(R2, LEN)),
        Do(Insn::set(R3, 0)),
        Do(Insn::call(function::SKB_CHANGE_TAIL)),
        If(Cond::NotEqual(R0, 0), "next"),
        Label("write"),
        Do(Insn::copy(R1, SKB)), // (skb, offset, from, len, flags)
        Do(Insn::set(R2, 0)),
        Do(Insn::copy(R3, SLOT)),
        Do(Insn::add(R3, SLOT_HEADER as i32)),
        Do(Insn::copy(R4, LEN)),
        Do(Insn::set(R5, 0)),
        Do(Insn::call(function::SKB_STORE_BYTES)),
        If(Cond::NotEqual(R0, 0), "next"),
        Do(Insn::copy(R1, SKB)), // (skb, ifindex, flags)
        Do(Insn::load(R2, SLOT, std::mem::offset_of!(Slot, ifindex) as i16)),
        Do(Insn::set(R3, 0)),
        Do(Insn::call(function::CLONE_REDIRECT)),
        Label("next"),
        Do(Insn::store(SLOT, std::mem::offset_of!(Slot, result) as i16, R0)),
        Do(Insn::add(INDEX, 1)),
        If(Cond::Less(INDEX, SLOTS as i32), "slot"),
        Label("end"),
        Do(Insn::set(R0, 0)),
        Do(Insn::exit()),
    ])
}

/// Why frames cannot be sent in batches.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    #[error("the kernel refused to {step}: {source}")]
    System { step: &'static str, source: io::Error },
    #[error(transparent)]
    Program(#[from] LoadError),
}

impl BatchError {
    fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { step, source }
    }
}

/// The identity of a network namespace, for as long as something keeps it alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Netns {
    device: u64,
    inode: u64,
}

impl Netns {
    /// That of the calling thread.
    fn current() -> Result<Self, BatchError> {
        let file = std::fs::metadata("/proc/thread-self/ns/net");
        let file = file.map_err(BatchError::at("name the network namespace"))?;
        Ok(Self { device: file.dev(), inode: file.ino() })
    }
}

/// Slots and their program, of one thread.
pub(super) struct Batch {
    slots: NonNull<[Slot; SLOTS]>,
    program: OwnedFd,
    /// The thread's.
    netns: Netns,
    /// What the skb is made of; only its length and EtherType matter.
    template: [u8; LIMIT],
}

impl Batch {
    /// A batch for the calling thread, which stays in its network namespace.
    pub(super) fn open() -> Result<Self, BatchError> {
        let netns = Netns::current()?;
        let map = bpf::map::array(SLOT as u32, SLOTS as u32).map_err(BatchError::at("make an array"))?;
        let program = bpf::load(&bpf::Program {
            kind: bpf::PROG_TYPE_SCHED_CLS,
            insns: &program(&map),
            flags: 0,
            ifindex: 0,
            attach: 0,
        })?;
        let (len, protection) = (size_of::<[Slot; SLOTS]>(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping touches no existing memory.
        let slots =
            unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, map.as_raw_fd(), 0) };
        if slots == libc::MAP_FAILED {
            return Err(BatchError::at("map the array")(io::Error::last_os_error()));
        }
        let slots = NonNull::new(slots.cast());
        let slots =
            slots.ok_or_else(|| BatchError::at("map the array")(io::ErrorKind::OutOfMemory.into()))?;
        let mut batch = Self { slots, program, netns, template: [0; LIMIT] };
        // All slots are empty yet, so this sends nothing.
        batch.run(SHORTEST, [0; 2]).map_err(BatchError::at("run a program"))?;
        Ok(batch)
    }

    fn slots(&mut self) -> &mut [Slot; SLOTS] {
        // SAFETY: mapped by `open` with this size, zeroed, any bits are valid, and only `run` lets others see it.
        unsafe { self.slots.as_mut() }
    }

    /// Sends frames of [`ethernet::HEADER_LEN`] to [`LIMIT`] bytes, in order. All have this EtherType: it becomes that
    /// of the skb, by which queueing disciplines and filters tell flows apart and find headers.
    pub(super) fn send(
        &mut self,
        ifindex: u32,
        ether_type: [u8; 2],
        frames: &[Frame],
        report: &mut TxReport,
    ) {
        for frames in frames.chunks(SLOTS) {
            self.fill(ifindex, frames);
            let longest = frames.iter().map(|frame| frame.bytes().len()).max().unwrap_or(0);
            // An skb's memory is accounted for when it is made: made as long as the longest, it never grows.
            // Where it fails the slots stay pending, and are counted so.
            let _ = self.run(longest.max(SHORTEST), ether_type);
            self.settle(frames.len(), report);
        }
    }

    fn fill(&mut self, ifindex: u32, frames: &[Frame]) {
        let slots = self.slots();
        if let Some(end) = slots.get_mut(frames.len()) {
            end.len = 0;
        }
        for (slot, frame) in slots.iter_mut().zip(frames) {
            let len = frame.bytes().len().min(LIMIT);
            (slot.len, slot.ifindex, slot.result) = (len as u32, ifindex, PENDING);
            slot.frame[..len].copy_from_slice(&frame.bytes()[..len]);
        }
    }

    fn run(&mut self, len: usize, ether_type: [u8; 2]) -> io::Result<()> {
        self.template[12..ethernet::HEADER_LEN].copy_from_slice(&ether_type);
        bpf::run(self.program.as_fd(), &self.template[..len.min(LIMIT)])
    }

    fn settle(&mut self, count: usize, report: &mut TxReport) {
        for slot in &self.slots()[..count] {
            match slot.result {
                0 => {
                    report.sent += 1;
                    report.sent_bytes += u64::from(slot.len);
                }
                // NET_XMIT_DROP, and NET_XMIT_CN: a frame of this flow was dropped (a netdev that is down says so too).
                PENDING | 1.. => report.full += 1,
                errno if [libc::ENOBUFS, libc::ENOMEM, libc::EAGAIN].contains(&-errno) => report.full += 1,
                _ => report.refused += 1,
            }
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: mapped by `open` with this size; nothing borrows it any more.
        unsafe { libc::munmap(self.slots.as_ptr().cast(), size_of::<[Slot; SLOTS]>()) };
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("netns", &self.netns).finish_non_exhaustive()
    }
}

/// The calling thread's network namespace, if threads can send batches there. Workers make batches of their own; one
/// that is made here shows that they can, once for all ports: what it shows is the kernel and the process's rights.
pub(super) fn probe() -> Result<Netns, BatchError> {
    static SHOWN: OnceLock<()> = OnceLock::new();
    if SHOWN.get().is_none() {
        Batch::open()?;
        SHOWN.get_or_init(|| ());
    }
    Netns::current()
}

/// Runs `f` with the calling thread's batch, which is made by the first call; `None` where there is none, or the
/// thread is not in network namespace `netns`.
///
/// One batch serves all ports of a worker: each would need 124 KiB of its own otherwise.
pub(super) fn with<T>(netns: Netns, f: impl FnOnce(&mut Batch) -> T) -> Option<T> {
    thread_local! {
        static BATCH: RefCell<Option<Batch>> = RefCell::new(Batch::open().ok());
    }
    BATCH.with_borrow_mut(|batch| batch.as_mut().filter(|batch| batch.netns == netns).map(f))
}
