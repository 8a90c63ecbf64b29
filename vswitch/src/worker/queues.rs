//! A worker's receive queues: which are polled now, and which rest in epoll until they have a frame.
//!
//! A queue is polled while it has traffic. After an empty spell it is parked: armed, and watched by
//! epoll, level-triggered, so that a frame that came before the arming is seen as well. So many quiet ports cost
//! nothing, and when every queue is parked the worker sleeps.
//!
//! Epoll knows parked queues only: the kernel would go and tell it of every single frame that a polled one
//! receives, in the time of whoever sends it (a tenth of that time, of a small frame on a veth).

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use vswitch_dataplane::PortId;
use vswitch_io::RxQueue;
use vswitch_wire::Instant;

/// One receive queue and what the worker knows of it.
pub(super) struct Slot {
    pub(super) port: PortId,
    /// Names this attachment of the port in events.
    pub(super) attachment: u64,
    pub(super) queue: Box<dyn RxQueue>,
    /// When it last had a frame, or was woken.
    pub(super) busy_at: Instant,
    /// What [`RxQueue::missed`] said last.
    missed: u64,
    /// Names the slot in epoll.
    token: u64,
    parked: bool,
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
        self.slots.push(Slot { port, attachment, queue, busy_at: now, missed: 0, token, parked: false });
        self.rebuild_active();
    }

    /// Takes the queues of `port` out.
    pub(super) fn remove(&mut self, port: PortId) -> Vec<Box<dyn RxQueue>> {
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.slots).into_iter().partition(|s| s.port == port);
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
    /// Frames missed since the last call.
    pub(super) fn newly_missed(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.missed, self.queue.missed());
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
