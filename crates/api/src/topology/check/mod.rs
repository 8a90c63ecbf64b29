//! What a topology must hold beyond its types. Every mistake is found at once, each with its path and its mend.
//!
//! The work is bounded by the limits of the lists, and what is told by [`PROBLEMS_MAX`]: what comes from outside may
//! be of any size.

mod acl;
mod address;
mod port;
mod security;
mod tenant;
mod underlay;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::{
    AGEING_RANGE, CPUS_MAX, Host, Kind, NETWORKS_MAX, Network, PORTS_MAX, PROBLEMS_MAX, Port,
    STATIC_ENTRIES_MAX, StaticEntry, Switch, Topology,
};
use crate::response::Problem;
use crate::value::duration;

/// The longest name of a port, network, tenant or host.
const NAME_MAX: usize = 32;
/// Names that a message lists at most.
const NAMES_LISTED: usize = 8;

/// The mistakes in `topology`, the first [`PROBLEMS_MAX`] of them, and one more that counts the others; none when it
/// can be compiled.
#[must_use]
pub fn check(topology: &Topology) -> Vec<Problem> {
    let Found { mut listed, more } = find(topology);
    listed.extend(Problem::that_counts(more));
    listed
}

/// Mistakes: the first of them, and how many there are more.
#[derive(Default)]
pub(super) struct Found {
    pub(super) listed: Vec<Problem>,
    pub(super) more: usize,
}

/// What [`check`] finds.
pub(super) fn find(topology: &Topology) -> Found {
    let mut checker = Checker {
        // Of two with one name the first counts, so they are put in from behind.
        networks: topology.network.iter().rev().map(|n| (n.name.as_str(), n)).collect(),
        acls: topology.acl.iter().map(|a| a.name.as_str()).collect(),
        ports: topology.port.iter().rev().map(|p| (p.name.as_str(), p)).collect(),
        switch: &topology.switch.name,
        found: Found::default(),
    };
    checker.check_switch(&topology.switch);
    checker.check_tenants(&topology.tenant, &topology.port);
    checker.check_networks(&topology.network);
    checker.check_addresses(&topology.network);
    checker.check_ports(&topology.port);
    checker.check_tunnels(topology);
    checker.check_acls(&topology.acl);
    checker.check_static_entries(&topology.fdb, &topology.port);
    checker.check_hosts(&topology.host);
    checker.found
}

struct Checker<'a> {
    networks: BTreeMap<&'a str, &'a Network>,
    ports: BTreeMap<&'a str, &'a Port>,
    /// The switch's name.
    switch: &'a str,
    acls: BTreeSet<&'a str>,
    found: Found,
}

/// Finds what occurs twice: the path of each key's first occurrence.
struct FirstSeen<K>(BTreeMap<K, String>);

impl<K: Ord> FirstSeen<K> {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Where `key` was seen before; if nowhere, it is seen at `path` now.
    fn insert(&mut self, key: K, path: &str) -> Option<String> {
        if let Some(first) = self.0.get(&key) {
            return Some(first.clone());
        }
        self.0.insert(key, path.to_owned());
        None
    }
}

