//! Transmits to a guest.
//!
//! The frame is copied into the guest's buffers anyway, so this is where work is finished that the guest did not
//! agree to take: what it takes may change between two batches (a reboot from firmware to an operating system is
//! enough), and the ring knows it best.

use std::sync::Arc;

use vswitch_wire::{FrameBuf, Offload, Segmenter, checksum, flow, is_tunnelled, l4_header_end, vlan, vnet};

use super::buffers::Buffers;
use super::device::Device;
use super::features::{Format, NUM_BUFFERS};
use super::memory::Memory;
use super::record::ENTRIES;
use super::ring::{BATCH, Broken, Ring, Taken, Virtqueue};
use super::vring::Running;
use crate::pool::LARGE_CAPACITY;
use crate::port::{TxQueue, TxReport};
use crate::{Frame, FrameVec, PoolCache};

/// Chains that one frame may lie in: buffers that are shorter than 512 bytes are not worth having.
const SPREAD: usize = 128;
const _: () = assert!(SPREAD <= ENTRIES as usize); // the log of a packed ring holds a whole frame

/// A way to the guest for one worker.
pub(super) struct Tx {
    device: Arc<Device>,
    /// For each frame of a batch which of the guest's pairs it goes by; empty where there is one.
    ways: Vec<u32>,
    /// Holds one segment.
    segment: Box<[u8]>,
}

impl Tx {
    pub(super) fn new(device: Arc<Device>) -> Self {
        Self { device, ways: Vec::new(), segment: vec![0; LARGE_CAPACITY].into() }
    }

    /// Sends those of the frames whose way is `way`.
    fn send_by(&mut self, pair: usize, way: u32, frames: &mut [Frame], report: &mut TxReport) {
        let Some(vring) = self.device.receiveq(pair) else { return };
        let (ways, segment) = (self.ways.as_slice(), &mut self.segment);
        let count = if ways.is_empty() { frames.len() } else { ways.iter().filter(|w| **w == way).count() };
        if count == 0 {
            return;
        }
        let mut ways = ways.iter();
        let frames = frames.iter_mut().filter(|_| ways.next().is_none_or(|w| *w == way));
        let result = vring.work(|Running { memory, ring, format, taken, .. }| match ring {
            Ring::Split(queue) => {
                Stock { queue, memory, format, taken, used: 0 }.send_all(frames, count, segment, report)
            }
            Ring::Packed(queue) => {
                Stock { queue, memory, format, taken, used: 0 }.send_all(frames, count, segment, report)
            }
        });
        self.device.note(result);
    }
}

impl TxQueue for Tx {
    fn tx(&mut self, pool: &mut PoolCache, frames: &mut FrameVec) -> TxReport {
        for frame in frames.as_mut_slice() {
            // Guests take tags in the bytes only; `Stock::send` sees where this failed.
            let _ = vlan::push(frame);
        }
        let mut report = TxReport::default();
        let pairs = self.device.receiving();
        self.ways.clear();
        if pairs.count() > 1 {
            // A flow keeps to one pair, and so its order.
            let way = |frame: &Frame| u64::from(flow::hash(frame.bytes())) * u64::from(pairs.count());
            self.ways.extend(frames.as_slice().iter().map(|frame| (way(frame) >> 32) as u32));
        }
        for (way, pair) in (0..).zip(pairs.iter()) {
            self.send_by(pair, way, frames.as_mut_slice(), &mut report);
        }
        // Where there is no ring: there is nobody to take them.
        let count = frames.len() as u32;
        report.full += count - (report.sent + report.full + report.refused);
        for frame in frames.drain() {
            pool.release(frame);
        }
        report
    }

    fn reclaim(&mut self, _pool: &mut PoolCache) {
        // The guest has a copy of every frame.
    }
}

/// Why a frame was not sent.
enum Unsent {
    Full,
    Refused,
    Broken(Broken),
}

impl From<Broken> for Unsent {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// Empty buffers of the guest.
struct Stock<'a, Q> {
    queue: &'a mut Q,
    memory: &'a Memory,
    format: &'a Format,
    taken: &'a mut Taken,
    /// Chains of `taken` that were used.
    used: usize,
}

