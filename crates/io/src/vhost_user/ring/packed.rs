//! Packed virtqueues (VIRTIO 1.2 section 2.8).
//!
//! Driver and device write to the same descriptors. Two bits say whose one is, and for which round: the device
//! publishes a batch by writing its first descriptor last. What that changes is half of a descriptor, in one store.

use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, VolatileMemory, VolatileSlice};

use super::{
    BATCH, BadRing, Broken, Chain, DESCRIPTOR, Gather, INDIRECT, LARGEST, Memory, NEXT, Setup, Span, Start,
    Taken, Virtqueue, WRITE, descriptor, passed, slice, store, word,
};

mod journal;

use journal::Journal;

/// Flags that say in which round a descriptor was made available, and used.
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;
// Places in a descriptor.
/// The upper half: length, id and flags.
const LEN: usize = 8;
const FLAGS: usize = 14;

// An event suppression structure (2.8.10).
const EVENT_OFFSET: usize = 0;
const EVENT_FLAGS: usize = 2;
const EVENT: usize = 4;
const EVENT_ENABLE: u16 = 0;
const EVENT_DISABLE: u16 = 1;
const EVENT_DESCRIPTOR: u16 = 2;

/// A place in the ring, and the round that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    slot: u16,
    wrap: bool,
}

impl Position {
    /// 15 bits of slot, and the round.
    const fn from_bits(bits: u16) -> Self {
        Self { slot: bits & !(1 << 15), wrap: bits >> 15 == 1 }
    }

    const fn bits(self) -> u16 {
        self.slot | (self.wrap as u16) << 15
    }

    const fn forward(self, slots: u16, size: u16) -> Self {
        let slot = self.slot as u32 + slots as u32;
        if slot < size as u32 {
            Self { slot: slot as u16, wrap: self.wrap }
        } else {
            Self { slot: (slot - size as u32) as u16, wrap: !self.wrap }
        }
    }

    const fn back(self, slots: u16, size: u16) -> Self {
        match self.slot.checked_sub(slots) {
            Some(slot) => Self { slot, wrap: self.wrap },
            None => Self { slot: self.slot + size - slots, wrap: !self.wrap },
        }
    }
}

/// A packed ring.
pub(in super::super) struct Packed {
    setup: Setup,
    descriptors: Span,
    driver: Span,
    device: Span,
    /// The next descriptor to be taken.
    next: Position,
    /// Where the next used descriptor goes.
    filled: Position,
    /// The first that is filled and not published, with what is to be its upper half.
    first: Option<(Position, u64)>,
    /// The guest wants to be interrupted for what was published before a batch was complete.
    wanted: bool,
    journal: Option<Journal>,
}

impl Packed {
    pub(super) fn new(memory: &Memory, setup: Setup, start: Start) -> Result<Self, BadRing> {
        if setup.size == 0 || setup.size > LARGEST {
            return Err(BadRing::Size(setup.size));
        }
        let layout = [(usize::from(setup.size) * DESCRIPTOR, 16), (EVENT, 4), (EVENT, 4)];
        let [descriptors, driver, device] = setup.locate(memory, layout)?;
        // All that was taken was used, so the position of the used ones in the upper half is the same.
        let mut next = Position::from_bits(start.base as u16);
        if next.slot >= setup.size {
            return Err(BadRing::Size(setup.size));
        }
        let lost = |_| BadRing::Address;
        let table = slice(memory, descriptors).map_err(lost)?;
        if start.base == 0 {
            // User-mode Linux says 0 of any ring, though the first round of a new one is 1. A new ring has no used
            // descriptor; after a round it has one, though not always the first, which may have been amid a chain.
            let used = |slot| word(&table, slot * DESCRIPTOR + FLAGS).is_ok_and(|flags| flags & USED != 0);
            next.wrap = !(0..usize::from(setup.size)).any(used);
        }
        let event = slice(memory, device).map_err(lost)?;
        let (journal, next) = Journal::open(start, &setup, next, [&table, &event]).map_err(lost)?;
        let (first, wanted) = (None, false);
        let mut ring =
            Self { setup, descriptors, driver, device, next, filled: next, first, wanted, journal };
        ring.disarm(memory).map_err(lost)?;
        Ok(ring)
    }

    /// The flags of the descriptor at `position`, when it is available.
    fn available(&self, table: &VolatileSlice<'_>, position: Position) -> Result<Option<u16>, Broken> {
        let place = usize::from(position.slot) * DESCRIPTOR + FLAGS;
        // Before the rest of the chain.
        let flags = table.load::<u16>(place, Ordering::Acquire).map_err(|_| Broken::Memory)?;
        let flags = u16::from_le(flags);
        let (available, used) = (flags & AVAILABLE != 0, flags & USED != 0);
        Ok((available == position.wrap && used != position.wrap).then_some(flags))
    }

