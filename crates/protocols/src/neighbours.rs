//! Next hops: which MAC an IP address has on a network that this switch is a station of (ARP, RFC 826; neighbour
//! discovery, RFC 4861).
//!
//! [`Neighbours`] keeps some addresses resolved, whether anything is sent to them or not: each is asked for until it
//! answers, and probed now and then as long as it is wanted. What it says changes only by an answer to a question that was
//! asked; [`state`] has the rules. Questions are spread: by a part of chance in every time, and by no more than
//! [`BURST`] frames for each call of [`Neighbours::poll`], [`PACE`] apart, so that a thousand peers that are wanted at once,
//! or that all vanish at once, are no storm.
//!
//! It answers nobody: that is for the stack that has the addresses.

mod packet;
mod state;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use vswitch_wire::{Instant, Mac};

use state::{Action, Event, State};

/// The most addresses that are kept resolved.
pub const NEIGHBOURS_MAX: usize = 16_384;
/// The most frames that one call of [`Neighbours::poll`] gives.
pub const BURST: usize = 16;
/// The least time between two calls that give frames.
pub const PACE: Duration = Duration::from_millis(10);

/// How long an answer may take (`RETRANS_TIMER`, RFC 4861 section 10).
const RETRANSMIT: Duration = Duration::from_secs(1);
/// Questions at that pace, before they become rarer (`MAX_MULTICAST_SOLICIT`).
const QUICK: u32 = 3;
/// The longest time between two questions for an address that does not answer.
const SLOWEST: Duration = Duration::from_secs(30);
/// How long an answer is good for, on average (`REACHABLE_TIME`).
const REACHABLE: Duration = Duration::from_secs(30);

/// The station that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its MAC.
    pub mac: Mac,
    /// Its IPv4 address; without one no IPv4 neighbour can be asked for.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// Its link-local IPv6 address.
    pub link_local: Option<Ipv6Addr>,
}

/// Why an address cannot be kept resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwanted {
    /// It is none of one station.
    NotUnicast,
    /// The station has no address of that family to ask from.
    NoSource,
    /// [`NEIGHBOURS_MAX`] are wanted already.
    TooMany,
}

impl fmt::Display for Unwanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUnicast => "not the address of one station",
            Self::NoSource => "the switch has no address of its family here",
            Self::TooMany => "too many neighbours",
        })
    }
}

impl core::error::Error for Unwanted {}

/// The neighbours that are wanted.
#[derive(Clone, Debug)]
pub struct Neighbours {
    own: Station,
    entries: BTreeMap<IpAddr, Entry>,
    /// One for each entry: when its time is over.
    timers: BTreeSet<(Instant, IpAddr)>,
    /// Whose MAC is another one than was told last.
    changed: BTreeSet<IpAddr>,
    /// No frame is given before that.
    silent_until: Instant,
    chance: Chance,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    /// The time is over then.
    at: Instant,
    /// Not asked again before that.
    not_before: Instant,
}

impl Station {
    /// What an IPv6 neighbour is asked from: of the same scope where there is such an address (RFC 6724 section 5).
    fn source_for(&self, ip: Ipv6Addr) -> Option<Ipv6Addr> {
        let (first, second) =
            if ip.is_unicast_link_local() { (self.link_local, self.v6) } else { (self.v6, self.link_local) };
        first.or(second)
    }

    fn may_ask_for(&self, ip: IpAddr) -> Result<(), Unwanted> {
        let (is_group, has_source) = match ip {
            IpAddr::V4(v4) => (v4.is_multicast() || v4.is_broadcast(), self.v4.is_some()),
            IpAddr::V6(v6) => (v6.is_multicast(), self.source_for(v6).is_some()),
        };
        if is_group || ip.is_unspecified() || ip.is_loopback() {
            Err(Unwanted::NotUnicast)
        } else if !has_source {
            Err(Unwanted::NoSource)
        } else {
            Ok(())
        }
    }
}

impl Neighbours {
    /// None wanted yet. The times of two switches with different seeds do not fall together.
    #[must_use]
    pub fn new(own: Station, seed: u64) -> Self {
        Self {
            own,
            entries: BTreeMap::new(),
            timers: BTreeSet::new(),
            changed: BTreeSet::new(),
            silent_until: Instant::ZERO,
            chance: Chance(seed),
        }
    }

