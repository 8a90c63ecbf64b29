//! The forwarding database: (network, MAC) -> port.
//!
//! One word says what is known of an address ([`record`]), so a lookup is one read of the concurrent
//! [`table`](crate::table). Time is kept in seconds and an entry is written at most once a second: a steady
//! state writes nothing that another core reads.
//!
//! Who may learn, so that nobody's flood of addresses costs another's:
//! - A port learns at most `Port::max_macs`.
//! - A network at its `Network::max_macs` refuses new addresses, except from ports below their equal share.
//!   [`Fdb::age`] then evicts the oldest of the ports that have most, until the network is within its limit.
//! - A tenant at its `Tenant::max_macs` refuses new addresses, except in networks below their equal share, and from
//!   ports below their equal share of that. [`Fdb::age`] then evicts from the networks that have most, as above.
//! - A full table refuses new addresses, except of tenants below their equal share of a reserve, an eighth on top of
//!   the capacity, and of networks below their share of their tenant's. Nothing is ever evicted for another tenant.

mod age;
mod counts;
mod generation;
mod learn;
mod record;

#[cfg(test)]
mod loom;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use vswitch_wire::{Instant, Mac};

use crate::sync::AtomicUsize;
pub(crate) use crate::table::Probe;
use crate::table::Table;
use crate::{NetId, PortId, Snapshot, TenantId};
use counts::{Counts, Place};
use generation::Generations;
pub use generation::{Mark, Words};
use record::{Record, Seconds};

/// The forwarding database. Readers never wait; writers (learning, ageing, control) may be any thread.
pub struct Fdb {
    table: Table,
    counts: Counts,
    capacity: usize,
    /// Entries beyond the capacity, for tenants and networks below their share of them.
    reserve: usize,
    generations: Generations,
    /// The slice that [`Self::age`] looks at next, modulo [`age::STEPS`].
    next_step: AtomicUsize,
}

/// One entry, as control and `fdb list` see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The network.
    pub network: NetId,
    /// The address.
    pub mac: Mac,
    /// Where it is.
    pub port: PortId,
    /// Set by the user: never ages, never moves.
    pub is_static: bool,
    /// Held at its port by the MAC-flap guard.
    pub is_held: bool,
    /// Time since a frame with this source was last seen, in whole seconds.
    pub idle: Duration,
}

/// What [`Fdb::learn`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// Known at this port already.
    Known,
    /// New.
    Added,
    /// Was at another port.
    Moved {
        /// The port it was at.
        from: PortId,
    },
    /// Static at this or another port; nothing changed.
    Static,
    /// A limit (port, network, tenant, table) is reached, the address is no unicast address, or the snapshot knows
    /// no such port or network; nothing changed.
    Refused,
    /// Moves too often: stays where it is for the hold time; the frame is to be dropped.
    Held,
}

/// Which entries [`Fdb::flush`] takes; all conditions given must hold. Static entries stay unless `statics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this network only.
    pub network: Option<NetId>,
    /// At this port only.
    pub port: Option<PortId>,
    /// Static entries too.
    pub statics: bool,
}

