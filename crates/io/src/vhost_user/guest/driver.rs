//! The driver's side of a ring (VIRTIO 1.2 section 2.7, 2.8).

use std::collections::VecDeque;

use super::{GuestMemory, PHYSICAL, USER};

/// The two kinds of ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Section 2.7.
    Split,
    /// Section 2.8.
    Packed,
}

/// A buffer of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Physical.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// The device writes to it.
    pub writable: bool,
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The driver's side of a ring.
#[derive(Clone)]
pub struct Driver {
    kind: Kind,
    size: u16,
    /// Physical addresses of the descriptors, of what the driver writes, and of what the device writes.
    areas: [u64; 3],
    /// Descriptors that are free (split); ids that are (packed).
    free: VecDeque<u16>,
    /// Entries that are free (packed).
    room: u16,
    /// Chains in the ring, in the order in which they were posted: their descriptors, and for packed ones their id
    /// first.
    posted: VecDeque<Vec<u16>>,
    /// The next available entry, and its round.
    next: (u16, bool),
    /// The next used one.
    used: (u16, bool),
}

impl Driver {
    /// An empty ring.
    pub fn new(memory: &mut GuestMemory, kind: Kind, size: u16) -> Self {
        let n = u64::from(size);
        let lengths = match kind {
            Kind::Split => [16 * n, 6 + 2 * n, 6 + 8 * n],
            Kind::Packed => [16 * n, 4, 4],
        };
        let areas = lengths.map(|len| {
            let address = memory.allocate(len);
            memory.write(address, &vec![0; len as usize]);
            address
        });
        // Out of order, so that chains jump about.
        let free = (0..size).map(|i| i ^ 1).filter(|i| *i < size).collect();
        let round = kind == Kind::Packed;
        let (posted, next, used) = (VecDeque::new(), (0, round), (0, round));
        Self { kind, size, areas, free, room: size, posted, next, used }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Where it lies, by addresses of the front end.
    pub fn areas(&self) -> [u64; 3] {
        self.areas.map(|address| address - PHYSICAL + USER)
    }

    /// The position at which a device has to take it up, as `VHOST_USER_SET_VRING_BASE` has it.
    pub fn base(&self) -> u32 {
        let (slot, round) = self.used;
        let bits = u32::from(slot) | u32::from(round) << 15;
        match self.kind {
            Kind::Split => u32::from(slot),
            Kind::Packed => bits | bits << 16,
        }
    }

    /// Physical addresses of the descriptors, of what the driver writes, and of what the device writes.
    pub fn physical(&self) -> [u64; 3] {
        self.areas
    }

    /// Asks for interrupts, or for none.
    pub fn set_interrupts(&self, memory: &GuestMemory, wanted: bool) {
        let place = if self.kind == Kind::Split { 0 } else { 2 };
        memory.write(self.areas[1] + place, &u16::from(!wanted).to_le_bytes());
    }

    /// Asks for one interrupt, when the chain that is used `after` this many others was used. Needs EVENT_IDX.
    pub fn set_event(&self, memory: &GuestMemory, after: u16) {
        match self.kind {
            Kind::Split => {
                let event = self.used.0.wrapping_add(after);
                memory.write(self.areas[1] + 4 + 2 * u64::from(self.size), &event.to_le_bytes());
            }
            Kind::Packed => {
                // Chains of one descriptor.
                let (slot, round) = (self.used.0 + after, self.used.1);
                let (slot, round) = if slot < self.size { (slot, round) } else { (slot - self.size, !round) };
                memory.write(self.areas[1], &(slot | u16::from(round) << 15).to_le_bytes());
                memory.write(self.areas[1] + 2, &2_u16.to_le_bytes());
            }
        }
    }

    /// Chains that the device has not used yet.
    pub fn outstanding(&self) -> usize {
        self.posted.len()
    }

    /// Whether the device wants to be kicked; events by index are always wanted.
    pub fn wants_kick(&self, memory: &GuestMemory) -> bool {
        let place = if self.kind == Kind::Split { 0 } else { 2 };
        memory.read(self.areas[2] + place, 1)[0] & 1 == 0
    }

    /// Makes a chain available; `None` when there is no room.
    pub fn post(&mut self, memory: &mut GuestMemory, chain: &[Buffer], indirect: bool) -> Option<()> {
        let flags = |b: &Buffer, last: bool| (u16::from(!last) * NEXT) | (u16::from(b.writable) * WRITE);
        let mut entries: Vec<_> = chain
            .iter()
            .enumerate()
            .map(|(i, b)| (b.address, b.len, flags(b, i + 1 == chain.len())))
            .collect();
        if indirect {
            let table = memory.allocate(16 * entries.len() as u64);
            for (i, (address, len, flags)) in entries.iter().enumerate() {
                let (flags, next) = match self.kind {
                    Kind::Split => (*flags, i as u16 + 1),
                    Kind::Packed => (*flags & WRITE, 0),
                };
                // The last two fields change places between the kinds.
                let tail = if self.kind == Kind::Split { [flags, next] } else { [next, flags] };
                memory.write(table + 16 * i as u64, &entry(*address, *len, tail));
            }
            entries = vec![(table, 16 * entries.len() as u32, INDIRECT)];
        }
        match self.kind {
            Kind::Split => self.post_split(memory, &entries),
            Kind::Packed => self.post_packed(memory, &entries),
        }
    }

    fn post_split(&mut self, memory: &GuestMemory, entries: &[(u64, u32, u16)]) -> Option<()> {
        if self.free.len() < entries.len() {
            return None;
        }
        let places: Vec<_> = self.free.drain(..entries.len()).collect();
        for (i, (address, len, flags)) in entries.iter().enumerate() {
            let next = places.get(i + 1).copied().unwrap_or(0xffff);
            memory.write(self.areas[0] + 16 * u64::from(places[i]), &entry(*address, *len, [*flags, next]));
        }
        let place = self.areas[1] + 4 + 2 * u64::from(self.next.0 % self.size);
        memory.write(place, &places[0].to_le_bytes());
        self.next.0 = self.next.0.wrapping_add(1);
        memory.write(self.areas[1] + 2, &self.next.0.to_le_bytes());
        self.posted.push_back(places);
        Some(())
    }

    fn post_packed(&mut self, memory: &GuestMemory, entries: &[(u64, u32, u16)]) -> Option<()> {
        if usize::from(self.room) < entries.len() {
            return None;
        }
        self.room -= entries.len() as u16;
        let id = self.free.pop_front()?;
        let mut places = vec![id];
        let mut first = None;
        for (address, len, flags) in entries {
            let (slot, round) = self.next;
            let flags = flags | if round { 1 << 7 } else { 1 << 15 };
            let place = self.areas[0] + 16 * u64::from(slot);
            // The first one's flags last.
            memory.write(place, &entry(*address, *len, [id, flags])[..14]);
            match first {
                None => first = Some((place + 14, flags)),
                Some(_) => memory.write(place + 14, &flags.to_le_bytes()),
            }
            places.push(slot);
            self.next = if slot + 1 == self.size { (0, !round) } else { (slot + 1, round) };
        }
        let (place, flags) = first?;
        memory.write(place, &flags.to_le_bytes());
        self.posted.push_back(places);
        Some(())
    }

    /// Takes the next chain that the device used, and the bytes that it wrote.
    pub fn collect(&mut self, memory: &GuestMemory) -> Option<(u16, u32)> {
        match self.kind {
            Kind::Split => self.collect_split(memory),
            Kind::Packed => self.collect_packed(memory),
        }
    }

    fn collect_split(&mut self, memory: &GuestMemory) -> Option<(u16, u32)> {
        let index = memory.read(self.areas[2] + 2, 2);
        let count = u16::from_le_bytes([index[0], index[1]]).wrapping_sub(self.used.0);
        assert!(usize::from(count) <= self.posted.len(), "more used than available");
        if count == 0 {
            return None;
        }
        let bytes = memory.read(self.areas[2] + 4 + 8 * u64::from(self.used.0 % self.size), 8);
        self.used.0 = self.used.0.wrapping_add(1);
        let places = self.posted.pop_front()?;
        assert_eq!(bytes[..4], u32::from(places[0]).to_le_bytes(), "not used in order");
        self.free.extend(places.iter().rev());
        Some((places[0], u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]])))
    }

    fn collect_packed(&mut self, memory: &GuestMemory) -> Option<(u16, u32)> {
        let (slot, round) = self.used;
        let bytes = memory.read(self.areas[0] + 16 * u64::from(slot), 16);
        let flags = u16::from_le_bytes([bytes[14], bytes[15]]);
        if (flags >> 7 & 1 == 1) != round || (flags >> 15 == 1) != round || self.posted.is_empty() {
            return None;
        }
        let places = self.posted.pop_front()?;
        assert_eq!(bytes[12..14], places[0].to_le_bytes(), "not used in order");
        let slots = places.len() as u16 - 1;
        self.room += slots;
        self.free.push_back(places[0]);
        self.used = if slot + slots >= self.size {
            (slot + slots - self.size, !round)
        } else {
            (slot + slots, round)
        };
        Some((places[0], u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]])))
    }
}

fn entry(address: u64, len: u32, [a, b]: [u16; 2]) -> [u8; 16] {
    let value = u128::from(address) | u128::from(len) << 64 | u128::from(a) << 96 | u128::from(b) << 112;
    value.to_le_bytes()
}