impl Checker<'_> {
    fn report(&mut self, path: impl Into<String>, what: impl Into<String>, mend: impl Into<String>) {
        if self.found.listed.len() == PROBLEMS_MAX {
            self.found.more += 1;
            return;
        }
        self.found.listed.push(Problem { path: path.into(), what: what.into(), mend: mend.into() });
    }

    /// Any name but that of a netdev. Nothing in it needs quoting in a shell, a path or a Prometheus label.
    fn check_name(&mut self, path: &str, name: &str) {
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !first || !rest || name.len() > NAME_MAX {
            let mend = format!(
                "use 1 to {NAME_MAX} letters, digits, '.', '_' and '-', the first a letter or a digit"
            );
            self.report(path, format!("{name:?} cannot be a name"), mend);
        }
    }

    /// The name of an item of a list, which no other item may have; false when another has it.
    fn check_own_name<'n>(
        &mut self,
        seen: &mut FirstSeen<&'n str>,
        item: &str,
        path: &str,
        name: &'n str,
    ) -> bool {
        self.check_name(&format!("{path}.name"), name);
        let first = seen.insert(name, path);
        if let Some(first) = &first {
            let what = format!("the name {name:?} is taken by {first}");
            self.report(format!("{path}.name"), what, format!("give each {item} its own name"));
        }
        first.is_none()
    }

    /// The entries of the list at `path` that are within its limit, which alone are looked at.
    fn within<'l, T>(&mut self, path: &str, items: &str, list: &'l [T], max: usize) -> &'l [T] {
        if list.len() > max {
            let what = format!("{} {items} are too many", list.len());
            self.report(format!("{path}[{max}]"), what, format!("use at most {max}"));
        }
        list.get(..max).unwrap_or(list)
    }

    fn check_max_macs(&mut self, path: &str, max_macs: u32) {
        if max_macs == 0 {
            let what = "0 would let no MAC be learnt";
            self.report(format!("{path}.max-macs"), what, "use 1 or more, or leave the key out");
        }
    }

    /// There is a network of this name.
    fn check_network(&mut self, path: impl Into<String>, name: &str) {
        if !self.networks.contains_key(name) {
            let what = format!("network {name:?} does not exist");
            let mend = format!("add [[network]] name = {name:?}{}", or_one_of(self.networks.keys()));
            self.report(path, what, mend);
        }
    }

    /// The port of this name.
    fn check_port(&mut self, path: String, name: &str) -> Option<&Port> {
        if !self.ports.contains_key(name) {
            let what = format!("port {name:?} does not exist");
            let mend = format!("add [[port]] name = {name:?}{}", or_one_of(self.ports.keys()));
            self.report(path, what, mend);
        }
        self.ports.get(name).copied()
    }

    fn check_switch(&mut self, switch: &Switch) {
        self.check_name("switch.name", &switch.name);
        let mut seen = FirstSeen::new();
        for (i, cpu) in self.within("switch.cpus", "CPUs", &switch.cpus, CPUS_MAX).iter().enumerate() {
            let path = format!("switch.cpus[{i}]");
            if seen.insert(cpu, &path).is_some() {
                self.report(
                    path,
                    format!("CPU {cpu} is given twice"),
                    "name each CPU once: it gets one worker",
                );
            }
        }
    }

    fn check_networks(&mut self, networks: &[Network]) {
        let networks = self.within("network", "networks", networks, NETWORKS_MAX);
        let (mut names, mut vlans) = (FirstSeen::new(), FirstSeen::new());
        for (i, network) in networks.iter().enumerate() {
            let path = format!("network[{i}]");
            self.check_own_name(&mut names, "network", &path, &network.name);
            if let Some(tenant) = &network.tenant {
                self.check_name(&format!("{path}.tenant"), tenant);
            }
            // Two tenants may use the same VLAN ID, on different trunks; within one it would be ambiguous.
            let taken =
                network.vlan.and_then(|vlan| vlans.insert((&network.tenant, vlan), &path).zip(Some(vlan)));
            if let Some((first, vlan)) = taken {
                let owner = network.tenant.as_ref().map_or(String::new(), |t| format!(" of tenant {t:?}"));
                let what = format!("VLAN {vlan}{owner} is taken by {first}");
                self.report(
                    format!("{path}.vlan"),
                    what,
                    "give each network its own VLAN ID, or its own tenant",
                );
            }
            self.check_max_macs(&path, network.max_macs);
            self.check_acl_use(&path, &network.acl);
            if !AGEING_RANGE.contains(&network.ageing) {
                let (min, max) =
                    (duration::format(*AGEING_RANGE.start()), duration::format(*AGEING_RANGE.end()));
                let what = format!("{:?} is out of range", duration::format(network.ageing));
                self.report(format!("{path}.ageing"), what, format!("use \"{min}\" to \"{max}\""));
            }
        }
    }

    fn check_static_entries(&mut self, entries: &[StaticEntry], ports: &[Port]) {
        let entries = self.within("fdb", "fdb entries", entries, STATIC_ENTRIES_MAX);
        let members = memberships_of(ports, entries);
        let mut seen = FirstSeen::new();
        for (i, entry) in entries.iter().enumerate() {
            let path = format!("fdb[{i}]");
            self.check_network(format!("{path}.network"), &entry.network);
            self.check_place(&path, entry, &members);
            if !entry.mac.is_unicast() {
                let what = format!("{} is no address of one station", entry.mac);
                let mend = "use an individual address: not zero, the first octet even";
                self.report(format!("{path}.mac"), what, mend);
            }
            self.check_own_entry(&path, entry);
            if let Some(first) = seen.insert((&entry.network, entry.mac), &path) {
                let what =
                    format!("{} of network {:?} is given by {first} already", entry.mac, entry.network);
                self.report(
                    format!("{path}.mac"),
                    what,
                    "keep one of them: an address has one place in a network",
                );
            }
        }
    }

    /// A static entry is at a port of its network, or behind a peer of it.
    fn check_place(&mut self, path: &str, entry: &StaticEntry, members: &BTreeSet<(&str, &str)>) {
        let network = self.networks.get(entry.network.as_str()).copied();
        match (&entry.port, entry.vtep) {
            (Some(port), None) => {
                let has_port = self.check_port(format!("{path}.port"), port).is_some();
                let is_member = members.contains(&(port.as_str(), entry.network.as_str()));
                if has_port && !is_member && network.is_some() {
                    let what = format!("port {port:?} does not carry network {:?}", entry.network);
                    let mend = "name a port of this network, or add the network to the port";
                    self.report(format!("{path}.port"), what, mend);
                }
            }
            (None, Some(vtep)) => {
                if network.is_some_and(|n| !n.peers.contains(&vtep)) {
                    let what = format!("{vtep} is no peer of network {:?}", entry.network);
                    self.report(format!("{path}.vtep"), what, "add it to the network's peers");
                }
            }
            (Some(_), Some(_)) => {
                let what = "an address is either at a port or behind a VTEP";
                self.report(format!("{path}.vtep"), what, "keep port or vtep");
            }
            (None, None) => {
                self.report(path, "the entry says not where the address is", "add port or vtep");
            }
        }
    }

    fn check_hosts(&mut self, hosts: &[Host]) {
        // A host has a port of its own.
        let hosts = self.within("host", "hosts", hosts, PORTS_MAX);
        let (mut names, mut ports) = (FirstSeen::new(), FirstSeen::new());
        for (i, host) in hosts.iter().enumerate() {
            let path = format!("host[{i}]");
            self.check_own_name(&mut names, "host", &path, &host.name);
            let kind = self.check_port(format!("{path}.port"), &host.port).map(|p| p.kind);
            let is = match kind {
                Some(Kind::Tap) => Some("is a tap"),
                Some(Kind::VhostUser) => Some("is of kind vhost-user"),
                _ => None,
            };
            if let Some(is) = is {
                let what = format!("port {:?} {is}, and a host has a veth", host.port);
                self.report(format!("{path}.port"), what, "use a port of kind auto, xdp or packet");
            }
            if let Some(first) = ports.insert(&host.port, &path) {
                let what = format!("port {:?} is taken by {first}", host.port);
                self.report(format!("{path}.port"), what, "give each host its own port");
            }
        }
    }
}

/// The networks that each port carries, of the ports that `entries` name.
fn memberships_of<'t>(ports: &'t [Port], entries: &[StaticEntry]) -> BTreeSet<(&'t str, &'t str)> {
    let named: BTreeSet<&str> = entries.iter().filter_map(|e| e.port.as_deref()).collect();
    let named = ports.iter().filter(|p| named.contains(p.name.as_str()));
    named.flat_map(|p| p.networks().map(|network| (p.name.as_str(), network))).collect()
}

/// `, or use one of red, green`; nothing where there is none.
fn or_one_of(names: impl ExactSizeIterator<Item = impl Display>) -> String {
    if names.len() == 0 { String::new() } else { format!(", or use one of {}", listed(names)) }
}

/// `red, green`, the first of them where there are many.
fn listed(names: impl ExactSizeIterator<Item = impl Display>) -> String {
    let more = if names.len() > NAMES_LISTED { ", ..." } else { "" };
    let names: Vec<_> = names.take(NAMES_LISTED).map(|n| n.to_string()).collect();
    format!("{}{more}", names.join(", "))
}
