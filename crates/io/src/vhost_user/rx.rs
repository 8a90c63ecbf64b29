//! Receives what a guest transmits.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vswitch_wire::{FrameBuf, Mac, vnet};

use super::buffers::Buffers;
use super::device::Device;
use super::features::Format;
use super::memory::Memory;
use super::ring::{Broken, Ring, Taken, Virtqueue};
use super::vring::Running;
use crate::pool::{LARGE_CAPACITY, WIRE_CAPACITY};
use crate::port::{PortError, RxQueue};
use crate::{Frame, FrameClass, FrameVec, PoolCache};

/// The queue of one pair.
pub(super) struct Rx {
    device: Arc<Device>,
    pair: usize,
    missed: u64,
}

impl Rx {
    pub(super) fn new(device: Arc<Device>, pair: usize) -> Self {
        Self { device, pair, missed: 0 }
    }
}

/// What became of one chain.
enum Received {
    Frame(Frame),
    /// It holds no frame, or one that says of itself what cannot be.
    Lost,
    /// No free frame to read it into.
    Starved,
}

impl RxQueue for Rx {
    fn rx(&mut self, pool: &mut PoolCache, out: &mut FrameVec) -> Result<usize, PortError> {
        if self.device.ended.load(Ordering::Relaxed) {
            return Err(PortError::Gone);
        }
        let before = out.len();
        if self.pair == 0
            && let Some(mac) = self.device.take_announcement()
        {
            announcement(mac, pool).into_iter().for_each(|frame| drop(out.push(frame)));
        }
        if let Some(vring) = self.device.transmitq(self.pair) {
            let missed = &mut self.missed;
            let result = vring.work(|Running { memory, ring, format, taken, .. }| match ring {
                Ring::Split(ring) => receive(ring, memory, format, taken, pool, out, missed),
                Ring::Packed(ring) => receive(ring, memory, format, taken, pool, out, missed),
            });
            self.device.note(result);
        }
        Ok(out.len() - before)
    }

    fn arm(&mut self) {
        self.device.transmitq(self.pair).into_iter().for_each(super::vring::Vring::arm);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.device.transmitq(self.pair).map(super::vring::Vring::fd)
    }

    fn missed(&mut self) -> u64 {
        self.missed
    }
}

fn receive<Q: Virtqueue>(
    queue: &mut Q,
    memory: &Memory,
    format: &Format,
    taken: &mut Taken,
    pool: &mut PoolCache,
    out: &mut FrameVec,
    missed: &mut u64,
) -> Result<(), Broken> {
    taken.clear();
    queue.take(memory, out.room(), taken)?;
    for (i, chain) in taken.chains().iter().enumerate() {
        let len = (chain.len as usize).checked_sub(format.header);
        match read(Buffers::new(memory, taken.spans(chain)), len, format, pool) {
            Received::Frame(frame) => drop(out.push(frame)), // there is room
            Received::Lost => *missed += 1,
            Received::Starved => {
                queue.untake(&taken.chains()[i..]);
                break;
            }
        }
        queue.put(memory, chain, 0)?;
    }
    Ok(())
}

/// Reads a header and the frame of `len` bytes behind it.
fn read(mut buffers: Buffers<'_>, len: Option<usize>, format: &Format, pool: &mut PoolCache) -> Received {
    let Some(len) = len.filter(|len| (1..=LARGE_CAPACITY).contains(len)) else { return Received::Lost };
    let Some(mut frame) = pool.acquire_for(len) else {
        // Large frames are few: if they are gone, the frames behind this one need not wait for one.
        return if len <= WIRE_CAPACITY { Received::Starved } else { Received::Lost };
    };
    frame.set_len(len);
    let mut header = [0; vnet::HEADER_LEN + super::features::NUM_BUFFERS];
    let header = header.get_mut(..format.header).unwrap_or_default();
    let whole = buffers.read(header).and_then(|()| buffers.read(frame.bytes_mut()));
    let offload = whole.and_then(|()| vnet::parse(header.first_chunk()?, frame.bytes()).ok());
    let Some(offload) = offload.filter(|offload| format.may_leave(offload)) else {
        pool.release(frame);
        return Received::Lost;
    };
    frame.meta_mut().offload = offload;
    Received::Frame(frame)
}

/// A broadcast from `mac`, by which switches learn where it is now: a RARP request (RFC 903) for its own address, as
/// hypervisors send it for a guest that has moved. Put off for ever when no frame is free; the front end sends several.
fn announcement(mac: Mac, pool: &mut PoolCache) -> Option<Frame> {
    const SHORTEST: usize = 60; // IEEE 802.3-2022 4.2.3.3, without FCS
    const HEADER: [u8; 10] = [0x80, 0x35, 0, 1, 0x08, 0, 6, 4, 0, 3]; // EtherType, Ethernet, IPv4, lengths, request
    let mut frame = pool.acquire(FrameClass::Wire)?;
    frame.set_len(SHORTEST);
    let bytes = frame.bytes_mut();
    bytes.fill(0);
    bytes[..6].fill(0xff);
    bytes[6..12].copy_from_slice(&mac.0);
    bytes[12..22].copy_from_slice(&HEADER);
    bytes[22..28].copy_from_slice(&mac.0); // sender
    bytes[32..38].copy_from_slice(&mac.0); // target
    Some(frame)
}
