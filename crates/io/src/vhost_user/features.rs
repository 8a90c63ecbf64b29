//! Feature bits, and what they mean for frames.

use std::fmt;

use vswitch_wire::{Caps, Offload, vnet};

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const MRG_RXBUF: u64 = 1 << 15;
const MQ: u64 = 1 << 22;
const INDIRECT_DESC: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const VERSION_1: u64 = 1 << 32;
const RING_PACKED: u64 = 1 << 34;

/// The names of all that is offered (VIRTIO 1.2 section 5.1.3 and 6; bit 30 is vhost-user's own).
const NAMES: [(u64, &str); 13] = [
    (VERSION_1, "VERSION_1"),
    (RING_PACKED, "RING_PACKED"),
    (MRG_RXBUF, "MRG_RXBUF"),
    (INDIRECT_DESC, "INDIRECT_DESC"),
    (EVENT_IDX, "EVENT_IDX"),
    (CSUM, "CSUM"),
    (GUEST_CSUM, "GUEST_CSUM"),
    (HOST_TSO4, "HOST_TSO4"),
    (HOST_TSO6, "HOST_TSO6"),
    (GUEST_TSO4, "GUEST_TSO4"),
    (GUEST_TSO6, "GUEST_TSO6"),
    (MQ, "MQ"),
    (PROTOCOL_FEATURES, "PROTOCOL_FEATURES"),
];

/// A set of virtio features.
///
/// `CTRL_VQ` is never among them: QEMU serves that queue itself, and user-mode Linux hangs where a back end offers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// All that the switch can offer.
    pub const OFFERED: Self = {
        let (mut bits, mut i) = (0, 0);
        while i < NAMES.len() {
            bits |= NAMES[i].0;
            i += 1;
        }
        Self(bits)
    };

    /// What it offers on a port with so many queue pairs. Linux takes no device with `MQ` that has no `CTRL_VQ`; QEMU
    /// adds that by itself, user-mode Linux does not.
    pub const fn offered(pairs: usize) -> Self {
        Self(if pairs > 1 { Self::OFFERED.0 } else { Self::OFFERED.0 & !MQ })
    }

    /// What a front end acknowledged; `None` when some of it was not offered.
    pub const fn acknowledged(bits: u64) -> Option<Self> {
        if bits & !Self::OFFERED.0 == 0 { Some(Self(bits)) } else { None }
    }

    /// As on the wire.
    pub const fn bits(self) -> u64 {
        self.0
    }

    const fn has(self, feature: u64) -> bool {
        self.0 & feature != 0
    }

    /// The front end negotiates protocol features, and enables rings one by one.
    pub(super) const fn has_protocol(self) -> bool {
        self.has(PROTOCOL_FEATURES)
    }

    pub(super) const fn is_packed(self) -> bool {
        self.has(RING_PACKED)
    }

    pub(super) const fn has_event_idx(self) -> bool {
        self.has(EVENT_IDX)
    }

    /// GSO comes only with checksums (VIRTIO 1.2 section 5.1.3.1).
    const fn caps(self, csum: u64, tso4: u64, tso6: u64) -> Caps {
        let csum = self.has(csum);
        Caps { csum, tso4: csum && self.has(tso4), tso6: csum && self.has(tso6), uso: false }
    }

    /// Unfinished work of frames that the guest takes.
    pub const fn to_guest(self) -> Caps {
        self.caps(GUEST_CSUM, GUEST_TSO4, GUEST_TSO6)
    }

    /// Unfinished work of frames that it may leave to the switch.
    pub const fn from_guest(self) -> Caps {
        self.caps(CSUM, HOST_TSO4, HOST_TSO6)
    }

    /// What it costs the guest that it did not acknowledge more, in words.
    pub fn slow(self) -> Vec<&'static str> {
        let reasons = [
            (CSUM | HOST_TSO4 | HOST_TSO6, "the guest cuts and sums what it sends"),
            (GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6, "the switch cuts and sums what the guest receives"),
            (MRG_RXBUF, "each receive buffer must hold the longest frame"),
        ];
        reasons.iter().filter(|(bits, _)| self.0 & bits != *bits).map(|(_, words)| *words).collect()
    }
}

