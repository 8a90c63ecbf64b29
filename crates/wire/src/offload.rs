//! Unfinished work that travels with a frame: the meaning of `virtio_net_hdr`
//! (VIRTIO 1.2 section 5.1.6), apart from its layout.

/// An L4 checksum that the sender left to the device: the field holds the folded pseudo-header sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Csum {
    /// Offset in the frame from where to sum to its end, in bytes.
    pub start: u16,
    /// Offset of the 16-bit field from `start`, in bytes.
    pub offset: u16,
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
