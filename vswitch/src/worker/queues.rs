//! A worker's receive queues: which are polled now, and which rest in epoll until they have a frame.
//!
//! A queue is polled while it has traffic. After an empty spell it is parked: armed, and watched by
//! epoll, level-triggered, so that a frame that came before the arming is seen as well. So many quiet ports cost
//! nothing, and when every queue is parked the worker sleeps.
//!
//! Epoll knows parked queues only: the kernel would go and tell it of every single frame that a polled one
//! receives, in the time of whoever sends it (a tenth of that time, of a small frame on a veth).
//!
//! Queues take turns, a batch each. What counts is the work that a batch makes, not how many frames it has: a few
//! GSO frames become thousands where they have to be cut. So a batch ends where it would become too many, and a
//! queue whose batch did sits out until the others had as much.

use std::io;
use std::mem;
use std::os::fd::BorrowedFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use vswitch_dataplane::{BATCH_MAX, PortId};
use vswitch_io::{Frame, FrameVec, PoolCache, PortError, RxQueue};
use vswitch_wire::{FrameBuf, Instant};

/// One receive queue and what the worker knows of it.
pub(super) struct Slot {
    pub(super) port: PortId,
    /// Names this attachment of the port in events.
    pub(super) attachment: u64,
    pub(super) queue: Box<dyn RxQueue>,
    /// When it last had a frame, or was woken.
    pub(super) busy_at: Instant,
    /// Frames that it received beyond a batch's share of work: next in turn.
    rest: FrameVec,
    /// Frames that it had sent beyond its share: turns that it sits out, [`BATCH_MAX`] frames each.
    debt: u32,
    /// What was missed at the last look.
    missed: u64,
    /// Frames of `rest` that were given up.
    given_up: u64,
    /// Names the slot in epoll.
    token: u64,
    parked: bool,
}

/// Segments that the frames of one batch may become. A batch of TCP in full GSO frames is below it.
const SEGMENTS_MAX: usize = 64 * BATCH_MAX;

/// How many of the frames, one at least, become no more than [`SEGMENTS_MAX`] in a port that has them cut.
fn affordable(frames: &[Frame]) -> usize {
    let mut segments = 0;
    let dear = frames.iter().position(|frame| {
        segments +=
            frame.meta().offload.gso.map_or(1, |gso| frame.bytes().len() / usize::from(gso.size.max(1)));
        segments > SEGMENTS_MAX
    });
    dear.unwrap_or(frames.len()).max(1)
}

/// The wake-up of the command queue, in epoll.
const COMMANDS: u64 = 0;

pub(super) struct RxSet {
    slots: Vec<Slot>,
    /// Indexes of slots that are polled.
    active: Vec<usize>,
    epoll: Epoll,
    next_token: u64,
}

impl RxSet {
    pub(super) fn new(commands: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(commands, EpollEvent::new(EpollFlags::EPOLLIN, COMMANDS))?;
        Ok(Self { slots: Vec::new(), active: Vec::new(), epoll, next_token: COMMANDS + 1 })
    }

    /// Takes a queue in; it is polled from now on.
    pub(super) fn insert(&mut self, port: PortId, attachment: u64, queue: Box<dyn RxQueue>, now: Instant) {
        let token = self.next_token;
        self.next_token += 1;
        let rest = FrameVec::new(BATCH_MAX);
        let slot = Slot {
            port,
            attachment,
            queue,
            busy_at: now,
            rest,
            debt: 0,
            missed: 0,
            given_up: 0,
            token,
            parked: false,
        };
        self.slots.push(slot);
        self.rebuild_active();
    }

    /// Takes the queues of `port` out.
    pub(super) fn remove(&mut self, port: PortId) -> Vec<Box<dyn RxQueue>> {
        let (gone, kept): (Vec<_>, Vec<_>) =
            mem::take(&mut self.slots).into_iter().partition(|s| s.port == port);
        self.slots = kept;
        self.rebuild_active();
        let forget = |mut slot: Slot| {
            slot.wake(&self.epoll);
            slot.queue
        };
        gone.into_iter().map(forget).collect()
    }

