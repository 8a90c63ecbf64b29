//! The FDB under concurrent writers; see [`crate::sync::model`].

use alloc::sync::Arc;

use vswitch_wire::{Instant, Mac};

use super::counts::Place;
use super::testing::{MAC, network, port, snapshot};
use super::{Fdb, Learn};
use crate::sync::{model, thread};
use crate::{NetId, PortId, Snapshot};

const NET: NetId = NetId(0);
const A: PortId = PortId(0);
const B: PortId = PortId(1);
const NOW: Instant = Instant::from_secs(100);

/// The snapshot of one network with two ports.
fn two_ports(port_limit: u32, network_limit: u32) -> Arc<Snapshot> {
    let ports = [port(&[NET], port_limit), port(&[NET], port_limit)];
    Arc::new(snapshot(ports, [network(network_limit, 300)], Arc::new(Fdb::new(8))))
}

fn learn(state: &Snapshot, mac: Mac, port: PortId) -> Learn {
    state.fdb().learn(state, NET, mac, port, NOW)
}

/// The sums of the counts are what is in the table.
fn assert_exact(fdb: &Fdb) {
    let entries = fdb.entries(NOW);
    let at = |port| entries.iter().filter(|e| e.port == port && !e.is_static).count() as u32;
    assert_eq!(fdb.len(), entries.len());
    assert_eq!((fdb.counts.port(A), fdb.counts.port(B)), (at(A), at(B)));
    assert_eq!(fdb.counts.network(NET), at(A) + at(B));
    let pair = |port| fdb.counts.pair(Place { network: NET, port });
    assert_eq!((pair(A), pair(B)), (at(A), at(B)));
}

/// Runs `other` in a second thread while `own` runs in this one.
fn at_once<T: Send + 'static>(
    state: &Arc<Snapshot>,
    own: impl FnOnce(&Snapshot) -> T,
    other: impl FnOnce(&Snapshot) -> T + Send + 'static,
) -> [T; 2] {
    let other = thread::spawn({
        let state = Arc::clone(state);
        move || other(&state)
    });
    [own(state), other.join().unwrap()]
}

#[test]
fn loom_one_address_learnt_at_two_ports_is_one_entry() {
    model(|| {
        let state = two_ports(8, 8);
        let outcome = at_once(&state, |s| learn(s, MAC, A), |s| learn(s, MAC, B));
        assert!(
            [[Learn::Added, Learn::Moved { from: A }], [Learn::Moved { from: B }, Learn::Added]]
                .contains(&outcome)
        );
        assert_eq!(state.fdb().len(), 1);
        assert_exact(state.fdb());
    });
}

#[test]
fn loom_removal_during_a_move_counts_once() {
    model(|| {
        let state = two_ports(8, 8);
        assert_eq!(learn(&state, MAC, A), Learn::Added);
        let [_, is_removed] =
            at_once(&state, |s| learn(s, MAC, B) == Learn::Added, |s| s.fdb().remove(NET, MAC));
        assert!(is_removed);
        assert_exact(state.fdb());
    });
}

#[test]
fn loom_static_entry_wins_over_learning() {
    model(|| {
        let state = two_ports(8, 8);
        at_once(
            &state,
            |s| assert_ne!(learn(s, MAC, A), Learn::Refused),
            |s| s.fdb().add_static(NET, MAC, B, NOW).unwrap(),
        );
        assert_eq!(state.fdb().lookup(NET, MAC), Some(B));
        assert_exact(state.fdb());
    });
}

#[test]
fn loom_port_limit_holds_for_two_learners() {
    model(|| {
        let state = two_ports(1, 8);
        let other = Mac([2, 0, 0, 0, 0, 0x22]);
        let outcome = at_once(&state, |s| learn(s, MAC, A), move |s| learn(s, other, A));
        assert!([[Learn::Added, Learn::Refused], [Learn::Refused, Learn::Added]].contains(&outcome));
        assert_eq!(state.fdb().len(), 1);
        assert_exact(state.fdb());
    });
}