    /// Gathers the chain at the next position, that begins with `flags`.
    fn gather(
        &self,
        mut walk: Gather<'_>,
        table: &VolatileSlice<'_>,
        mut flags: u16,
    ) -> Result<Chain, Broken> {
        let mut position = self.next;
        for slots in 1..=self.setup.size {
            let entry = descriptor(table, usize::from(position.slot)).ok_or(Broken::Memory)?;
            if slots > 1 {
                flags = (entry >> 112) as u16;
            }
            if flags & INDIRECT == 0 {
                walk.add(entry, flags)?;
            } else if slots == 1 && flags & NEXT == 0 {
                indirect(&mut walk, entry)?;
            } else {
                return Err(Broken::Table); // 2.8.19: not within a chain
            }
            if flags & NEXT == 0 {
                // The last descriptor of a chain has its id (2.8.6).
                return Ok(walk.chain((entry >> 96) as u16, slots));
            }
            position = position.forward(1, self.setup.size);
        }
        Err(Broken::Endless)
    }

    /// Tells the guest of the chains that were put; true when it wants to be interrupted.
    fn tell(&mut self, memory: &Memory) -> Result<bool, Broken> {
        let Some((first, used)) = self.first.take() else { return Ok(false) };
        let table = slice(memory, self.descriptors)?;
        self.journal.iter().for_each(|journal| journal.begin(self.filled));
        store(&table, used.to_le(), usize::from(first.slot) * DESCRIPTOR + LEN)?;
        self.journal.iter_mut().for_each(|journal| journal.end(self.filled));
        // Either we see that the guest wants an interrupt, or it sees the flags.
        fence(Ordering::SeqCst);
        let event = slice(memory, self.driver)?;
        match word(&event, EVENT_FLAGS)? {
            EVENT_DISABLE => Ok(false),
            EVENT_DESCRIPTOR if self.setup.event_idx => {
                let wanted = Position::from_bits(word(&event, EVENT_OFFSET)?);
                // As indices that do not wrap: those of the last round lie below those of this one.
                let linear = |p: Position| {
                    p.slot.wrapping_sub(if p.wrap == self.filled.wrap { 0 } else { self.setup.size })
                };
                Ok(passed(linear(wanted), linear(self.filled), linear(first)))
            }
            _ => Ok(true),
        }
    }
}

/// Gathers the buffers of an indirect table, which is used up whole (2.8.7).
fn indirect(walk: &mut Gather<'_>, entry: u128) -> Result<(), Broken> {
    let (table, entries) = walk.table(entry)?;
    for index in 0..entries {
        let entry = descriptor(&table, index).ok_or(Broken::Table)?;
        walk.add(entry, (entry >> 112) as u16)?; // which ends a table that is too long
    }
    Ok(())
}

impl Virtqueue for Packed {
    fn take(&mut self, memory: &Memory, limit: usize, taken: &mut Taken) -> Result<(), Broken> {
        let table = slice(memory, self.descriptors)?;
        for _ in 0..limit.min(BATCH) {
            let Some(flags) = self.available(&table, self.next)? else { break };
            let walk = Gather::new(memory, self.setup.direction, &mut taken.spans);
            let chain = self.gather(walk, &table, flags)?;
            if let Some(span) = taken.spans(&chain).first() {
                memory.prefetch_buffer(*span, self.setup.direction);
            }
            self.next = self.next.forward(chain.slots, self.setup.size);
            taken.chains.push(chain);
        }
        Ok(())
    }

    fn untake(&mut self, chains: &[Chain]) {
        for chain in chains {
            self.next = self.next.back(chain.slots, self.setup.size);
        }
    }

    fn begin(&mut self, memory: &Memory, chains: usize) -> Result<(), Broken> {
        if self.journal.as_ref().is_some_and(|journal| !journal.has_room(chains)) {
            self.wanted |= self.tell(memory)?;
        }
        Ok(())
    }

    fn put(&mut self, memory: &Memory, chain: &Chain, len: u32) -> Result<(), Broken> {
        self.begin(memory, 1)?;
        let at = self.filled;
        let round = if at.wrap { AVAILABLE | USED } else { 0 };
        let flags = round | if len > 0 { WRITE } else { 0 };
        let used = u64::from(len) | u64::from(chain.id) << 32 | u64::from(flags) << 48;
        if self.first.is_some() {
            let (table, place) = (slice(memory, self.descriptors)?, usize::from(at.slot) * DESCRIPTOR + LEN);
            if let Some(journal) = &mut self.journal {
                let before = table.get_ref::<u64>(place).map_err(|_| Broken::Memory)?.load();
                journal.note(at.slot, u64::from_le(before));
            }
            store(&table, used.to_le(), place)?;
        }
        self.first.get_or_insert((at, used));
        self.filled = at.forward(chain.slots, self.setup.size);
        Ok(())
    }

    fn publish(&mut self, memory: &Memory) -> Result<bool, Broken> {
        let wanted = std::mem::take(&mut self.wanted);
        Ok(self.tell(memory)? || wanted)
    }

    fn arm(&mut self, memory: &Memory) -> Result<bool, Broken> {
        let device = slice(memory, self.device)?;
        store(&device, EVENT_ENABLE.to_le(), EVENT_FLAGS)?;
        fence(Ordering::SeqCst);
        Ok(self.available(&slice(memory, self.descriptors)?, self.next)?.is_some())
    }

    fn disarm(&mut self, memory: &Memory) -> Result<(), Broken> {
        let device = slice(memory, self.device)?;
        store(&device, EVENT_DISABLE.to_le(), EVENT_FLAGS)
    }

    fn base(&self) -> u32 {
        let bits = u32::from(self.filled.bits());
        bits | bits << 16
    }
}
