//! The switch as a station of its networks.

use vswitch_wire::Mac;

use super::{StaticEntry, Topology};

/// The name of the port behind which the switch itself is, where one is wanted: no user's port can have it.
pub const OWN_PORT: &str = "(switch)";

/// The MAC of the switch in a network where it has an address: the same as long as both names are. It is locally
/// administered (IEEE 802-2014 clause 8.4), and made by a hash (FNV-1a, and the end of SplitMix64) of the switch's name, a
/// zero byte and the network's. Switches that share a network therefore need names of their own.
#[must_use]
pub fn own_mac(switch: &str, network: &str) -> Mac {
    let bytes = switch.bytes().chain([0]).chain(network.bytes());
    let mut hash =
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mut mac = Mac::from_u64(hash ^ (hash >> 31));
    mac.0[0] = mac.0[0] & !0b11 | 0b10;
    mac
}

impl Topology {
    /// The place of the switch itself in each network where it has an address, as entries of the FDB.
    pub fn own_entries(&self) -> impl Iterator<Item = StaticEntry> {
        let with_address = self.network.iter().filter(|n| !n.address.is_empty());
        with_address.map(|network| StaticEntry {
            network: network.name.clone(),
            mac: own_mac(&self.switch.name, &network.name),
            port: Some(OWN_PORT.to_owned()),
            vtep: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_mac_stays_and_is_of_one_station() {
        // Neighbours have it in their tables: it is the same in every version.
        assert_eq!(own_mac("vswitch", "red").to_string(), "9a:84:29:5e:f9:bb");
        let mut all: Vec<Mac> = (0..1000).map(|n| own_mac("lab", &format!("net{n}"))).collect();
        assert!(all.iter().all(|mac| mac.is_unicast() && mac.0[0] & 2 != 0));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 1000);
        assert_ne!(own_mac("ab", "c"), own_mac("a", "bc"));
    }
}
