//! One ring, shared by the worker that works on it and the control thread that sets it up.
//!
//! The worker holds the lock for one batch, the control thread while it puts a ring in or takes it out. So a ring
//! that the control thread has taken out is at rest, and its position is final, when the front end is told so; no
//! worker has to be awake for it, and none can hold memory that was taken away. The lock is free but for these
//! moments: it costs some 20 ns a batch.
//!
//! A worker sleeps on an epoll set of the ring's own, which outlives all eventfds that the front end hands in for
//! kicks. They are watched edge-triggered and never read: who sent them could make a read wait.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::features::Format;
use super::memory::Memory;
use super::record::Record;
use super::ring::{BadRing, Broken, Ring, Setup, Start, Taken};

/// An eventfd of our own.
pub(super) fn eventfd() -> io::Result<EventFd> {
    Ok(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?)
}

/// Makes an eventfd readable, or whatever a front end wants to be told by. It fails only when that is full, and so
/// readable already, or when the front end has gone.
pub(super) fn signal(event: &impl AsFd) {
    let _ = nix::unistd::write(event.as_fd(), &1_u64.to_ne_bytes());
}

/// A ring in use.
pub(super) struct Running {
    pub(super) memory: Arc<Memory>,
    pub(super) ring: Ring,
    pub(super) format: Format,
    /// Scratch of the worker.
    pub(super) taken: Taken,
    /// Interrupts the guest; `None` when the guest polls.
    call: Option<Arc<OwnedFd>>,
    /// The guest was asked for a kick.
    armed: bool,
    broken: Option<Broken>,
}

impl Running {
    /// Takes up a ring. `call` does not block when it is written to.
    pub(super) fn new(
        memory: Arc<Memory>,
        setup: Setup,
        start: impl Into<Start>,
        format: Format,
        call: Option<Arc<OwnedFd>>,
    ) -> Result<Self, BadRing> {
        let ring = Ring::new(&memory, setup, start)?;
        let (taken, armed, broken) = (Taken::default(), false, None);
        Ok(Self { memory, ring, format, taken, call, armed, broken })
    }

    fn interrupt(&self) {
        self.call.iter().for_each(signal);
    }

    /// Tells the guest what was used.
    fn publish(&mut self) -> Result<(), Broken> {
        if self.ring.queue().publish(&self.memory)? {
            self.interrupt();
        }
        // Only now it is known that what was read was the guest's.
        if self.memory.is_lost() { Err(Broken::Memory) } else { Ok(()) }
    }
}

/// A ring that may be in use.
pub(super) struct Vring {
    running: Mutex<Option<Running>>,
    wake: Epoll,
    /// In `wake`: the ring has changed, or has something already.
    news: EventFd,
    /// The eventfd in `wake` that the guest kicks by.
    kick: Mutex<Option<OwnedFd>>,
    record: Option<Record>,
}

impl Vring {
    pub(super) fn new(record: Option<Record>) -> io::Result<Self> {
        let wake = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let news = eventfd()?;
        wake.add(&news, edge())?;
        Ok(Self { running: Mutex::new(None), wake, news, kick: Mutex::new(None), record })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The control thread's side.

    /// Where the ring's position is written down for whoever comes after this process.
    pub(super) const fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Puts a ring in. The guest is interrupted once, since a back end before this one may have ended between using a
    /// buffer and telling of it.
    pub(super) fn start(&self, running: Running) {
        running.interrupt();
        *self.lock() = Some(running);
        self.wake();
    }

    /// Wakes a worker that sleeps on the ring.
    pub(super) fn wake(&self) {
        signal(&self.news);
    }

    /// Takes the ring out, and returns its position, as `VHOST_USER_GET_VRING_BASE` has it.
    pub(super) fn stop(&self) -> Option<u32> {
        self.lock().take().map(|mut running| running.ring.queue().base())
    }

    /// What to interrupt the guest by from now on.
    pub(super) fn set_call(&self, call: Option<Arc<OwnedFd>>) {
        if let Some(running) = self.lock().as_mut() {
            running.call = call;
            running.interrupt();
        }
    }

    /// The eventfd that the guest kicks by from now on.
    pub(super) fn set_kick(&self, kick: Option<OwnedFd>) -> io::Result<()> {
        let mut current = self.kick.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = current.take() {
            // Closing would not do: the front end has the same file open.
            self.wake.delete(old)?;
        }
        if let Some(kick) = &kick {
            self.wake.add(kick, edge())?;
        }
        *current = kick;
        Ok(())
    }

    /// Why the ring rests, where the guest broke it.
    pub(super) fn broken(&self) -> Option<Broken> {
        self.lock().as_ref()?.broken
    }

    // The worker's side.

    /// Does a batch's work, and publishes it. `None` where there is no ring to work on.
    ///
    /// # Errors
    /// The ring broke just now.
    pub(super) fn work<T>(
        &self,
        work: impl FnOnce(&mut Running) -> Result<T, Broken>,
    ) -> Result<Option<T>, Broken> {
        let mut running = self.lock();
        let Some(running) = running.as_mut().filter(|running| running.broken.is_none()) else {
            return Ok(None);
        };
        let result = self.disarm(running).and_then(|()| work(running));
        let result = result.and_then(|value| running.publish().map(|()| value));
        running.broken = result.as_ref().err().copied();
        result.map(Some)
    }

    fn disarm(&self, running: &mut Running) -> Result<(), Broken> {
        if !std::mem::take(&mut running.armed) {
            return Ok(());
        }
        self.forget_wakes();
        running.ring.queue().disarm(&running.memory)
    }

    fn forget_wakes(&self) {
        let _ = self.wake.wait(&mut [EpollEvent::empty(); 2], EpollTimeout::ZERO);
    }

    /// After this [`Vring::fd`] is readable once there is something to do.
    pub(super) fn arm(&self) {
        self.forget_wakes();
        let mut running = self.lock();
        // Without a ring the next one is news.
        let Some(running) = running.as_mut().filter(|running| running.broken.is_none()) else { return };
        let pending = running.ring.queue().arm(&running.memory);
        running.armed = true;
        let polled = self.kick.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        // What breaks the ring here breaks it in the next batch as well.
        if polled || pending.unwrap_or(true) {
            self.wake();
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.0.as_fd()
    }
}

fn edge() -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0)
}
