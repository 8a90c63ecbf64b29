//! The switch's own port: a trunk whose VLAN IDs stand for the networks where the switch is a station.
//!
//! No user has it: it is in no topology and in no list of ports, and its name cannot be theirs. It is opened when
//! the first network has an address, and stays. What comes in by it the switch has made (`originated`), what leaves by it
//! the switch has taken (`consumed`).
//!
//! A VLAN ID that a network gave up stands for another one only when no worker and no queue has a frame with it any more:
//! it is free after the next snapshot, and what waits with it is thrown away.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use vswitch_api::Topology;
use vswitch_api::response::{ErrorBody, ErrorCode};
use vswitch_api::topology::{Network, OWN_PORT, own_mac};
use vswitch_api::value::Cidr;
use vswitch_dataplane::{Attachment, NetId, Port, PortCounters, PortId, Trunk, TrunkEntry};
use vswitch_io::{Opened, Pool, internal};
use vswitch_protocols::host::{self, Host};
use vswitch_wire::{Mac, Vid};

use super::Control;
use super::compile;
use super::ids::Ids;
use super::overlay;
use crate::host::{Hosts, Member, NextHops, Vtep};

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
    /// Another one is another place, where nobody is known yet.
    generation: u64,
}

impl Station {
    fn of(switch: &str, network: &Network) -> Self {
        Self { mac: own_mac(switch, &network.name), addresses: network.address.clone(), generation: 0 }
    }

    fn start(&self) -> Box<dyn Member> {
        let addresses: Vec<_> = self.addresses.iter().map(|cidr| (cidr.address, cidr.prefix)).collect();
        Box::new(Host::new(self.mac, &addresses, internal::MTU, super::secret_seed()[0]))
    }
}

fn with_address(topology: &Topology) -> impl Iterator<Item = &Network> {
    topology.network.iter().filter(|network| !network.address.is_empty())
}

/// The names of the networks where the switch is a station, that of the underlay among them.
fn names(topology: &Topology) -> impl Iterator<Item = &str> {
    let underlay = topology.underlay.as_ref().map(|_| overlay::NETWORK);
    with_address(topology).map(|network| network.name.as_str()).chain(underlay)
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
        if self.hosts.is_open() || names(next).next().is_none() {
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
        for network in names(next) {
            if vid(self.vids.acquire(network)).is_none() {
                self.vids.release(network);
                has_all = false;
            }
        }
        has_all
    }

    /// Ends what `now` has no address for any more. No worker knows it by now.
    pub(super) fn release(&mut self, now: &Topology) {
        let kept: BTreeSet<&str> = names(now).collect();
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
        for network in with_address(now) {
            let station = Station::of(&now.switch.name, network);
            if let Some(vid) = self.vid(&network.name)
                && self.stations.get(&network.name) != Some(&station)
            {
                self.stations.insert(network.name.clone(), station.clone());
                self.hosts.set(vid, move || station.start());
            }
        }
    }

    /// Has the station on the underlay be at this MAC and address, and want the next hops of `hops`. In another generation it
    /// is made anew, and knows nothing.
    pub(super) fn update_vtep(
        &mut self,
        mac: Mac,
        address: Cidr,
        generation: u64,
        hops: &Rc<RefCell<NextHops>>,
    ) {
        let Some(vid) = self.vid(overlay::NETWORK) else { return };
        let station = Station { mac, addresses: vec![address], generation };
        if self.stations.get(overlay::NETWORK) != Some(&station) {
            self.stations.insert(overlay::NETWORK.to_owned(), station);
            let hops = Rc::clone(hops);
            let at = (address.address, address.prefix);
            let seed = super::secret_seed()[0];
            let make = move || {
                Box::new(Vtep::new(mac, at, internal::MTU, seed, Rc::clone(&hops))) as Box<dyn Member>
            };
            self.hosts.set(vid, make);
        }
        self.hosts.wake(vid);
    }

    /// The VLAN ID that stands for a network on this port.
    fn vid(&self, network: &str) -> Option<Vid> {
        vid(self.vids.get(network)?)
    }

    /// The port as the workers see it, once it is open.
    pub(super) fn compiled(&self, now: &Topology, networks: &Ids) -> Option<(PortId, Port)> {
        let entry = |network: &str| {
            Some(TrunkEntry { vid: self.vid(network)?, network: NetId(networks.get(network)?) })
        };
        let entries: Vec<TrunkEntry> = names(now).filter_map(entry).collect();
        let attachment = Attachment::Trunk(Arc::new(Trunk::new(&entries, None)));
        let max_frame = internal::MTU + compile::ETHERNET_HEADER;
        let port = Port::new(attachment, max_frame, Arc::clone(self.counters.as_ref()?));
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
