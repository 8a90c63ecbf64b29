//! What control knows of the underlay: its port, and `vxlan show`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use vswitch_api::Topology;
use vswitch_api::response::{Peer, Reach, TunnelledNetwork, UnderlayState, VxlanState};
use vswitch_api::topology;
use vswitch_dataplane::{NetId, PortCounters, PortId, Stranger};
use vswitch_io::Kind;

use super::compile::{self, DeviceInput};
use super::overlay::{self, Uplink};
use super::record::PortRecord;
use super::report::Totals;
use super::{Control, by_name};

impl Control {
    /// The underlay's port, as it is now; `None` without an underlay.
    pub(super) fn uplink(&self) -> Option<Uplink> {
        let underlay = self.desired.underlay.as_ref()?;
        let config = *by_name(&self.desired.port).get(underlay.port.as_str())?;
        let port = PortId(self.port_ids.get(&underlay.port)?);
        let device = self.ports.get(&underlay.port).and_then(PortRecord::device);
        let input = device.map(|d| DeviceInput { facts: &d.facts, up: d.up, mtu: d.mtu });
        // A netdev's own MAC passes every filter on the way. A tap's belongs to whoever is at its other end.
        let is_ours = device.is_some_and(|d| matches!(d.facts.kind, Kind::Xdp | Kind::Packet));
        let link = config.netdev().filter(|_| is_ours).and_then(|netdev| self.links.table().by_name(netdev));
        let netdev_mac = link.and_then(|link| link.mac).filter(|mac| mac.is_unicast());
        Some(Uplink {
            port,
            mac: netdev_mac.unwrap_or_else(|| topology::own_mac(&self.desired.switch.name, overlay::NETWORK)),
            up: input.as_ref().is_some_and(|d| d.up) && compile::has_tags(underlay, input.as_ref()),
            mtu: input.map(|d| compile::effective_mtu(config, &d)),
        })
    }

    /// Before a snapshot is compiled: what is known of next hops is of where the underlay is now.
    pub(super) fn place_vtep(&mut self, uplink: Option<&Uplink>) {
        self.overlay.move_to(self.desired.underlay.as_ref().zip(uplink.map(|uplink| uplink.mac)));
    }

    /// Has the station on the underlay, and the FDB's entry for it, be as the published snapshot has them.
    pub(super) fn settle_vtep(&mut self, uplink: Option<&Uplink>) {
        let at = self.desired.underlay.clone().zip(uplink);
        let network = self.net_ids.get(overlay::NETWORK).map(NetId);
        let entry = at.as_ref().zip(network).map(|((_, uplink), network)| (network, uplink.mac));
        if self.overlay.own_entry != entry {
            if let Some((network, mac)) = self.overlay.own_entry {
                self.fdb.remove(network, mac);
            }
            self.overlay.own_entry = entry;
        }
        if let Some((network, mac)) = entry {
            // Without room it is tried again with the next snapshot; meanwhile the station hears what is flooded.
            let _ = self.fdb.add_static(network, mac, self.own.id, self.clock.now());
        }
        let Some((underlay, uplink)) = at else { return };
        self.overlay.shared.borrow_mut().want(self.overlay.next_hops(&underlay));
        let shared = Rc::clone(&self.overlay.shared);
        self.own.update_vtep(uplink.mac, underlay.address, self.overlay.generation, &shared);
    }

    /// What was learnt of the underlay goes with it, and with its place at a port.
    pub(super) fn mark_underlay(&mut self, old: &Topology, new: &Topology) {
        let Some(network) = self.net_ids.get(overlay::NETWORK).map(NetId) else { return };
        match (&old.underlay, &new.underlay) {
            (Some(_), None) => self.stale.on_network_end(network),
            (Some(before), Some(now)) if (&before.port, before.vlan) != (&now.port, now.vlan) => {
                let port = self.port_ids.get(&before.port).map(PortId);
                port.into_iter().for_each(|port| self.stale.on_leaving(port, network));
            }
            _ => {}
        }
    }

