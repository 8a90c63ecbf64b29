//! The switch's own addresses in networks.

use std::net::IpAddr;

use super::{Checker, FirstSeen};
use crate::topology::{ADDRESSED_NETWORKS_MAX, NETWORK_ADDRESSES_MAX, Network, StaticEntry, own_mac};
use crate::value::Cidr;

impl Checker<'_> {
    pub(super) fn check_addresses(&mut self, networks: &[Network]) {
        let addressed = networks.iter().enumerate().filter(|(_, n)| !n.address.is_empty());
        for (count, (i, network)) in addressed.enumerate() {
            let path = format!("network[{i}].address");
            if count == ADDRESSED_NETWORKS_MAX {
                let what = "too many networks have an address";
                self.report(path, what, format!("give one to at most {ADDRESSED_NETWORKS_MAX} networks"));
                return;
            }
            let mut seen = FirstSeen::new();
            let addresses = self.within(&path, "addresses", &network.address, NETWORK_ADDRESSES_MAX);
            for (k, cidr) in addresses.iter().enumerate() {
                let path = format!("{path}[{k}]");
                if let Some(what) = what_it_is(*cidr) {
                    let mend = "use an address of one station, with the length of its network's prefix, as in \
                                \"10.0.0.254/24\"";
                    self.report(&path, format!("{cidr} is {what}"), mend);
                }
                if let Some(first) = seen.insert(cidr.address, &path) {
                    let what = format!("{} is given by {first} already", cidr.address);
                    self.report(&path, what, "name each address once");
                }
            }
        }
    }

    /// The switch's own place is not for others.
    pub(super) fn check_own_entry(&mut self, path: &str, entry: &StaticEntry) {
        let network = self.networks.get(entry.network.as_str()).copied();
        if network.is_some_and(|n| !n.address.is_empty()) && entry.mac == own_mac(self.switch, &entry.network)
        {
            let what = format!("{} is the switch's own in network {:?}", entry.mac, entry.network);
            self.report(format!("{path}.mac"), what, "leave this entry out: the switch keeps its own");
        }
    }
}

/// What a prefix is that is no address of one station.
fn what_it_is(cidr: Cidr) -> Option<&'static str> {
    let host_bits = match cidr.address {
        IpAddr::V4(_) => 32 - u32::from(cidr.prefix),
        IpAddr::V6(_) => 128 - u32::from(cidr.prefix),
    };
    match cidr.address {
        ip if ip.is_unspecified() => Some("no address"),
        ip if ip.is_multicast() => Some("a group"),
        ip if ip.is_loopback() => Some("every host's own"),
        _ if cidr.prefix == 0 => Some("an address whose network is everything"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("the broadcast address"),
        // RFC 3021: of two addresses both are hosts'.
        IpAddr::V4(_) if host_bits < 2 => None,
        IpAddr::V4(ip) => {
            let mask = u32::MAX >> cidr.prefix;
            match u32::from(ip) & mask {
                0 => Some("a network"),
                host if host == mask => Some("the broadcast address of its network"),
                _ => None,
            }
        }
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Some("an IPv4 address in another notation"),
        // RFC 4291 section 2.6.1, and RFC 6164 for links of two.
        IpAddr::V6(ip) if host_bits >= 2 && u128::from(ip) & (u128::MAX >> cidr.prefix) == 0 => {
            Some("the address of every router of its network")
        }
        IpAddr::V6(_) => None,
    }
}
