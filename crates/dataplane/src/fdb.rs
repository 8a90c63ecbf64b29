//! The forwarding database: (network, MAC) -> port.

use core::time::Duration;

use vswitch_wire::{Instant, Mac};

use crate::{NetId, PortId, Snapshot};

/// The forwarding database. Readers never wait; writers (learning, ageing, control) may be any thread.
#[derive(Debug)]
pub struct Fdb {}

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
    /// A limit (port, network, table) is reached; not learnt.
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
    /// A table for at least `capacity` entries.
    #[must_use]
    pub fn new(_capacity: usize) -> Self {
        todo!()
    }

    /// The port behind which `mac` is.
    #[inline]
    #[must_use]
    pub fn lookup(&self, _network: NetId, _mac: Mac) -> Option<PortId> {
        todo!()
    }

    /// Learns that a frame of `network` with source `mac` came in by `port`. Limits come from the snapshot.
    pub fn learn(&self, _snapshot: &Snapshot, _network: NetId, _mac: Mac, _port: PortId, _now: Instant) -> Learn {
        todo!()
    }

    /// Sets a static entry, in place of any other.
    ///
    /// # Errors
    /// [`Full`] when no room could be made.
    pub fn add_static(&self, _network: NetId, _mac: Mac, _port: PortId, _now: Instant) -> Result<(), Full> {
        todo!()
    }

    /// Takes one entry out, static or not; false when there was none.
    pub fn remove(&self, _network: NetId, _mac: Mac) -> bool {
        todo!()
    }

    /// Takes out what `filter` names; returns how many.
    pub fn flush(&self, _filter: Filter) -> usize {
        todo!()
    }

    /// Looks at the next part of the table (bounded work), takes out entries older than their network's
    /// ageing time, and evicts the oldest of the largest ports where a network is over its limit. To be
    /// called about ten times a second; a whole round takes at most one second of calls.
    pub fn age(&self, _snapshot: &Snapshot, _now: Instant) -> usize {
        todo!()
    }

    /// A copy of every entry, in no order; what changes meanwhile may be missed.
    pub fn entries(&self, _now: Instant) -> alloc::vec::Vec<Entry> {
        todo!()
    }

    /// Entries now.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }

    /// No entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        todo!()
    }
}
