//! The switch as a station: what its own port brings, given to whoever is there for each network, and their answers.
//!
//! A network is known here by the VLAN ID that stands for it on that port; behind it is a [`Member`], a stack with the
//! switch's addresses in most cases. It is all done on the control thread, a bounded part at a time: [`TURN`] frames, of
//! one network [`TURN_EACH`], and when some are left a [`PAUSE`] before the next turn. So a tenant that floods the address
//! has its own share of a bounded part of one CPU; what waits in vain is dropped where the workers would queue it
//! (`vswitch_io::internal`), and counted there.

mod member;
#[cfg(test)]
mod tests;
mod vtep;

use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vswitch_io::internal::Handle;
use vswitch_wire::{Instant, Vid};

use member::Guarded;
pub use member::Member;
pub use vtep::{NextHops, Vtep};

use crate::clock::Clock;

/// Frames of one turn.
const TURN: usize = 64;
/// Frames of one network in a turn.
const TURN_EACH: usize = 16;
/// The time between two turns, while more frames wait: with it a network has 16 frames in a millisecond.
const PAUSE: Duration = Duration::from_millis(1);

/// The members of all networks, and the port that their frames come by.
#[derive(Default)]
pub struct Hosts {
    port: Option<Port>,
    members: BTreeMap<Vid, Seat>,
    /// When a member is to be polled.
    timers: BTreeSet<(Instant, Vid)>,
}

/// A member, and its timer.
struct Seat {
    member: Guarded,
    at: Option<Instant>,
}

struct Port {
    handle: Handle,
    /// Another descriptor of the handle's.
    readable: AsyncFd<OwnedFd>,
    /// No frame is taken before that.
    rests_until: Instant,
}

/// Frames that members want to be sent.
type Outbox = Vec<(Vid, Vec<u8>)>;

impl Hosts {
    /// Takes the port. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel refused.
    #[expect(
        deprecated,
        reason = "what takes its place is unsafe, for values that lie about their descriptor"
    )]
    pub fn open(&mut self, handle: Handle) -> io::Result<()> {
        let fd = handle.fd().try_clone_to_owned()?;
        let readable = AsyncFd::with_interest(fd, Interest::READABLE)?;
        self.port = Some(Port { handle, readable, rests_until: Instant::ZERO });
        Ok(())
    }

    /// It has a port.
    pub fn is_open(&self) -> bool {
        self.port.is_some()
    }

    /// From now on `make`'s member is there for the network of this VLAN ID.
    pub fn set(&mut self, vid: Vid, make: impl Fn() -> Box<dyn Member> + 'static) {
        self.remove(vid);
        let member = Guarded::new(Box::new(make));
        let at = member.next_deadline();
        self.members.insert(vid, Seat { member, at: None });
        self.set_timer(vid, at);
    }

    /// Has a member polled soon: somebody else has told it something.
    pub fn wake(&mut self, vid: Vid) {
        self.set_timer(vid, Some(Instant::ZERO));
    }

    /// Nobody is there any more.
    pub fn remove(&mut self, vid: Vid) {
        self.set_timer(vid, None);
        self.members.remove(&vid);
    }

    /// The VLAN ID is to stand for another network: what waits with it is thrown away. No worker may have it in a
    /// snapshot.
    pub fn purge(&mut self, vid: Vid) {
        self.remove(vid);
        if let Some(port) = &mut self.port {
            port.handle.purge(vid);
        }
    }

    /// Done when there is something to do.
    pub async fn ready(&mut self, clock: Clock) {
        let due = self.timers.first().map(|(at, _)| *at);
        let Some(port) = &self.port else { return future::pending().await };
        let wait = |until: Instant| tokio::time::sleep(until.since(clock.now()));
        let frames = async {
            wait(port.rests_until).await;
            match port.readable.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => future::pending().await, // the runtime ends
            }
        };
        match due {
            Some(due) => tokio::select! { () = frames => {}, () = wait(due) => {} },
            None => frames.await,
        }
    }

    /// One turn: frames that have come, and members whose time it is.
    pub fn work(&mut self, now: Instant) {
        let Some(mut port) = self.port.take() else { return };
        let mut outbox = Outbox::new();
        if now >= port.rests_until {
            let is_more = port.handle.receive(TURN, TURN_EACH, |vid, frame| {
                self.with(vid, |member| {
                    member.input(now, frame, &mut |answer| outbox.push((vid, answer.to_vec())));
                });
            });
            if is_more {
                port.rests_until = now + PAUSE;
            }
        }
        for _ in 0..TURN {
            let Some((_, vid)) = self.timers.first().copied().filter(|(at, _)| *at <= now) else { break };
            self.with(vid, |member| member.poll(now, &mut |frame| outbox.push((vid, frame.to_vec()))));
        }
        for (vid, frame) in outbox {
            // What does not fit is counted by the port.
            let _ = port.handle.send(vid, &frame);
        }
        self.port = Some(port);
    }

    /// Has a member do something, and notes when it is to be polled.
    fn with(&mut self, vid: Vid, work: impl FnOnce(&mut Guarded)) {
        let Some(Seat { member, .. }) = self.members.get_mut(&vid) else { return };
        work(member);
        let at = member.next_deadline();
        self.set_timer(vid, at);
    }

    fn set_timer(&mut self, vid: Vid, at: Option<Instant>) {
        let Some(seat) = self.members.get_mut(&vid).filter(|seat| seat.at != at) else { return };
        if let Some(before) = std::mem::replace(&mut seat.at, at) {
            self.timers.remove(&(before, vid));
        }
        self.timers.extend(at.map(|at| (at, vid)));
    }
}
