//! How many addresses are learnt by port, by network, by port of a network and by tenant, and the limits on them.
//!
//! Every count is changed with the entry's key locked, so that counts and table agree exactly once no
//! writer is at work. Static entries are the user's and do not count.
//!
//! Whose a network is stands beside its count, in one word: whoever counts an address learns in the same step which
//! tenant it is to be counted for, and a network that gets another owner takes along exactly what it had.

use alloc::boxed::Box;
use core::num::NonZeroU64;

use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, AtomicU64};
use crate::table::Table;
use crate::{NetId, PortId, Snapshot, TenantId};

/// As many as there are numbers of ports, of networks, and of tenants. Loom cannot have so many atomics.
const IDS: usize = if cfg!(loom) { 4 } else { 1 << 16 };

/// The counts.
pub(super) struct Counts {
    ports: Box<[AtomicU32]>,
    /// [`Owned::pack`].
    networks: Box<[AtomicU64]>,
    /// Of a tenant's networks together. While a network changes hands this may be below zero.
    tenants: Box<[AtomicU32]>,
    /// [`pair_key`] to count. There are never more pairs than entries, so it is as large as the FDB.
    pairs: Table,
}

/// A port of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) network: NetId,
    pub(super) port: PortId,
}

/// The count of a network, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owned {
    tenant: TenantId,
    count: u32,
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
    /// Most addresses of the tenant, except that every network may have its share, and every port its share of that.
    pub(super) tenant: u32,
    /// Networks of the tenant.
    pub(super) networks: u32,
}

impl Limits {
    /// What holds at a place that the snapshot has.
    pub(super) fn of(snapshot: &Snapshot, place: Place) -> Option<Self> {
        let network = snapshot.network(place.network)?;
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        Some(Self {
            port: snapshot.port(place.port)?.max_macs,
            network: network.max_macs,
            members: count(network.members().len()),
            tenant: network.tenant.max_macs,
            networks: count(snapshot.networks_of(network.tenant.id).len()),
        })
    }

    /// The most that a port may have of its network to get one more, where network and tenant have so many before it.
    fn most(self, network: u32, tenant: u32) -> u32 {
        let of_network = if network < self.network { u32::MAX } else { share(self.network, self.members) };
        let network_share = share(self.tenant, self.networks);
        let of_tenant = if tenant < self.tenant || network < network_share {
            u32::MAX
        } else {
            share(network_share, self.members)
        };
        of_network.min(of_tenant)
    }
}

/// What each of some may always have of a limit: an equal part. Where there are more of them than addresses everyone
/// may have one, and they take turns.
fn share(limit: u32, among: u32) -> u32 {
    if limit == 0 { 0 } else { (limit / among.max(1)).max(1) }
}

impl Counts {
    pub(super) fn new(capacity: usize, seed: [u64; 2]) -> Self {
        let zeros = || (0..IDS).map(|_| AtomicU32::new(0)).collect();
        Self {
            ports: zeros(),
            networks: (0..IDS).map(|_| AtomicU64::new(0)).collect(),
            tenants: zeros(),
            pairs: Table::new(capacity, seed),
        }
    }

    pub(super) fn port(&self, port: PortId) -> u32 {
        self.ports[port.index()].load(Relaxed)
    }

    pub(super) fn network(&self, network: NetId) -> u32 {
        self.owned(network).count
    }

    pub(super) fn pair(&self, place: Place) -> u32 {
        self.pairs.get(pair_key(place)).map_or(0, |count| count.get() as u32)
    }

    pub(super) fn tenant(&self, tenant: TenantId) -> u32 {
        at_least_zero(self.tenants[tenant.index()].load(Relaxed))
    }

    /// The network is this tenant's from here on.
    pub(super) fn own(&self, network: NetId, tenant: TenantId) {
        if self.owned(network).tenant == tenant {
            return;
        }
        let change = |word| Some(Owned { tenant, ..Owned::unpack(word) }.pack());
        let before = self.networks[network.index()].fetch_update(Relaxed, Relaxed, change);
        let before = Owned::unpack(before.unwrap_or_else(|word| word));
        self.tenants[tenant.index()].fetch_add(before.count, Relaxed);
        self.tenants[before.tenant.index()].fetch_sub(before.count, Relaxed);
    }

    /// Counts a new address, unless a limit forbids it.
    pub(super) fn add(&self, place: Place, limits: Limits) -> bool {
        if !self.add_to_port(place.port, limits.port) {
            return false;
        }
        let network = Owned::unpack(self.networks[place.network.index()].fetch_add(1, Relaxed));
        let tenant = at_least_zero(self.tenants[network.tenant.index()].fetch_add(1, Relaxed));
        let is_added = self.add_to_pair(place, limits.most(network.count, tenant));
        if !is_added {
            self.remove_from_network(place.network);
            self.ports[place.port.index()].fetch_sub(1, Relaxed);
        }
        is_added
    }

    /// Counts an address that is gone.
    pub(super) fn remove(&self, place: Place) {
        self.remove_from_pair(place);
        self.remove_from_network(place.network);
        self.ports[place.port.index()].fetch_sub(1, Relaxed);
    }

    /// Counts an address of `from` at `to`, unless the port's limit forbids it. Network and tenant stay the same.
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

    /// Whose a network is.
    #[cfg(test)]
    pub(super) fn owner(&self, network: NetId) -> TenantId {
        self.owned(network).tenant
    }

    fn owned(&self, network: NetId) -> Owned {
        Owned::unpack(self.networks[network.index()].load(Relaxed))
    }

    fn remove_from_network(&self, network: NetId) {
        let before = Owned::unpack(self.networks[network.index()].fetch_sub(1, Relaxed));
        self.tenants[before.tenant.index()].fetch_sub(1, Relaxed);
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

impl Owned {
    /// The count is in the lower half, so that an addition of one is one of the word.
    fn pack(self) -> u64 {
        u64::from(self.tenant.0) << 32 | u64::from(self.count)
    }

    fn unpack(word: u64) -> Self {
        Self { tenant: TenantId((word >> 32) as u16), count: word as u32 }
    }
}

/// Somebody who is about to count for the tenant that had the network before may come after what was taken along.
fn at_least_zero(count: u32) -> u32 {
    if count > i32::MAX as u32 { 0 } else { count }
}

fn pair_key(place: Place) -> u64 {
    u64::from(place.network.0) << 16 | u64::from(place.port.0)
}
