//! The sending half of a socket: tx ring and completion ring.
//!
//! In copy mode the kernel sends within our system call, a bounded number of frames a call (32 unless told), and
//! says EAGAIN while there are more. So it is kicked until the ring is drained, or until it takes nothing several
//! times running: a stall, which is counted; the frames stay in the ring, in order, for the next kick.
//!
//! What was sent still holds its chunk until the receiver lets go of it, however long a hostile one makes that. So a
//! port may have only so many chunks out; beyond them frames are dropped here, and not at the ports of others.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use libc::xdp_desc;
use vswitch_wire::{FrameBuf, Offload};

use super::ring::{Completion, Tx};
use super::socket::Socket;
use super::umem::{Lent, address};
use crate::pool::{CHUNK, Frame, FrameClass, FrameVec, HEADROOM, Pool, PoolCache, Span};
use crate::{TxQueue, TxReport};

/// Kicks in a row of which the kernel took no frame, after which it is left alone.
const FRUITLESS_KICKS: u32 = 3;
/// Bytes of a large frame that go into one chunk.
pub(super) const PART: usize = CHUNK - HEADROOM;
/// Chunks that one frame may have, in copy mode: what an skb can hold besides its head (MAX_SKB_FRAGS).
pub(super) const COPY_PARTS: usize = 17;
/// In zero-copy mode: what every driver takes that takes several at all.
pub(super) const ZEROCOPY_PARTS: usize = 4;
/// A port may have this part of the pool's wire frames out,
const QUOTA_PART: usize = 64;
/// and so many chunks by each socket in any case: a batch.
const QUOTA_MIN: usize = 64;
const _: () = assert!(QUOTA_MIN > COPY_PARTS);
/// Bytes of the shortest frame that the kernel sends: an Ethernet header.
const SHORTEST: usize = 14;

/// What workers share of one socket.
pub(super) struct Sender {
    tx: Tx,
    completion: Completion,
    /// `None` only while it is being dropped.
    lent: Option<Lent>,
    /// Chunks that may be lent at once.
    quota: usize,
    max_parts: usize,
    /// Scratch: the chunks that a large frame is copied to.
    parts: Vec<Frame>,
    /// The last kick said ENETDOWN.
    is_down: bool,
    socket: Arc<Socket>, // last: the rings have to be unmapped when it is closed
}

/// One worker's way out. Where the device has fewer tx queues than there are workers, several share a sender.
pub(super) struct XdpTx {
    sender: Arc<Mutex<Sender>>,
}

impl XdpTx {
    pub(super) fn new(sender: Arc<Mutex<Sender>>) -> Self {
        Self { sender }
    }
}

impl TxQueue for XdpTx {
    fn tx(&mut self, pool: &mut PoolCache, frames: &mut FrameVec) -> TxReport {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = TxReport::default();
        sender.harvest(pool);
        if sender.is_down {
            sender.is_down = is_down(&sender.socket.kick_tx());
        }
        let accepts = !sender.is_down && !sender.socket.is_gone();
        for frame in frames.drain() {
            if accepts {
                sender.enqueue(pool, frame, &mut report);
            } else {
                report.refused += 1;
                pool.release(frame);
            }
        }
        sender.drain(pool, &mut report);
        report
    }

    fn reclaim(&mut self, pool: &mut PoolCache) {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.harvest(pool);
        sender.drain(pool, &mut TxReport::default());
    }
}

impl Sender {
    /// `max_parts` is 1 where the socket was bound without XDP_USE_SG.
    pub(super) fn new(
        socket: Arc<Socket>,
        tx: Tx,
        completion: Completion,
        lent: Lent,
        quota: usize,
        max_parts: usize,
    ) -> Self {
        let parts = Vec::with_capacity(max_parts);
        Self { tx, completion, lent: Some(lent), quota, max_parts, parts, is_down: false, socket }
    }

