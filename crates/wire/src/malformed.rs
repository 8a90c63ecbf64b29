//! Why bytes are not the header that they should be.

use core::fmt;

/// Why a header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes end before the header, or before what its length field promises.
    Truncated,
    /// The version field is another protocol's.
    Version,
    /// A length field is smaller than the header itself.
    Length,
    /// More nested tags or extension headers than are followed.
    TooDeep,
    /// An extension header is where none may be.
    Order,
    /// The EtherType is neither IPv4 nor IPv6.
    NotIp,
    /// The message is of another protocol, or about other addresses, than those that are known here.
    Foreign,
    /// The message breaks a rule by which whoever hears it ignores it: a wrong checksum, or a sender that cannot be.
    Void,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the frame ends before its headers do",
            Self::Version => "the IP version does not fit the EtherType",
            Self::Length => "a header's length field is smaller than the header",
            Self::TooDeep => "too many nested tags or extension headers",
            Self::Order => "an IPv6 extension header is where none may be",
            Self::NotIp => "the frame carries no IP",
            Self::Foreign => "the message is of no protocol or address that is known here",
            Self::Void => "by the rules of its protocol the message is to be ignored",
        })
    }
}

impl core::error::Error for Malformed {}
