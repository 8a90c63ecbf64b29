//! Who is there for a network's frames to the switch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use vswitch_protocols::host::Host;
use vswitch_wire::Instant;

/// How long a member rests that fell over a frame.
const REST: Duration = Duration::from_secs(1);

/// What takes the frames that one network has for the switch itself. Time is a parameter, and `send` is given what is to
/// be sent into that network.
pub trait Member {
    /// Takes a frame, without its tag.
    fn input(&mut self, now: Instant, frame: &[u8], send: &mut dyn FnMut(&[u8]));
    /// Does what is due. After it the deadline is later than `now`.
    fn poll(&mut self, now: Instant, send: &mut dyn FnMut(&[u8]));
    /// When it is to be polled.
    fn next_deadline(&self) -> Option<Instant>;
}

impl Member for Host {
    fn input(&mut self, now: Instant, frame: &[u8], send: &mut dyn FnMut(&[u8])) {
        Self::input(self, now, frame, send);
    }

    fn poll(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) {
        Self::poll(self, now, send);
    }

    fn next_deadline(&self) -> Option<Instant> {
        Self::next_deadline(self)
    }
}

/// A member whose mistakes end nothing but itself. The frames are of tenants, and most of what reads them is a library: if
/// it panics, the member is made anew, after a rest.
pub(super) struct Guarded {
    member: Box<dyn Member>,
    make: Box<dyn Fn() -> Box<dyn Member>>,
    rests_until: Instant,
}

impl Guarded {
    pub(super) fn new(make: Box<dyn Fn() -> Box<dyn Member>>) -> Self {
        Self { member: make(), make, rests_until: Instant::ZERO }
    }

    pub(super) fn input(&mut self, now: Instant, frame: &[u8], send: &mut dyn FnMut(&[u8])) {
        self.guard(now, |member| member.input(now, frame, send));
    }

    pub(super) fn poll(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) {
        self.guard(now, |member| member.poll(now, send));
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.member.next_deadline().map(|at| at.max(self.rests_until))
    }

    fn guard(&mut self, now: Instant, work: impl FnOnce(&mut dyn Member)) {
        if now < self.rests_until {
            return;
        }
        // The member that may be broken is not used again.
        if catch_unwind(AssertUnwindSafe(|| work(&mut *self.member))).is_err() {
            tracing::error!("the switch's stack of a network failed; it starts anew");
            self.member = (self.make)();
            self.rests_until = now + REST;
        }
    }
}
