//! Filters: `[[acl]]`, ordered lists of rules, and where a port or a network uses them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vswitch_wire::Vid;

use crate::value;

mod field;

pub use field::{EtherType, IpPrefix, MacMask, PortRange, Protocol, TcpFlags};

/// The most filters of one switch.
pub const ACLS_MAX: usize = 1024;
/// The most rules of one filter.
pub const ACL_RULES_MAX: usize = 4096;
/// The most rules of all filters together.
pub const ACL_RULES_TOTAL_MAX: usize = 16_384;

/// An ordered list of rules. The first that matches a frame decides; where none does, the default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acl {
    /// Unique among filters; 1 to 32 letters, digits, `.`, `_`, `-`, the first a letter or a digit.
    pub name: String,
    /// What becomes of a frame that no rule matches: as in a router, it is dropped unless told otherwise. That goes
    /// for ARP and neighbour discovery too.
    #[serde(default, skip_serializing_if = "AclAction::is_deny")]
    pub default: AclAction,
    /// The rules, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rule: Vec<AclRule>,
}

impl Acl {
    /// A list without rules, which denies everything.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), default: AclAction::Deny, rule: Vec::new() }
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AclAction {
    /// It goes on.
    Allow,
    /// It is dropped.
    #[default]
    Deny,
}

impl AclAction {
    /// The word in files and commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    fn is_deny(&self) -> bool {
        *self == Self::Deny
    }
}

impl fmt::Display for AclAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for AclAction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            _ => Err(format!("{text:?} is no action; use allow or deny")),
        }
    }
}

/// A rule: a frame must have everything that is given. One that has no such field (a later fragment has no ports) does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AclRule {
    /// What becomes of frames that it matches.
    pub action: AclAction,
    /// The source MAC, with a mask if it is of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_mac: Option<MacMask>,
    /// The destination MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_mac: Option<MacMask>,
    /// The EtherType behind all tags: a number from 0x0600 on, or arp, ipv4, ipv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ether_type: Option<EtherType>,
    /// The VLAN ID that the frame came in with.
    #[serde(default, with = "value::vid", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 4094)]
    pub vlan: Option<Vid>,
    /// The source: an IP address, or a prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpPrefix>,
    /// The destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpPrefix>,
    /// The protocol of IPv4, or the next header of IPv6 behind its extension headers: a number or a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The source port of tcp, udp or sctp, or a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<PortRange>,
    /// The destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<PortRange>,
    /// Flags of tcp: those that are set, and those that are looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<TcpFlags>,
    /// The type of icmp or icmpv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
}

impl AclRule {
    /// Its keys with their values, as files and commands have them, in the order of the type.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        fn text<T: fmt::Display>(value: Option<&T>) -> Option<String> {
            value.map(ToString::to_string)
        }
        let all = [
            ("source-mac", text(self.source_mac.as_ref())),
            ("destination-mac", text(self.destination_mac.as_ref())),
            ("ether-type", text(self.ether_type.as_ref())),
            ("vlan", text(self.vlan.as_ref())),
            ("source", text(self.source.as_ref())),
            ("destination", text(self.destination.as_ref())),
            ("protocol", text(self.protocol.as_ref())),
            ("source-port", text(self.source_port.as_ref())),
            ("destination-port", text(self.destination_port.as_ref())),
            ("tcp-flags", text(self.tcp_flags.as_ref())),
            ("icmp-type", text(self.icmp_type.as_ref())),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?)))
    }
}

impl fmt::Display for AclRule {
    /// As in `allow protocol tcp destination-port 80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.name())?;
        self.fields().try_for_each(|(key, value)| write!(f, " {key} {value}"))
    }
}

/// The filters of a port or a network: of what comes in by a port, and of what leaves by one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AclUse {
    /// For frames that come in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<String>,
    /// For frames that leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
}

impl AclUse {
    /// None at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Each with its direction.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("ingress", &self.ingress), ("egress", &self.egress)]
            .into_iter()
            .filter_map(|(direction, name)| Some((direction, name.as_deref()?)))
    }
}
