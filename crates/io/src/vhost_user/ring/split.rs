//! Split virtqueues (VIRTIO 1.2 section 2.7).

use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, VolatileMemory, VolatileSlice};

use super::{
    BATCH, BadRing, Broken, Chain, DESCRIPTOR, Gather, INDIRECT, LARGEST, Memory, NEXT, Setup, Span, Taken,
    Virtqueue, descriptor, passed, slice, word,
};

// Both rings begin with flags and an index, and end with the other side's event index.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ENTRIES: usize = 4;
/// Bytes of an entry of the available and of the used ring.
const AVAILABLE: usize = 2;
const USED: usize = 8;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT`.
const NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY`.
const NO_NOTIFY: u16 = 1;

/// A split ring.
pub(in super::super) struct Split {
    setup: Setup,
    descriptors: Span,
    available: Span,
    used: Span,
    /// Index of the next available entry.
    next: u16,
    /// The guest's index when it was last looked at.
    seen: u16,
    /// Index of the next used entry; what lies between `published` and this is not published yet.
    filled: u16,
    published: u16,
}

impl Split {
    pub(super) fn new(memory: &Memory, setup: Setup) -> Result<Self, BadRing> {
        if !setup.size.is_power_of_two() || setup.size > LARGEST {
            return Err(BadRing::Size(setup.size));
        }
        let (size, event) = (usize::from(setup.size), 2 * usize::from(setup.event_idx));
        let layout = [
            (size * DESCRIPTOR, 16),
            (ENTRIES + size * AVAILABLE + event, 2),
            (ENTRIES + size * USED + event, 4),
        ];
        let [descriptors, available, used] = setup.locate(memory, layout)?;
        let index = memory.slice(used).and_then(|used| word(&used, INDEX).ok()).ok_or(BadRing::Address)?;
        let (next, seen, filled, published) = (index, index, index, index);
        let mut ring = Self { setup, descriptors, available, used, next, seen, filled, published };
        ring.disarm(memory).map_err(|_| BadRing::Address)?;
        Ok(ring)
    }

    /// How many chains are available; looks at the guest's index only where it is not known of `wanted`.
    fn pending(&mut self, available: &VolatileSlice<'_>, wanted: u16) -> Result<u16, Broken> {
        if self.seen.wrapping_sub(self.next) < wanted {
            // Before the entries that it speaks of.
            let index = available.load::<u16>(INDEX, Ordering::Acquire).map_err(|_| Broken::Memory)?;
            self.seen = u16::from_le(index);
        }
        let pending = self.seen.wrapping_sub(self.next);
        if pending > self.setup.size { Err(Broken::Index) } else { Ok(pending) }
    }

    /// The place of an index in the available or used ring.
    const fn place(&self, index: u16, bytes: usize) -> usize {
        ENTRIES + (index & (self.setup.size - 1)) as usize * bytes
    }

    /// Where the other side's event index is, behind the entries.
    const fn event(&self, bytes: usize) -> usize {
        ENTRIES + self.setup.size as usize * bytes
    }
}

/// Gathers the chain that begins at `head` of the table.
fn gather(walk: &mut Gather<'_>, table: VolatileSlice<'_>, head: u16) -> Result<(), Broken> {
    let (mut table, mut index, mut nested) = (table, head, false);
    loop {
        let outside = if nested { Broken::Table } else { Broken::Head };
        let entry = descriptor(&table, usize::from(index)).ok_or(outside)?;
        let (flags, next) = ((entry >> 96) as u16, (entry >> 112) as u16);
        if flags & INDIRECT != 0 {
            // 2.7.5.3.1: not within a table, and not with NEXT.
            if nested || flags & NEXT != 0 {
                return Err(Broken::Table);
            }
            (table, index, nested) = (walk.table(entry)?.0, 0, true);
            continue;
        }
        walk.add(entry, flags)?; // counts, so that a loop ends
        if flags & NEXT == 0 {
            return Ok(());
        }
        index = next;
    }
}

impl Virtqueue for Split {
    fn take(&mut self, memory: &Memory, limit: usize, taken: &mut Taken) -> Result<(), Broken> {
        let limit = limit.min(BATCH);
        let available = slice(memory, self.available)?;
        let table = slice(memory, self.descriptors)?;
        let count = usize::from(self.pending(&available, limit as u16)?).min(limit);
        let mut heads = [0; BATCH];
        let heads = &mut heads[..count];
        for (i, head) in heads.iter_mut().enumerate() {
            *head = word(&available, self.place(self.next.wrapping_add(i as u16), AVAILABLE))?;
            memory.prefetch(self.descriptors.from(usize::from(*head) * DESCRIPTOR));
        }
        for &mut head in heads {
            let mut walk = Gather::new(memory, self.setup.direction, &mut taken.spans);
            gather(&mut walk, table, head)?;
            let chain = walk.chain(head, 1);
            if let Some(span) = taken.spans(&chain).first() {
                memory.prefetch_buffer(*span, self.setup.direction);
            }
            taken.chains.push(chain);
        }
        self.next = self.next.wrapping_add(count as u16);
        Ok(())
    }

    fn untake(&mut self, chains: &[Chain]) {
        self.next = self.next.wrapping_sub(chains.len() as u16);
    }

    fn begin(&mut self, _memory: &Memory, _chains: usize) -> Result<(), Broken> {
        Ok(()) // nothing is seen before it is published
    }

    fn put(&mut self, memory: &Memory, chain: &Chain, len: u32) -> Result<(), Broken> {
        let entry = u64::from(len) << 32 | u64::from(chain.id);
        let used = slice(memory, self.used)?;
        let place = used.get_ref::<u64>(self.place(self.filled, USED)).map_err(|_| Broken::Memory)?;
        place.store(entry.to_le());
        self.filled = self.filled.wrapping_add(1);
        Ok(())
    }

    fn publish(&mut self, memory: &Memory) -> Result<bool, Broken> {
        let old = std::mem::replace(&mut self.published, self.filled);
        if old == self.filled {
            return Ok(false);
        }
        let index = self.filled.to_le();
        slice(memory, self.used)?.store(index, INDEX, Ordering::Release).map_err(|_| Broken::Memory)?;
        // Either we see that the guest wants an interrupt, or it sees the index (2.7.7.2).
        fence(Ordering::SeqCst);
        let available = slice(memory, self.available)?;
        if self.setup.event_idx {
            Ok(passed(word(&available, self.event(AVAILABLE))?, self.published, old))
        } else {
            Ok(word(&available, FLAGS)? & NO_INTERRUPT == 0)
        }
    }

    fn arm(&mut self, memory: &Memory) -> Result<bool, Broken> {
        let used = slice(memory, self.used)?;
        // With an event index the flags stay 0 (2.7.10).
        let (value, place) = if self.setup.event_idx { (self.next, self.event(USED)) } else { (0, FLAGS) };
        used.store(value.to_le(), place, Ordering::Release).map_err(|_| Broken::Memory)?;
        fence(Ordering::SeqCst);
        let available = slice(memory, self.available)?;
        Ok(self.pending(&available, 1)? > 0)
    }

    fn disarm(&mut self, memory: &Memory) -> Result<(), Broken> {
        // With an event index, the one that is left behind is not passed again for 65535 chains.
        let flags = if self.setup.event_idx { 0 } else { NO_NOTIFY };
        slice(memory, self.used)?.store(flags.to_le(), FLAGS, Ordering::Release).map_err(|_| Broken::Memory)
    }

    fn base(&self) -> u32 {
        u32::from(self.published)
    }
}
