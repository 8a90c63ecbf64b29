use alloc::sync::Arc;
use std::collections::{HashMap, HashSet};
use std::vec::Vec;

use core::time::Duration;
use proptest::prelude::*;
use vswitch_wire::{Instant, Mac};

use super::counts::Place;
use super::testing::{network, port, snapshot};
use super::{Fdb, Filter, Full, Learn, age};
use crate::{NetId, Network, Port, PortId, Snapshot};

const RED: NetId = NetId(0);
const BLUE: NetId = NetId(1);
const A: PortId = PortId(0);
const B: PortId = PortId(1);
const C: PortId = PortId(2);
const T0: Instant = Instant::from_secs(1_000);

fn at(s: u64) -> Instant {
    T0 + Duration::from_secs(s)
}

/// The nth address.
fn mac(n: u64) -> Mac {
    Mac::from_u64(0x0200_0000_0000 + n)
}

fn learn(state: &Snapshot, network: NetId, n: u64, port: PortId, s: u64) -> Learn {
    state.fdb().learn(state, network, mac(n), port, at(s))
}

/// One whole round of the state's own FDB.
fn age(state: &Snapshot, s: u64) -> usize {
    age_by(state.fdb(), state, s)
}

/// One whole round.
fn age_by(fdb: &Fdb, state: &Snapshot, s: u64) -> usize {
    (0..age::STEPS).map(|_| fdb.age(state, at(s))).sum()
}

/// A and B belong to red, C is a trunk of red and blue.
fn lab(port_limit: u32, network_limit: u32) -> Snapshot {
    lab_of(port_limit, network_limit, 100_000)
}

fn lab_of(port_limit: u32, network_limit: u32, capacity: usize) -> Snapshot {
    let ports = [port(&[RED], port_limit), port(&[RED], port_limit), port(&[RED, BLUE], port_limit)];
    let networks = [network(network_limit, 300), network(network_limit, 300)];
    snapshot(ports, networks, Arc::new(Fdb::new(capacity)))
}

/// Every count is that of the table.
fn assert_exact(fdb: &Fdb) {
    let mut counts = HashMap::<Place, u32>::new();
    let entries = fdb.entries(T0);
    for entry in entries.iter().filter(|e| !e.is_static) {
        *counts.entry(Place { network: entry.network, port: entry.port }).or_default() += 1;
    }
    assert_eq!(entries.len(), fdb.len());
    let sum =
        |matches: &dyn Fn(&Place) -> bool| counts.iter().filter(|c| matches(c.0)).map(|c| c.1).sum::<u32>();
    for id in 0..8 {
        assert_eq!(fdb.counts.port(PortId(id)), sum(&|p| p.port.0 == id));
        assert_eq!(fdb.counts.network(NetId(id)), sum(&|p| p.network.0 == id));
    }
    for (&place, &count) in &counts {
        assert_eq!(fdb.counts.pair(place), count);
    }
}

#[test]
fn an_address_is_learnt_known_and_moves_at_once() {
    let state = lab(100, 100);
    assert_eq!(state.fdb().lookup(RED, mac(1)), None);
    assert_eq!(learn(&state, RED, 1, A, 0), Learn::Added);
    assert_eq!(learn(&state, RED, 1, A, 0), Learn::Known);
    assert_eq!(state.fdb().lookup(RED, mac(1)), Some(A));
    assert_eq!(learn(&state, RED, 1, B, 0), Learn::Moved { from: A });
    assert_eq!(state.fdb().lookup(RED, mac(1)), Some(B));
    assert_exact(state.fdb());
}

#[test]
fn the_same_address_in_two_networks_is_two_entries() {
    let state = lab(100, 100);
    assert_eq!(learn(&state, RED, 1, A, 0), Learn::Added);
    assert_eq!(learn(&state, BLUE, 1, C, 0), Learn::Added);
    assert_eq!(state.fdb().lookup(RED, mac(1)), Some(A));
    assert_eq!(state.fdb().lookup(BLUE, mac(1)), Some(C));
    assert_eq!(state.fdb().flush(Filter { network: Some(RED), ..Filter::default() }), 1);
    assert_eq!(state.fdb().lookup(BLUE, mac(1)), Some(C));
    assert_exact(state.fdb());
}

