//! What the security of a port must hold.

use std::net::IpAddr;

use super::{Checker, FirstSeen};
use crate::topology::{SECURITY_MAX, Security};
use crate::value::Prefix;

impl Checker<'_> {
    pub(super) fn check_security(&mut self, path: &str, security: &Security) {
        if security.guard && security.mac.is_empty() {
            let mend = "add mac = [\"02:00:00:00:00:11\"] with the MACs of the stations behind the port";
            self.report(format!("{path}.guard"), "a guarded port needs to be told whose it is", mend);
        }
        let at = format!("{path}.mac");
        let mut seen = FirstSeen::new();
        for (i, mac) in self.within(&at, "MACs of a port", &security.mac, SECURITY_MAX).iter().enumerate() {
            let at = format!("{at}[{i}]");
            if !mac.is_unicast() {
                let what = format!("{mac} is a group address or zero, and no station's");
                self.report(&at, what, "use the address of one station");
            }
            if let Some(first) = seen.insert(*mac, &at) {
                self.report(&at, format!("{mac} is given by {first} already"), "name each MAC once");
            }
        }
        let at = format!("{path}.ip");
        let mut seen = FirstSeen::new();
        for (i, ip) in self.within(&at, "addresses of a port", &security.ip, SECURITY_MAX).iter().enumerate()
        {
            let at = format!("{at}[{i}]");
            if !may_be_a_station(*ip) {
                let what = format!("{ip} is no address of a station");
                self.report(&at, what, "use an individual address, or a prefix of such");
            }
            if let Some(first) = seen.insert(*ip, &at) {
                self.report(&at, format!("{ip} is given by {first} already"), "name each address once");
            }
        }
    }
}

/// Neither nobody's address nor a group's.
fn may_be_a_station(ip: Prefix) -> bool {
    let is_nobody = ip.is_single() && ip.address().is_unspecified();
    let is_broadcast = matches!(ip.address(), IpAddr::V4(address) if address.is_broadcast());
    !is_nobody && !is_broadcast && !ip.address().is_multicast()
}