/// The table has no room for a static entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Fdb {
    /// A table for at least `capacity` entries (64 bytes each), with a fixed seed: for tests, where one run
    /// is to be as the other. On a network it is [`Self::with_seed`].
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        // The first digits of pi.
        Self::with_seed(capacity, [0x3141_5926_5358_9793, 0x2384_6264_3383_2795], None)
    }

    /// A table for at least `capacity` entries (64 bytes each). A random and secret `seed` keeps attackers
    /// from choosing addresses that all fall into the same place. `words` are where changes are counted (see [`Mark`]), if
    /// somebody else is to see them.
    #[must_use]
    pub fn with_seed(capacity: usize, seed: [u64; 2], words: Option<Words>) -> Self {
        let reserve = capacity / 8;
        let room = capacity.saturating_add(reserve);
        Self {
            table: Table::new(room, seed),
            counts: Counts::new(room, seed),
            capacity,
            reserve,
            generations: Generations::new(words.unwrap_or_else(generation::own)),
            next_step: AtomicUsize::new(0),
        }
    }

    /// The port behind which `mac` is.
    #[inline]
    #[must_use]
    pub fn lookup(&self, network: NetId, mac: Mac) -> Option<PortId> {
        self.table.get(key(network, mac)).map(|word| Record::unpack(word).port)
    }

    /// Hashes an address and asks for its line, for [`Self::lookup_probed`] or [`Self::learn_probed`] soon after.
    #[inline]
    pub(crate) fn probe(&self, network: NetId, mac: Mac) -> Probe {
        self.table.probe(key(network, mac))
    }

    /// [`Self::lookup`] of an address that was probed in this FDB.
    #[inline]
    pub(crate) fn lookup_probed(&self, probe: Probe) -> Option<PortId> {
        self.table.get_probed(probe).map(|word| Record::unpack(word).port)
    }

    /// What [`Self::lookup`] of the address says holds as long as this stays as it is; to be asked first.
    #[must_use]
    pub fn mark(&self, network: NetId, mac: Mac) -> Mark {
        self.generations.mark(self.table.probe(key(network, mac)))
    }

    /// Sets a static entry, in place of any other. It takes no part in limits, save for the table's room.
    ///
    /// # Errors
    /// [`Full`] when no room could be made.
    pub fn add_static(&self, network: NetId, mac: Mac, port: PortId, now: Instant) -> Result<(), Full> {
        let key = key(network, mac);
        let mut outcome = Err(Full);
        // Without a place in the table the outcome stays as it is.
        let _ = self.table.upsert(key, |word| {
            let old = word.map(Record::unpack);
            if old.is_none() && self.table.len() >= self.capacity.saturating_add(self.reserve) {
                return None;
            }
            if let Some(old) = old {
                self.uncount(key, old);
            }
            outcome = Ok(());
            self.on_change(key);
            Some(Record::fixed(port, now.into()).pack())
        });
        self.on_change(key);
        outcome
    }

    /// Takes one entry out, static or not; false when there was none.
    pub fn remove(&self, network: NetId, mac: Mac) -> bool {
        self.take(key(network, mac), |_| true)
    }

    /// Takes out what `filter` names; returns how many. None that was there before the call is missed.
    pub fn flush(&self, filter: Filter) -> usize {
        if !filter.statics && filter.port.is_some_and(|port| self.learnt_at(port) == 0) {
            return 0;
        }
        self.flush_where(|network, port, is_static| {
            filter.network.is_none_or(|n| n == network)
                && filter.port.is_none_or(|p| p == port)
                && (filter.statics || !is_static)
        })
    }

    /// Takes out every entry whose network, port and being static pass `is_named`, in one walk; returns how many. None
    /// that was there before the call is missed.
    pub fn flush_where(&self, is_named: impl Fn(NetId, PortId, bool) -> bool) -> usize {
        if self.is_empty() {
            return 0;
        }
        let is_named = |key, record: Record| {
            let place = place_of(key, record);
            is_named(place.network, place.port, record.is_static)
        };
        let mut taken = 0;
        self.table.scan_all(|key, word| {
            if is_named(key, Record::unpack(word)) {
                taken += usize::from(self.take(key, |record| is_named(key, record)));
            }
        });
        taken
    }

    /// Addresses learnt at `port`, over its networks. Static entries do not count.
    #[must_use]
    pub fn learnt_at(&self, port: PortId) -> u32 {
        self.counts.port(port)
    }

    /// Addresses learnt in `network`. Static entries do not count.
    #[must_use]
    pub fn learnt_in(&self, network: NetId) -> u32 {
        self.counts.network(network)
    }

    /// Addresses learnt in the networks of `tenant`. Static entries do not count.
    #[must_use]
    pub fn learnt_of(&self, tenant: TenantId) -> u32 {
        self.counts.tenant(tenant)
    }

    /// Counts what is learnt in a network for the tenant whose it is in `snapshot`: to be called before that is published.
    pub fn assign(&self, snapshot: &Snapshot) {
        for (id, network) in snapshot.networks() {
            self.counts.own(id, network.tenant.id);
        }
    }

    /// Looks at the next part of the table (bounded work), takes out entries older than their network's
    /// ageing time and those whose port is gone or not of the network any more (static ones too), and evicts
    /// the oldest of the largest ports where a network is over its limit, or of the largest networks where a tenant
    /// is. To be called about ten times a second; ten calls are a whole round.
    pub fn age(&self, snapshot: &Snapshot, now: Instant) -> usize {
        // An idle switch must not walk through megabytes ten times a second.
        if self.is_empty() { 0 } else { self.age_step(snapshot, now) }
    }

    /// A copy of every entry, in no order; what changes meanwhile may be missed.
    pub fn entries(&self, now: Instant) -> Vec<Entry> {
        let now = Seconds::from(now);
        let mut entries = Vec::with_capacity(self.len());
        self.table.scan_all(|key, word| {
            entries.push(entry(key, Record::unpack(word), now));
        });
        entries
    }

    /// The entry of one address.
    #[must_use]
    pub fn get(&self, network: NetId, mac: Mac, now: Instant) -> Option<Entry> {
        let key = key(network, mac);
        self.table.get(key).map(|word| entry(key, Record::unpack(word), now.into()))
    }

    /// Entries now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// No entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries it has room for, not counting the reserve of those with few.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes out the entry of `key` if it is (still) to go; says whether it did.
    fn take(&self, key: u64, is_to_go: impl FnOnce(Record) -> bool) -> bool {
        let mut is_taken = false;
        self.table.update(key, |word| {
            let record = Record::unpack(word);
            is_taken = is_to_go(record);
            if is_taken {
                self.uncount(key, record);
                self.on_change(key);
            }
            (!is_taken).then_some(word)
        });
        if is_taken {
            self.on_change(key);
        }
        is_taken
    }

    /// The address is not where it was. Told twice: before the table has it so, since whoever writes may be kept from
    /// telling after that, and after it, for those who looked in between.
    fn on_change(&self, key: u64) {
        self.generations.next(self.table.probe(key));
    }

    /// An entry is no longer learnt.
    fn uncount(&self, key: u64, record: Record) {
        if !record.is_static {
            self.counts.remove(place_of(key, record));
        }
    }
}

impl fmt::Debug for Fdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fdb")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// The network in the upper 16 bits, the address in the lower 48.
#[inline]
fn key(network: NetId, mac: Mac) -> u64 {
    u64::from(network.0) << 48 | mac.to_u64()
}

/// Where an entry is.
fn place_of(key: u64, record: Record) -> Place {
    Place { network: NetId((key >> 48) as u16), port: record.port }
}

/// What control sees of a record.
fn entry(key: u64, record: Record, now: Seconds) -> Entry {
    Entry {
        network: place_of(key, record).network,
        mac: Mac::from_u64(key),
        port: record.port,
        is_static: record.is_static,
        is_held: record.is_held(now),
        idle: record.idle(now),
    }
}