#[test]
fn what_no_frame_may_come_from_is_not_learnt() {
    let state = lab(100, 100);
    for mac in [Mac::ZERO, Mac::BROADCAST, Mac([1, 0, 0x5e, 0, 0, 1])] {
        assert_eq!(state.fdb().learn(&state, RED, mac, A, T0), Learn::Refused);
        assert_eq!(state.fdb().lookup(RED, mac), None);
    }
    assert_eq!(learn(&state, NetId(9), 1, A, 0), Learn::Refused);
    assert_eq!(learn(&state, RED, 1, PortId(u16::MAX), 0), Learn::Refused);
    assert!(state.fdb().is_empty());
}

#[test]
fn an_entry_lives_for_the_ageing_time_after_its_last_frame() {
    let state = lab(100, 100);
    learn(&state, RED, 1, A, 0);
    learn(&state, RED, 2, A, 0);
    assert_eq!(learn(&state, RED, 1, A, 200), Learn::Known);
    assert_eq!(age(&state, 300), 0);
    assert_eq!(age(&state, 301), 1);
    assert_eq!((state.fdb().lookup(RED, mac(1)), state.fdb().lookup(RED, mac(2))), (Some(A), None));
    assert_eq!(state.fdb().entries(at(301))[0].idle, Duration::from_secs(101));
    assert_eq!((age(&state, 500), age(&state, 501)), (0, 1));
    assert_exact(state.fdb());
}

#[test]
fn a_clock_that_is_a_moment_behind_ages_nothing() {
    let state = lab(100, 100);
    learn(&state, RED, 1, A, 5);
    assert_eq!(learn(&state, RED, 1, A, 4), Learn::Known);
    assert_eq!(learn(&state, RED, 1, B, 4), Learn::Moved { from: A });
    assert_eq!(age(&state, 3), 0);
    assert_eq!(state.fdb().entries(at(3))[0].idle, Duration::ZERO);
}

#[test]
fn the_second_of_the_last_frame_is_all_that_steady_traffic_writes() {
    let state = lab(100, 100);
    learn(&state, RED, 1, A, 0);
    let word = || state.fdb().table.get(super::key(RED, mac(1)));
    let before = word();
    for ms in 0..1_000 {
        let now = T0 + Duration::from_millis(ms);
        assert_eq!(state.fdb().learn(&state, RED, mac(1), A, now), Learn::Known);
        assert_eq!(word(), before);
    }
    learn(&state, RED, 1, A, 1);
    assert_ne!(word(), before);
}

#[test]
fn an_entry_goes_with_its_port_network_or_membership() {
    let state = lab(100, 100);
    learn(&state, RED, 1, A, 0);
    learn(&state, RED, 2, C, 0);
    learn(&state, BLUE, 3, C, 0);
    state.fdb().add_static(RED, mac(4), B, T0).unwrap();
    // Port B goes, and network blue.
    let fdb = state.fdb();
    let ports = [Some(port(&[RED], 100)), None, Some(port(&[RED], 100))];
    let next = Snapshot::new(ports.into(), [Some(network(100, 300))].into(), Arc::new(Fdb::new(1)));
    let taken = age_by(fdb, &next, 0);
    assert_eq!(taken, 2);
    assert_eq!((fdb.lookup(RED, mac(1)), fdb.lookup(RED, mac(2))), (Some(A), Some(C)));
    // Port C belongs to red no more.
    let ports = [Some(port(&[RED], 100)), None, Some(port(&[], 100))];
    let next = Snapshot::new(ports.into(), [Some(network(100, 300))].into(), Arc::new(Fdb::new(1)));
    let taken = age_by(fdb, &next, 0);
    assert_eq!((taken, fdb.len()), (1, 1));
    assert_exact(fdb);
}

#[test]
fn a_static_entry_neither_moves_nor_ages_nor_counts() {
    let state = lab(1, 1);
    learn(&state, RED, 1, A, 0);
    state.fdb().add_static(RED, mac(1), B, T0).unwrap();
    assert_exact(state.fdb());
    assert_eq!(learn(&state, RED, 1, A, 1), Learn::Static);
    assert_eq!(learn(&state, RED, 1, B, 1), Learn::Static);
    assert_eq!(learn(&state, RED, 2, A, 1), Learn::Added);
    assert_eq!(age(&state, 10_000), 1);
    assert_eq!(state.fdb().flush(Filter::default()), 0);
    assert_eq!(state.fdb().lookup(RED, mac(1)), Some(B));
    assert!(state.fdb().entries(T0)[0].is_static);
    assert_eq!(state.fdb().flush(Filter { statics: true, port: Some(B), ..Filter::default() }), 1);
    assert!(!state.fdb().remove(RED, mac(1)));
    assert_exact(state.fdb());
}

