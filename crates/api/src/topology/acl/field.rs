//! What a rule's keys may be, each with its text. Where a number will do, files and JSON may have it without quotes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use vswitch_wire::Mac;

use crate::value::text;

/// A MAC address, or those that have the bits of a mask in common with it: `01:00:00:00:00:00/01:00:00:00:00:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacMask {
    /// The address.
    pub address: Mac,
    /// The bits that count.
    pub mask: Mac,
}

impl fmt::Display for MacMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if self.mask.is_broadcast() { Ok(()) } else { write!(f, "/{}", self.mask) }
    }
}

impl FromStr for MacMask {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let (address, mask) = value.split_once('/').unwrap_or((value, "ff:ff:ff:ff:ff:ff"));
        let parse = |part: &str| part.parse::<Mac>().ok();
        let (Some(address), Some(mask)) = (parse(address), parse(mask)) else {
            return Err(format!(
                "{value:?} is no MAC address; write it as \"02:00:00:00:00:11\", or with a mask as \"01:00:00:00:00:00/01:00:00:00:00:00\""
            ));
        };
        if address.to_u64() & !mask.to_u64() != 0 {
            let mend = Self { address: Mac::from_u64(address.to_u64() & mask.to_u64()), mask };
            return Err(format!("{value:?} has bits beyond its mask; write \"{mend}\""));
        }
        Ok(Self { address, mask })
    }
}

/// An EtherType: `arp`, `ipv4`, `ipv6`, or a number from 0x0600 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtherType(pub u16);

const ETHER_TYPES: [(&str, u16); 3] = [("arp", 0x0806), ("ipv4", 0x0800), ("ipv6", 0x86dd)];

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ETHER_TYPES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{:#06x}", self.0),
        }
    }
}

impl FromStr for EtherType {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let named = ETHER_TYPES.iter().find(|(name, _)| *name == value).map(|(_, number)| *number);
        let hexadecimal = || u16::from_str_radix(value.strip_prefix("0x")?, 16).ok();
        let number = named.or_else(hexadecimal).or_else(|| value.parse().ok());
        // What is less is the length of an IEEE 802.3 frame (clause 3.2.6).
        number.filter(|number| *number >= 0x0600).map(Self).ok_or_else(|| {
            format!("{value:?} is no EtherType; use arp, ipv4, ipv6 or a number from 0x0600 to 0xffff")
        })
    }
}

/// An IP address, or a prefix: `10.0.0.1`, `10.0.0.0/8`, `fd00::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPrefix {
    /// The address; it has no bits beyond the prefix.
    pub address: IpAddr,
    /// Bits of the prefix, at most 32 or 128.
    pub len: u8,
}

impl IpPrefix {
    fn bits(address: IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }

    /// Without the bits beyond the prefix.
    fn of(address: IpAddr, len: u8) -> Self {
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Self { address, len }
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if self.len == Self::bits(self.address) { Ok(()) } else { write!(f, "/{}", self.len) }
    }
}

impl FromStr for IpPrefix {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let parse = || {
            let (address, len) = value.split_once('/').map_or((value, None), |(a, len)| (a, Some(len)));
            let address: IpAddr = address.parse().ok()?;
            let len = match len {
                None => Self::bits(address),
                Some(len) => {
                    len.parse().ok().filter(|n| *n <= Self::bits(address) && !len.starts_with('+'))?
                }
            };
            Some((address, len))
        };
        let (address, len) = parse().ok_or_else(|| {
            format!("{value:?} is no IP address or prefix; write it as \"10.0.0.1\", \"10.0.0.0/8\" or \"fd00::/64\"")
        })?;
        let prefix = Self::of(address, len);
        if prefix.address == address {
            Ok(prefix)
        } else {
            Err(format!("{value:?} has bits beyond its prefix; write \"{prefix}\""))
        }
    }
}

/// An IP protocol: a name or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol(pub u8);

impl Protocol {
    /// Internet Control Message Protocol.
    pub const ICMP: Self = Self(1);
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// Stream Control Transmission Protocol.
    pub const SCTP: Self = Self(132);

    /// It has ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }
}

/// Names of IANA's "Protocol Numbers", for the protocols that are met in filters.
const PROTOCOLS: [(&str, u8); 10] = [
    ("icmp", 1),
    ("igmp", 2),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("vrrp", 112),
    ("sctp", 132),
];

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PROTOCOLS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let named = PROTOCOLS.iter().find(|(name, _)| *name == value).map(|(_, number)| *number);
        named.or_else(|| digits(value)).map(Self).ok_or_else(|| {
            let names: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
            format!("{value:?} is no protocol; use {} or a number from 0 to 255", names.join(", "))
        })
    }
}

/// A port, or a range of ports: `80`, `8000-8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last, not less than the first.
    pub last: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let (first, last) = value.split_once('-').unwrap_or((value, value));
        match (digits(first), digits(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("{value:?} is no port; use 0 to 65535, or a range as \"8000-8080\"")),
        }
    }
}

