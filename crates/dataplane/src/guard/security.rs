//! Whose a port is: the MACs and addresses that its frames may claim.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_wire::{Instant, Mac, ipv6};

use crate::NetId;

/// What the frames of a port may claim to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// In order; none: any.
    macs: Box<[Mac]>,
    /// `None`: any.
    addresses: Option<Addresses>,
    guard: bool,
    learns: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Addresses {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    /// In the order of network and address.
    learnt: Box<[Learnt]>,
}

/// An address that a DHCP server has given to a station behind the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// Where it holds.
    pub network: NetId,
    /// The address.
    pub address: IpAddr,
    /// How long.
    pub until: Instant,
}

impl Security {
    /// Holds a port to `macs`, if there are any, and to the addresses in `prefixes` (each with the length of its
    /// prefix), if there are any. With `guard` it is held to both in all that it says; where no address of a network is
    /// given it has those that were `learnt`. `None` where that holds nothing.
    #[must_use]
    pub fn new(macs: &[Mac], prefixes: &[(IpAddr, u8)], guard: bool, learnt: Vec<Learnt>) -> Option<Self> {
        if macs.is_empty() && prefixes.is_empty() && !guard {
            return None;
        }
        let mut sorted = macs.to_vec();
        sorted.sort_unstable();
        let own = macs.iter().map(|mac| (IpAddr::from(ipv6::link_local_of(*mac)), 128));
        let all: Vec<(IpAddr, u8)> = prefixes.iter().copied().chain(own).collect();
        // What every station has of itself is no address that was given to it.
        let learns = guard && prefixes.iter().all(|(address, len)| is_link_local(*address, *len));
        let learnt = if learns { learnt } else { Vec::new() };
        let addresses = (guard || !prefixes.is_empty()).then(|| Addresses::new(&all, learnt));
        Some(Self { macs: sorted.into(), addresses, guard, learns })
    }

    /// It learns its addresses from DHCP.
    #[must_use]
    pub const fn learns(&self) -> bool {
        self.learns
    }

    /// All that it says is held to its MACs and addresses.
    pub(super) const fn is_guarded(&self) -> bool {
        self.guard
    }

    /// Its addresses are held.
    pub(super) const fn holds_addresses(&self) -> bool {
        self.addresses.is_some()
    }

    /// The MAC is one of its own.
    #[must_use]
    pub fn has_mac(&self, mac: Mac) -> bool {
        self.macs.is_empty() || self.macs.binary_search(&mac).is_ok()
    }

    pub(super) fn has_v4(&self, address: Ipv4Addr, network: NetId, now: Instant) -> bool {
        self.addresses
            .as_ref()
            .is_none_or(|own| own.v4.has(address.to_bits()) || own.has_learnt(address.into(), network, now))
    }

    /// `source` is the MAC of who claims the address.
    pub(super) fn has_v6(&self, address: Ipv6Addr, source: Mac, network: NetId, now: Instant) -> bool {
        self.addresses.as_ref().is_none_or(|own| {
            own.v6.has(address.to_bits())
                || (self.macs.is_empty() && address == ipv6::link_local_of(source))
                || own.has_learnt(address.into(), network, now)
        })
    }
}

fn is_link_local(address: IpAddr, prefix: u8) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() && prefix >= 16,
        IpAddr::V6(address) => address.is_unicast_link_local() && prefix >= 10,
    }
}

impl Addresses {
    fn new(prefixes: &[(IpAddr, u8)], mut learnt: Vec<Learnt>) -> Self {
        learnt.sort_unstable_by_key(|l| (l.network, l.address));
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for &(address, len) in prefixes {
            match address {
                IpAddr::V4(address) => {
                    let rest = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                    v4.push((address.to_bits() & !rest, address.to_bits() | rest));
                }
                IpAddr::V6(address) => {
                    let rest = u128::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                    v6.push((address.to_bits() & !rest, address.to_bits() | rest));
                }
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6), learnt: learnt.into() }
    }

    fn has_learnt(&self, address: IpAddr, network: NetId, now: Instant) -> bool {
        let place = self.learnt.binary_search_by_key(&(network, address), |l| (l.network, l.address));
        place.ok().and_then(|at| self.learnt.get(at)).is_some_and(|learnt| now < learnt.until)
    }
}

/// First and last of ranges that do not overlap, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<T>(Box<[(T, T)]>);

