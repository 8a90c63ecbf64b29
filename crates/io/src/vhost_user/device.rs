//! What the workers and the control thread of one port share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::eventfd::EventFd;
use vswitch_wire::Mac;

use super::ring::{Broken, Direction};
use super::vring::{Vring, eventfd, signal};

/// The rings of a virtio-net device, and news between its threads.
pub(super) struct Device {
    /// For each queue pair the ring that the guest receives by, then the one that it transmits by (VIRTIO 1.2 section
    /// 5.1.2).
    vrings: Vec<Vring>,
    /// A MAC to be announced, with [`ANNOUNCED`].
    announce: AtomicU64,
    /// The control thread has ended by itself.
    pub(super) ended: AtomicBool,
    /// Watched by the control thread: a ring broke.
    pub(super) notice: EventFd,
}

/// Tells a MAC of zeros from none.
const ANNOUNCED: u64 = 1 << 48;

/// Who writes to the buffers of a ring.
pub(super) const fn direction(vring: usize) -> Direction {
    if vring.is_multiple_of(2) { Direction::ToGuest } else { Direction::FromGuest }
}

impl Device {
    pub(super) fn new(pairs: u16) -> io::Result<Self> {
        let vrings = (0..2 * pairs).map(|_| Vring::new()).collect::<io::Result<_>>()?;
        Ok(Self { vrings, announce: AtomicU64::new(0), ended: AtomicBool::new(false), notice: eventfd()? })
    }

    pub(super) fn vrings(&self) -> &[Vring] {
        &self.vrings
    }

    pub(super) fn pairs(&self) -> usize {
        self.vrings.len() / 2
    }

    /// The ring that the guest transmits by.
    pub(super) fn transmitq(&self, pair: usize) -> Option<&Vring> {
        self.vrings.get(2 * pair + 1)
    }

    /// The ring that the guest receives by.
    pub(super) fn receiveq(&self, pair: usize) -> Option<&Vring> {
        self.vrings.get(2 * pair)
    }

    /// Has the first receive queue announce a guest's MAC.
    pub(super) fn announce(&self, mac: Mac) {
        let [a, b, c, d, e, f] = mac.0;
        self.announce.store(ANNOUNCED | u64::from_be_bytes([0, 0, a, b, c, d, e, f]), Ordering::Release);
        self.transmitq(0).into_iter().for_each(Vring::wake);
    }

    /// Wakes all workers that sleep on the rings.
    pub(super) fn wake(&self) {
        self.vrings.iter().for_each(Vring::wake);
    }

    /// What is to be announced.
    pub(super) fn take_announcement(&self) -> Option<Mac> {
        if self.announce.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let [_, _, a, b, c, d, e, f] = self.announce.swap(0, Ordering::Acquire).to_be_bytes();
        Some(Mac([a, b, c, d, e, f]))
    }

    /// For the result of [`Vring::work`]: tells the control thread of a ring that broke.
    pub(super) fn note<T>(&self, result: Result<Option<T>, Broken>) -> Option<T> {
        if result.is_err() {
            signal(&self.notice);
        }
        result.ok().flatten()
    }
}
