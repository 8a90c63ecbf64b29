//! One worker's way out: a ring for small frames, a socket beside it for large ones.

use std::io;
use std::mem;
use std::ptr;

use vswitch_wire::{FrameBuf, l4_header_end, vlan, vnet};

use super::ring::{HEADER, Ring, SLOT};
use super::socket::{Socket, VNET};
use crate::{Frame, FrameVec, PoolCache, TxQueue, TxReport};

/// Slots of the ring; a NIC holds a slot until it has sent the frame.
const SLOTS: usize = 256;
/// The longest frame that goes by the ring, in bytes.
const RING_LIMIT: usize = SLOT - HEADER - VNET;
/// Bytes that may be under way to the device.
const IN_FLIGHT: libc::c_int = 4 << 20;

/// One worker's way out.
#[derive(Debug)]
pub(super) struct Tx {
    small: Socket,
    ring: Ring,
    /// The slot to be filled next.
    next: usize,
    /// Slots before `next` that were not handed to the kernel yet.
    queued: usize,
    large: Socket,
}

impl Tx {
    pub(super) fn open(ifindex: u32) -> io::Result<Self> {
        let small = Socket::new()?;
        // A slot that the kernel finds wrong is skipped instead of blocking the ring.
        small.set(libc::PACKET_LOSS, 1)?;
        small.set_buffer(libc::SO_SNDBUFFORCE, IN_FLIGHT)?;
        let ring = Ring::map(&small, libc::PACKET_TX_RING, SLOTS)?;
        small.bind(ifindex, 0)?;
        let large = Socket::new()?;
        large.set_buffer(libc::SO_SNDBUFFORCE, IN_FLIGHT)?;
        large.bind(ifindex, 0)?;
        Ok(Self { small, ring, next: 0, queued: 0, large })
    }

    /// Sends one frame, or puts it into the ring.
    fn send(&mut self, frame: &mut Frame, report: &mut TxReport) {
        // The kernel takes tags in the bytes only.
        if vlan::push(frame).is_err() || frame.meta().offload.check(frame.bytes()).is_err() {
            report.refused += 1;
        } else if frame.meta().offload.gso.is_none() && frame.bytes().len() <= RING_LIMIT {
            self.enqueue(frame, report);
        } else {
            self.flush(report); // keeps the order
            self.send_large(frame, report);
        }
    }

    fn enqueue(&mut self, frame: &Frame, report: &mut TxReport) {
        if self.ring.slot(self.next).status() != libc::TP_STATUS_AVAILABLE {
            self.flush(report);
        }
        let slot = self.ring.slot(self.next);
        if slot.status() != libc::TP_STATUS_AVAILABLE {
            report.full += 1; // the device has not sent what this slot held before
            return;
        }
        let len = frame.bytes().len();
        // The kernel copies as many bytes as `hdr_len` says; what is beyond would stay in the slot, as pages.
        let mut header = vnet::emit(frame.meta().offload, 0);
        header[2..4].copy_from_slice(&(len as u16).to_ne_bytes());
        slot.write(&[&header, frame.bytes()]);
        slot.set_len((VNET + len) as u32);
        slot.set_status(libc::TP_STATUS_SEND_REQUEST);
        self.next = self.ring.after(self.next);
        self.queued += 1;
    }

    /// Hands the ring to the kernel: on return no slot waits to be sent.
    fn flush(&mut self, report: &mut TxReport) {
        while self.queued > 0 {
            // SAFETY: an empty message.
            let result = unsafe { libc::send(self.small.raw(), ptr::null(), 0, libc::MSG_DONTWAIT) };
            let error = if result < 0 { errno() } else { 0 };
            let progress = self.settle(report);
            match error {
                // The kernel dropped the oldest frame, but would try its slot again.
                libc::ENOBUFS if self.queued > 0 => {
                    self.skip_oldest();
                    report.full += 1;
                }
                _ if progress => {}
                0 | libc::EAGAIN | libc::EINTR | libc::ENOBUFS => report.full += self.withdraw(),
                _ => report.refused += self.withdraw(),
            }
        }
    }

    /// Counts the slots that the kernel took, oldest first; false when there was none.
    fn settle(&mut self, report: &mut TxReport) -> bool {
        let before = self.queued;
        while self.queued > 0 {
            let slot = self.ring.slot(self.oldest());
            if slot.status() == libc::TP_STATUS_SEND_REQUEST {
                break;
            }
            self.queued -= 1;
            let len = slot.header().tp_len as usize;
            if len > 0 {
                report.sent += 1;
                report.sent_bytes += len.saturating_sub(VNET) as u64;
            }
        }
        self.queued < before
    }

    /// Makes the oldest slot one that the kernel skips, and [`Self::settle`] does not count.
    fn skip_oldest(&mut self) {
        self.ring.slot(self.oldest()).set_len(0);
    }

    /// Takes back all queued slots, and returns how many held a frame. The kernel's position is at the oldest
    /// of them, so ours has to return there too.
    fn withdraw(&mut self) -> u32 {
        let mut frames = 0;
        while self.queued > 0 {
            self.next = self.ring.before(self.next);
            self.queued -= 1;
            let slot = self.ring.slot(self.next);
            frames += u32::from(slot.header().tp_len > 0);
            slot.set_status(libc::TP_STATUS_AVAILABLE);
        }
        frames
    }

    const fn oldest(&self) -> usize {
        (self.next + self.ring.slots() - self.queued) % self.ring.slots()
    }

    fn send_large(&self, frame: &Frame, report: &mut TxReport) {
        let bytes = frame.bytes();
        let offload = frame.meta().offload;
        // A hint: the kernel takes so many bytes out of the pages at once.
        let header_len = l4_header_end(bytes, &offload).and_then(|len| u16::try_from(len).ok());
        let mut header = vnet::emit(offload, header_len.unwrap_or(0));
        let mut parts = [
            libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: VNET },
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() },
        ];
        // SAFETY: all zero is a valid message.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), parts.len());
        // SAFETY: both parts are as long as said; the kernel only reads them.
        if unsafe { libc::sendmsg(self.large.raw(), &raw const message, libc::MSG_DONTWAIT) } >= 0 {
            report.sent += 1;
            report.sent_bytes += bytes.len() as u64;
        } else if matches!(errno(), libc::EAGAIN | libc::ENOBUFS | libc::EINTR) {
            report.full += 1;
        } else {
            report.refused += 1;
        }
    }
}

fn errno() -> libc::c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

impl TxQueue for Tx {
    fn tx(&mut self, pool: &mut PoolCache, frames: &mut FrameVec) -> TxReport {
        let mut report = TxReport::default();
        for mut frame in frames.drain() {
            self.send(&mut frame, &mut report);
            pool.release(frame);
        }
        self.flush(&mut report);
        report
    }

    fn reclaim(&mut self, _pool: &mut PoolCache) {
        // The kernel has copied every frame.
    }
}
