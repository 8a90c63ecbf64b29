//! The device's side of a virtqueue (VIRTIO 1.2 section 2.6), in memory that the guest writes to.
//!
//! Nothing that a guest wrote is believed. A ring with something in it that no driver may write (an address that is
//! not the guest's, a loop, an index that jumps) is [`Broken`]: it rests until it is set up anew, as a device of which
//! VIRTIO says that it needs a reset. What is wrong with a frame in sound buffers is not the ring's affair.
//!
//! Both kinds of ring work in batches, since what is shared moves between cores: chains are taken by the dozen into
//! [`Taken`], their descriptors and buffers prefetched, and used ones are published by one store. Chains are used in
//! the order in which they were taken, so between two batches a ring has one position, which is all that is kept of
//! it.
//!
//! Bounds: a chain has at most [`CHAIN`] descriptors; a batch reads [`BATCH`] chains.
use vm_memory::{AtomicAccess, VolatileMemory, VolatileSlice};

use super::memory::{Direction, Memory, Span};
use super::record::Record;

mod packed;
mod split;
#[cfg(test)]
pub(super) mod tests;

pub(super) use packed::Packed;
pub(super) use split::Split;

/// Chains that are taken at a time.
pub(super) const BATCH: usize = 64;
/// Descriptors of the longest chain; Linux makes chains of 19, or 47 where it was built for more fragments.
const CHAIN: usize = 256;
/// Entries of the largest ring (VIRTIO 1.2 section 2.7, 2.8).
pub(super) const LARGEST: u16 = 32768;

// Flags of descriptors (VIRTIO 1.2 section 2.7.5, 2.8).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Bytes of a descriptor, of either kind of ring.
const DESCRIPTOR: usize = 16;

/// What makes a ring useless until it is set up anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// More chains than the ring has entries.
    #[error("the index of available buffers jumped")]
    Index,
    /// A descriptor that the ring does not have.
    #[error("a chain of descriptors leaves the ring")]
    Head,
    /// A chain that loops, or of more descriptors than any driver needs.
    #[error("a chain of descriptors does not end")]
    Endless,
    /// A buffer of which not all is the guest's memory.
    #[error("a buffer outside of the guest's memory")]
    Buffer,
    /// A chain of 4 GiB or more.
    #[error("a chain of buffers that is too long")]
    Length,
    /// A buffer to be read in a ring of buffers to be written, or the other way round.
    #[error("a buffer of the wrong direction")]
    Direction,
    /// An indirect table in the wrong place, or of no sensible length.
    #[error("an indirect table that cannot be right")]
    Table,
    /// The front end took it away.
    #[error("the guest's memory has vanished")]
    Memory,
}

/// Why a ring cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRing {
    #[error("a ring of {0} entries")]
    Size(u16),
    #[error("a ring whose addresses are not in the guest's memory, or not aligned")]
    Address,
}

/// How a ring was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    /// Entries.
    pub(super) size: u16,
    /// Addresses in the front end of the descriptors, of what the driver writes, and of what the device writes.
    pub(super) areas: [u64; 3],
    /// Who writes to the buffers.
    pub(super) direction: Direction,
    /// `VIRTIO_F_RING_PACKED` was acknowledged.
    pub(super) packed: bool,
    /// `VIRTIO_F_EVENT_IDX` was acknowledged.
    pub(super) event_idx: bool,
}

impl Setup {
    /// The areas, of these lengths and alignments (VIRTIO 1.2 section 2.7, 2.8.10).
    fn locate(&self, memory: &Memory, layout: [(usize, u64); 3]) -> Result<[Span; 3], BadRing> {
        let mut spans = [Span::default(); 3];
        for ((span, address), (len, align)) in spans.iter_mut().zip(self.areas).zip(layout) {
            let found = memory.at_user(address, len as u32).filter(|_| address.is_multiple_of(align));
            *span = found.ok_or(BadRing::Address)?;
            // The file's offset decides upon the alignment of what is mapped.
            let slice = memory.slice(*span).ok_or(BadRing::Address)?;
            if !(slice.ptr_guard().as_ptr() as u64).is_multiple_of(align) {
                return Err(BadRing::Address);
            }
        }
        Ok(spans)
    }
}

