//! A pretended guest, for tests and fuzzing: memory, the driver's side of both kinds of ring, and frames in them.
//!
//! It is the simplest driver that there can be, and believes the device no more than is needed to find its mistakes:
//! what is odd about used buffers panics.
#![allow(clippy::expect_used)] // it is a test that fails

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::device::Device;
use super::features::{Features, Format};
use super::memory::{Direction, Memory, Region, RegionInfo};
use super::record::Records;
use super::ring::{Setup, Start};
use super::rx::Rx;
use super::tx::Tx;
use super::vring::Running;
use crate::{RxQueue, TxQueue};

mod driver;
pub mod frontend;

pub use driver::{Buffer, Driver, Kind};

/// Guest physical address of the first byte of a guest's memory.
pub const PHYSICAL: u64 = 0x4000_0000;
/// Address of the same byte in the front end.
pub const USER: u64 = 0x7f00_0000_0000;

/// A guest's memory, as a file that can be shared.
pub struct GuestMemory {
    name: String,
    file: File,
    mapping: MmapRegion,
    used: u64,
}

impl GuestMemory {
    /// So many bytes, all 0.
    pub fn new(len: u64) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("guest-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let file = memfd_create(name.as_str(), MFdFlags::MFD_CLOEXEC).expect("a memfd");
        let file = File::from(file);
        file.set_len(len).expect("memory");
        let offset = FileOffset::new(file.try_clone().expect("an fd"), 0);
        let mapping = MmapRegion::from_file(offset, len as usize).expect("a mapping");
        Self { name, file, mapping, used: 0 }
    }

    /// The file.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.mapping.size() as u64
    }

    /// How often it is mapped in this process, by itself and by others.
    pub fn mappings(&self) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
        let name = format!("/memfd:{} ", self.name);
        maps.lines().filter(|line| line.contains(&name)).count()
    }

    /// Cuts the file, as a hostile front end would.
    pub fn cut(&self) {
        self.file.set_len(0).expect("a memfd can be cut");
    }

    /// Frees everything.
    pub fn reset(&mut self) {
        self.used = 0;
    }

    /// The physical address of `len` fresh bytes.
    pub fn allocate(&mut self, len: u64) -> u64 {
        let start = self.used.next_multiple_of(16);
        self.used = start + len;
        assert!(self.used <= self.size(), "the guest is out of memory");
        PHYSICAL + start
    }

    /// Writes to a physical address.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.mapping
            .as_volatile_slice()
            .write_slice(bytes, (address - PHYSICAL) as usize)
            .expect("in memory");
    }

    /// Reads from a physical address.
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mapping
            .as_volatile_slice()
            .read_slice(&mut bytes, (address - PHYSICAL) as usize)
            .expect("in memory");
        bytes
    }

    pub(super) fn shared(&self) -> Arc<Memory> {
        let info = RegionInfo { guest: PHYSICAL, size: self.size(), user: USER, offset: 0 };
        let file = self.file.try_clone().expect("an fd").into();
        Arc::new(Memory::new(vec![Arc::new(Region::map(info, file).expect("mapped"))]).expect("one region"))
    }
}

/// A guest with one pair of queues.
pub struct Guest {
    /// Its memory.
    pub memory: GuestMemory,
    /// The ring it transmits by.
    pub tx: Driver,
    /// The ring it receives by.
    pub rx: Driver,
    /// Bytes of the header before each frame.
    header: usize,
    /// Buffers given to `rx`, as they will be used.
    posted: VecDeque<Vec<Buffer>>,
    features: Features,
}

/// Where each ring, and each class of buffers, begins in a guest's memory: fuzzers aim there.
const MEMORY: u64 = 16 << 20;

impl Guest {
    /// A guest that acknowledged `features`, with rings of `size` entries.
    pub fn new(features: Features, size: u16) -> Self {
        let mut memory = GuestMemory::new(MEMORY);
        let kind = if features.is_packed() { Kind::Packed } else { Kind::Split };
        let (rx, tx) = (Driver::new(&mut memory, kind, size), Driver::new(&mut memory, kind, size));
        let header = Format::new(features).header;
        Self { memory, tx, rx, header, posted: VecDeque::new(), features }
    }

    /// Forgets all that is in its rings, as a reboot does.
    pub fn reboot(&mut self) {
        self.memory.reset();
        let (kind, size) = (self.rx.kind(), self.rx.size());
        self.rx = Driver::new(&mut self.memory, kind, size);
        self.tx = Driver::new(&mut self.memory, kind, size);
        self.posted.clear();
    }