impl<T: Ord + Copy> Ranges<T> {
    fn new(mut all: Vec<(T, T)>) -> Self {
        // Prefixes overlap only if one is inside the other, which then comes later.
        all.sort_unstable_by_key(|&(first, last)| (first, Reverse(last)));
        all.dedup_by(|inner, outer| inner.0 <= outer.1);
        Self(all.into())
    }

    fn has(&self, value: T) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= value);
        behind.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| value <= *last)
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use proptest::prelude::*;

    use super::*;

    const NET: NetId = NetId(3);
    const NOW: Instant = Instant::from_secs(100);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn v4(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_to_hold_is_no_security() {
        assert_eq!(Security::new(&[], &[], false, Vec::new()), None);
    }

    #[test]
    fn a_port_learns_where_no_address_of_a_network_is_given() {
        let learns = |prefixes: &[(&str, u8)], guard| {
            let prefixes: Vec<_> = prefixes.iter().map(|(a, len)| (a.parse().unwrap(), *len)).collect();
            Security::new(&[MAC], &prefixes, guard, Vec::new()).is_some_and(|s| s.learns())
        };
        assert!(learns(&[], true) && learns(&[("fe80::", 10), ("169.254.0.0", 16)], true));
        assert!(!learns(&[], false) && !learns(&[("fe80::", 9)], true) && !learns(&[("10.0.0.1", 32)], true));
    }

    #[test]
    fn a_lease_holds_in_its_network_until_it_ends() {
        let lease = Learnt { network: NET, address: v4("10.0.0.7").into(), until: Instant::from_secs(101) };
        let security = Security::new(&[MAC], &[], true, vec![lease]).unwrap();
        assert!(security.has_v4(v4("10.0.0.7"), NET, NOW));
        assert!(!security.has_v4(v4("10.0.0.8"), NET, NOW));
        assert!(!security.has_v4(v4("10.0.0.7"), NetId(4), NOW));
        assert!(!security.has_v4(v4("10.0.0.7"), NET, Instant::from_secs(101)));
    }

    #[test]
    fn given_addresses_take_the_place_of_leases() {
        let lease = Learnt { network: NET, address: v4("10.0.0.7").into(), until: Instant::from_secs(101) };
        let security =
            |ip: &str, len| Security::new(&[MAC], &[(ip.parse().unwrap(), len)], true, vec![lease]);
        assert!(!security("10.0.0.1", 32).unwrap().has_v4(v4("10.0.0.7"), NET, NOW));
        assert!(security("fe80::", 10).unwrap().has_v4(v4("10.0.0.7"), NET, NOW));
    }

    #[test]
    fn the_address_that_a_mac_makes_is_its_own() {
        let own = ipv6::link_local_of(MAC);
        let other = ipv6::link_local_of(Mac([2; 6]));
        let named = Security::new(&[MAC], &[], true, Vec::new()).unwrap();
        assert!(named.has_v6(own, MAC, NET, NOW) && !named.has_v6(other, MAC, NET, NOW));
        let any = Security::new(&[], &[("10.0.0.1".parse().unwrap(), 32)], false, Vec::new()).unwrap();
        assert!(any.has_v6(other, Mac([2; 6]), NET, NOW) && !any.has_v6(other, MAC, NET, NOW));
    }

    proptest! {
        /// As bits that are compared one by one.
        #[test]
        fn prefixes_are_found(
            prefixes in prop::collection::vec((any::<u32>().prop_map(|a| a & 0xc0ff_00c3), 0..=32_u8), 1..20),
            looked_for in any::<u32>().prop_map(|a| a & 0xc0ff_00c3),
        ) {
            let expected = prefixes.iter().any(|(address, len)| {
                (0..u32::from(*len)).all(|bit| (address ^ looked_for) << bit >> 31 == 0)
            });
            let v6 = |address: u32| u128::from(address) << 96 | 5;
            let fours: Vec<_> = prefixes.iter().map(|(a, len)| (Ipv4Addr::from_bits(*a).into(), *len)).collect();
            let sixes: Vec<_> = prefixes.iter().map(|(a, len)| (Ipv6Addr::from_bits(v6(*a)).into(), *len)).collect();
            let security = Security::new(&[MAC], &[fours, sixes].concat(), true, Vec::new()).unwrap();
            prop_assert_eq!(security.has_v4(Ipv4Addr::from_bits(looked_for), NET, NOW), expected);
            prop_assert_eq!(security.has_v6(Ipv6Addr::from_bits(v6(looked_for)), MAC, NET, NOW), expected);
        }
    }
}
