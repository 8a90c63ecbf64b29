//! What the FDB's tests share: small snapshots, simulated seconds, and the check of all counts.

#![cfg_attr(loom, allow(dead_code))] // loom runs few of the tests

use alloc::sync::Arc;
use core::time::Duration;
use std::collections::HashMap;
use std::vec::Vec;

use vswitch_wire::{Caps, Instant, Mac, Vid};

use super::age::STEPS;
use super::counts::Place;
use super::{Fdb, Learn};
use crate::snapshot::{Attachment, Trunk, TrunkEntry};
use crate::{NetId, Network, Port, PortId, Snapshot, Storm, Tenant, TenantId};

pub(super) const RED: NetId = NetId(0);
pub(super) const BLUE: NetId = NetId(1);
pub(super) const ACME: TenantId = TenantId(1);
pub(super) const BETA: TenantId = TenantId(2);
pub(super) const A: PortId = PortId(0);
pub(super) const B: PortId = PortId(1);
pub(super) const C: PortId = PortId(2);
pub(super) const T0: Instant = Instant::from_secs(1_000);

pub(super) fn at(s: u64) -> Instant {
    T0 + Duration::from_secs(s)
}

/// The nth address.
pub(super) fn mac(n: u64) -> Mac {
    Mac::from_u64(0x0200_0000_0000 + n)
}

pub(super) fn learn(state: &Snapshot, network: NetId, n: u64, port: PortId, s: u64) -> Learn {
    state.fdb().learn(state, network, mac(n), port, at(s))
}

/// One whole round of the state's own FDB.
pub(super) fn age(state: &Snapshot, s: u64) -> usize {
    age_by(state.fdb(), state, s)
}

/// One whole round.
pub(super) fn age_by(fdb: &Fdb, state: &Snapshot, s: u64) -> usize {
    (0..STEPS).map(|_| fdb.age(state, at(s))).sum()
}

/// An access port of one network, or a trunk of several (network n under VLAN ID n + 1).
pub(super) fn port(networks: &[NetId], max_macs: u32) -> Port {
    let attachment = match networks {
        [] => Attachment::None,
        [network] => Attachment::Access(*network),
        _ => {
            let entry = |&network: &NetId| TrunkEntry { vid: Vid::new(network.0 + 1).unwrap(), network };
            Attachment::Trunk(Arc::new(Trunk::new(&networks.iter().map(entry).collect::<Vec<_>>(), None)))
        }
    };
    Port {
        attachment,
        isolated: false,
        up: true,
        max_frame: 1514,
        caps: Caps::default(),
        shortcut_ifindex: None,
        security: None,
        trusted: false,
        max_macs,
        acl: Default::default(),
        storm: Storm::default(),
        counters: Arc::from([]),
    }
}

/// A network; ageing in seconds.
pub(super) fn network(max_macs: u32, ageing_s: u64) -> Network {
    Network::new(max_macs, Duration::from_secs(ageing_s), Arc::from([]))
}

/// The same, of a tenant with this limit.
pub(super) fn network_of(id: TenantId, tenant_limit: u32, max_macs: u32, ageing_s: u64) -> Network {
    network(max_macs, ageing_s).owned_by(Tenant { id, max_macs: tenant_limit })
}

pub(super) fn snapshot(
    ports: impl IntoIterator<Item = Port>,
    networks: impl IntoIterator<Item = Network>,
    fdb: Arc<Fdb>,
) -> Snapshot {
    let ports = ports.into_iter().map(Some).collect();
    let state = Snapshot::new(ports, networks.into_iter().map(Some).collect(), fdb);
    state.fdb().assign(&state);
    state
}

/// Every count is that of the table.
pub(super) fn assert_exact(fdb: &Fdb) {
    let mut counts = HashMap::<Place, u32>::new();
    let entries = fdb.entries(T0);
    for entry in entries.iter().filter(|e| !e.is_static) {
        *counts.entry(Place { network: entry.network, port: entry.port }).or_default() += 1;
    }
    assert_eq!(entries.len(), fdb.len());
    let sum =
        |matches: &dyn Fn(&Place) -> bool| counts.iter().filter(|c| matches(c.0)).map(|c| c.1).sum::<u32>();
    for id in 0..if cfg!(loom) { 4 } else { 8 } {
        assert_eq!(fdb.counts.port(PortId(id)), sum(&|p| p.port.0 == id));
        assert_eq!(fdb.counts.network(NetId(id)), sum(&|p| p.network.0 == id));
    }
    for id in (0..4).map(TenantId) {
        assert_eq!(fdb.learnt_of(id), sum(&|p| fdb.counts.owner(p.network) == id));
    }
    for (&place, &count) in &counts {
        assert_eq!(fdb.counts.pair(place), count);
    }
}
