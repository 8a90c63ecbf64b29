//! FDB entries that a change makes wrong, taken out in one walk through the FDB, once no worker can learn them again.

use std::collections::BTreeSet;

use vswitch_api::Topology;
use vswitch_dataplane::{Fdb, NetId, PortId};

use super::by_name;
use super::ids::Ids;

/// Which entries are to go with the next snapshot.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// Ports without a device or link: what was learnt there.
    silent: BTreeSet<PortId>,
    /// Ports that are deleted: everything.
    gone_ports: BTreeSet<PortId>,
    /// Networks that are deleted: everything.
    gone_networks: BTreeSet<NetId>,
    /// Ports that left a network: what was learnt there.
    left: BTreeSet<(PortId, NetId)>,
}

impl Stale {
    /// The port has no device or no link any more.
    pub(super) fn on_silence(&mut self, port: PortId) {
        self.silent.insert(port);
    }

    /// The port is deleted.
    pub(super) fn on_end(&mut self, port: PortId) {
        self.gone_ports.insert(port);
    }

    /// The network is deleted.
    pub(super) fn on_network_end(&mut self, network: NetId) {
        self.gone_networks.insert(network);
    }

    /// The port leaves a network.
    pub(super) fn on_leaving(&mut self, port: PortId, network: NetId) {
        self.left.insert((port, network));
    }

    /// The topology becomes `new`. Everything of both has a number.
    pub(super) fn on_change(&mut self, old: &Topology, new: &Topology, ports: &Ids, networks: &Ids) {
        let network_id = |name: &str| networks.get(name).map(NetId);
        let kept: BTreeSet<&str> = new.network.iter().map(|n| n.name.as_str()).collect();
        let gone = old.network.iter().map(|n| n.name.as_str()).filter(|name| !kept.contains(name));
        self.gone_networks.extend(gone.filter_map(network_id));
        let after = by_name(&new.port);
        for before in &old.port {
            let Some(id) = ports.get(&before.name).map(PortId) else { continue };
            let Some(port) = after.get(before.name.as_str()) else {
                self.gone_ports.insert(id);
                continue;
            };
            let carried: BTreeSet<&str> = port.networks().collect();
            let left = before.networks().filter(|name| !carried.contains(name));
            self.left.extend(left.filter_map(network_id).map(|network| (id, network)));
        }
    }

    /// Takes the entries out.
    pub(super) fn flush(&mut self, fdb: &Fdb) {
        let mut stale = std::mem::take(self);
        stale.silent.retain(|&port| fdb.learnt_at(port) > 0);
        stale.left.retain(|&(port, network)| fdb.learnt_at(port) > 0 && fdb.learnt_in(network) > 0);
        if !stale.is_empty() {
            fdb.flush_where(|network, port, is_static| stale.has(network, port, is_static));
        }
    }

    fn is_empty(&self) -> bool {
        self.silent.is_empty()
            && self.gone_ports.is_empty()
            && self.gone_networks.is_empty()
            && self.left.is_empty()
    }

    fn has(&self, network: NetId, port: PortId, is_static: bool) -> bool {
        let is_learnt_in_vain = || self.silent.contains(&port) || self.left.contains(&(port, network));
        self.gone_ports.contains(&port)
            || self.gone_networks.contains(&network)
            || (!is_static && is_learnt_in_vain())
    }
}

#[cfg(test)]
mod tests {
    use vswitch_api::topology::{Network, Port};
    use vswitch_wire::{Instant, Mac};

    use super::*;

    const FIXED: Mac = Mac([2, 0, 0, 0, 0, 1]);

    /// Ports `a` and `b` on a trunk of `red` and `blue`, with a static entry of each in each.
    struct Rig {
        topology: Topology,
        ports: Ids,
        networks: Ids,
        fdb: Fdb,
    }

    impl Rig {
        fn new() -> Self {
            let mut rig = Self {
                topology: Topology::default(),
                ports: Ids::default(),
                networks: Ids::default(),
                fdb: Fdb::new(64),
            };
            for name in ["red", "blue"] {
                rig.topology.network.push(Network::new(name));
                rig.networks.acquire(name);
            }
            for name in ["a", "b"] {
                let trunk = vec!["red:1".parse().unwrap(), "blue:2".parse().unwrap()];
                rig.topology.port.push(Port { trunk, ..Port::new(name) });
                rig.ports.acquire(name);
            }
            for (n, port) in [("red", "a"), ("blue", "b")] {
                let (network, port) =
                    (NetId(rig.networks.get(n).unwrap()), PortId(rig.ports.get(port).unwrap()));
                rig.fdb.add_static(network, FIXED, port, Instant::ZERO).unwrap();
            }
            rig
        }

        /// The networks whose entry is left after this change.
        fn left_after(&self, edit: impl FnOnce(&mut Topology)) -> Vec<&str> {
            let mut new = self.topology.clone();
            edit(&mut new);
            let mut stale = Stale::default();
            stale.on_change(&self.topology, &new, &self.ports, &self.networks);
            stale.flush(&self.fdb);
            let has = |name: &&str| {
                let network = NetId(self.networks.get(name).unwrap());
                self.fdb.get(network, FIXED, Instant::ZERO).is_some()
            };
            ["red", "blue"].into_iter().filter(has).collect()
        }
    }

    #[test]
    fn everything_of_what_is_deleted_goes() {
        assert_eq!(Rig::new().left_after(|_| ()), ["red", "blue"]);
        assert_eq!(Rig::new().left_after(|t| drop(t.port.remove(0))), ["blue"]);
        assert_eq!(Rig::new().left_after(|t| drop(t.network.remove(1))), ["red"]);
    }

    #[test]
    fn what_was_learnt_goes_with_the_link_and_the_membership() {
        let (a, red, blue) = (PortId(0), NetId(0), NetId(1));
        let mut silent = Stale::default();
        silent.on_silence(a);
        assert!(silent.has(red, a, false) && silent.has(blue, a, false));
        assert!(!silent.has(red, a, true) && !silent.has(red, PortId(1), false));

        let rig = Rig::new();
        let mut new = rig.topology.clone();
        new.port[0].trunk.pop();
        let mut left = Stale::default();
        left.on_change(&rig.topology, &new, &rig.ports, &rig.networks);
        assert!(left.has(blue, a, false));
        assert!(!left.has(red, a, false) && !left.has(blue, a, true) && !left.has(blue, PortId(1), false));
    }
}
