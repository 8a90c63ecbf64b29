//! The switch's own port: a trunk whose VLAN IDs stand for the networks where the switch is a station.
//!
//! No user has it: it is in no topology and in no list of ports, and its name cannot be theirs. It is opened when
//! the first network has an address, and stays. What comes in by it the switch has made (`originated`), what leaves by it
//! the switch has taken (`consumed`).
//!
//! A VLAN ID that a network gave up stands for another one only when no worker and no queue has a frame with it any more:
//! it is free after the next snapshot, and what waits with it is thrown away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vswitch_api::Topology;
use vswitch_api::response::{ErrorBody, ErrorCode};
use vswitch_api::topology::{Network, OWN_PORT, own_mac};
use vswitch_api::value::Cidr;
use vswitch_dataplane::{Attachment, NetId, Port, PortCounters, PortId, Storm, Trunk, TrunkEntry};
use vswitch_io::{Opened, Pool, internal};
use vswitch_protocols::host::{self, Host};
use vswitch_wire::{Caps, Mac, Vid};

use super::Control;
use super::compile;
use super::ids::Ids;
use crate::host::{Hosts, Member};

const _: () = assert!(vswitch_api::topology::NETWORK_ADDRESSES_MAX == host::ADDRESSES_MAX);

/// Names the own port's one attachment. It is never lost, so no event has it.
const ATTACHMENT: u64 = 0;

/// The port, and who is there for each network.
pub(super) struct Own {
    /// As a number of the snapshot.
    pub(super) id: PortId,
    pub(super) hosts: Hosts,
    /// Once it is open.
    counters: Option<Arc<[PortCounters]>>,
    /// Open, and not with the workers yet.
    opened: Option<Opened>,
    /// By name: networks where the switch is a station; the VLAN ID is one more than the number.
    vids: Ids,
    /// By name: what the member of each network was made of.
    stations: BTreeMap<String, Station>,
}

/// What a network's stack is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Station {
    mac: Mac,
    addresses: Vec<Cidr>,
}

impl Station {
    fn of(switch: &str, network: &Network) -> Self {
        Self { mac: own_mac(switch, &network.name), addresses: network.address.clone() }
    }

    fn start(&self) -> Box<dyn Member> {
        let addresses: Vec<_> = self.addresses.iter().map(|cidr| (cidr.address, cidr.prefix)).collect();
        Box::new(Host::new(self.mac, &addresses, internal::MTU, super::secret_seed()[0]))
    }
}

/// Where the switch is a station: the one list of those networks. A network that no user has named would be one more here,
/// with a number under a name that no user can give, and with whatever [`Member`] it has.
fn stations(topology: &Topology) -> impl Iterator<Item = (&str, Station)> {
    let with_address = topology.network.iter().filter(|network| !network.address.is_empty());
    with_address.map(|network| (network.name.as_str(), Station::of(&topology.switch.name, network)))
}

impl Own {
    /// Takes the port's number, and opens nothing yet.
    pub(super) fn new(ports: &mut Ids) -> Self {
        Self {
            id: PortId(ports.acquire(OWN_PORT)),
            hosts: Hosts::default(),
            counters: None,
            opened: None,
            vids: Ids::default(),
            stations: BTreeMap::new(),
        }
    }

    /// Opens the port, where `next` is the first to need it. Needs a tokio runtime.
    pub(super) fn prepare(
        &mut self,
        next: &Topology,
        pool: &'static Pool,
        workers: usize,
    ) -> Result<(), ErrorBody> {
        if self.hosts.is_open() || stations(next).next().is_none() {
            return Ok(());
        }
        let opened = internal::open(pool, workers).and_then(|(opened, handle)| {
            self.hosts.open(handle)?;
            Ok(opened)
        });
        let opened = opened.map_err(|e| {
            let message = format!("the switch's own port cannot be opened: {e}");
            ErrorBody::new(ErrorCode::Failed, message, "nothing was changed")
        })?;
        self.opened = Some(opened);
        self.counters = Some(compile::counters(workers));
        Ok(())
    }

    /// Gives each network that has an address in `next` its VLAN ID; false where some have to wait for those that others
    /// give up.
    pub(super) fn take_vids(&mut self, next: &Topology) -> bool {
        let mut has_all = true;
        for (network, _) in stations(next) {
            if vid(self.vids.acquire(network)).is_none() {
                self.vids.release(network);
                has_all = false;
            }
        }
        has_all
    }

    /// Ends what `now` has no address for any more. No worker knows it by now.
    pub(super) fn release(&mut self, now: &Topology) {
        let kept: BTreeSet<&str> = stations(now).map(|(network, _)| network).collect();
        let gone: Vec<String> =
            self.stations.keys().filter(|name| !kept.contains(name.as_str())).cloned().collect();
        for name in gone {
            self.stations.remove(&name);
            if let Some(vid) = self.vid(&name) {
                self.hosts.purge(vid);
            }
            self.vids.release(&name);
        }
    }

    /// Has the stack of each network be as `now` says; one that is as before keeps what it knows.
    pub(super) fn update(&mut self, now: &Topology) {
        for (network, station) in stations(now) {
            if let Some(vid) = self.vid(network)
                && self.stations.get(network) != Some(&station)
            {
                self.stations.insert(network.to_owned(), station.clone());
                self.hosts.set(vid, move || station.start());
            }
        }
    }

    /// The VLAN ID that stands for a network on this port.
    fn vid(&self, network: &str) -> Option<Vid> {
        vid(self.vids.get(network)?)
    }

    /// The port as the workers see it, once it is open.
    pub(super) fn compiled(&self, now: &Topology, networks: &Ids) -> Option<(PortId, Port)> {
        let entry = |(network, _): (&str, Station)| {
            Some(TrunkEntry { vid: self.vid(network)?, network: NetId(networks.get(network)?) })
        };
        let entries: Vec<TrunkEntry> = stations(now).filter_map(entry).collect();
        let port = Port {
            attachment: Attachment::Trunk(Arc::new(Trunk::new(&entries, None))),
            isolated: false,
            up: true,
            max_frame: internal::MTU + compile::ETHERNET_HEADER,
            caps: Caps::NONE,
            shortcut_ifindex: None,
            max_macs: u32::MAX,
            storm: Storm::default(),
            counters: Arc::clone(self.counters.as_ref()?),
        };
        Some((self.id, port))
    }

    /// What it counted, once it is open.
    pub(super) fn counters(&self) -> Option<&[PortCounters]> {
        self.counters.as_deref()
    }
}

fn vid(number: u16) -> Option<Vid> {
    Vid::new(number.checked_add(1)?).ok()
}

impl Control {
    /// The running configuration is published: the workers get the own port, if they have not got it, and its members
    /// are those of the configuration.
    pub(super) async fn settle_own_port(&mut self) {
        self.own.release(&self.desired);
        if !self.own.take_vids(&self.desired) {
            tracing::error!(
                "no VLAN ID is left of the switch's own port: some of its addresses do not answer"
            );
        }
        self.own.update(&self.desired);
        if let Some(opened) = self.own.opened.take() {
            self.workers.attach(self.own.id, ATTACHMENT, opened.rx, opened.tx).await;
        }
    }
}
