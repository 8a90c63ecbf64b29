//! The FDB under random operations, against a model that reads its rules literally.

#![cfg(not(loom))]

use alloc::sync::Arc;
use std::collections::{HashMap, HashSet};
use std::vec::Vec;

use proptest::prelude::*;
use vswitch_wire::Mac;

use super::testing::{A, B, BLUE, C, RED, age, assert_exact, at, learn, mac, network, port, snapshot};
use super::{Fdb, Filter, Learn};
use crate::{NetId, Network, Port, PortId, Snapshot};

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

    fn learn(&mut self, state: &Snapshot, n: NetId, mac: Mac, p: PortId, now: u64) -> Learn {
        let (port, network) = (state.port(p).unwrap(), state.network(n).unwrap());
        let port_is_full = self.count(|_, at| at == p) >= port.max_macs;
        let share = (network.max_macs / network.members().len() as u32).max(1);
        let network_is_full = self.count(|of, _| of == n) >= network.max_macs
            && self.count(|of, at| (of, at) == (n, p)) >= share;
        let Some(known) = self.entries.get_mut(&(n, mac)) else {
            if port_is_full || network_is_full {
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

    /// Lets go what is over age, and what `fdb` evicted if it may: only from a network over its limit, no
    /// more than it is over, and no port below the level. An old entry still counts until its slice comes.
    fn age(&mut self, state: &Snapshot, now: u64) {
        let live: HashSet<_> = state.fdb().entries(at(now)).iter().map(|e| (e.network, e.mac)).collect();
        let counts = |model: &Self| {
            let count = |n: NetId, p: &PortId| model.count(|of, at| (of, at) == (n, *p));
            [RED, BLUE].map(|n| MEMBERS[n.index()].iter().map(|p| count(n, p)).collect::<Vec<_>>())
        };
        let before = counts(self);
        let ageing = |n: NetId| state.network(n).unwrap().ageing.as_secs();
        self.entries.retain(|(n, _), k| k.is_static || now - k.seen <= ageing(*n));
        let young = counts(self);
        self.entries.retain(|key, _| live.contains(key));
        assert_eq!(self.entries.len(), live.len(), "something over age is still there");
        let after = counts(self);
        for (n, network) in state.networks() {
            let [before, young, after] = [&before, &young, &after].map(|counts| &counts[n.index()]);
            let level = level(before.clone(), network.max_macs);
            let mut evicted = 0;
            for ((before, young), after) in before.iter().zip(young).zip(after) {
                assert!(after == young || after + (before - young) >= level, "{before} {young} {after}");
                evicted += young - after;
            }
            assert!(evicted <= before.iter().sum::<u32>().saturating_sub(network.max_macs));
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

/// Red and blue, with two access ports each and a trunk.
const MEMBERS: [[PortId; 3]; 2] = [[A, B, C], [PortId(3), PortId(4), C]];

fn op() -> impl Strategy<Value = Op> {
    let place = (0..2_usize, 0..3_usize).prop_map(|(n, p)| (NetId(n as u16), MEMBERS[n][p]));
    let filter = (proptest::option::of(0..2_u16), proptest::option::of(0..5_u16), any::<bool>());
    prop_oneof![
        20 => (place.clone(), 0..12_u64).prop_map(|((n, p), m)| Op::Learn(n, m, p)),
        1 => (place, 0..12_u64).prop_map(|((n, p), m)| Op::Static(n, m, p)),
        2 => (0..2_u16, 0..12_u64).prop_map(|(n, m)| Op::Remove(NetId(n), m)),
        1 => filter.prop_map(|(n, p, statics)| Op::Flush(Filter {
            network: n.map(NetId), port: p.map(PortId), statics
        })),
        2 => Just(Op::Age),
        4 => prop_oneof![4 => 0..3_u64, 1 => 0..40_u64].prop_map(Op::Pass),
    ]
}

fn world(port_limit: u32, network_limits: [u32; 2]) -> Snapshot {
    let ports: [Port; 5] = core::array::from_fn(|p| {
        let of = |&n: &NetId| MEMBERS[n.index()].contains(&PortId(p as u16));
        port(&[RED, BLUE].into_iter().filter(of).collect::<Vec<_>>(), port_limit)
    });
    let networks: [Network; 2] = network_limits.map(|limit| network(limit, 30));
    snapshot(ports, networks, Arc::new(Fdb::new(1_000)))
}

proptest! {
    #[test]
    fn fdb_is_its_model(
        ops in prop::collection::vec(op(), 0..400),
        port_limit in 1..9_u32,
        network_limits in [1..9_u32, 1..20_u32],
    ) {
        let state = world(port_limit, network_limits);
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
