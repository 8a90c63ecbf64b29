//! Frames in memory, for tests of this crate and of those above it (feature `alloc`).

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::classify::protocol;
use crate::{Csum, FrameBuf, FrameMeta, Gso, GsoKind, Mac, NoHeadroom, Offload, Tag, checksum::Sum};
use crate::{complete, ethernet, ipv4, ipv6, tcp, udp};

/// Bytes before a new frame, as drivers leave them.
pub const HEADROOM: usize = 128;

/// A frame in a vector, with headroom.
#[derive(Clone, Debug)]
pub struct VecFrame {
    buffer: Vec<u8>,
    start: usize,
    meta: FrameMeta,
}

impl VecFrame {
    /// A frame of these bytes with [`HEADROOM`] bytes before it and no metadata.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self::with_headroom(bytes, HEADROOM)
    }

    /// As [`VecFrame::new`], with `headroom` bytes before it.
    #[must_use]
    pub fn with_headroom(bytes: &[u8], headroom: usize) -> Self {
        let mut buffer = alloc::vec![0xa5; headroom];
        buffer.extend_from_slice(bytes);
        Self { buffer, start: headroom, meta: FrameMeta::default() }
    }

    /// The same frame with a tag beside its bytes.
    #[must_use]
    pub const fn with_tag(mut self, tag: Tag) -> Self {
        self.meta.tag = Some(tag);
        self
    }

    /// The same frame with unfinished work.
    #[must_use]
    pub const fn with_offload(mut self, offload: Offload) -> Self {
        self.meta.offload = offload;
        self
    }
}

impl FrameBuf for VecFrame {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..]
    }
    fn grow_front(&mut self, n: usize) -> Result<(), NoHeadroom> {
        self.start = self.start.checked_sub(n).ok_or(NoHeadroom)?;
        Ok(())
    }
    fn shrink_front(&mut self, n: usize) {
        self.start = self.buffer.len().min(self.start + n);
    }
    fn truncate(&mut self, len: usize) {
        self.buffer.truncate(self.start + len);
    }
    fn meta(&self) -> &FrameMeta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut FrameMeta {
        &mut self.meta
    }
}

/// Builds a frame from the outside in: [`frame`], tags, IP, TCP or UDP, payload.
#[derive(Clone, Debug)]
pub struct FrameBuilder {
    destination: Mac,
    source: Mac,
    tags: Vec<Tag>,
    ether_type: u16,
    ip: Option<(IpAddr, IpAddr)>,
    l4: Option<L4>,
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum L4 {
    Tcp { source: u16, destination: u16, flags: u8 },
    Udp { source: u16, destination: u16 },
}

/// A frame from `source` to `destination`, whose EtherType is one for experiments (IEEE 802: 0x88b5) until told
/// otherwise.
#[must_use]
pub const fn frame(destination: Mac, source: Mac) -> FrameBuilder {
    FrameBuilder {
        destination,
        source,
        tags: Vec::new(),
        ether_type: 0x88b5,
        ip: None,
        l4: None,
        payload: Vec::new(),
    }
}

impl FrameBuilder {
    /// A tag in the bytes, inside those that were given before.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// The EtherType of a frame without IP.
    #[must_use]
    pub const fn ether_type(mut self, ether_type: u16) -> Self {
        self.ether_type = ether_type;
        self
    }

    /// An IP header; both addresses are of one family.
    #[must_use]
    pub fn ip(mut self, source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        let pair = (source.into(), destination.into());
        self.ether_type = if pair.0.is_ipv4() { ethernet::TYPE_IPV4 } else { ethernet::TYPE_IPV6 };
        self.ip = Some(pair);
        self
    }

    /// A TCP header with these ports and flags, sequence number 1000.
    #[must_use]
    pub const fn tcp(mut self, source: u16, destination: u16, flags: u8) -> Self {
        self.l4 = Some(L4::Tcp { source, destination, flags });
        self
    }

    /// A UDP header with these ports.
    #[must_use]
    pub const fn udp(mut self, source: u16, destination: u16) -> Self {
        self.l4 = Some(L4::Udp { source, destination });
        self
    }

    /// The bytes behind all headers.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The bytes, every checksum finished.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let (mut bytes, csum) = self.emit();
        if let Some(csum) = csum {
            complete(&mut bytes, csum).unwrap_or_default();
        }
        bytes
    }

