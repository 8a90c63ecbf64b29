//! The FDB's rules between tenants, and between the networks of one.

#![cfg(not(loom))]

use alloc::sync::Arc;
use std::vec::Vec;

use super::testing::{
    ACME, BETA, age, age_by, assert_exact, learn, mac, network, network_of, port, snapshot,
};
use super::{Fdb, Learn};
use crate::{NetId, Port, PortId, Snapshot, TenantId};

/// Every network has an access port of its number, and a second one of that number and 100.
fn lab(networks: &[(TenantId, u32)], capacity: usize) -> Snapshot {
    let fdb = Arc::new(Fdb::new(capacity));
    let ids = || (0..networks.len() as u16).map(NetId);
    let mut ports: Vec<Port> = ids().map(|id| port(&[id], u32::MAX)).collect();
    ports.resize(100, port(&[], u32::MAX));
    ports.extend(ids().map(|id| port(&[id], u32::MAX)));
    let of = |&(tenant, limit): &(TenantId, u32)| network_of(tenant, limit, u32::MAX, 300);
    snapshot(ports, networks.iter().map(of), fdb)
}

/// How many of `count` new addresses are learnt at the network's first or second port.
fn flood(state: &Snapshot, network: u16, second: bool, count: u64) -> usize {
    let port = PortId(network + if second { 100 } else { 0 });
    let first = u64::from(port.0) << 32;
    let is_added = |n| learn(state, NetId(network), first + n, port, 0) == Learn::Added;
    (0..count).filter(|&n| is_added(n)).count()
}

fn counts<const N: usize>(state: &Snapshot) -> [u32; N] {
    core::array::from_fn(|n| state.fdb().learnt_in(NetId(n as u16)))
}

#[test]
fn a_network_below_its_share_learns_at_the_tenants_limit_and_the_flood_pays() {
    let state = lab(&[(ACME, 90), (ACME, 90), (ACME, 90), (BETA, u32::MAX)], 100_000);
    assert_eq!(flood(&state, 3, false, 50), 50);
    assert_eq!(flood(&state, 0, false, 1_000), 90);
    assert_eq!(flood(&state, 1, false, 1_000), 30);
    assert_eq!(flood(&state, 2, false, 20), 20);
    assert_eq!(state.fdb().learnt_of(ACME), 140);
    assert_eq!(age(&state, 0), 50);
    assert_eq!(counts(&state), [40, 30, 20, 50]);
    assert_eq!(flood(&state, 2, true, 1_000), 15, "ten are the network's, five more are its second port's");
    age(&state, 0);
    assert_eq!(counts(&state), [30, 30, 30, 50]);
    assert_eq!((0..3).map(|n| flood(&state, n, false, 2_000)).sum::<usize>(), 0);
    assert_eq!(flood(&state, 3, true, 500), 500, "another tenant learns as before");
    assert_exact(state.fdb());
}

#[test]
fn within_a_tenants_network_the_port_pays_that_floods() {
    let state = lab(&[(ACME, 60), (ACME, 60)], 100_000);
    assert_eq!(flood(&state, 0, false, 1_000), 60);
    assert_eq!(flood(&state, 0, true, 1_000), 15, "half of the network's half");
    assert_eq!(flood(&state, 1, false, 1_000), 30);
    age(&state, 0);
    assert_eq!(counts(&state), [30, 30]);
    let of_port = |id| state.fdb().learnt_at(PortId(id));
    assert_eq!((of_port(0), of_port(100), of_port(1)), (15, 15, 30));
    assert_exact(state.fdb());
}

#[test]
fn a_tenants_limit_that_is_lowered_cuts_off_what_is_most() {
    let networks = |limit| [(ACME, limit), (ACME, limit), (ACME, limit), (BETA, u32::MAX)];
    let state = lab(&networks(u32::MAX), 100_000);
    for (n, count) in [(0, 4_000), (1, 3_000), (2, 500), (3, 4_000)] {
        assert_eq!(flood(&state, n, false, count), count as usize);
    }
    assert_eq!(age_by(state.fdb(), &lab(&networks(2_501), 1), 60), 4_999);
    let [most, second, least, other] = counts(&state);
    assert_eq!((most + second, least, other), (2_001, 500, 4_000));
    assert!(most.abs_diff(second) <= 1, "{most} {second}");
    assert_exact(state.fdb());
}

