//! The FDB under random operations, against a model that reads its rules literally.

#![cfg(not(loom))]

use alloc::sync::Arc;
use std::collections::{HashMap, HashSet};
use std::vec::Vec;

use proptest::prelude::*;
use vswitch_wire::Mac;

use super::testing::{
    A, ACME, B, BETA, BLUE, C, RED, age, assert_exact, at, learn, mac, network_of, port, snapshot,
};
use super::{Fdb, Filter, Learn};
use crate::{NetId, Port, PortId, Snapshot, TenantId};

/// The FDB in a few lines.
#[derive(Default)]
struct Model {
    entries: HashMap<(NetId, Mac), Known>,
}

#[derive(Clone, Debug)]
struct Known {
    port: PortId,
    seen: u64,
    is_static: bool,
    window: Option<u64>,
    moves: u32,
    hold: Option<u64>,
}

impl Model {
    fn count(&self, matches: impl Fn(NetId, PortId) -> bool) -> u32 {
        self.entries.iter().filter(|((n, _), k)| !k.is_static && matches(*n, k.port)).count() as u32
    }

    fn count_of(&self, tenant: TenantId) -> u32 {
        self.count(|of, _| OWNERS[of.index()] == tenant)
    }

    fn learn(&mut self, state: &Snapshot, n: NetId, mac: Mac, p: PortId, now: u64) -> Learn {
        let (port, network) = (state.port(p).unwrap(), state.network(n).unwrap());
        let port_is_full = self.count(|_, at| at == p) >= port.max_macs;
        let share = (network.max_macs / network.members().len() as u32).max(1);
        let (of_network, here) = (self.count(|of, _| of == n), self.count(|of, at| (of, at) == (n, p)));
        let network_is_full = of_network >= network.max_macs && here >= share;
        let networks = (0..3).filter(|n| OWNERS[*n] == network.tenant.id).count() as u32;
        let network_share = (network.tenant.max_macs / networks).max(1);
        let port_share = (network_share / network.members().len() as u32).max(1);
        let tenant_is_full = self.count_of(network.tenant.id) >= network.tenant.max_macs
            && of_network >= network_share
            && here >= port_share;
        let Some(known) = self.entries.get_mut(&(n, mac)) else {
            if port_is_full || network_is_full || tenant_is_full {
                return Learn::Refused;
            }
            let known = Known { port: p, seen: now, is_static: false, window: None, moves: 0, hold: None };
            self.entries.insert((n, mac), known);
            return Learn::Added;
        };
        if known.is_static {
            return Learn::Static;
        }
        if known.port == p {
            known.seen = now;
            return Learn::Known;
        }
        if known.hold.is_some_and(|since| now < since + 10) {
            return Learn::Held;
        }
        if known.hold.take().is_some() || known.window.is_some_and(|since| now >= since + 10) {
            (known.window, known.moves) = (None, 0);
        }
        if known.moves == 4 {
            known.hold = Some(now);
            return Learn::Held;
        }
        if port_is_full {
            return Learn::Refused;
        }
        known.window = known.window.or(Some(now));
        known.moves += 1;
        known.seen = now;
        Learn::Moved { from: core::mem::replace(&mut known.port, p) }
    }

    fn flush(&mut self, filter: Filter) -> usize {
        let before = self.entries.len();
        self.entries.retain(|(n, _), k| {
            filter.network.is_some_and(|of| of != *n)
                || filter.port.is_some_and(|at| at != k.port)
                || (k.is_static && !filter.statics)
        });
        before - self.entries.len()
    }

    /// Lets go what is over age, and what `fdb` evicted if it may: only from a network over its limit or the level of
    /// its tenant's, no more than it is over, and no port below the level. An old entry still counts until its slice
    /// comes.
    fn age(&mut self, state: &Snapshot, now: u64) {
        let live: HashSet<_> = state.fdb().entries(at(now)).iter().map(|e| (e.network, e.mac)).collect();
        let counts = |model: &Self| {
            let count = |n: NetId, p: &PortId| model.count(|of, at| (of, at) == (n, *p));
            NETWORKS.map(|n| MEMBERS[n.index()].iter().map(|p| count(n, p)).collect::<Vec<_>>())
        };
        let before = counts(self);
        let ageing = |n: NetId| state.network(n).unwrap().ageing.as_secs();
        self.entries.retain(|(n, _), k| k.is_static || now - k.seen <= ageing(*n));
        let young = counts(self);
        self.entries.retain(|key, _| live.contains(key));
        assert_eq!(self.entries.len(), live.len(), "something over age is still there");
        let after = counts(self);
        let sums: Vec<u32> = before.iter().map(|ports| ports.iter().sum()).collect();
        let mut beyond = HashMap::<TenantId, u32>::new();
        for (n, network) in state.networks() {
            let tenant = network.tenant;
            let own = sums[n.index()].saturating_sub(network.max_macs);
            let kept = |n: &NetId| sums[n.index()].min(state.network(*n).unwrap().max_macs);
            let of_tenant: Vec<u32> = state.networks_of(tenant.id).iter().map(kept).collect();
            let tenant_is_over = of_tenant.iter().sum::<u32>().saturating_sub(tenant.max_macs);
            let cut = level(of_tenant, tenant.max_macs);
            let [before, young, after] = [&before, &young, &after].map(|counts| &counts[n.index()]);
            let level = level(before.clone(), network.max_macs.min(cut));
            let mut evicted = 0;
            for ((before, young), after) in before.iter().zip(young).zip(after) {
                assert!(after == young || after + (before - young) >= level, "{before} {young} {after}");
                evicted += young - after;
            }
            let over_the_cut = sums[n.index()].saturating_sub(cut).min(own + tenant_is_over);
            assert!(evicted <= own.max(over_the_cut), "{evicted} {own} {over_the_cut}");
            let left = beyond.entry(tenant.id).or_insert(tenant_is_over);
            *left = left.checked_sub(evicted.saturating_sub(own)).expect("no more than the tenant is over");
        }
    }
}

