//! One rule of a list, as it is written: what it asks of a frame, and what becomes of those that have it.

use core::net::IpAddr;
use core::ops::RangeInclusive;

use vswitch_wire::{Mac, Vid};

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on.
    Allow,
    /// It is dropped.
    Deny,
}

/// A rule: everything that is `Some` must hold. What a frame does not have does not hold: a rule with ports matches no
/// ARP, no ICMP and no later fragment of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of frames that it matches.
    pub action: Action,
    /// Where it comes from.
    pub source_mac: Option<MacMatch>,
    /// Where it goes to.
    pub destination_mac: Option<MacMatch>,
    /// The EtherType behind all tags.
    pub ether_type: Option<u16>,
    /// The VLAN ID that it came with.
    pub vlan: Option<Vid>,
    /// The IP source.
    pub source: Option<Prefix>,
    /// The IP destination.
    pub destination: Option<Prefix>,
    /// The IPv4 protocol, or the IPv6 next header behind the extension headers.
    pub protocol: Option<u8>,
    /// The source port of TCP, UDP or SCTP.
    pub source_port: Option<RangeInclusive<u16>>,
    /// The destination port of TCP, UDP or SCTP.
    pub destination_port: Option<RangeInclusive<u16>>,
    /// The flags of TCP.
    pub tcp_flags: Option<Masked>,
    /// The type of ICMP in IPv4, or of ICMPv6 in IPv6.
    pub icmp_type: Option<u8>,
}

impl Rule {
    /// A rule that matches everything.
    #[must_use]
    pub const fn any(action: Action) -> Self {
        Self {
            action,
            source_mac: None,
            destination_mac: None,
            ether_type: None,
            vlan: None,
            source: None,
            destination: None,
            protocol: None,
            source_port: None,
            destination_port: None,
            tcp_flags: None,
            icmp_type: None,
        }
    }

    /// It asks for what only IP packets have.
    pub(super) const fn is_of_ip(&self) -> bool {
        self.source.is_some()
            || self.destination.is_some()
            || self.protocol.is_some()
            || self.is_of_transport()
    }

    /// It asks for what only a transport header has.
    pub(super) const fn is_of_transport(&self) -> bool {
        self.source_port.is_some()
            || self.destination_port.is_some()
            || self.tcp_flags.is_some()
            || self.icmp_type.is_some()
    }
}

/// Addresses that are as `address` in the bits of `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacMatch {
    /// The bits.
    pub address: Mac,
    /// Which of them count.
    pub mask: Mac,
}

impl MacMatch {
    /// What it asks of one octet.
    pub(super) const fn octet(self, index: usize) -> Masked {
        Masked { value: self.address.0[index], mask: self.mask.0[index] }
    }
}

/// Octets that are as `value` in the bits of `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    /// The bits.
    pub value: u8,
    /// Which of them count.
    pub mask: u8,
}

impl Masked {
    /// Whether an octet is one.
    #[must_use]
    pub const fn matches(self, octet: u8) -> bool {
        (octet ^ self.value) & self.mask == 0
    }
}

/// IP addresses that begin with the first `len` bits of `address`; at most 32 or 128, what is more counts as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The address; bits beyond the prefix mean nothing.
    pub address: IpAddr,
    /// Bits of it that count.
    pub len: u8,
}

impl Prefix {
    /// The first and the last value of one of the four 32-bit words of an IPv6 address, or of an IPv4 address, which is
    /// word 0; `None` where any will do. A prefix is a prefix of each word, so an address has it if all its words have.
    pub(super) fn word(&self, index: usize) -> Option<(u32, u32)> {
        let bits = match self.address {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => (address.to_bits() >> (96 - 32 * index)) as u32,
        };
        let len = usize::from(self.len).saturating_sub(32 * index).min(32) as u32;
        let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
        (mask != 0).then_some((bits & mask, bits | !mask))
    }
}
