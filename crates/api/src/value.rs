//! Values that are written as text: durations, rates, MACs, prefixes. One notation for TOML, JSON and the command line.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
pub use vswitch_wire::{Mac, Vid, Vni};

/// Why a text is not such a value: what is wrong; how to mend it, with an example.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(String);

/// Serde for types that have a text form (`#[serde(with = "value::text")]`).
pub mod text {
    use super::{Deserializer, FromStr, Serializer, de, fmt};

    /// Writes the text form.
    ///
    /// # Errors
    /// Those of `serializer`.
    pub fn serialize<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// When it is no string, or not such a value.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Serde for lists of types that have a text form.
pub mod texts {
    use super::{Deserializer, FromStr, Serializer, fmt};

    /// Writes the text form of each.
    ///
    /// # Errors
    /// Those of `serializer`.
    pub fn serialize<T: fmt::Display, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(ToString::to_string))
    }

    /// Reads the text form of each.
    ///
    /// # Errors
    /// When it is no list of strings, or one is not such a value.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        /// So that a wrong one is told with its place.
        struct One<T>(T);
        impl<'de, T: FromStr<Err: fmt::Display>> serde::Deserialize<'de> for One<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                super::text::deserialize(deserializer).map(Self)
            }
        }
        let all = <Vec<One<T>> as serde::Deserialize>::deserialize(deserializer)?;
        Ok(all.into_iter().map(|One(value)| value).collect())
    }
}

/// Serde for an optional VLAN ID (`#[serde(default, with = "value::vid")]`), a number.
pub mod vid {
    use super::{Deserializer, Serializer, Vid, de};

    /// Writes the number.
    ///
    /// # Errors
    /// Those of `serializer`.
    pub fn serialize<S: Serializer>(vid: &Option<Vid>, serializer: S) -> Result<S::Ok, S::Error> {
        match vid {
            Some(vid) => serializer.serialize_some(&vid.get()),
            None => serializer.serialize_none(),
        }
    }

    /// Reads the number.
    ///
    /// # Errors
    /// When it is no number, or none of 1 to 4094.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vid>, D::Error> {
        // Wider than a VLAN ID, so that 70000 and -1 get the same sentence as 4095.
        let Some(number) = <Option<i64> as serde::Deserialize>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let vid = u16::try_from(number).ok().and_then(|n| Vid::new(n).ok());
        vid.map(Some)
            .ok_or_else(|| de::Error::custom(format_args!("{number} is not a VLAN ID; use 1 to 4094")))
    }
}

/// Serde for an optional VNI (`#[serde(default, with = "value::vni")]`), a number.
pub mod vni {
    use super::{Deserializer, Serializer, Vni, de};

    /// Writes the number.
    ///
    /// # Errors
    /// Those of `serializer`.
    pub fn serialize<S: Serializer>(vni: &Option<Vni>, serializer: S) -> Result<S::Ok, S::Error> {
        match vni {
            Some(vni) => serializer.serialize_some(&vni.get()),
            None => serializer.serialize_none(),
        }
    }

    /// Reads the number.
    ///
    /// # Errors
    /// When it is no number, or none of 0 to 16777215.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vni>, D::Error> {
        let Some(number) = <Option<i64> as serde::Deserialize>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let vni = u32::try_from(number).ok().and_then(|n| Vni::new(n).ok());
        vni.map(Some)
            .ok_or_else(|| de::Error::custom(format_args!("{number} is not a VNI; use 0 to 16777215")))
    }
}

/// Serde and text of durations: a whole number and a unit (`ms`, `s`, `m`, `h`), as in `"300s"`.
pub mod duration {
    use std::time::Duration;

    use super::{Deserializer, InvalidValue, Serializer, de};

    /// Units, the largest first, in milliseconds.
    const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

    /// Reads a duration.
    ///
    /// # Errors
    /// [`InvalidValue`] for anything but a whole number and a unit.
    pub fn parse(text: &str) -> Result<Duration, InvalidValue> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let parsed = number.parse::<u64>().ok().zip(UNITS.iter().find(|(name, _)| *name == unit));
        parsed.and_then(|(n, (_, ms))| n.checked_mul(*ms)).map(Duration::from_millis).ok_or_else(|| {
            InvalidValue(format!(
                "{text:?} is not a duration; write a whole number and a unit (ms, s, m, h), as in \"300s\""
            ))
        })
    }

    /// Writes a duration in seconds where it is whole seconds, else in milliseconds. Less than that is cut off.
    #[must_use]
    pub fn format(duration: Duration) -> String {
        if duration.subsec_millis() == 0 {
            format!("{}s", duration.as_secs())
        } else {
            format!("{}ms", duration.as_millis())
        }
    }

    /// Writes the text form.
    ///
    /// # Errors
    /// Those of `serializer`.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(*duration))
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// When it is no string, or no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        parse(&text).map_err(de::Error::custom)
    }
}

/// A rate in packets per second, written `"1000pps"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pps(pub u32);

impl fmt::Display for Pps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}pps", self.0)
    }
}

impl FromStr for Pps {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let number = text.strip_suffix("pps").filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
        number.and_then(|n| n.parse().ok()).map(Self).ok_or_else(|| {
            InvalidValue(format!(
                "{text:?} is not a rate; write packets per second up to {}, as in \"1000pps\"",
                u32::MAX
            ))
        })
    }
}