    /// Puts a frame on the ring, to be sent by [`Self::drain`], or gives it back to the pool; counts it either way.
    fn enqueue(&mut self, pool: &mut PoolCache, frame: Frame, report: &mut TxReport) {
        let len = frame.bytes().len();
        let parts = len.div_ceil(PART);
        let meta = frame.meta();
        // Unfinished work would be lost on the way, a tag too: by now the switch has done it and put it in.
        let is_finished = meta.offload == Offload::NONE && meta.tag.is_none();
        if !is_finished || len < SHORTEST || parts > self.max_parts {
            report.refused += 1;
            return pool.release(frame);
        }
        if !self.has_room(parts) {
            self.drain(pool, report);
            self.harvest(pool);
        }
        if !self.has_room(parts) {
            report.full += 1;
            return pool.release(frame);
        }
        if !self.push(pool, frame) {
            report.full += 1;
            return;
        }
        report.sent += 1;
        report.sent_bytes += len as u64;
    }

    fn has_room(&mut self, entries: usize) -> bool {
        let out = self.lent.as_ref().map_or(0, Lent::len) as usize;
        out + entries <= self.quota && self.tx.free(entries as u32) as usize >= entries
    }

    /// Lends the frame, or copies of it in chunks; there is room for them. False when the pool has no chunk.
    fn push(&mut self, pool: &mut PoolCache, frame: Frame) -> bool {
        let Some(lent) = &mut self.lent else { return false };
        match lent.lend(frame) {
            Ok(span) => push_span(&mut self.tx, span, 0),
            Err(frame) => {
                let is_whole = split(pool, &frame, &mut self.parts);
                pool.release(frame);
                if !is_whole {
                    self.parts.drain(..).for_each(|part| pool.release(part));
                    return false;
                }
                let last = self.parts.len().saturating_sub(1);
                for (n, part) in self.parts.drain(..).enumerate() {
                    let Ok(span) = lent.lend(part) else { continue }; // a wire frame of the cache's pool
                    push_span(&mut self.tx, span, if n < last { libc::XDP_PKT_CONTD } else { 0 });
                }
                true
            }
        }
    }

    /// Takes back chunks whose sending has ended.
    fn harvest(&mut self, pool: &mut PoolCache) {
        let Some(lent) = &mut self.lent else { return };
        let mut any = false;
        while let Some(address) = self.completion.pop() {
            any = true;
            if let Some(frame) = lent.take_back(address, 0) {
                pool.release(frame);
            }
        }
        if any {
            self.completion.release();
        }
    }

    /// Has the kernel send what is on the ring. Ends: each kick takes a frame at least, or counts as fruitless.
    fn drain(&mut self, pool: &mut PoolCache, report: &mut TxReport) {
        self.tx.publish();
        let mut fruitless = 0;
        let mut waiting = self.tx.outstanding();
        while waiting > 0 {
            if self.socket.is_zerocopy() && !self.tx.needs_wakeup() {
                return; // the device is at it
            }
            // EAGAIN says that there are more, EBUSY that the device dropped one, ENOBUFS that memory is short.
            self.is_down = is_down(&self.socket.kick_tx());
            self.harvest(pool);
            if self.is_down || self.socket.is_gone() || self.socket.is_zerocopy() {
                return;
            }
            let left = self.tx.outstanding();
            fruitless = if left < waiting { 0 } else { fruitless + 1 };
            if fruitless == FRUITLESS_KICKS {
                report.stalls += 1;
                return;
            }
            waiting = left;
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(mut lent) = self.lent.take() {
            while let Some(address) = self.completion.pop() {
                drop(lent.take_back(address, 0)); // home, by the slower way
            }
            self.socket.leave_sent(lent);
        }
    }
}

/// Chunks that each of a port's `sockets` may have out.
pub(super) fn quota(pool: &Pool, sockets: usize) -> usize {
    (pool.total(FrameClass::Wire) / QUOTA_PART / sockets.max(1)).max(QUOTA_MIN)
}

fn push_span(tx: &mut Tx, span: Span, options: u32) -> bool {
    tx.push(xdp_desc { addr: address(span), len: span.len, options })
}

/// Copies a frame into chunks; false when the pool ran out of them.
fn split(pool: &mut PoolCache, frame: &Frame, parts: &mut Vec<Frame>) -> bool {
    frame.bytes().chunks(PART).all(|bytes| {
        pool.acquire_for(bytes.len()).is_some_and(|mut part| {
            part.set_len(bytes.len());
            part.bytes_mut().copy_from_slice(bytes);
            parts.push(part);
            true
        })
    })
}

fn is_down(kick: &io::Result<()>) -> bool {
    kick.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ENETDOWN))
}