    /// Keeps `ip` resolved from now on. Nothing changes where it is wanted already.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn want(&mut self, now: Instant, ip: IpAddr) -> Result<(), Unwanted> {
        self.own.may_ask_for(ip)?;
        if self.entries.contains_key(&ip) {
            return Ok(());
        }
        if self.entries.len() >= NEIGHBOURS_MAX {
            return Err(Unwanted::TooMany);
        }
        self.entries.insert(ip, Entry { state: State::NEW, at: now, not_before: now });
        self.timers.insert((now, ip));
        Ok(())
    }

    /// Keeps `ip` resolved no more.
    pub fn forget(&mut self, ip: IpAddr) {
        if let Some(entry) = self.entries.remove(&ip) {
            self.timers.remove(&(entry.at, ip));
        }
        self.changed.remove(&ip);
    }

    /// The addresses that are wanted.
    pub fn wanted(&self) -> impl Iterator<Item = IpAddr> {
        self.entries.keys().copied()
    }

    /// Where `ip` is, if that is known. During a probe it is where it was.
    #[must_use]
    pub fn lookup(&self, ip: IpAddr) -> Option<Mac> {
        self.entries.get(&ip)?.state.mac()
    }

    /// A neighbour whose MAC is another one since it was told last, and where it is now.
    pub fn next_change(&mut self) -> Option<(IpAddr, Option<Mac>)> {
        let ip = self.changed.pop_first()?;
        Some((ip, self.lookup(ip)))
    }

    /// Takes in a frame of the network, without its tag. All but ARP and neighbour discovery, and all that is not valid or
    /// does not concern a wanted neighbour, is ignored.
    pub fn input(&mut self, now: Instant, frame: &[u8]) {
        if let Some((ip, event)) = packet::read(frame, &self.own) {
            self.on(now, ip, event);
        }
    }

    /// Does what is due: `send` is given the frames that are to be sent. To be called when
    /// [`Self::next_deadline`] has come; earlier or later does no harm.
    pub fn poll(&mut self, now: Instant, mut send: impl FnMut(&[u8])) {
        if now < self.silent_until {
            return;
        }
        let mut sent = 0;
        while let Some((_, ip)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            if sent == BURST {
                self.silent_until = now + PACE;
                return;
            }
            let Some(there) = self.on(now, ip, Event::Timeout) else { continue };
            packet::ask(&self.own, ip, there, &mut send);
            sent += 1;
        }
    }

    /// When there will be something to do; `None`: nothing is wanted.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let (at, _) = self.timers.first()?;
        Some((*at).max(self.silent_until))
    }

    /// Whom to ask, where somebody is to be asked: all nodes, or the one that was there.
    fn on(&mut self, now: Instant, ip: IpAddr, event: Event) -> Option<Option<Mac>> {
        let entry = self.entries.get_mut(&ip)?;
        let before = *entry;
        let (state, action) = before.state.on(event);
        entry.state = state;
        match action {
            Action::Nothing => {}
            Action::AskAll | Action::AskThere(_) => {
                let pause = self.chance.up_to_a_quarter_more(pause_after(state));
                entry.at = now + pause;
                entry.not_before = now + RETRANSMIT;
            }
            Action::Hasten => entry.at = entry.at.min(entry.not_before.max(now)),
            Action::Rest => entry.at = now + self.chance.half_to_one_and_a_half(REACHABLE),
        }
        let at = entry.at;
        if at != before.at {
            self.timers.remove(&(before.at, ip));
            self.timers.insert((at, ip));
        }
        if state.mac() != before.state.mac() {
            self.changed.insert(ip);
        }
        match action {
            Action::AskAll => Some(None),
            Action::AskThere(mac) => Some(Some(mac)),
            Action::Nothing | Action::Hasten | Action::Rest => None,
        }
    }
}

/// How long to wait for the answer to the question that led to `state`: twice as long each time, once it was asked often.
fn pause_after(state: State) -> Duration {
    match state {
        State::Incomplete { asked } => {
            let doublings = asked.saturating_sub(QUICK).min(16);
            RETRANSMIT.saturating_mul(1 << doublings).min(SLOWEST)
        }
        State::Reachable { .. } | State::Probe { .. } => RETRANSMIT,
    }
}

/// Chance that a seed determines: `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn up_to_a_quarter_more(&mut self, time: Duration) -> Duration {
        time + self.part_of(time / 4)
    }

    /// RFC 4861 section 6.3.2.
    fn half_to_one_and_a_half(&mut self, time: Duration) -> Duration {
        time / 2 + self.part_of(time)
    }

    fn part_of(&mut self, time: Duration) -> Duration {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(self.next() % nanos)
    }
}