    fn rebuild_active(&mut self) {
        self.active.clear();
        self.active.extend(self.slots.iter().enumerate().filter(|(_, s)| !s.parked).map(|(i, _)| i));
    }

    /// How many are polled.
    pub(super) fn active(&self) -> usize {
        self.active.len()
    }

    /// The `n`th of those that are polled.
    pub(super) fn nth_active(&mut self, n: usize) -> Option<&mut Slot> {
        self.slots.get_mut(*self.active.get(n)?)
    }

    /// All, polled or not.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// Lets the queues that pass `quiet` rest until they have a frame.
    pub(super) fn park(&mut self, quiet: impl Fn(&Slot) -> bool) {
        let mut any = false;
        for slot in self.slots.iter_mut().filter(|s| !s.parked) {
            if quiet(slot) {
                any |= slot.park(&self.epoll);
            }
        }
        if any {
            self.rebuild_active();
        }
    }

    /// Polls every queue again, for one empty spell at least.
    pub(super) fn unpark(&mut self, now: Instant) {
        for slot in self.slots.iter_mut().filter(|s| s.parked) {
            slot.wake(&self.epoll);
            slot.busy_at = now;
        }
        self.rebuild_active();
    }

    /// Looks for wake-ups: at once with a zero `timeout`, else until one comes or the time is over. True when
    /// commands wait.
    pub(super) fn wait(&mut self, timeout: EpollTimeout, now: impl FnOnce() -> Instant) -> bool {
        let mut events = [EpollEvent::empty(); 32];
        // An interrupted wait is a wake-up like any other.
        let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        if count == 0 {
            return false;
        }
        let now = now();
        let mut commands = false;
        for event in &events[..count] {
            let token = event.data();
            commands |= token == COMMANDS;
            // Tokens ascend with the slots, so that a search is enough.
            if let Ok(i) = self.slots.binary_search_by_key(&token, |s| s.token) {
                self.slots[i].wake(&self.epoll);
                self.slots[i].busy_at = now;
            }
        }
        self.rebuild_active();
        commands
    }
}

impl Slot {
    /// The next batch. None while the queue sits out for what its last ones cost.
    pub(super) fn receive(&mut self, pool: &mut PoolCache, batch: &mut FrameVec) -> Result<usize, PortError> {
        if self.debt > 0 {
            self.debt = self.debt.saturating_sub(BATCH_MAX as u32);
            return Ok(0);
        }
        if self.rest.is_empty() {
            self.queue.rx(pool, batch)?;
        } else {
            mem::swap(batch, &mut self.rest);
        }
        batch.move_tail(affordable(batch.as_slice()), &mut self.rest);
        Ok(batch.len())
    }

    /// Notes how many frames were sent for a batch.
    pub(super) fn charge(&mut self, emitted: u32) {
        self.debt = emitted.saturating_sub(BATCH_MAX as u32);
    }

    /// Whether it waits for its turn only.
    pub(super) fn has_more(&self) -> bool {
        self.debt > 0 || !self.rest.is_empty()
    }

    /// Drops the frames that were received and have not had their turn; they are missed.
    pub(super) fn give_up_rest(&mut self) {
        self.given_up += self.rest.drain().count() as u64;
    }

    /// Frames missed since the last call.
    pub(super) fn newly_missed(&mut self) -> u64 {
        let before = mem::replace(&mut self.missed, self.queue.missed() + self.given_up);
        self.missed.saturating_sub(before)
    }

    /// Arms the queue and has epoll watch it; false when it cannot be watched, and so is polled always.
    fn park(&mut self, epoll: &Epoll) -> bool {
        self.queue.arm();
        let Some(fd) = self.queue.fd() else { return false };
        self.parked = epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, self.token)).is_ok();
        self.parked
    }

    /// Ends that.
    fn wake(&mut self, epoll: &Epoll) {
        if let Some(fd) = self.queue.fd().filter(|_| self.parked) {
            let _ = epoll.delete(fd); // it is known to epoll, since it is parked
        }
        self.parked = false;
    }
}
