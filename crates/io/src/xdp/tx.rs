//! The sending half of a socket: tx ring and completion ring.
//!
//! In copy mode the kernel sends within our system call, a bounded number of frames a call (32 unless told), and
//! says EAGAIN while there are more. So it is kicked until the ring is drained, or until it takes nothing several
//! times running: a stall, which is counted; the frames stay in the ring, in order, for the next kick.

use std::sync::{Arc, Mutex, PoisonError};

use libc::xdp_desc;
use vswitch_wire::{FrameBuf, Offload};

use super::ring::{Completion, Tx};
use super::socket::Socket;
use super::umem::{Lent, address};
use crate::pool::{CHUNK, Frame, FrameVec, HEADROOM, PoolCache};
use crate::{TxQueue, TxReport};

/// Kicks in a row of which the kernel took no frame, after which it is left alone.
const FRUITLESS_KICKS: u32 = 3;
/// Bytes of a large frame that go into one chunk.
pub(super) const PART: usize = CHUNK - HEADROOM;
/// Chunks that one frame may have, in copy mode: what an skb can hold besides its head (MAX_SKB_FRAGS).
pub(super) const COPY_PARTS: usize = 17;
/// In zero-copy mode: what every driver takes that takes several at all.
pub(super) const ZEROCOPY_PARTS: usize = 4;
/// Bytes of the shortest frame that the kernel sends: an Ethernet header.
const SHORTEST: usize = 14;

/// What workers share of one socket.
pub(super) struct Sender {
    tx: Tx,
    completion: Completion,
    /// `None` only while it is being dropped.
    lent: Option<Lent>,
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
        max_parts: usize,
    ) -> Self {
        let parts = Vec::with_capacity(max_parts);
        Self { tx, completion, lent: Some(lent), max_parts, parts, is_down: false, socket }
    }

    /// Puts a frame on the ring, unpublished, or gives it back to the pool; counts it either way.
    fn enqueue(&mut self, pool: &mut PoolCache, frame: Frame, report: &mut TxReport) {
        let len = frame.bytes().len();
        let meta = frame.meta();
        // Unfinished work would be lost on the way, a tag too: the switch has finished it and put it in.
        let is_finished = meta.offload == Offload::NONE && meta.tag.is_none();
        let parts = len.div_ceil(PART).max(1);
        let Some(lent) = self.lent.as_mut().filter(|_| is_finished && len >= SHORTEST) else {
            report.refused += 1;
            return pool.release(frame);
        };
        if self.tx.free(parts as u32) < parts as u32 {
            self.drain(pool, report);
            return self.enqueue_in_room(pool, frame, parts, report);
        }
        match lent.lend(frame) {
            Ok(span) => {
                let options = 0;
                let _ = self.tx.push(xdp_desc { addr: address(span), len: span.len, options }); // there is room
                report.sent += 1;
                report.sent_bytes += len as u64;
            }
            Err(frame) => self.copy(pool, frame, parts, report),
        }
    }
}