impl fmt::Display for Features {
    /// The names, parted by blanks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (_, name) in NAMES.iter().filter(|(bit, _)| self.has(*bit) && *bit != PROTOCOL_FEATURES) {
            if !std::mem::take(&mut first) {
                f.write_str(" ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// What the acknowledged features say of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// Bytes of the header before each frame: with the number of buffers, or as it was before VIRTIO 1.0.
    pub(super) header: usize,
    /// A frame for the guest may lie in several chains.
    pub(super) mergeable: bool,
    /// Unfinished work that the guest takes.
    pub(super) to_guest: Caps,
    /// Unfinished work that it may leave to us.
    from_guest: Caps,
}

/// Bytes of the number of buffers at the end of the header.
pub(super) const NUM_BUFFERS: usize = 2;

impl Format {
    pub(super) const fn new(features: Features) -> Self {
        let long = features.has(VERSION_1) || features.has(MRG_RXBUF);
        Self {
            header: vnet::HEADER_LEN + if long { NUM_BUFFERS } else { 0 },
            mergeable: features.has(MRG_RXBUF),
            to_guest: features.to_guest(),
            from_guest: features.from_guest(),
        }
    }

    /// Whether the guest may leave this work to us.
    pub(super) const fn may_leave(&self, offload: &Offload) -> bool {
        match (offload.csum, offload.gso) {
            (None, None) => true,
            (_, None) => self.from_guest.csum,
            (_, Some(gso)) => self.from_guest.takes(gso.kind),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use vswitch_wire::{Csum, Gso, GsoKind};

    use super::*;

    #[test]
    fn only_what_was_offered_is_acknowledged() {
        assert_eq!(Features::acknowledged(Features::OFFERED.bits()), Some(Features::OFFERED));
        assert_eq!(Features::offered(2), Features::OFFERED);
        assert_eq!(Features::offered(1).bits(), Features::OFFERED.bits() & !MQ);
        for refused in [1 << 17, 1 << 16, 1 << 24, 1 << 63] {
            assert_eq!(Features::acknowledged(VERSION_1 | refused), None, "{refused:#x}");
        }
        let names = Features::acknowledged(VERSION_1 | MRG_RXBUF | PROTOCOL_FEATURES).unwrap();
        assert_eq!(names.to_string(), "VERSION_1 MRG_RXBUF");
        assert!(Features::OFFERED.slow().is_empty());
        assert_eq!(Features::acknowledged(VERSION_1).unwrap().slow().len(), 3);
    }

    #[test]
    fn the_header_and_the_work_follow_from_the_features() {
        let format = |bits| Format::new(Features(bits));
        assert_eq!((format(0).header, format(MRG_RXBUF).header, format(VERSION_1).header), (10, 12, 12));
        assert!(format(MRG_RXBUF).mergeable && !format(VERSION_1).mergeable);
        assert_eq!(format(GUEST_TSO4 | GUEST_TSO6).to_guest, Caps::NONE);
        assert_eq!(format(u64::MAX).to_guest, Caps { uso: false, ..Caps::ALL });
        let csum = Some(Csum { start: 34, offset: 16 });
        let gso = |kind| Some(Gso { kind, size: 1000, ecn: false });
        let cases = [
            (Offload::NONE, 0, true),
            (Offload { csum, gso: None }, 0, false),
            (Offload { csum, gso: None }, CSUM, true),
            (Offload { csum, gso: gso(GsoKind::Tcp4) }, CSUM | HOST_TSO6, false),
            (Offload { csum, gso: gso(GsoKind::Tcp4) }, CSUM | HOST_TSO4, true),
            (Offload { csum, gso: gso(GsoKind::Tcp6) }, HOST_TSO6, false),
            (Offload { csum, gso: gso(GsoKind::Udp) }, u64::MAX, false),
        ];
        for (offload, bits, may) in cases {
            assert_eq!(format(bits).may_leave(&offload), may, "{offload:?} {bits:#x}");
        }
    }
}
