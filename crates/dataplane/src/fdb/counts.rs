//! How many addresses are learnt by port, by network and by port of a network, and the limits on them.
//!
//! Every count is changed with the entry's key locked, so that counts and table agree exactly once no
//! writer is at work. Static entries are the user's and do not count.

use alloc::boxed::Box;
use core::num::NonZeroU64;

use crate::sync::AtomicU32;
use crate::sync::Ordering::Relaxed;
use crate::table::Table;
use crate::{NetId, PortId};

/// As many as there are numbers of ports, and of networks. Loom cannot have so many atomics.
const IDS: usize = if cfg!(loom) { 4 } else { 1 << 16 };

/// The counts.
pub(super) struct Counts {
    ports: Box<[AtomicU32]>,
    networks: Box<[AtomicU32]>,
    /// [`pair_key`] to count. There are never more pairs than entries, so it is as large as the FDB.
    pairs: Table,
}

/// A port of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) network: NetId,
    pub(super) port: PortId,
}

/// What holds for a new address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most addresses at the port.
    pub(super) port: u32,
    /// Most addresses in the network, except that every port may have its share.
    pub(super) network: u32,
    /// Ports of the network.
    pub(super) members: u32,
}

impl Limits {
    /// What a port may always have of its network: an equal part. Where there are more ports than
    /// addresses everyone may have one, and they take turns.
    fn share(self) -> u32 {
        match self.network {
            0 => 0,
            limit => (limit / self.members.max(1)).max(1),
        }
    }
}

impl Counts {
    pub(super) fn new(capacity: usize, seed: [u64; 2]) -> Self {
        let zeros = || (0..IDS).map(|_| AtomicU32::new(0)).collect();
        Self { ports: zeros(), networks: zeros(), pairs: Table::new(capacity, seed) }
    }

    pub(super) fn port(&self, port: PortId) -> u32 {
        self.ports[port.index()].load(Relaxed)
    }

    pub(super) fn network(&self, network: NetId) -> u32 {
        self.networks[network.index()].load(Relaxed)
    }

    pub(super) fn pair(&self, place: Place) -> u32 {
        self.pairs.get(pair_key(place)).map_or(0, |count| count.get() as u32)
    }

    /// Counts a new address, unless a limit forbids it.
    pub(super) fn add(&self, place: Place, limits: Limits) -> bool {
        if !self.add_to_port(place.port, limits.port) {
            return false;
        }
        let before = self.networks[place.network.index()].fetch_add(1, Relaxed);
        let most = if before < limits.network { u32::MAX } else { limits.share() };
        let is_added = self.add_to_pair(place, most);
        if !is_added {
            self.networks[place.network.index()].fetch_sub(1, Relaxed);
            self.ports[place.port.index()].fetch_sub(1, Relaxed);
        }
        is_added
    }

    /// Counts an address that is gone.
    pub(super) fn remove(&self, place: Place) {
        self.remove_from_pair(place);
        self.networks[place.network.index()].fetch_sub(1, Relaxed);
        self.ports[place.port.index()].fetch_sub(1, Relaxed);
    }

    /// Counts an address of `from` at `to`, unless the port's limit forbids it. The network's count stays.
    pub(super) fn shift(&self, from: Place, to: PortId, port_limit: u32) -> bool {
        if !self.add_to_port(to, port_limit) {
            return false;
        }
        if !self.add_to_pair(Place { port: to, ..from }, u32::MAX) {
            self.ports[to.index()].fetch_sub(1, Relaxed);
            return false;
        }
        self.remove_from_pair(from);
        self.ports[from.port.index()].fetch_sub(1, Relaxed);
        true
    }

    fn add_to_port(&self, port: PortId, most: u32) -> bool {
        let add = |count: u32| (count < most).then_some(count + 1);
        self.ports[port.index()].fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    fn add_to_pair(&self, place: Place, most: u32) -> bool {
        let mut is_added = false;
        // Without room for the pair's count nothing is counted.
        let _ = self.pairs.upsert(pair_key(place), |count| {
            let before = count.map_or(0, NonZeroU64::get);
            is_added = before < u64::from(most);
            if is_added { NonZeroU64::new(before + 1) } else { count }
        });
        is_added
    }

    fn remove_from_pair(&self, place: Place) {
        self.pairs.update(pair_key(place), |count| NonZeroU64::new(count.get() - 1));
    }
}

fn pair_key(place: Place) -> u64 {
    u64::from(place.network.0) << 16 | u64::from(place.port.0)
}