/// Where a ring is taken up.
#[derive(Clone, Default)]
pub(super) struct Start {
    /// The position, as `VHOST_USER_SET_VRING_BASE` has it.
    pub(super) base: u32,
    /// What the front end said last, and will say again if we die.
    pub(super) said: u32,
    /// `base` is right. Otherwise a process before this one may have gone on from there.
    pub(super) known: bool,
    /// Where it is written down how far that was.
    pub(super) record: Option<Record>,
}

impl From<u32> for Start {
    /// Where the front end says, without a record.
    fn from(base: u32) -> Self {
        Self { base, said: base, ..Self::default() }
    }
}

/// One chain of descriptors, taken from the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// By this the guest knows it.
    id: u16,
    /// Entries of the ring that it takes up.
    slots: u16,
    /// Its first buffer in [`Taken`], and how many they are.
    first: u32,
    count: u32,
    /// Bytes of all buffers.
    pub(super) len: u32,
}

/// Chains that were taken, and their buffers. Allocates while it grows to its largest, then no more.
#[derive(Default)]
pub(super) struct Taken {
    chains: Vec<Chain>,
    spans: Vec<Span>,
}

impl Taken {
    pub(super) fn clear(&mut self) {
        self.chains.clear();
        self.spans.clear();
    }

    pub(super) fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// The buffers of a chain.
    pub(super) fn spans(&self, chain: &Chain) -> &[Span] {
        let first = chain.first as usize;
        self.spans.get(first..first + chain.count as usize).unwrap_or_default()
    }

    /// The buffers of chains that were taken one after the other.
    pub(super) fn spans_of(&self, chains: &[Chain]) -> &[Span] {
        let (Some(first), Some(last)) = (chains.first(), chains.last()) else { return &[] };
        self.spans.get(first.first as usize..(last.first + last.count) as usize).unwrap_or_default()
    }
}

/// The device's side of a ring, in the memory that it was set up in.
pub(super) trait Virtqueue {
    /// Appends the chains that the guest has made available, at most `limit` and [`BATCH`].
    fn take(&mut self, memory: &Memory, limit: usize, taken: &mut Taken) -> Result<(), Broken>;
    /// Gives back the chains that were taken last: they are available still.
    fn untake(&mut self, chains: &[Chain]);
    /// The next so many chains that are put hold one frame, of which the guest is to see all or nothing.
    fn begin(&mut self, memory: &Memory, chains: usize) -> Result<(), Broken>;
    /// The chain taken first, of those not put back yet, was used, and `len` bytes written to it. The guest learns
    /// of it by [`Virtqueue::publish`].
    fn put(&mut self, memory: &Memory, chain: &Chain, len: u32) -> Result<(), Broken>;
    /// Tells the guest of the chains that were put; true when it wants to be interrupted.
    fn publish(&mut self, memory: &Memory) -> Result<bool, Broken>;
    /// Asks the guest for a kick with the next chain; true when there is one already.
    fn arm(&mut self, memory: &Memory) -> Result<bool, Broken>;
    /// Asks it for none.
    fn disarm(&mut self, memory: &Memory) -> Result<(), Broken>;
    /// The position, as `VHOST_USER_GET_VRING_BASE` has it.
    fn base(&self) -> u32;
}

/// Either kind of ring.
pub(super) enum Ring {
    Split(Split),
    Packed(Packed),
}

