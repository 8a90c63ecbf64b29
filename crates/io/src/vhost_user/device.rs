//! What the workers and the control thread of one port share.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::eventfd::EventFd;
use vswitch_wire::Mac;

use super::memory::Direction;
use super::record::{Record, Records};
use super::ring::Broken;
use super::vring::{Running, Vring, eventfd, signal};

/// The rings of a virtio-net device, and news between its threads.
pub(super) struct Device {
    /// For each queue pair the ring that the guest receives by, then the one that it transmits by (VIRTIO 1.2 section
    /// 5.1.2).
    vrings: Vec<Vring>,
    /// The pairs whose receive ring runs, a bit each.
    receiving: AtomicU64,
    /// A MAC to be announced, with [`ANNOUNCED`].
    announce: AtomicU64,
    /// The control thread has ended by itself.
    pub(super) ended: AtomicBool,
    /// Watched by the control thread: a ring broke.
    pub(super) notice: EventFd,
}

/// Some of a device's queue pairs, at most [`MOST_PAIRS`](super::MOST_PAIRS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pairs(u64);

impl Pairs {
    /// How many there are.
    pub(super) const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Which there are, in their order.
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        // Each step takes the lowest bit off.
        let rests = std::iter::successors(Some(self.0), |bits| Some(bits & bits.wrapping_sub(1)));
        rests.take_while(|bits| *bits != 0).map(|bits| bits.trailing_zeros() as usize)
    }
}

/// Tells a MAC of zeros from none.
const ANNOUNCED: u64 = 1 << 48;

/// Who writes to the buffers of a ring.
pub(super) const fn direction(vring: usize) -> Direction {
    if vring.is_multiple_of(2) { Direction::ToGuest } else { Direction::FromGuest }
}

impl Device {
    /// Of so many queue pairs, whose positions are written down in `records`.
    pub(super) fn new(pairs: u16, records: Option<&Arc<Records>>) -> io::Result<Self> {
        let record = |index| records.and_then(|records| records.ring(index));
        let vrings = (0..2 * usize::from(pairs)).map(|index| Vring::new(record(index)));
        let vrings = vrings.collect::<io::Result<_>>()?;
        let (receiving, announce) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { vrings, receiving, announce, ended: AtomicBool::new(false), notice: eventfd()? })
    }

    /// Puts a ring in.
    pub(super) fn start(&self, vring: usize, running: Running) {
        let Some(it) = self.vrings.get(vring) else { return };
        it.start(running);
        if direction(vring) == Direction::ToGuest {
            self.receiving.fetch_or(1 << (vring / 2), Ordering::Release);
        }
    }

    /// Takes a ring out, and returns its position.
    pub(super) fn stop(&self, vring: usize) -> Option<u32> {
        if direction(vring) == Direction::ToGuest {
            self.receiving.fetch_and(!(1 << (vring / 2)), Ordering::Release);
        }
        self.vrings.get(vring)?.stop()
    }

    /// The pairs by which the guest receives. By the time that one is used, the guest may have stopped it.
    pub(super) fn receiving(&self) -> Pairs {
        Pairs(self.receiving.load(Ordering::Acquire))
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

    /// Forgets where the rings were, since nobody is going to ask.
    pub(super) fn forget(&self) {
        self.vrings.iter().find_map(Vring::record).into_iter().for_each(Record::erase_all);
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
