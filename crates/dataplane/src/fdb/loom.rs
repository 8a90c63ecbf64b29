//! The FDB under concurrent writers; see [`crate::sync::model`].

use alloc::sync::Arc;

use super::testing::{
    A, ACME, B, BLUE, RED, T0, assert_exact, learn, mac, network, network_of, port, snapshot,
};
use super::{Fdb, Learn};
use crate::Snapshot;
use crate::sync::{model, thread};

/// The snapshot of one network with two ports.
fn two_ports(port_limit: u32, network_limit: u32) -> Arc<Snapshot> {
    let ports = [port(&[RED], port_limit), port(&[RED], port_limit)];
    Arc::new(snapshot(ports, [network(network_limit, 300)], Arc::new(Fdb::new(8))))
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
        let outcome = at_once(&state, |s| learn(s, RED, 1, A, 0), |s| learn(s, RED, 1, B, 0));
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
        assert_eq!(learn(&state, RED, 1, A, 0), Learn::Added);
        let [_, is_removed] =
            at_once(&state, |s| learn(s, RED, 1, B, 0) == Learn::Added, |s| s.fdb().remove(RED, mac(1)));
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
            |s| assert_ne!(learn(s, RED, 1, A, 0), Learn::Refused),
            |s| s.fdb().add_static(RED, mac(1), B, T0).unwrap(),
        );
        assert_eq!(state.fdb().lookup(RED, mac(1)), Some(B));
        assert_exact(state.fdb());
    });
}

#[test]
fn loom_port_limit_holds_for_two_learners() {
    model(|| {
        let state = two_ports(1, 8);
        let outcome = at_once(&state, |s| learn(s, RED, 1, A, 0), |s| learn(s, RED, 2, A, 0));
        assert!([[Learn::Added, Learn::Refused], [Learn::Refused, Learn::Added]].contains(&outcome));
        assert_eq!(state.fdb().len(), 1);
        assert_exact(state.fdb());
    });
}

#[test]
fn loom_tenants_limit_holds_for_two_learners() {
    model(|| {
        let ports = [port(&[RED], 8), port(&[BLUE], 8)];
        let networks = [network_of(ACME, 1, 8, 300), network_of(ACME, 1, 8, 300)];
        let state = Arc::new(snapshot(ports, networks, Arc::new(Fdb::new(8))));
        // One is the limit, and each network's share.
        assert_eq!(learn(&state, RED, 1, A, 0), Learn::Added);
        let outcome = at_once(&state, |s| learn(s, RED, 2, A, 0), |s| learn(s, BLUE, 3, B, 0));
        assert_eq!(outcome, [Learn::Refused, Learn::Added]);
        assert_eq!(state.fdb().learnt_of(ACME), 2);
        assert_exact(state.fdb());
    });
}

#[test]
fn loom_a_network_changes_hands_while_it_learns_and_forgets() {
    model(|| {
        let state = two_ports(8, 8);
        assert_eq!(learn(&state, RED, 1, A, 0), Learn::Added);
        let next = snapshot([], [network_of(ACME, 8, 8, 300)], Arc::new(Fdb::new(1)));
        at_once(
            &state,
            move |s| s.fdb().assign(&next),
            |s| {
                assert_eq!(learn(s, RED, 2, B, 0), Learn::Added);
                assert!(s.fdb().remove(RED, mac(1)));
            },
        );
        assert_eq!(state.fdb().learnt_of(ACME), 1);
        assert_exact(state.fdb());
    });
}