/// TCP's flags: those of `mask` are looked at, and of them those of `value` are set. `syn/syn,ack` is the first
/// segment of a connection; `rst` is short for `rst/rst`, and `none` is no flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags {
    /// Those that are set.
    pub value: u8,
    /// Those that are looked at.
    pub mask: u8,
}

/// RFC 9293 section 3.1, from the lowest bit on.
const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

fn flags_to_text(flags: u8) -> String {
    let names: Vec<_> = (0..8).filter(|bit| flags >> bit & 1 == 1).map(|bit| FLAGS[bit]).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}

fn flags_of_text(value: &str) -> Option<u8> {
    if value == "none" {
        return Some(0);
    }
    value.split(',').try_fold(0, |all, name| Some(all | 1 << FLAGS.iter().position(|flag| *flag == name)?))
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&flags_to_text(self.value))?;
        if self.value == self.mask { Ok(()) } else { write!(f, "/{}", flags_to_text(self.mask)) }
    }
}

impl FromStr for TcpFlags {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (value, mask) = text.split_once('/').unwrap_or((text, text));
        let wrong = |what: &str| {
            Err(format!(
                "{text:?} {what}; write those that are set / those that count, as in \"syn/syn,ack\""
            ))
        };
        match (flags_of_text(value), flags_of_text(mask)) {
            (Some(_), Some(0)) => wrong("looks at no flag"),
            (Some(value), Some(mask)) if value & !mask != 0 => wrong("sets flags that it does not look at"),
            (Some(value), Some(mask)) => Ok(Self { value, mask }),
            _ => wrong(&format!("has flags other than {}", FLAGS.join(", "))),
        }
    }
}

fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Reads a text, or a number in its place.
fn text_or_number<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    struct Either<T>(std::marker::PhantomData<T>);
    impl<T: FromStr<Err = String>> de::Visitor<'_> for Either<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a number")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }
    }
    deserializer.deserialize_any(Either(std::marker::PhantomData))
}

macro_rules! serde_as {
    ($read:path: $($type:ty, $example:literal;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                text::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $read(deserializer)
            }
        }

        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .examples([$example])
                    .into()
            }
        }

        impl utoipa::ToSchema for $type {}
    )*};
}

serde_as!(text::deserialize: MacMask, "02:00:00:00:00:11"; IpPrefix, "10.0.0.0/8"; TcpFlags, "syn/syn,ack";);
serde_as!(text_or_number: EtherType, "arp"; Protocol, "tcp"; PortRange, "8000-8080";);

#[cfg(test)]
mod tests {
    use super::*;

    /// Each text with the one that it is written as; `None`: it is none.
    fn check<T: FromStr<Err = String> + fmt::Display>(cases: &[(&str, Option<&str>)]) {
        for (text, written) in cases {
            let parsed = text.parse::<T>();
            assert_eq!(parsed.as_ref().ok().map(ToString::to_string).as_deref(), *written, "{text}");
            if let Err(message) = parsed {
                assert!(message.contains("; "), "no mend: {message}");
            }
        }
    }

    #[test]
    fn texts_of_fields() {
        check::<MacMask>(&[
            ("02:00:00:00:00:11", Some("02:00:00:00:00:11")),
            ("02:00:00:00:00:11/ff:ff:ff:ff:ff:ff", Some("02:00:00:00:00:11")),
            ("01:00:00:00:00:00/01:00:00:00:00:00", Some("01:00:00:00:00:00/01:00:00:00:00:00")),
            ("02:00:00:00:00:11/01:00:00:00:00:00", None),
            ("02:00", None),
            ("", None),
        ]);
        check::<EtherType>(&[
            ("arp", Some("arp")),
            ("0x0800", Some("ipv4")),
            ("34525", Some("ipv6")),
            ("0x88cc", Some("0x88cc")),
            ("1535", None),
            ("0x10000", None),
            ("IPv4", None),
        ]);
        check::<IpPrefix>(&[
            ("10.0.0.1", Some("10.0.0.1")),
            ("10.0.0.1/32", Some("10.0.0.1")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("::/0", Some("::/0")),
            ("fd00::1/128", Some("fd00::1")),
            ("fd00::/64", Some("fd00::/64")),
            ("10.0.0.1/24", None),
            ("10.0.0.0/33", None),
            ("fd00::1/64", None),
            ("10.0.0.0/+8", None),
            ("host", None),
        ]);
        check::<Protocol>(&[
            ("tcp", Some("tcp")),
            ("17", Some("udp")),
            ("89", Some("89")),
            ("256", None),
            ("-1", None),
            ("", None),
        ]);
        check::<PortRange>(&[
            ("0", Some("0")),
            ("80-80", Some("80")),
            ("0-65535", Some("0-65535")),
            ("81-80", None),
            ("65536", None),
            ("80-", None),
            ("+80", None),
        ]);
        check::<TcpFlags>(&[
            ("syn/syn,ack", Some("syn/syn,ack")),
            ("ack,syn", Some("syn,ack")),
            ("none/syn,fin", Some("none/fin,syn")),
            ("none", None),
            ("syn/ack", None),
            ("syn,", None),
            ("SYN", None),
        ]);
    }
}