    /// The frame, every checksum finished.
    #[must_use]
    pub fn build(&self) -> VecFrame {
        VecFrame::new(&self.bytes())
    }

    /// The frame with its TCP or UDP checksum unfinished.
    #[must_use]
    pub fn unfinished(&self) -> VecFrame {
        let (bytes, csum) = self.emit();
        VecFrame::new(&bytes).with_offload(Offload { csum, gso: None })
    }

    /// The frame as one that stands for segments of `size` bytes.
    #[must_use]
    pub fn gso(&self, size: u16) -> VecFrame {
        let kind = match (self.l4, self.ether_type) {
            (Some(L4::Udp { .. }), _) => GsoKind::Udp,
            (_, ethernet::TYPE_IPV4) => GsoKind::Tcp4,
            _ => GsoKind::Tcp6,
        };
        let (bytes, csum) = self.emit();
        VecFrame::new(&bytes).with_offload(Offload { csum, gso: Some(Gso { kind, size, ecn: false }) })
    }

    /// The bytes with an unfinished checksum, and where that is.
    fn emit(&self) -> (Vec<u8>, Option<Csum>) {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.destination.0);
        bytes.extend_from_slice(&self.source.0);
        for tag in &self.tags {
            bytes.extend_from_slice(&tag.tpid.to_be_bytes());
            bytes.extend_from_slice(&tag.tci.to_be_bytes());
        }
        bytes.extend_from_slice(&self.ether_type.to_be_bytes());
        let (protocol, header_len, offset) = match self.l4 {
            Some(L4::Tcp { .. }) => (protocol::TCP, tcp::HEADER_LEN, tcp::CHECKSUM_OFFSET),
            Some(L4::Udp { .. }) => (protocol::UDP, udp::HEADER_LEN, udp::CHECKSUM_OFFSET),
            None => (59, 0, 0), // IPv6 "no next header", and nobody's IPv4 protocol
        };
        let len = header_len + self.payload.len();
        let mut sum = Sum::of_word(((protocol as u64) << 32) | len as u64);
        if let Some((source, destination)) = self.ip {
            sum = sum.plus(emit_ip(&mut bytes, protocol, len as u16, source, destination));
        }
        let start = bytes.len() as u16;
        self.emit_l4(&mut bytes, len as u16, sum.folded());
        bytes.extend_from_slice(&self.payload);
        (bytes, self.l4.map(|_| Csum { start, offset }))
    }

    fn emit_l4(&self, bytes: &mut Vec<u8>, len: u16, pseudo_header: u16) {
        match self.l4 {
            Some(L4::Tcp { source, destination, flags }) => {
                let [c0, c1] = pseudo_header.to_be_bytes();
                bytes.extend_from_slice(&source.to_be_bytes());
                bytes.extend_from_slice(&destination.to_be_bytes());
                bytes.extend_from_slice(&1000_u32.to_be_bytes());
                bytes.extend_from_slice(&[0, 0, 0, 1, 0x50, flags, 0xff, 0xff, c0, c1, 0, 0]);
            }
            Some(L4::Udp { source, destination }) => {
                for field in [source, destination, len, pseudo_header] {
                    bytes.extend_from_slice(&field.to_be_bytes());
                }
            }
            None => {}
        }
    }
}

/// Appends an IP header, and returns its addresses' sum.
fn emit_ip(bytes: &mut Vec<u8>, protocol: u8, len: u16, source: IpAddr, destination: IpAddr) -> Sum {
    let [l0, l1] = len.to_be_bytes();
    if let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) {
        let [t0, t1] = (ipv4::HEADER_LEN as u16 + len).to_be_bytes();
        let mut header = [0x45, 0, t0, t1, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header[12..16].copy_from_slice(&source.octets());
        header[16..].copy_from_slice(&destination.octets());
        let checksum = Sum::of(&header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend_from_slice(&header);
        return Sum::of(&header[12..]);
    }
    let start = bytes.len();
    bytes.extend_from_slice(&[0x60, 0, 0, 0, l0, l1, protocol, 64]);
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => bytes.extend_from_slice(&v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => bytes.extend_from_slice(&v6.octets()),
        }
    }
    debug_assert_eq!(bytes.len() - start, ipv6::HEADER_LEN);
    Sum::of(&bytes[start + 8..])
}