    /// The switch's queues, on the guest's rings as they are now, without a control plane.
    pub fn attach(&self) -> (impl RxQueue + use<>, impl TxQueue + use<>) {
        self.attach_with(None, [&self.rx, &self.tx].map(Driver::base))
    }

    /// The same, with a record in this file and where a front end says that the rings are, which need not be right.
    pub fn attach_with(
        &self,
        record: Option<&Path>,
        bases: [u32; 2],
    ) -> (impl RxQueue + use<>, impl TxQueue + use<>) {
        let records = record.map(|path| Arc::new(Records::open(path, 2).expect("a record")));
        let device = Arc::new(Device::new(1, records.as_ref()).expect("eventfds"));
        self.attach_to(&device, 0, bases);
        (Rx::new(Arc::clone(&device), 0), Tx::new(device))
    }

    /// Puts its rings into a device, as this pair of it. (Several guests are one of several pairs, but for their memory.)
    pub(super) fn attach_to(&self, device: &Device, pair: usize, bases: [u32; 2]) {
        let memory = self.memory.shared();
        let rings = [(&self.rx, Direction::ToGuest), (&self.tx, Direction::FromGuest)];
        for ((vring, base), (driver, direction)) in (2 * pair..).zip(bases).zip(rings) {
            let setup = Setup {
                size: driver.size(),
                areas: driver.areas(),
                direction,
                packed: self.features.is_packed(),
                event_idx: self.features.has_event_idx(),
            };
            let format = Format::new(self.features);
            let record = device.vrings().get(vring).and_then(|vring| vring.record().cloned());
            let start = Start { record, ..Start::from(base) };
            let running = Running::new(Arc::clone(&memory), setup, start, format, None);
            device.start(vring, running.expect("sound rings"));
        }
    }

    /// Transmits a frame behind its header, in buffers of these lengths (the last takes the rest).
    pub fn send(&mut self, vnet: [u8; 10], frame: &[u8], lengths: &[usize], indirect: bool) -> bool {
        let mut whole = vnet.to_vec();
        whole.resize(self.header, 0);
        whole.extend_from_slice(frame);
        let mut chain = Vec::new();
        let mut rest = whole.as_slice();
        for len in lengths.iter().copied().chain([usize::MAX]) {
            let (part, after) = rest.split_at(len.min(rest.len()));
            rest = after;
            if !part.is_empty() {
                let address = self.memory.allocate(part.len() as u64);
                self.memory.write(address, part);
                chain.push(Buffer { address, len: part.len() as u32, writable: false });
            }
        }
        self.tx.post(&mut self.memory, &chain, indirect).is_some()
    }

    /// Frames that it transmitted and that the switch is done with.
    pub fn sent(&mut self) -> usize {
        std::iter::from_fn(|| self.tx.collect(&self.memory)).inspect(|used| assert_eq!(used.1, 0)).count()
    }

    /// Gives the switch a chain of buffers of these lengths to write to.
    pub fn post(&mut self, lengths: &[usize], indirect: bool) -> bool {
        let buffer = |len: &usize| Buffer {
            address: self.memory.allocate(*len as u64),
            len: *len as u32,
            writable: true,
        };
        let chain: Vec<_> = lengths.iter().map(buffer).collect();
        let posted = self.rx.post(&mut self.memory, &chain, indirect).is_some();
        if posted {
            self.posted.push_back(chain);
        }
        posted
    }

    /// The next frame that it received, with its header.
    pub fn receive(&mut self) -> Option<([u8; 10], Vec<u8>)> {
        let mut whole = self.next_used()?;
        let mut frame = whole.split_off(self.header);
        if let Some(count) = whole.get(10..12) {
            for _ in 1..u16::from_le_bytes([count[0], count[1]]) {
                frame.extend(self.next_used().expect("as many buffers as the header says"));
            }
        }
        Some((*whole.first_chunk().expect("a header"), frame))
    }

    fn next_used(&mut self) -> Option<Vec<u8>> {
        let (_, len) = self.rx.collect(&self.memory)?;
        // In the order in which they were posted.
        let chain = self.posted.pop_front().expect("a buffer was posted");
        let mut bytes: Vec<u8> =
            chain.iter().flat_map(|b| self.memory.read(b.address, b.len as usize)).collect();
        assert!(len as usize <= bytes.len(), "more was written than there is room for");
        bytes.truncate(len as usize);
        Some(bytes)
    }
}
