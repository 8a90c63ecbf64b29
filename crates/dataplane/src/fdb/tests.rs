//! The FDB's rules, one by one.

#![cfg(not(loom))]

use alloc::sync::Arc;
use core::time::Duration;

use vswitch_wire::Mac;

use super::testing::{
    A, B, BLUE, C, RED, T0, age, age_by, assert_exact, at, learn, mac, network, port, snapshot,
};
use super::{Fdb, Filter, Full, Learn};
use crate::{NetId, PortId, Snapshot};

/// A and B belong to red, C is a trunk of red and blue.
fn lab(port_limit: u32, network_limit: u32) -> Snapshot {
    lab_of(port_limit, network_limit, 100_000)
}

fn lab_of(port_limit: u32, network_limit: u32, capacity: usize) -> Snapshot {
    let ports = [port(&[RED], port_limit), port(&[RED], port_limit), port(&[RED, BLUE], port_limit)];
    let networks = [network(network_limit, 300), network(network_limit, 300)];
    snapshot(ports, networks, Arc::new(Fdb::new(capacity)))
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
    for i in 0..4 {
        let (from, to) = if i % 2 == 0 { (A, B) } else { (B, A) };
        assert_eq!(learn(&state, RED, 1, to, i), Learn::Moved { from });
    }
    // At A, where it was first; the fifth move within ten seconds.
    for s in 5..15 {
        assert_eq!(learn(&state, RED, 1, B, s), Learn::Held);
        assert_eq!(learn(&state, RED, 1, A, s), Learn::Known);
        assert_eq!(age(&state, s), 0);
        assert!(state.fdb().entries(at(s))[0].is_held);
    }
    assert!(!state.fdb().entries(at(15))[0].is_held);
    assert_eq!(learn(&state, RED, 1, B, 15), Learn::Moved { from: A });
    assert_exact(state.fdb());
}

#[test]
fn moves_over_a_longer_time_are_never_held() {
    let state = lab(100, 100);
    learn(&state, RED, 1, A, 0);
    // With and without ageing in between, beyond where the window's stamp wraps.
    for i in 1..3_000 {
        let (from, to) = if i % 2 == 1 { (A, B) } else { (B, A) };
        assert_eq!(learn(&state, RED, 1, to, i * 3), Learn::Moved { from }, "move {i}");
        if i > 1_000 {
            age(&state, i * 3);
        }
    }
}

#[test]
fn an_old_hold_or_window_does_not_come_back_when_its_stamp_wraps() {
    let state = lab(100, 100);
    for n in 0..2 {
        learn(&state, RED, n, A, 0);
        for i in 0..4 + n {
            learn(&state, RED, n, if i % 2 == 0 { B } else { A }, 0);
        }
    }
    age(&state, 20);
    for s in [1_023, 1_024, 1_030] {
        assert!(!state.fdb().entries(at(s)).iter().any(|e| e.is_held));
    }
    assert_eq!(learn(&state, RED, 0, B, 1_030), Learn::Moved { from: A });
    assert_eq!(learn(&state, RED, 1, B, 1_030), Learn::Moved { from: A });
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
    let learnt = (0..100_000).filter(|&n| learn(&state, RED, n, A, 0) == Learn::Added).count();
    assert_eq!((learnt, state.fdb().len()), (7_900, 8_000));
    age(&state, 0);
    assert!((0..100).all(|n| state.fdb().lookup(BLUE, mac(n)) == Some(C)));
    // Half of the reserve of 1000 is for networks; of that it has its half.
    let learnt = (100..1_000).filter(|&n| learn(&state, BLUE, n, C, 0) == Learn::Added).count();
    assert_eq!(learnt, 150);
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

#[test]
fn one_walk_takes_out_what_is_named_and_the_counts_follow() {
    let state = lab(100, 100);
    let fdb = state.fdb();
    for n in 0..4 {
        learn(&state, RED, n, A, 0);
        learn(&state, BLUE, n, C, 0);
    }
    learn(&state, RED, 9, B, 0);
    fdb.add_static(RED, mac(10), A, T0).unwrap();
    assert_eq!((fdb.learnt_at(A), fdb.learnt_at(B), fdb.learnt_in(RED), fdb.learnt_in(BLUE)), (4, 1, 5, 4));

    let is_stale = |network, port, is_static: bool| network == BLUE || (port == A && !is_static);
    assert_eq!(fdb.flush_where(is_stale), 8);
    assert_eq!((fdb.learnt_at(A), fdb.learnt_at(B), fdb.learnt_in(RED), fdb.learnt_in(BLUE)), (0, 1, 1, 0));
    assert_eq!((fdb.lookup(RED, mac(9)), fdb.lookup(RED, mac(10))), (Some(B), Some(A)));
    assert_eq!(fdb.flush_where(|_, _, _| true), 2);
    assert!(fdb.is_empty());
    assert_exact(fdb);
}
