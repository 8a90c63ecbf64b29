//! What `[underlay]` and networks' peers must hold.

use super::{Checker, FirstSeen};
use crate::topology::{Network, PEER_ENTRIES_MAX, PEERS_MAX, Port, Topology, Underlay, is_host};

impl Checker<'_> {
    pub(super) fn check_tunnels(&mut self, topology: &Topology) {
        if let Some(underlay) = &topology.underlay {
            self.check_underlay(underlay);
        }
        self.check_peers(&topology.network, topology.underlay.as_ref());
    }

    fn check_underlay(&mut self, underlay: &Underlay) {
        let address = underlay.address.address;
        if !is_host(address) {
            self.report(
                "underlay.address",
                format!("{address} is no address of a host"),
                "use the VTEP's own",
            );
        }
        if let Some(gateway) = underlay.gateway {
            let why = if gateway == address {
                Some("is the VTEP's own address")
            } else if underlay.address.contains(gateway) {
                None
            } else {
                Some("is not on the link")
            };
            if let Some(why) = why {
                let mend = format!("use another address within {}", underlay.address);
                self.report("underlay.gateway", format!("{gateway} {why}"), mend);
            }
        }
        if underlay.udp_port == 0 {
            self.report("underlay.udp-port", "0 is no UDP port", "leave it out for 4789");
        }
        if underlay.ttl == 0 {
            self.report("underlay.ttl", "0 lets no packet reach a peer", "use 1 to 255");
        }
        if underlay.dscp > 63 {
            self.report("underlay.dscp", format!("{} is out of range", underlay.dscp), "use 0 to 63");
        }
        if let Some(port) = self.check_port("underlay.port".to_owned(), &underlay.port).cloned() {
            self.check_underlay_vlan(underlay, &port);
        }
    }

    /// The underlay has untagged frames or a VLAN ID of its port to itself.
    fn check_underlay_vlan(&mut self, underlay: &Underlay, port: &Port) {
        let Some(vlan) = underlay.vlan else {
            if let Some(network) = port.access.as_ref().or(port.native.as_ref()) {
                let what = format!("port {:?} carries network {network:?} untagged", port.name);
                self.report("underlay.port", what, "give the underlay a vlan, or a port of its own");
            }
            return;
        };
        for entry in &port.trunk {
            let own = self.networks.get(entry.network.as_str()).and_then(|n| n.vlan);
            if entry.vlan.or(own) == Some(vlan) {
                let what = format!("VLAN {vlan} of port {:?} is network {:?}", port.name, entry.network);
                self.report("underlay.vlan", what, "give the underlay a VLAN ID of its own");
            }
        }
    }

    fn check_peers(&mut self, networks: &[Network], underlay: Option<&Underlay>) {
        let mut vnis = FirstSeen::new();
        let mut vteps = std::collections::BTreeSet::new();
        let mut entries = 0;
        for (i, network) in networks.iter().enumerate() {
            let path = format!("network[{i}]");
            if let Some(first) = network.vni.and_then(|vni| vnis.insert(vni, &path)) {
                let what = format!("the VNI is taken by {first}");
                self.report(format!("{path}.vni"), what, "give each network its own VNI");
            }
            if network.vni.is_none() && network.peers_any {
                self.report(format!("{path}.peers-any"), "a network without a VNI has no peers", "add vni");
            }
            if network.vni.is_none() && !network.peers.is_empty() {
                self.report(format!("{path}.peers"), "a network without a VNI has no peers", "add vni");
            }
            entries += network.peers.len();
            if entries > PEER_ENTRIES_MAX {
                let mend = format!("use at most {PEER_ENTRIES_MAX}");
                return self.report(format!("{path}.peers"), "the peers of all networks are too many", mend);
            }
            self.check_peers_of(&path, network, underlay);
            vteps.extend(network.peers.iter().copied());
            if vteps.len() > PEERS_MAX {
                let mend = format!("use at most {PEERS_MAX}");
                return self.report(format!("{path}.peers"), "there are too many VTEPs", mend);
            }
        }
    }

    fn check_peers_of(&mut self, path: &str, network: &Network, underlay: Option<&Underlay>) {
        let mut seen = FirstSeen::new();
        for (i, &peer) in network.peers.iter().enumerate() {
            let at = format!("{path}.peers[{i}]");
            if let Some(first) = seen.insert(peer, &at) {
                self.report(&at, format!("{peer} is given by {first} already"), "name each peer once");
            }
            if !is_host(peer) {
                self.report(&at, format!("{peer} is no address of a host"), "use the peer's VTEP");
                continue;
            }
            let Some(underlay) = underlay else { continue };
            let own = underlay.address.address;
            if own == peer {
                self.report(&at, format!("{peer} is this switch's own VTEP"), "name the others only");
            } else if own.is_ipv4() != peer.is_ipv4() {
                let what = format!("{peer} is of another family than the underlay's {own}");
                self.report(&at, what, "use one family for all VTEPs");
            } else if underlay.next_hop(peer).is_none() {
                let what = format!("{peer} is not on the link {}", underlay.address);
                self.report(&at, what, "add gateway to [underlay], or a shorter prefix");
            } else if !underlay.may_reach(peer) {
                self.report(&at, format!("{peer} is no address of a host"), "use the peer's VTEP");
            }
        }
    }
}
