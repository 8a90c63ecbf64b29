//! Storm limits: how many frames per second of each flooded class a port may bring in.
//!
//! A limit holds for each worker that serves the port: what it spends is the worker's own, so that a storm
//! costs no shared cache line. This step judges group addresses; unknown unicast is known as such only after the
//! lookup, and judged in `forward` by the same buckets.

use alloc::format;
use alloc::vec::Vec;

use vswitch_wire::Instant;

use crate::pipeline::Effects;
use crate::vector::{Context, Vector};
use crate::{PortId, Reason, Storm};

pub(crate) fn run<F>(cx: &Context<'_>, vector: &mut Vector<'_, F>, effects: &mut impl Effects) {
    if cx.port.storm.broadcast.is_none() && cx.port.storm.multicast.is_none() {
        return;
    }
    for slot in vector.undecided_slots() {
        let class = match slot.destination {
            to if to.is_broadcast() => Class::Broadcast,
            to if to.is_multicast() => Class::Multicast,
            _ => continue,
        };
        if let Err(reason) = police(cx, class, slot.frames, effects) {
            slot.drop("storm", reason, effects);
        }
    }
}

/// Lets a frame of `class` that stands for `frames` on the wire pass, or gives the reason to drop it.
#[inline]
pub(crate) fn police(
    cx: &Context<'_>,
    class: Class,
    frames: u32,
    effects: &mut impl Effects,
) -> Result<(), Reason> {
    if let Some(rate) = class.limit(&cx.port.storm) {
        effects.say("storm", || format!("{} of this port is limited to {rate} packets/s", class.name()));
    }
    if effects.may_flood(cx, class, frames) { Ok(()) } else { Err(class.reason()) }
}

/// A class of flooded frames.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Class {
    Broadcast,
    Multicast,
    Unknown,
}

impl Class {
    pub(crate) const COUNT: usize = 3;

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Its limit in packets per second.
    pub(crate) const fn limit(self, storm: &Storm) -> Option<u32> {
        match self {
            Self::Broadcast => storm.broadcast,
            Self::Multicast => storm.multicast,
            Self::Unknown => storm.unknown,
        }
    }

    const fn reason(self) -> Reason {
        match self {
            Self::Broadcast => Reason::StormBroadcast,
            Self::Multicast => Reason::StormMulticast,
            Self::Unknown => Reason::StormUnknown,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
            Self::Unknown => "unknown unicast",
        }
    }
}

/// The buckets of every port that one worker serves.
#[derive(Debug, Default)]
pub(crate) struct Policer {
    ports: Vec<[Bucket; Class::COUNT]>,
}

impl Policer {
    /// The buckets of one port. Allocates only for the first batch of a port with a higher number than any before.
    #[inline]
    pub(crate) fn buckets(&mut self, port: PortId) -> &mut [Bucket; Class::COUNT] {
        if port.index() >= self.ports.len() {
            self.ports.resize(port.index() + 1, [Bucket::FULL; Class::COUNT]);
        }
        &mut self.ports[port.index()]
    }
}

/// What one frame costs. A bucket that fills at `rate` packets per second gains `rate` of these units a
/// nanosecond, so that no rate is rounded.
const COST: i64 = 1_000_000_000;

/// A token bucket that holds a tenth of a second of its rate, at least one frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// In units of 1/[`COST`] frames; below zero after a GSO frame that stood for more than there were.
    tokens: i64,
    filled: Instant,
}

impl Bucket {
    pub(crate) const FULL: Self = Self { tokens: i64::MAX, filled: Instant::ZERO };

    /// Takes the worth of `frames` at `rate` packets per second, if that of one is there: a GSO frame passes as a
    /// whole or not at all, and what it took too much is paid before the next may pass.
    pub(crate) fn take(&mut self, rate: u32, frames: u32, now: Instant) -> bool {
        let elapsed = i64::try_from(now.since(self.filled).as_nanos()).unwrap_or(i64::MAX);
        let gained = elapsed.saturating_mul(i64::from(rate));
        // The rate may have been changed, or the port's number given to another: what is over the brim is gone.
        let brim = if rate == 0 { 0 } else { i64::from(rate / 10).max(1) * COST };
        self.tokens = self.tokens.saturating_add(gained).min(brim);
        self.filled = self.filled.max(now);
        if self.tokens < COST {
            return false;
        }
        self.tokens = self.tokens.saturating_sub(COST.saturating_mul(i64::from(frames)));
        true
    }
}