/// An IP address with the length of its prefix, written `"10.0.0.11/24"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    /// The address; bits beyond the prefix are kept.
    pub address: IpAddr,
    /// Bits of the prefix, at most 32 or 128.
    pub prefix: u8,
}

impl Cidr {
    /// `address` has the same prefix.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let bits = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                a.to_bits() & bits == b.to_bits() & bits
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let bits = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                a.to_bits() & bits == b.to_bits() & bits
            }
            _ => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let address = address.parse::<IpAddr>().ok()?;
            let prefix = prefix.parse::<u8>().ok().filter(|_| !prefix.starts_with('+'))?;
            let bits = if address.is_ipv4() { 32 } else { 128 };
            (prefix <= bits).then_some(Self { address, prefix })
        };
        parse().ok_or_else(|| {
            InvalidValue(format!(
                "{text:?} is not an address with a prefix length; write it as \"10.0.0.11/24\" or \"fd00::11/64\""
            ))
        })
    }
}

/// One IP address, or all with one prefix, written `"10.0.0.11"` and `"2001:db8::/64"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// The addresses whose first `len` bits are those of `address`; `None` where more bits of it are set, or it has
    /// fewer.
    #[must_use]
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        let prefix = Self { address, len };
        let rest = match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let is_clear = rest.checked_shl(len.into()).unwrap_or(0) == 0;
        (len <= prefix.bits() && is_clear).then_some(prefix)
    }

    /// The first of its addresses.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits its addresses share, at most 32 or 128.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // of a prefix
    pub const fn len(self) -> u8 {
        self.len
    }

    /// One address and no other.
    #[must_use]
    pub const fn is_single(self) -> bool {
        self.len == self.bits()
    }

    const fn bits(self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() { self.address.fmt(f) } else { write!(f, "{}/{}", self.address, self.len) }
    }
}

impl FromStr for Prefix {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { address, len: if address.is_ipv4() { 32 } else { 128 } });
        }
        let cidr = text.parse::<Cidr>().map_err(|_| {
            InvalidValue(format!(
                "{text:?} is neither an address nor a prefix; write it as \"10.0.0.11\" or \"2001:db8::/64\""
            ))
        })?;
        Self::new(cidr.address, cidr.prefix).ok_or_else(|| {
            InvalidValue(format!(
                "{text:?} has bits set behind its prefix; write {:?} for the one address, or clear them",
                cidr.address.to_string()
            ))
        })
    }
}

macro_rules! serde_as_text {
    ($type:ty, $example:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                text::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text::deserialize(deserializer)
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
    };
}

serde_as_text!(Pps, "1000pps");
serde_as_text!(Cidr, "10.0.0.11/24");
serde_as_text!(Prefix, "10.0.0.11");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("0s", Some(0)),
            ("300s", Some(300_000)),
            ("100ms", Some(100)),
            ("5m", Some(300_000)),
            ("2h", Some(7_200_000)),
            ("300", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ];
        for (text, ms) in cases {
            assert_eq!(duration::parse(text).ok(), ms.map(Duration::from_millis), "{text}");
        }
        assert_eq!(duration::format(Duration::from_millis(1500)), "1500ms");
        assert_eq!(duration::format(Duration::from_secs(300)), "300s");
    }

    #[test]
    fn rates() {
        assert_eq!("1000pps".parse(), Ok(Pps(1000)));
        for bad in ["1000", "pps", "-1pps", "+1pps", "1kpps", "4294967296pps", "1 pps"] {
            assert!(bad.parse::<Pps>().is_err(), "{bad}");
        }
        assert_eq!(Pps(7).to_string(), "7pps");
    }

    #[test]
    fn what_is_on_a_link() {
        let on = |cidr: &str, address: &str| cidr.parse::<Cidr>().unwrap().contains(address.parse().unwrap());
        assert!(on("192.0.2.1/24", "192.0.2.255") && !on("192.0.2.1/24", "192.0.3.0"));
        assert!(on("0.0.0.0/0", "255.255.255.255") && !on("0.0.0.0/0", "::"));
        assert!(on("192.0.2.1/32", "192.0.2.1") && !on("192.0.2.1/32", "192.0.2.0"));
        assert!(on("2001:db8::1/64", "2001:db8::ffff") && !on("2001:db8::1/64", "2001:db8:0:1::"));
        assert!(on("::/0", "ff::") && on("::1/128", "::1") && !on("::1/128", "::"));
    }

    #[test]
    fn addresses_and_prefixes() {
        for good in
            ["10.0.0.11", "10.0.0.0/24", "0.0.0.0/0", "fd00::11", "2001:db8::/64", "fe80::/10", "::/0"]
        {
            assert_eq!(good.parse::<Prefix>().map(|p| p.to_string()), Ok(good.to_owned()));
        }
        assert_eq!("10.0.0.1/32".parse(), "10.0.0.1".parse::<Prefix>());
        for bad in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "10.0.0.11/24",
            "fd00::1/64",
            "128.0.0.0/0",
            "10.0.0.0/",
            "fd00::/+8",
        ] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes() {
        for good in ["10.0.0.11/24", "0.0.0.0/0", "10.0.0.1/32", "fd00::11/64", "::/128"] {
            assert_eq!(good.parse::<Cidr>().map(|c| c.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "10.0.0.11",
            "10.0.0.11/33",
            "fd00::11/129",
            "10.0.0/24",
            "/24",
            "10.0.0.1/",
            "10.0.0.1/+8",
            "10.0.0.1/-1",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