#[test]
fn a_networks_own_limit_holds_beside_the_tenants() {
    let fdb = Arc::new(Fdb::new(100_000));
    let ports = [port(&[NetId(0)], u32::MAX), port(&[NetId(1)], u32::MAX)];
    let networks = |own| [network_of(ACME, 100, own, 300), network_of(ACME, 100, u32::MAX, 300)];
    let state = snapshot(ports.clone(), networks(u32::MAX), Arc::clone(&fdb));
    assert_eq!(flood(&state, 0, false, 80), 80);
    assert_eq!(flood(&state, 1, false, 1_000), 50);
    // What is beyond the network's own limit goes, and that is enough for the tenant.
    let state = snapshot(ports, networks(20), fdb);
    assert_eq!(age(&state, 0), 60);
    assert_eq!(counts(&state), [20, 50]);
}

#[test]
fn more_networks_than_addresses_take_turns() {
    let state = lab(&[(ACME, 2); 5], 1_000);
    for n in 0..5 {
        assert_eq!(flood(&state, n, false, 1), 1);
    }
    assert_eq!(flood(&state, 0, false, 50), 0);
    assert_eq!(age(&state, 0), 3);
    assert_eq!(state.fdb().learnt_of(ACME), 2);
    assert_eq!(flood(&lab(&[(ACME, 0)], 100), 0, false, 10), 0);
}

#[test]
fn a_network_that_changes_hands_takes_its_addresses_along() {
    let state = lab(&[(ACME, 100), (BETA, 100)], 1_000);
    assert_eq!((flood(&state, 0, false, 60), flood(&state, 1, false, 70)), (60, 70));
    let fdb = state.fdb();
    let learnt = || (fdb.learnt_of(ACME), fdb.learnt_of(BETA), fdb.learnt_of(TenantId::NOBODY));
    assert_eq!(learnt(), (60, 70, 0));
    let next = lab(&[(BETA, 100), (BETA, 100)], 1);
    fdb.assign(&next);
    assert_eq!(learnt(), (0, 130, 0));
    assert_exact(fdb);
    assert_eq!(age_by(fdb, &next, 0), 30);
    assert_eq!(counts(&state), [50, 50]);
    let ports = [port(&[NetId(0)], 100), port(&[NetId(1)], 100)];
    fdb.assign(&snapshot(ports, [network(100, 300), network(100, 300)], Arc::new(Fdb::new(1))));
    assert_eq!(learnt(), (0, 0, 100));
    assert!(
        fdb.remove(NetId(0), fdb.entries(super::testing::T0).iter().find(|e| e.network.0 == 0).unwrap().mac)
    );
    assert_eq!(learnt(), (0, 0, 99));
    assert_exact(fdb);
}

#[test]
fn a_tenant_with_many_networks_leaves_the_others_their_share_of_a_full_table() {
    // Ninety networks of one tenant, one of another, and one of nobody's.
    let mut networks = [(ACME, u32::MAX); 92];
    (networks[90], networks[91]) = ((BETA, u32::MAX), (TenantId::NOBODY, u32::MAX));
    let state = lab(&networks, 8_000);
    let fdb = state.fdb();
    assert_eq!((flood(&state, 90, false, 40), flood(&state, 91, false, 10)), (40, 10));
    for n in 0..45 {
        flood(&state, n, false, 10_000);
    }
    // Half of the reserve of 1000 is for tenants, a third of it each; the other half is for their networks, a ninetieth of
    // that for each of the first's.
    let (of_tenant, of_network) = (500 / 3, 500 / 3 / 90);
    assert_eq!(fdb.len(), 8_000 + 44 * of_network);
    assert_eq!(flood(&state, 90, true, 10_000), of_tenant - 40);
    assert_eq!(flood(&state, 91, true, 10_000), of_tenant - 10);
    for n in 45..90 {
        assert_eq!(flood(&state, n, true, 10_000), of_network);
    }
    assert!(fdb.len() <= 9_000, "{}", fdb.len());
    let own = |n: u64| fdb.lookup(NetId(90), mac((90 << 32) + n));
    assert!((0..40).all(|n| own(n) == Some(PortId(90))), "and nothing was evicted");
    assert_exact(fdb);
}