impl Ring {
    /// Takes up a ring. A front end that lost its back end cannot know where that was: a split ring is taken up where
    /// the guest was told last, whatever `start` says, and a packed one where the record says so.
    pub(super) fn new(memory: &Memory, setup: Setup, start: impl Into<Start>) -> Result<Self, BadRing> {
        let start = start.into();
        if setup.packed {
            return Packed::new(memory, setup, start).map(Self::Packed);
        }
        start.record.iter().for_each(Record::erase);
        Split::new(memory, setup).map(Self::Split)
    }

    /// What either kind can do, for what is not done once a chain.
    pub(super) fn queue(&mut self) -> &mut dyn Virtqueue {
        match self {
            Self::Split(ring) => ring,
            Self::Packed(ring) => ring,
        }
    }
}

/// Gathers the buffers of one chain.
struct Gather<'a> {
    memory: &'a Memory,
    direction: Direction,
    spans: &'a mut Vec<Span>,
    /// Those in `spans` before.
    first: usize,
    descriptors: usize,
    len: u32,
}

impl<'a> Gather<'a> {
    fn new(memory: &'a Memory, direction: Direction, spans: &'a mut Vec<Span>) -> Self {
        let first = spans.len();
        Self { memory, direction, spans, first, descriptors: 0, len: 0 }
    }

    /// Adds the buffer of a descriptor.
    #[inline]
    fn add(&mut self, descriptor: u128, flags: u16) -> Result<(), Broken> {
        let (mut address, mut rest) = (descriptor as u64, (descriptor >> 64) as u32);
        let direction = if flags & WRITE == 0 { Direction::FromGuest } else { Direction::ToGuest };
        if direction != self.direction {
            return Err(Broken::Direction);
        }
        self.descriptors += 1;
        if self.descriptors > CHAIN {
            return Err(Broken::Endless);
        }
        self.len = self.len.checked_add(rest).ok_or(Broken::Length)?;
        // A buffer may go over from one region into the next.
        while rest > 0 {
            let span = self.memory.at_guest(address, rest).ok_or(Broken::Buffer)?;
            self.spans.push(span);
            rest -= span.len;
            address = address.wrapping_add(u64::from(span.len));
        }
        Ok(())
    }

    /// The table that an indirect descriptor points to, and its entries.
    fn table(&self, descriptor: u128) -> Result<(VolatileSlice<'a>, usize), Broken> {
        let len = (descriptor >> 64) as u32;
        let span = self.memory.at_guest(descriptor as u64, len).filter(|span| span.len == len);
        let entries = len as usize / DESCRIPTOR;
        if entries == 0 || !(len as usize).is_multiple_of(DESCRIPTOR) {
            return Err(Broken::Table);
        }
        Ok((self.memory.slice(span.ok_or(Broken::Buffer)?).ok_or(Broken::Memory)?, entries))
    }

    /// What was gathered, as a chain.
    fn chain(self, id: u16, slots: u16) -> Chain {
        let count = (self.spans.len() - self.first) as u32;
        Chain { id, slots, first: self.first as u32, count, len: self.len }
    }
}

fn slice(memory: &Memory, area: Span) -> Result<VolatileSlice<'_>, Broken> {
    memory.slice(area).ok_or(Broken::Memory)
}

fn store<T: AtomicAccess>(slice: &VolatileSlice<'_>, value: T, place: usize) -> Result<(), Broken> {
    super::store::store(slice, value, place).map_err(|_| Broken::Memory)
}

/// A number of the ring's memory that only one side writes.
fn word(slice: &VolatileSlice<'_>, offset: usize) -> Result<u16, Broken> {
    slice.get_ref::<u16>(offset).map(|word| u16::from_le(word.load())).map_err(|_| Broken::Memory)
}

/// A descriptor: little-endian, so its fields from the lowest bit on.
#[inline]
fn descriptor(slice: &VolatileSlice<'_>, index: usize) -> Option<u128> {
    slice.get_ref::<u128>(index * DESCRIPTOR).ok().map(|d| u128::from_le(d.load()))
}

/// Whether the index `event` lies among those that were passed from `old` to `new` (VIRTIO 1.2 section 2.7.10.1).
const fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