/// What the largest come down to when one after the other is taken from whoever has most.
fn level(mut counts: Vec<u32>, limit: u32) -> u32 {
    let mut level = u32::MAX;
    while counts.iter().sum::<u32>() > limit {
        let most = counts.iter_mut().max().unwrap();
        *most -= 1;
        level = level.min(*most);
    }
    level
}

#[derive(Clone, Debug)]
enum Op {
    Learn(NetId, u64, PortId),
    Static(NetId, u64, PortId),
    Remove(NetId, u64),
    Flush(Filter),
    Age,
    Pass(u64),
}

const GREEN: NetId = NetId(2);
const NETWORKS: [NetId; 3] = [RED, BLUE, GREEN];
const OWNERS: [TenantId; 3] = [ACME, ACME, BETA];
/// Each network has two access ports, and a trunk is shared by all.
const MEMBERS: [[PortId; 3]; 3] = [[A, B, C], [PortId(3), PortId(4), C], [PortId(5), PortId(6), C]];

fn op() -> impl Strategy<Value = Op> {
    let place = (0..3_usize, 0..3_usize).prop_map(|(n, p)| (NetId(n as u16), MEMBERS[n][p]));
    let filter = (proptest::option::of(0..3_u16), proptest::option::of(0..7_u16), any::<bool>());
    prop_oneof![
        20 => (place.clone(), 0..12_u64).prop_map(|((n, p), m)| Op::Learn(n, m, p)),
        1 => (place, 0..12_u64).prop_map(|((n, p), m)| Op::Static(n, m, p)),
        2 => (0..3_u16, 0..12_u64).prop_map(|(n, m)| Op::Remove(NetId(n), m)),
        1 => filter.prop_map(|(n, p, statics)| Op::Flush(Filter {
            network: n.map(NetId), port: p.map(PortId), statics
        })),
        2 => Just(Op::Age),
        4 => prop_oneof![4 => 0..3_u64, 1 => 0..40_u64].prop_map(Op::Pass),
    ]
}

fn world(port_limit: u32, network_limits: [u32; 3], tenant_limits: [u32; 2]) -> Snapshot {
    let ports: [Port; 7] = core::array::from_fn(|p| {
        let of = |&n: &NetId| MEMBERS[n.index()].contains(&PortId(p as u16));
        port(&NETWORKS.into_iter().filter(of).collect::<Vec<_>>(), port_limit)
    });
    let networks = NETWORKS.map(|n| {
        let owner = OWNERS[n.index()];
        network_of(owner, tenant_limits[usize::from(owner == BETA)], network_limits[n.index()], 30)
    });
    snapshot(ports, networks, Arc::new(Fdb::new(1_000)))
}

proptest! {
    #[test]
    fn fdb_is_its_model(
        ops in prop::collection::vec(op(), 0..400),
        port_limit in 1..9_u32,
        network_limits in [1..9_u32, 1..20_u32, 1..20_u32],
        tenant_limits in [1..20_u32, 1..9_u32],
    ) {
        let state = world(port_limit, network_limits, tenant_limits);
        let fdb = state.fdb();
        let mut model = Model::default();
        let mut now = 0;
        for op in ops {
            match op {
                Op::Learn(n, m, p) => {
                    prop_assert_eq!(learn(&state, n, m, p, now), model.learn(&state, n, mac(m), p, now));
                }
                Op::Static(n, m, p) => {
                    prop_assert_eq!(fdb.add_static(n, mac(m), p, at(now)), Ok(()));
                    let known =
                        Known { port: p, seen: now, is_static: true, window: None, moves: 0, hold: None };
                    model.entries.insert((n, mac(m)), known);
                }
                Op::Remove(n, m) => {
                    prop_assert_eq!(fdb.remove(n, mac(m)), model.entries.remove(&(n, mac(m))).is_some());
                }
                Op::Flush(filter) => prop_assert_eq!(fdb.flush(filter), model.flush(filter)),
                Op::Age => {
                    let taken = age(&state, now);
                    let before = model.entries.len();
                    model.age(&state, now);
                    prop_assert_eq!(taken, before - model.entries.len());
                }
                Op::Pass(s) => now += s,
            }
            prop_assert_eq!(fdb.len(), model.entries.len());
        }
        assert_exact(fdb);
        for entry in fdb.entries(at(now)) {
            let known = &model.entries[&(entry.network, entry.mac)];
            prop_assert_eq!(fdb.lookup(entry.network, entry.mac), Some(known.port));
            prop_assert_eq!((entry.port, entry.is_static), (known.port, known.is_static));
            prop_assert_eq!(entry.is_held, known.hold.is_some_and(|since| now < since + 10));
            prop_assert_eq!(entry.idle.as_secs(), now - known.seen);
        }
    }
}