#[test]
fn an_address_in_two_places_is_held_then_free_again() {
    let state = lab(100, 100);
    learn(&state, RED, 1, A, 0);
    for i in 0..5 {
        let (from, to) = if i % 2 == 0 { (A, B) } else { (B, A) };
        assert_eq!(learn(&state, RED, 1, to, i), Learn::Moved { from });
    }
    // At B; the sixth move within ten seconds.
    for s in 5..15 {
        assert_eq!(learn(&state, RED, 1, A, s), Learn::Held);
        assert_eq!(learn(&state, RED, 1, B, s), Learn::Known);
        assert_eq!(age(&state, s), 0);
        assert!(state.fdb().entries(at(s))[0].is_held);
    }
    assert!(!state.fdb().entries(at(15))[0].is_held);
    assert_eq!(learn(&state, RED, 1, A, 15), Learn::Moved { from: B });
    assert_exact(state.fdb());
}

#[test]
fn moves_over_a_longer_time_are_never_held() {
    let state = lab(100, 100);
    learn(&state, RED, 1, A, 0);
    // With and without ageing in between, beyond where the window's stamp wraps.
    for i in 1..3_000 {
        let (from, to) = if i % 2 == 1 { (A, B) } else { (B, A) };
        assert_eq!(learn(&state, RED, 1, to, i * 2), Learn::Moved { from }, "move {i}");
        if i > 1_000 {
            age(&state, i * 2);
        }
    }
}

#[test]
fn an_old_hold_or_window_does_not_come_back_when_its_stamp_wraps() {
    let state = lab(100, 100);
    for n in 0..2 {
        learn(&state, RED, n, A, 0);
        for i in 0..5 + n {
            learn(&state, RED, n, if i % 2 == 0 { B } else { A }, 0);
        }
    }
    age(&state, 20);
    for s in [1_023, 1_024, 1_030] {
        assert!(!state.fdb().entries(at(s)).iter().any(|e| e.is_held));
    }
    assert_eq!(learn(&state, RED, 0, A, 1_030), Learn::Moved { from: B });
    assert_eq!(learn(&state, RED, 1, A, 1_030), Learn::Moved { from: B });
}

#[test]
fn the_limit_of_a_port_holds_over_its_networks_and_for_moves() {
    let state = lab(3, 100);
    for n in 0..2 {
        assert_eq!(learn(&state, RED, n, C, 0), Learn::Added);
    }
    assert_eq!(learn(&state, BLUE, 2, C, 0), Learn::Added);
    assert_eq!(learn(&state, BLUE, 3, C, 0), Learn::Refused);
    assert_eq!(learn(&state, RED, 4, A, 0), Learn::Added);
    assert_eq!(learn(&state, RED, 4, C, 0), Learn::Refused);
    assert_eq!(state.fdb().lookup(RED, mac(4)), Some(A));
    assert_exact(state.fdb());
}

#[test]
fn a_port_below_its_share_learns_in_a_full_network_and_the_flood_pays() {
    let state = lab(1_000, 90);
    for n in 0..1_000 {
        assert_eq!(learn(&state, RED, n, A, n / 10) == Learn::Added, n < 90);
    }
    // B and C: 30 addresses each are theirs.
    for n in 0..31 {
        assert_eq!(learn(&state, RED, 2_000 + n, B, 100) == Learn::Added, n < 30);
        assert_eq!(learn(&state, RED, 3_000 + n, C, 100) == Learn::Added, n < 30);
    }
    assert_eq!(learn(&state, RED, 1_001, A, 100), Learn::Refused);
    while state.fdb().counts.network(RED) > 90 {
        assert_ne!(age(&state, 100), 0);
    }
    let left = |p| state.fdb().entries(at(100)).iter().filter(|e| e.port == p).count();
    assert_eq!((left(A), left(B), left(C)), (30, 30, 30));
    assert_exact(state.fdb());
}

