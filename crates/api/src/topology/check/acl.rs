//! What each `[[acl]]` must hold, and where one may be used.

use super::{Checker, FirstSeen, or_one_of};
use crate::topology::{
    ACL_RULES_MAX, ACL_RULES_TOTAL_MAX, ACLS_MAX, Acl, AclRule, AclUse, EtherType, IpPrefix, Protocol,
};

impl Checker<'_> {
    pub(super) fn check_acls(&mut self, acls: &[Acl]) {
        let acls = self.within("acl", "filters", acls, ACLS_MAX);
        let mut names = FirstSeen::new();
        let mut sum = 0;
        for (i, acl) in acls.iter().enumerate() {
            let path = format!("acl[{i}]");
            self.check_own_name(&mut names, "acl", &path, &acl.name);
            let rules = self.within(&format!("{path}.rule"), "rules of a filter", &acl.rule, ACL_RULES_MAX);
            sum += rules.len();
            if sum > ACL_RULES_TOTAL_MAX {
                let all: usize = acls.iter().map(|acl| acl.rule.len()).sum();
                let what = format!("{all} rules of all filters are too many");
                return self.report(
                    format!("{path}.rule"),
                    what,
                    format!("use at most {ACL_RULES_TOTAL_MAX}"),
                );
            }
            for (n, rule) in rules.iter().enumerate() {
                self.check_rule(&format!("{path}.rule[{n}]"), rule);
            }
        }
    }

    /// The filters of a port or a network exist.
    pub(super) fn check_acl_use(&mut self, path: &str, used: &AclUse) {
        for (direction, name) in used.each() {
            if !self.acls.contains(name) {
                let mend = format!("add [[acl]] with that name{}", or_one_of(self.acls.iter()));
                self.report(format!("{path}.acl.{direction}"), format!("there is no acl {name:?}"), mend);
            }
        }
    }

    /// A rule that nothing could ever match is a mistake.
    fn check_rule(&mut self, path: &str, rule: &AclRule) {
        let version = |prefix: Option<IpPrefix>| prefix.map(|prefix| prefix.address.is_ipv4());
        let versions = [version(rule.source), version(rule.destination)];
        if versions.contains(&Some(true)) && versions.contains(&Some(false)) {
            let what = "source and destination are of IPv4 and of IPv6";
            self.report(format!("{path}.destination"), what, "use addresses of one version in a rule");
        }
        self.check_ether_type(path, rule, versions.into_iter().flatten().next());
        let ports = [("source-port", rule.source_port), ("destination-port", rule.destination_port)];
        for (key, _) in ports.iter().filter(|(_, range)| range.is_some()) {
            if !rule.protocol.is_some_and(Protocol::has_ports) {
                let mend = "add protocol = \"tcp\", \"udp\" or \"sctp\"";
                self.report(
                    format!("{path}.{key}"),
                    "a rule with ports needs a protocol that has them",
                    mend,
                );
            }
        }
        if rule.tcp_flags.is_some() && rule.protocol != Some(Protocol::TCP) {
            let what = "tcp-flags is for protocol tcp";
            self.report(format!("{path}.tcp-flags"), what, "add protocol = \"tcp\"");
        }
        if rule.icmp_type.is_some() && !matches!(rule.protocol, Some(Protocol::ICMP | Protocol::ICMPV6)) {
            let what = "icmp-type is for protocols icmp and icmpv6";
            self.report(format!("{path}.icmp-type"), what, "add protocol = \"icmp\" or \"icmpv6\"");
        }
        let is_v4 = versions.into_iter().flatten().next().or(match rule.ether_type {
            Some(EtherType(0x0800)) => Some(true),
            Some(EtherType(0x86dd)) => Some(false),
            _ => None,
        });
        let of_the_other = match is_v4 {
            Some(true) if rule.protocol == Some(Protocol::ICMPV6) => Some("icmp"),
            Some(false) if rule.protocol == Some(Protocol::ICMP) => Some("icmpv6"),
            _ => None,
        };
        if let Some(meant) = of_the_other {
            let what = "this protocol is for the other version of IP";
            self.report(format!("{path}.protocol"), what, format!("use {meant}"));
        }
    }

    /// What is asked of IP can be had of IP only, and of the version in question.
    fn check_ether_type(&mut self, path: &str, rule: &AclRule, is_v4: Option<bool>) {
        let Some(ether_type) = rule.ether_type else { return };
        let is_of_ip = is_v4.is_some() || rule.protocol.is_some();
        let suits = match ether_type {
            EtherType(0x0800) => is_v4 != Some(false),
            EtherType(0x86dd) => is_v4 != Some(true),
            _ => !is_of_ip,
        };
        if !suits {
            let what = format!("frames of EtherType {ether_type} have no such addresses or protocol");
            self.report(format!("{path}.ether-type"), what, "leave ether-type out, or the keys of IP");
        }
    }
}