    /// Publishes what the station on the underlay has learnt of next hops, at a bounded pace.
    pub(super) async fn follow_next_hops(&mut self) {
        if self.overlay.take_news(self.clock.now()) {
            self.publish().await;
        }
    }

    /// A VTEP that nobody configured sends frames of a network where that makes it a peer.
    pub(super) async fn on_stranger(&mut self, stranger: Stranger) {
        let Some(network) = self.net_ids.name(stranger.network.0).map(str::to_owned) else { return };
        if !self.overlay.admit(&self.desired, stranger.address, &network) {
            return;
        }
        tracing::info!(vtep = %stranger.address, network, "a new peer");
        let workers = self.workers.count();
        self.overlay.add_peers(&self.desired, &mut self.port_ids, &self.net_ids, workers);
        self.overlay.on_change(&mut self.stale, &self.desired, &self.port_ids, &self.net_ids);
        self.publish().await;
    }

    /// Peers that nobody configured leave when nothing is known behind them any more.
    pub(super) async fn age_guests(&mut self) {
        let learnt = |port| self.fdb.learnt_at(port);
        if self.overlay.age_guests(&self.port_ids, learnt) {
            self.overlay.on_change(&mut self.stale, &self.desired, &self.port_ids, &self.net_ids);
            self.publish().await;
            self.overlay.forget_peers(&mut self.port_ids, &mut self.retired);
        }
    }

    /// `vxlan show`.
    pub fn vxlan_view(&self) -> VxlanState {
        let parts = self.desired.underlay.as_ref().zip(self.uplink());
        let inner_mtu = parts.as_ref().and_then(|(underlay, uplink)| uplink.inner_mtu(underlay));
        let networks = self.desired.network.iter().filter(|network| network.vni.is_some());
        let network = |n: &vswitch_api::topology::Network| TunnelledNetwork {
            name: n.name.clone(),
            vni: n.vni,
            peers: n.peers.clone(),
            mtu: inner_mtu,
        };
        let underlay = parts.map(|(underlay, uplink)| UnderlayState {
            address: underlay.address,
            mac: uplink.mac,
            port: underlay.port.clone(),
            vlan: underlay.vlan,
            gateway: underlay.gateway,
            udp_port: underlay.udp_port,
            up: uplink.up,
            mtu: uplink.mtu,
        });
        VxlanState { underlay, networks: networks.map(network).collect(), peers: self.peer_views() }
    }

    fn peer_views(&self) -> Vec<Peer> {
        let is_up = self.uplink().is_some_and(|uplink| uplink.up);
        let mut statics: HashMap<IpAddr, u64> = HashMap::new();
        for vtep in self.desired.fdb.iter().filter(|e| self.statics.has(e)).filter_map(|e| e.vtep) {
            *statics.entry(vtep).or_default() += 1;
        }
        let view = |(peer, counters)| self.peer_view(peer, counters, is_up, statics.get(&peer).copied());
        self.overlay.peers().map(view).collect()
    }

    fn peer_view(
        &self,
        address: IpAddr,
        counters: &[PortCounters],
        is_up: bool,
        statics: Option<u64>,
    ) -> Peer {
        let next_hop = self.desired.underlay.as_ref().and_then(|underlay| underlay.next_hop(address));
        let mac = next_hop.and_then(|hop| self.overlay.next_hop_mac(hop));
        let reach = match mac {
            _ if !is_up => Reach::Down,
            Some(_) => Reach::Resolved,
            None => Reach::Resolving,
        };
        let id = self.port_ids.get(&overlay::port_name(address)).map(PortId);
        Peer {
            address,
            reach,
            next_hop,
            mac: mac.map(|mac| mac.to_string()),
            networks: self.overlay.networks_of(address) as u64,
            macs: id.map_or(0, |id| u64::from(self.fdb.learnt_at(id))) + statics.unwrap_or(0),
            counters: Totals::of(counters, Default::default()).view(),
        }
    }
}