#[test]
fn eviction_takes_the_oldest_of_the_largest_port() {
    let state = lab(10_000, 10_000);
    for n in 0..4_000 {
        learn(&state, RED, n, A, n / 2_000 * 50);
    }
    for n in 4_000..4_500 {
        learn(&state, RED, n, B, 0);
    }
    let fdb = state.fdb();
    let less = lab(10_000, 2_500);
    let taken = age_by(fdb, &less, 60);
    assert_eq!(taken, 2_000);
    let old = |p| fdb.entries(at(60)).iter().filter(|e| e.port == p && e.idle.as_secs() == 60).count();
    assert_eq!(old(B), 500);
    assert!(old(A) < 100, "{} of 2000 old entries outlived newer ones", old(A));
    assert_exact(fdb);
}

#[test]
fn a_limit_that_is_lowered_takes_effect_on_a_port() {
    let state = lab(10_000, 10_000);
    for n in 0..3_000 {
        learn(&state, RED, n, A, 0);
        learn(&state, RED, 10_000 + n, B, 0);
    }
    let less = lab(10_000, 10_000);
    let ports = [Some(port(&[RED], 500)), less.port(B).cloned()];
    let less = Snapshot::new(ports.into(), [Some(network(10_000, 300))].into(), Arc::new(Fdb::new(1)));
    let taken = age_by(state.fdb(), &less, 0);
    assert_eq!(taken, 2_500);
    assert_eq!((state.fdb().counts.port(A), state.fdb().counts.port(B)), (500, 3_000));
    assert_exact(state.fdb());
}

#[test]
fn ports_of_a_network_smaller_than_its_members_take_turns() {
    let state = lab(100, 2);
    assert_eq!(learn(&state, RED, 1, A, 0), Learn::Added);
    assert_eq!(learn(&state, RED, 2, A, 0), Learn::Added);
    assert_eq!(learn(&state, RED, 3, B, 0), Learn::Added);
    assert_eq!(learn(&state, RED, 4, C, 0), Learn::Added);
    assert_eq!(learn(&state, RED, 5, C, 0), Learn::Refused);
    while state.fdb().len() > 2 {
        assert_ne!(age(&state, 0), 0);
    }
    assert_eq!(learn(&lab(100, 0), RED, 1, A, 0), Learn::Refused);
}

#[test]
fn a_flood_in_one_network_costs_another_neither_its_entries_nor_learning() {
    let state = lab_of(u32::MAX, u32::MAX, 8_000);
    for n in 0..100 {
        assert_eq!(learn(&state, BLUE, n, C, 0), Learn::Added);
    }
    // Tells the table how many networks share the reserve of 1000.
    age(&state, 0);
    let learnt = (0..100_000).filter(|&n| learn(&state, RED, n, A, 0) == Learn::Added).count();
    assert_eq!((learnt, state.fdb().len()), (7_900, 8_000));
    age(&state, 0);
    assert!((0..100).all(|n| state.fdb().lookup(BLUE, mac(n)) == Some(C)));
    let learnt = (100..1_000).filter(|&n| learn(&state, BLUE, n, C, 0) == Learn::Added).count();
    assert_eq!(learnt, 400);
    assert_eq!(learn(&state, RED, 200_000, B, 0), Learn::Refused);
    assert_exact(state.fdb());
}

#[test]
fn static_entries_find_room_in_the_reserve_until_the_table_is_full() {
    let state = lab_of(u32::MAX, u32::MAX, 800);
    for n in 0..2_000 {
        learn(&state, RED, n, A, 0);
    }
    let set = (0..2_000).filter(|&n| state.fdb().add_static(BLUE, mac(n), C, T0) == Ok(())).count();
    assert_eq!((set, state.fdb().len()), (100, 900));
    state.fdb().flush(Filter::default());
    let set = (0..2_000).filter(|&n| state.fdb().add_static(BLUE, mac(n), C, T0) == Ok(())).count();
    assert_eq!((set, state.fdb().capacity()), (900, 800));
    assert_eq!(state.fdb().add_static(BLUE, mac(0), C, T0), Ok(()));
    assert_eq!(state.fdb().add_static(BLUE, mac(5_000), C, T0), Err(Full));
}

#[test]
fn a_million_addresses_are_learnt_and_found() {
    let state = lab_of(u32::MAX, u32::MAX, 1_000_000);
    for n in 0..1_000_000 {
        assert_eq!(learn(&state, RED, n, A, 0), Learn::Added);
    }
    assert!((0..1_000_000).all(|n| state.fdb().lookup(RED, mac(n)) == Some(A)));
    assert_eq!(age(&state, 301), 1_000_000);
    assert_exact(state.fdb());
}

/// The FDB in a few lines: what is known, and the rules of [`Fdb`] read literally.
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
        if known.moves == 5 {
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
