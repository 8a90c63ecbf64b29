//! Unfinished work that travels with a frame: the meaning of `virtio_net_hdr`
//! (VIRTIO 1.2 section 5.1.6), apart from its layout.

use core::fmt;

use crate::{ethernet, ipv4, ipv6, sctp, tcp, udp};

/// An L4 checksum that the sender left to the device: the field holds the folded pseudo-header sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Csum {
    /// Offset in the frame from where to sum to its end, in bytes.
    pub start: u16,
    /// Offset of the 16-bit field from `start`, in bytes.
    pub offset: u16,
}

impl Csum {
    /// What was left to do is SCTP's CRC32c and not an Internet checksum: its field is the only one at
    /// this offset. Few ports can be told so, see [`Caps::takes_csum`].
    #[inline]
    #[must_use]
    pub const fn is_crc32c(self) -> bool {
        self.offset == sctp::CHECKSUM_OFFSET
    }

    /// The offset of the field's end in the frame, in bytes.
    pub(crate) const fn field_end(self) -> usize {
        self.start as usize + self.offset as usize + if self.is_crc32c() { 4 } else { 2 }
    }
}

/// The protocol of a frame that stands for several segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4 or IPv6, cut into datagrams (`VIRTIO_NET_HDR_GSO_UDP_L4`, USO).
    Udp,
}

/// A frame that stands for several segments of `size` bytes of payload each (the last may be shorter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What is cut.
    pub kind: GsoKind,
    /// Payload bytes per segment, never 0.
    pub size: u16,
    /// TCP's CWR is set in the first segment only (RFC 3168 section 6.1.2).
    pub ecn: bool,
}

/// Unfinished work of one frame. A frame with `gso` always has `csum` too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The L4 checksum is unfinished.
    pub csum: Option<Csum>,
    /// The frame is to be cut.
    pub gso: Option<Gso>,
}

impl Offload {
    /// Nothing left to do.
    pub const NONE: Self = Self { csum: None, gso: None };

    /// Whether this fits the frame `bytes`: the checksum's field is inside the frame and behind the addresses, and GSO
    /// has a size and the checksum of its kind. That is enough to work by it safely. Whether what it would change is
    /// a checksum at all says [`Offload::verify`].
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self, bytes: &[u8]) -> Result<(), BadOffload> {
        if let Some(csum) = self.csum {
            let (ether_type, l3) = ethernet::payload(bytes).map_err(|_| BadOffload::Csum)?;
            let l3_len = match ether_type {
                ethernet::TYPE_IPV4 => ipv4::HEADER_LEN,
                ethernet::TYPE_IPV6 => ipv6::HEADER_LEN,
                _ => 0,
            };
            if usize::from(csum.start) < l3 + l3_len || csum.field_end() > bytes.len() {
                return Err(BadOffload::Csum);
            }
        }
        self.check_gso()
    }

    /// Whether GSO has a size and the checksum of its kind.
    pub(crate) fn check_gso(&self) -> Result<(), BadOffload> {
        let Some(gso) = self.gso else { return Ok(()) };
        let offset = match gso.kind {
            GsoKind::Tcp4 | GsoKind::Tcp6 => tcp::CHECKSUM_OFFSET,
            GsoKind::Udp => udp::CHECKSUM_OFFSET,
        };
        if self.csum.is_none_or(|csum| csum.offset != offset) {
            return Err(BadOffload::GsoCsum);
        }
        if gso.size == 0 { Err(BadOffload::GsoSize) } else { Ok(()) }
    }

    /// `n` bytes were taken off the frame's front.
    pub const fn shift_back(&mut self, n: u16) {
        if let Some(c) = &mut self.csum {
            c.start = c.start.saturating_sub(n);
        }
    }

    /// `n` bytes were put before the frame.
    pub const fn shift_forward(&mut self, n: u16) {
        if let Some(c) = &mut self.csum {
            c.start = c.start.saturating_add(n);
        }
    }
}

/// Offload metadata that cannot be true of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadOffload {
    /// The checksum's field is outside the frame, inside its L2 or IP header, or no checksum's.
    Csum,
    /// GSO without an unfinished checksum of its protocol.
    GsoCsum,
    /// GSO of another protocol than the frame's.
    GsoProtocol,
    /// Segments of no size.
    GsoSize,
    /// A `gso_type` that is not known or was not negotiated.
    GsoKind(u8),
}

impl fmt::Display for BadOffload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Csum => f.write_str("the unfinished checksum is not where the frame has one"),
            Self::GsoCsum => f.write_str("GSO without an unfinished checksum of its protocol"),
            Self::GsoProtocol => f.write_str("GSO of another protocol than the frame's"),
            Self::GsoSize => f.write_str("GSO with segments of 0 bytes"),
            Self::GsoKind(kind) => write!(f, "GSO type {kind:#04x} is not known"),
        }
    }
}

impl core::error::Error for BadOffload {}

/// What unfinished work a port can send on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Takes frames with an unfinished checksum.
    pub csum: bool,
    /// Takes [`GsoKind::Tcp4`].
    pub tso4: bool,
    /// Takes [`GsoKind::Tcp6`].
    pub tso6: bool,
    /// Takes [`GsoKind::Udp`].
    pub uso: bool,
}

impl Caps {
    /// Takes everything.
    pub const ALL: Self = Self { csum: true, tso4: true, tso6: true, uso: true };
    /// Takes finished frames only.
    pub const NONE: Self = Self { csum: false, tso4: false, tso6: false, uso: false };

    /// Whether a frame with this unfinished checksum may be sent as it is. A CRC32c never may: a
    /// `virtio_net_hdr` cannot name it, the receiver would fill in an Internet checksum.
    #[inline]
    #[must_use]
    pub const fn takes_csum(self, csum: Csum) -> bool {
        self.csum && !csum.is_crc32c()
    }

    /// Whether a frame with this GSO kind may be sent as it is.
    #[must_use]
    pub const fn takes(self, kind: GsoKind) -> bool {
        match kind {
            GsoKind::Tcp4 => self.tso4,
            GsoKind::Tcp6 => self.tso6,
            GsoKind::Udp => self.uso,
        }
    }
}
