//! What the FDB knows of one address, packed into the table's word, and the MAC-flap guard.
//!
//! An address that moves is taken at its word at once, as a live migration needs it. One that moves more
//! than [`MOVES_MAX`] times within [`WINDOW_S`] is in two places (a loop, or an impostor): it is held where
//! it is for [`HOLD_S`], and its frames from elsewhere are dropped. Then it may move again.

use core::num::NonZeroU64;
use core::time::Duration;

use vswitch_wire::Instant;

use crate::PortId;

/// Moves taken within one window. Even: of two ports that claim an address in turn, the one that had it first keeps it.
const MOVES_MAX: u8 = 4;
/// The window, from its first move, in seconds.
const WINDOW_S: u16 = 10;
/// How long an address is held, in seconds.
const HOLD_S: u16 = 10;

/// Seconds since the clock's origin: the FDB's unit of time. Good for 136 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seconds(u32);

impl From<Instant> for Seconds {
    fn from(now: Instant) -> Self {
        Self(u32::try_from(now.as_secs()).unwrap_or(u32::MAX))
    }
}

impl Seconds {
    /// The last ten bits, all that is kept of the start of a window or a hold.
    const fn low(self) -> u16 {
        self.0 as u16 % WRAP_S
    }
}

/// Where the start of a window wraps. Long enough for any difference that counts; [`Record::settled`]
/// forgets the others before they come round.
const WRAP_S: u16 = 1 << 10;

/// What the FDB knows of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) port: PortId,
    pub(super) is_static: bool,
    /// A frame with this source came last; ordinary entries only.
    seen: Seconds,
    is_held: bool,
    /// In the window that began at `since`.
    moves: u8,
    /// When the window or the hold began, as [`Seconds::low`].
    since: u16,
}

impl Record {
    /// Learnt at `port`.
    pub(super) const fn learnt(port: PortId, now: Seconds) -> Self {
        Self { port, is_static: false, seen: now, is_held: false, moves: 0, since: 0 }
    }

    /// Set by the user.
    pub(super) const fn fixed(port: PortId, now: Seconds) -> Self {
        Self { is_static: true, ..Self::learnt(port, now) }
    }

    /// Bits from the lowest: 1 always set, static, held, port 16, seen 32, moves 3, since 10.
    #[inline]
    pub(super) fn pack(self) -> NonZeroU64 {
        let word = u64::from(self.is_static) << 1
            | u64::from(self.is_held) << 2
            | u64::from(self.port.0) << 3
            | u64::from(self.seen.0) << 19
            | u64::from(self.moves) << 51
            | u64::from(self.since) << 54;
        NonZeroU64::MIN | word
    }

    /// What [`Self::pack`] made.
    #[inline]
    pub(super) fn unpack(word: NonZeroU64) -> Self {
        let word = word.get();
        Self {
            port: PortId((word >> 3) as u16),
            is_static: word & 2 != 0,
            seen: Seconds((word >> 19) as u32),
            is_held: word & 4 != 0,
            moves: (word >> 51) as u8 & 7,
            since: (word >> 54) as u16,
        }
    }

    /// Seen in this second (or, by another worker's clock, later), so that there is nothing to write.
    #[inline]
    pub(super) fn is_fresh(self, now: Seconds) -> bool {
        self.seen >= now
    }

    /// A frame came from its port.
    pub(super) fn refreshed(self, now: Seconds) -> Self {
        Self { seen: self.seen.max(now), ..self }
    }

    /// When a frame with this source was last seen.
    pub(super) const fn seen(self) -> Seconds {
        self.seen
    }

    /// Time since a frame with this source was last seen, in whole seconds.
    pub(super) fn idle(self, now: Seconds) -> Duration {
        Duration::from_secs(u64::from(now.0.saturating_sub(self.seen.0)))
    }

    /// Must stay where it is.
    #[inline]
    pub(super) fn is_held(self, now: Seconds) -> bool {
        self.is_held && self.elapsed(now) < HOLD_S
    }

    /// A frame came from another port: the entry moves there, or is held where it is.
    pub(super) fn moved(self, port: PortId, now: Seconds) -> Result<Self, Self> {
        let known = self.settled(now);
        if known.is_held {
            return Err(known);
        }
        if known.moves == MOVES_MAX {
            return Err(Self { is_held: true, moves: 0, since: now.low(), ..known });
        }
        let since = if known.moves == 0 { now.low() } else { known.since };
        Ok(Self { port, seen: known.seen.max(now), moves: known.moves + 1, since, ..known })
    }

    /// Without a hold or a window that is over.
    pub(super) fn settled(self, now: Seconds) -> Self {
        let is_over = self.elapsed(now) >= if self.is_held { HOLD_S } else { WINDOW_S };
        if is_over { Self { is_held: false, moves: 0, since: 0, ..self } } else { self }
    }

    /// Seconds since the window or the hold began.
    fn elapsed(self, now: Seconds) -> u16 {
        let elapsed = now.low().wrapping_sub(self.since) % WRAP_S;
        // The upper half is the past: another worker's clock was a moment ahead.
        if elapsed < WRAP_S / 2 { elapsed } else { 0 }
    }
}
