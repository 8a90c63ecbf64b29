//! Memory that the programs see: what flows are checked against, the flows themselves, and counters.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use super::{Flow, Side, Way};
use crate::bpf::map;

/// Ports that it can count for, from 0 on.
pub const PORTS: usize = 4096;
/// Networks that it can count for, from 0 on.
pub const NETWORKS: usize = 16384;
/// Words of generations.
pub(super) const GENERATIONS: usize = 1 << 16;
/// Flows that it has room for.
pub(super) const FLOWS: usize = 1 << 14;
/// CPUs that frames may pass on, from 0 on.
pub(super) const CPUS: usize = 1 << 10;

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
pub(super) struct Count {
    pub(super) packets: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// One port: a cache line.
#[repr(C, align(64))]
pub(super) struct Port {
    pub(super) received: Count,
    pub(super) transmitted: Count,
    /// Frames that were kept from its socket: as many are received, unless somebody else took some.
    pub(super) kept: AtomicU64,
    /// Its flows hold while it is the same.
    pub(super) generation: AtomicU32,
}

/// What tells the frames of a flow.
#[repr(C)]
pub(super) struct Key {
    pub(super) ifindex: u32,
    /// 0: untagged; else [`TAGGED`] and the VLAN ID.
    pub(super) tag: u32,
    /// Destination and source, as they are in a frame.
    pub(super) addresses: [u8; 12],
    /// Pads to whole words, by which programs compare.
    pub(super) zero: u32,
}

/// The bytes of a [`Key`].
pub(super) const KEY_LEN: usize = size_of::<Key>();
pub(super) type KeyBytes = [u8; KEY_LEN];

/// In a key: has an 802.1Q tag.
pub(super) const TAGGED: u32 = 1 << 12;

/// A slot of generations, and the generation that it had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Modulo the number of [`super::Shortcut::generations`].
    pub slot: u32,
    /// Its value.
    pub generation: u32,
}

/// A [`Mark`] in a flow.
#[repr(C)]
pub(super) struct MarkWords {
    pub(super) slot: AtomicU32,
    pub(super) generation: AtomicU32,
}

/// One flow. It does not change while a program may see it, but for `seen`.
#[repr(C, align(128))]
pub(super) struct Place {
    /// A [`Key`].
    pub(super) key: [AtomicU64; KEY_LEN / 8],
    pub(super) epoch: AtomicU64,
    /// The tick of the last frame.
    pub(super) seen: AtomicU64,
    pub(super) ifindex: AtomicU32,
    pub(super) max_frame: AtomicU32,
    pub(super) source: MarkWords,
    pub(super) destination: MarkWords,
    /// Ports, and their generations.
    pub(super) ingress: MarkWords,
    pub(super) egress: MarkWords,
    pub(super) network: AtomicU32,
}

/// The way of a frame, from the one program to the other on one CPU.
#[repr(C, align(64))]
pub(super) struct Word {
    /// The address of its `sk_buff`; 0: the way is taken.
    pub(super) skb: AtomicU64,
    /// The place of its flow.
    pub(super) place: AtomicU32,
}

/// All of it. Zeroed memory is a valid board: no place is in the index yet.
#[repr(C)]
pub(super) struct Board {
    /// 0: none.
    pub(super) epoch: AtomicU64,
    /// What flows note as the time of their last frame: grows with each sweep.
    pub(super) tick: AtomicU64,
    pub(super) words: [Word; CPUS],
    pub(super) ports: [Port; PORTS],
    pub(super) places: [Place; FLOWS],
    pub(super) networks: [Count; NETWORKS],
    pub(super) generations: [AtomicU32; GENERATIONS],
}

/// The board, mapped for the life of the process, and the array that it is.
pub(super) fn make() -> io::Result<(OwnedFd, &'static Board)> {
    let array = map::array(size_of::<Board>() as u32, 1)?;
    let (len, protection) = (size_of::<Board>(), libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a new mapping touches no existing memory.
    let board =
        unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, array.as_raw_fd(), 0) };
    if board == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as large as a board and aligned to a page, never unmapped; any bits are valid, and all that changes in it
    // is atomic.
    let board = unsafe { &*board.cast::<Board>() };
    Ok((array, board))
}

/// Flows by key.
pub(super) type Index = map::Hash<KEY_LEN>;

pub(super) fn index() -> io::Result<Index> {
    map::Hash::new(FLOWS as u32)
}

impl Flow {
    pub(super) fn key(&self) -> KeyBytes {
        let tag = self.vid.map_or(0, |vid| TAGGED | u32::from(vid));
        let mut key = [0; KEY_LEN];
        for (field, bytes) in key.chunks_mut(4).zip([self.ifindex, tag].map(u32::to_ne_bytes)) {
            field.copy_from_slice(&bytes);
        }
        key[8..14].copy_from_slice(&self.destination);
        key[14..20].copy_from_slice(&self.source);
        key
    }
}

impl Place {
    /// Fills it in. No program sees it.
    pub(super) fn set(&self, key: &KeyBytes, way: &Way, tick: u64) {
        for (to, from) in self.key.iter().zip(key.as_chunks().0) {
            to.store(u64::from_ne_bytes(*from), Relaxed);
        }
        self.epoch.store(way.epoch, Relaxed);
        self.seen.store(tick, Relaxed);
        self.ifindex.store(way.ifindex, Relaxed);
        self.max_frame.store(way.max_frame, Relaxed);
        self.source.set(way.source);
        self.destination.set(way.destination);
        self.ingress.set(way.ingress.into());
        self.egress.set(way.egress.into());
        self.network.store(way.network.into(), Relaxed);
        // Before whoever finds the place, be it by a number that the kernel has just written over another.
        fence(Release);
    }

    /// Whether it is the way of its flow already.
    pub(super) fn has(&self, way: &Way) -> bool {
        self.epoch.load(Relaxed) == way.epoch
            && self.ifindex.load(Relaxed) == way.ifindex
            && self.max_frame.load(Relaxed) == way.max_frame
            && self.network.load(Relaxed) == u32::from(way.network)
            && [&self.source, &self.destination, &self.ingress, &self.egress].map(MarkWords::get)
                == [way.source, way.destination, way.ingress.into(), way.egress.into()]
    }
}

impl From<Side> for Mark {
    fn from(Side { port, generation }: Side) -> Self {
        Self { slot: port.into(), generation }
    }
}

impl MarkWords {
    fn set(&self, mark: Mark) {
        self.slot.store(mark.slot, Relaxed);
        self.generation.store(mark.generation, Relaxed);
    }

    pub(super) fn get(&self) -> Mark {
        Mark { slot: self.slot.load(Relaxed), generation: self.generation.load(Relaxed) }
    }
}

impl Count {
    pub(super) fn get(&self) -> Traffic {
        Traffic { packets: self.packets.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }

    pub(super) fn clear(&self) {
        self.packets.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
    }
}