impl<Q: Virtqueue> Stock<'_, Q> {
    /// Sends these frames, `count` of them.
    fn send_all<'f>(
        mut self,
        frames: impl Iterator<Item = &'f mut Frame>,
        count: usize,
        segment: &mut [u8],
        report: &mut TxReport,
    ) -> Result<(), Broken> {
        self.taken.clear();
        self.queue.take(self.memory, count, self.taken)?;
        for frame in frames {
            match self.send(frame, segment) {
                Ok(()) => {
                    report.sent += 1;
                    report.sent_bytes += frame.bytes().len() as u64;
                }
                Err(Unsent::Full) => report.full += 1,
                Err(Unsent::Refused) => report.refused += 1,
                Err(Unsent::Broken(broken)) => return Err(broken),
            }
        }
        self.queue.untake(self.taken.chains().get(self.used..).unwrap_or_default());
        Ok(())
    }

    /// Sends a frame, after the work that the guest does not take.
    fn send(&mut self, frame: &mut Frame, segment: &mut [u8]) -> Result<(), Unsent> {
        let offload = frame.meta().offload;
        // A tag that is still beside the bytes found no room in them.
        if frame.meta().tag.is_some() || offload.check(frame.bytes()).is_err() {
            return Err(Unsent::Refused);
        }
        match (offload.gso, offload.csum) {
            (Some(gso), _)
                if !self.format.to_guest.takes(gso.kind) || is_tunnelled(frame.bytes(), &offload) =>
            {
                self.send_segments(frame.bytes(), &offload, segment)
            }
            (None, Some(csum)) if !self.format.to_guest.takes_csum(csum) => {
                checksum::complete(frame.bytes_mut(), csum).map_err(|_| Unsent::Refused)?;
                self.place(frame.bytes(), Offload::NONE)
            }
            _ => self.place(frame.bytes(), offload),
        }
    }

    /// Sends a frame cut to pieces. Those that went before one that found no room are received all the same.
    fn send_segments(&mut self, bytes: &[u8], offload: &Offload, buffer: &mut [u8]) -> Result<(), Unsent> {
        let mut segments = Segmenter::new(bytes, offload).map_err(|_| Unsent::Refused)?;
        let finish = offload.csum.is_none_or(|csum| !self.format.to_guest.takes_csum(csum));
        while let Some((len, rest)) = segments.next_into(buffer, finish) {
            self.place(buffer.get(..len).unwrap_or_default(), rest)?;
        }
        Ok(())
    }

    /// Copies a frame into the guest's buffers, behind its header.
    fn place(&mut self, bytes: &[u8], offload: Offload) -> Result<(), Unsent> {
        let mut rest = self.format.header + bytes.len();
        let count = self.reserve(rest)?;
        let chains = self.taken.chains().get(self.used..self.used + count).unwrap_or_default();
        // A hint: the guest's network stack takes so many bytes out of the buffers at once.
        let headers = l4_header_end(bytes, &offload).and_then(|len| u16::try_from(len).ok());
        let mut header = [0; vnet::HEADER_LEN + NUM_BUFFERS];
        let (vnet_header, buffers) = header.split_at_mut(vnet::HEADER_LEN);
        vnet_header.copy_from_slice(&vnet::emit(offload, headers.unwrap_or(0)));
        buffers.copy_from_slice(&(count as u16).to_le_bytes());
        let header = header.get(..self.format.header).unwrap_or_default();
        let mut room = Buffers::new(self.memory, self.taken.spans_of(chains));
        room.write(header).and_then(|()| room.write(bytes)).ok_or(Broken::Memory)?;
        self.queue.begin(self.memory, count)?;
        for chain in chains {
            let len = rest.min(chain.len as usize);
            rest -= len;
            self.queue.put(self.memory, chain, len as u32)?;
        }
        self.used += count;
        Ok(())
    }

    /// How many of the next chains hold `len` bytes.
    fn reserve(&mut self, len: usize) -> Result<usize, Unsent> {
        let limit = if self.format.mergeable { SPREAD } else { 1 };
        let mut room = 0;
        for count in 1..=limit {
            let at = self.used + count - 1;
            if self.taken.chains().len() == at {
                self.queue.take(self.memory, BATCH, self.taken)?;
            }
            let chain = self.taken.chains().get(at).ok_or(Unsent::Full)?;
            room += chain.len as usize;
            if room >= len {
                return Ok(count);
            }
        }
        Err(Unsent::Refused)
    }
}
