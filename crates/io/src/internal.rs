//! A port without a device: what the workers send to the switch itself, and what that sends.
//!
//! To the workers it is a trunk like any other. Behind it are no rings but queues in memory: one lane from the switch's
//! own stacks to a worker, and from the workers one queue for each VLAN ID ([`queues`]), so that the network that sends
//! too much loses its own frames alone. Workers never wait: what does not fit is dropped, and counted as with any device
//! whose ring is full.
//!
//! The [`Handle`] is for one thread, which is woken by a descriptor.

mod queues;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vswitch_wire::{Caps, FrameBuf, Tag, Vid, vlan};

use crate::lane::{Bell, Lane};
use crate::port::{Facts, Kind, Opened, PortError, RxQueue, TxQueue, TxReport};
use crate::{Frame, FrameClass, FrameVec, Pool, PoolCache};
use queues::Queues;

/// Frames that wait for the workers at most.
const LIMIT: usize = 1024;
/// The MTU, in bytes: that of any Ethernet.
pub const MTU: u32 = 1500;
/// Bytes of the shortest Ethernet frame, without FCS (IEEE 802.3-2022 clause 4A.4.2). Not every device pads.
const FRAME_MIN: usize = 60;

/// A frame that was not sent. It is counted as missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSent;

/// The switch's own end.
#[derive(Debug)]
pub struct Handle {
    pool: PoolCache,
    shared: Arc<Shared>,
    /// What was taken out of the queues and not looked at yet.
    taken: Vec<Frame>,
}

#[derive(Debug)]
struct Shared {
    into: Lane,
    /// Frames that did not fit into it.
    missed: AtomicU64,
    out: Queues,
    bell: Bell,
}

/// A port for `workers` workers, and its other end.
///
/// # Errors
/// No more fds.
pub fn open(pool: &'static Pool, workers: usize) -> io::Result<(Opened, Handle)> {
    let shared = Arc::new(Shared {
        into: Lane::new(LIMIT)?,
        missed: AtomicU64::new(0),
        out: Queues::default(),
        bell: Bell::new()?,
    });
    let opened = Opened {
        rx: vec![Box::new(Rx(Arc::clone(&shared)))],
        tx: (0..workers).map(|_| Box::new(Tx(Arc::clone(&shared))) as Box<dyn TxQueue>).collect(),
        facts: Facts {
            kind: Kind::Internal,
            mode: "in memory".to_owned(),
            rx_queues: 1,
            caps: Caps::NONE,
            rx_caps: Caps::NONE,
            mtu_limit: MTU,
            mtu: MTU,
            vlan: Ok(()),
            shortcut_ifindex: None,
            why: "the switch itself".to_owned(),
        },
        guard: Box::new(()),
    };
    Ok((opened, Handle { pool: pool.cache(), shared, taken: Vec::new() }))
}

impl Handle {
    /// Readable when frames wait.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.fd()
    }

    /// Gives `take` at most `most` frames without their tags, the VLAN IDs in turn, and of each `most_each` at most. True
    /// when frames are left; the descriptor stays readable then.
    pub fn receive(&mut self, most: usize, most_each: usize, mut take: impl FnMut(Vid, &[u8])) -> bool {
        self.shared.bell.hush();
        let is_more = self.shared.out.take(most, most_each, &mut self.taken);
        if is_more {
            self.shared.bell.ring();
        }
        for mut frame in self.taken.drain(..) {
            // The workers write the tag into the bytes.
            vlan::pop(&mut frame);
            if let Some(vid) = frame.meta().tag.and_then(|tag| Vid::new(tag.vid()).ok()) {
                take(vid, frame.bytes());
            }
            self.pool.release(frame);
        }
        is_more
    }

    /// Sends a frame into the network that `vid` stands for.
    ///
    /// # Errors
    /// There is no room for it now, or ever.
    pub fn send(&mut self, vid: Vid, bytes: &[u8]) -> Result<(), NotSent> {
        let frame = self.frame(vid, bytes).filter(|_| self.shared.into.frames().len() < LIMIT);
        let Some(frame) = frame else {
            self.shared.missed.fetch_add(1, Ordering::Relaxed);
            return Err(NotSent);
        };
        self.shared.into.frames().push_back(frame);
        self.shared.into.wake();
        Ok(())
    }

    fn frame(&mut self, vid: Vid, bytes: &[u8]) -> Option<Frame> {
        let mut frame = self.pool.acquire(FrameClass::Wire)?;
        let len = bytes.len().max(FRAME_MIN);
        frame.set_len(len);
        if frame.bytes().len() < len {
            self.pool.release(frame);
            return None;
        }
        let (head, padding) = frame.bytes_mut().split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        padding.fill(0);
        frame.meta_mut().tag = Some(Tag::dot1q(vid.get()));
        Some(frame)
    }

    /// Throws away what waits in either direction with this VLAN ID, which is to stand for another network. No worker has
    /// it in a snapshot any more.
    pub fn purge(&mut self, vid: Vid) {
        self.shared.out.purge(vid.get(), &mut self.taken);
        let stale = |frame: &Frame| frame.meta().tag.is_some_and(|tag| tag.vid() == vid.get());
        let mut into = self.shared.into.frames();
        let before = into.len();
        into.retain(|frame| !stale(frame));
        self.shared.missed.fetch_add((before - into.len()) as u64, Ordering::Relaxed);
        drop(into);
        self.taken.drain(..).for_each(|frame| self.pool.release(frame));
    }
}

struct Rx(Arc<Shared>);

impl RxQueue for Rx {
    fn rx(&mut self, _pool: &mut PoolCache, out: &mut FrameVec) -> Result<usize, PortError> {
        self.0.into.disarm();
        let mut frames = self.0.into.frames();
        let count = frames.len().min(out.room());
        for frame in frames.drain(..count) {
            let _ = out.push(frame); // there is room
        }
        Ok(count)
    }

    fn arm(&mut self) {
        self.0.into.arm();
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.into.fd())
    }

    fn missed(&mut self) -> u64 {
        self.0.missed.load(Ordering::Relaxed)
    }
}

struct Tx(Arc<Shared>);

impl TxQueue for Tx {
    fn tx(&mut self, pool: &mut PoolCache, frames: &mut FrameVec) -> TxReport {
        let (report, is_first) = self.0.out.put(pool, frames);
        // Else it rang for those that are there.
        if is_first {
            self.0.bell.ring();
        }
        report
    }

    fn reclaim(&mut self, _pool: &mut PoolCache) {}
}

#[cfg(test)]
mod tests;
