//! The receiving half of a socket: rx ring and fill ring.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use libc::xdp_desc;
use vswitch_wire::{FrameBuf, ethernet, recognise, recognise_gso};

use super::program::{TAG_META, tag_before};
use super::ring::{Fill, Rx};
use super::socket::Socket;
use super::umem::{Lent, address};
use crate::pool::{Frame, FrameClass, FrameVec, PoolCache};
use crate::{PortError, RxQueue};

/// Free fill slots at which they are filled: below it, the kernel's index is not worth a look.
const REFILL: u32 = 32;
/// Polls without a frame after which the device is asked whether it still exists (one system call).
const QUIET_POLLS: u32 = 1024;

/// What this device's frames look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looks {
    /// The program left the VLAN tag in the bytes before the frame.
    pub(super) tag_before: bool,
    /// L4 checksums may be unfinished: the sender is this host's own stack, or a guest's.
    pub(super) unfinished: bool,
    /// The MTU of a sender that leaves segmentation to the device, and does not say so: a tap's guest.
    pub(super) segments_beyond: Option<usize>,
}

/// One rx queue, owned by one worker.
pub(super) struct XdpRx {
    rx: Rx,
    fill: Fill,
    /// `None` only while it is being dropped.
    lent: Option<Lent>,
    looks: Looks,
    chain: Chain,
    quiet: u32,
    /// The last answer of [`RxQueue::missed`].
    missed: u64,
    socket: Arc<Socket>, // last: the rings have to be unmapped when it is closed
}

/// A frame that comes in several buffers, all but the last marked XDP_PKT_CONTD.
#[derive(Debug, Default)]
struct Chain {
    state: Gathering,
    /// Frames lost because there was no large frame for them, or that are larger than one.
    lost: u64,
}

#[derive(Debug, Default)]
enum Gathering {
    /// The next buffer begins a frame.
    #[default]
    None,
    /// The next buffer goes on here.
    Into(Frame),
    /// The next buffer belongs to a frame that is lost.
    Skipping,
}

impl Chain {
    /// Adds a buffer, and returns the frame that it completes.
    fn add(&mut self, pool: &mut PoolCache, part: Frame, is_last: bool) -> Option<Frame> {
        let state = std::mem::take(&mut self.state);
        let gathered = match state {
            Gathering::None if is_last => return Some(part),
            Gathering::None => pool.acquire(FrameClass::Large).map(|mut whole| {
                *whole.meta_mut() = *part.meta();
                whole
            }),
            Gathering::Into(whole) => Some(whole),
            Gathering::Skipping => None,
        };
        let gathered = gathered.and_then(|whole| append(pool, whole, part.bytes()));
        pool.release(part);
        if is_last {
            self.lost += u64::from(gathered.is_none());
            return gathered;
        }
        self.state = gathered.map_or(Gathering::Skipping, Gathering::Into);
        None
    }
}

/// `whole` with `part` behind it, or nothing where they do not fit.
fn append(pool: &mut PoolCache, mut whole: Frame, part: &[u8]) -> Option<Frame> {
    let end = whole.bytes().len();
    if end + part.len() > whole.capacity() {
        pool.release(whole);
        return None;
    }
    whole.set_len(end + part.len());
    whole.bytes_mut()[end..].copy_from_slice(part);
    Some(whole)
}

impl XdpRx {
    /// Fills the fill ring, so that frames are received from the start.
    pub(super) fn new(
        socket: Arc<Socket>,
        rx: Rx,
        fill: Fill,
        lent: Lent,
        looks: Looks,
        pool: &mut PoolCache,
    ) -> Self {
        let chain = Chain::default();
        let mut queue = Self { rx, fill, lent: Some(lent), looks, chain, quiet: 0, missed: 0, socket };
        queue.refill(pool);
        queue
    }

    fn refill(&mut self, pool: &mut PoolCache) {
        let (free, Some(lent)) = (self.fill.free(REFILL), &mut self.lent) else { return };
        if free < REFILL && self.fill.outstanding() > 0 {
            return;
        }
        // Fill and receive ring together hold one ring's worth, so that a flood takes no more of the pool.
        let free = free.min(self.fill.size().saturating_sub(lent.len()));
        for _ in 0..free {
            let Some(Ok(span)) = pool.acquire(FrameClass::Wire).map(|frame| lent.lend(frame)) else { break };
            let _ = self.fill.push(address(span)); // there is room for `free` of them
        }
        self.fill.publish();
        if self.fill.needs_wakeup() {
            let _ = self.socket.kick_rx(); // what matters of its result the socket keeps
        }
    }

    /// The frame that a descriptor completes.
    fn receive(&mut self, pool: &mut PoolCache, desc: xdp_desc) -> Option<Frame> {
        let mut frame = self.lent.as_mut()?.take_back(desc.addr, desc.len)?;
        let begins = matches!(self.chain.state, Gathering::None);
        if begins && self.looks.tag_before {
            if frame.grow_front(TAG_META).is_err() {
                // Without a look at its tag it could end in the wrong VLAN.
                pool.release(frame);
                self.chain.lost += 1;
                return None;
            }
            let tag = frame.bytes().first_chunk().copied().and_then(tag_before);
            frame.shrink_front(TAG_META);
            frame.meta_mut().tag = tag;
        }
        let mut frame = self.chain.add(pool, frame, desc.options & libc::XDP_PKT_CONTD == 0)?;
        if self.looks.unfinished {
            frame.meta_mut().offload.csum = recognise(frame.bytes_mut());
        }
        if let Some(mtu) = self.looks.segments_beyond
            && frame.bytes().len() > mtu + ethernet::HEADER_LEN
            && let Some(csum) = frame.meta().offload.csum
        {
            frame.meta_mut().offload.gso = recognise_gso(frame.bytes(), csum, mtu);
        }
        Some(frame)
    }
}

impl RxQueue for XdpRx {
    fn rx(&mut self, pool: &mut PoolCache, out: &mut FrameVec) -> Result<usize, PortError> {
        self.refill(pool);
        let (before, waiting) = (out.len(), self.rx.available());
        for _ in 0..waiting {
            if out.room() == 0 {
                break;
            }
            let Some(desc) = self.rx.pop() else { break };
            if let Some(frame) = self.receive(pool, desc) {
                let _ = out.push(frame); // there is room
            }
        }
        if waiting > 0 {
            self.rx.release();
            self.quiet = 0;
            return Ok(out.len() - before);
        }
        self.quiet += 1;
        if self.quiet >= QUIET_POLLS {
            self.quiet = 0;
            let _ = self.socket.kick_rx(); // a link that is down is no error; one that is gone the socket keeps
        }
        if self.socket.is_gone() { Err(PortError::Gone) } else { Ok(0) }
    }

    fn arm(&mut self) {
        // AF_XDP sockets are always armed. But the socket of a deleted device never gets readable: the `rx`
        // that follows has to ask.
        self.quiet = QUIET_POLLS;
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.fd())
    }

    fn missed(&mut self) -> u64 {
        // A frame that finds the fill ring empty counts in `rx_dropped` too, so its own counter is left out.
        if let Ok(now) = self.socket.statistics() {
            self.missed = now.rx_dropped + now.rx_ring_full + self.chain.lost;
        }
        self.missed
    }
}

impl Drop for XdpRx {
    fn drop(&mut self) {
        if let Some(lent) = self.lent.take() {
            self.socket.leave_received(lent);
        }
    }
}
