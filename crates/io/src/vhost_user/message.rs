//! The messages of the vhost-user protocol (QEMU, docs/interop/vhost-user.rst), as values.
//!
//! Own types rather than those of the `vhost` crate: that brings nine crates (UUIDs and random numbers among them),
//! refuses lengths that user-mode Linux sends, and its connection is private. What is used of the protocol is a
//! header, five shapes of payload and a dozen numbers. Numbers are in native order, both ends being on one machine.
//!
//! A message may be longer than it has to be, since user-mode Linux sends room for two regions always; the number of
//! file descriptors has to be right.

use std::os::fd::OwnedFd;

use vswitch_wire::Mac;

use super::memory::RegionInfo;

/// Bytes of the header.
pub(super) const HEADER: usize = 12;
/// Bytes of the longest payload that is read.
const LONGEST: usize = 4096;
/// Regions of a memory table (`VHOST_MEMORY_BASELINE_NREGIONS` is 8).
pub(super) const REGIONS: usize = 32;

// The flags of a header: the version in two bits, and what follows.
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// In a message about an eventfd: there is none.
const NO_FD: u64 = 1 << 8;

/// What a front end asks for.
#[derive(Debug)]
pub(super) enum Request {
    GetFeatures,
    SetFeatures(u64),
    SetOwner,
    ResetOwner,
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetQueueNum,
    GetMaxMemSlots,
    SetMemTable(Vec<(RegionInfo, OwnedFd)>),
    AddMemReg(RegionInfo, OwnedFd),
    RemMemReg(RegionInfo),
    SetVringNum {
        index: u32,
        size: u32,
    },
    /// The addresses of descriptors, of what the driver writes, and of what the device writes.
    SetVringAddr {
        index: u32,
        areas: [u64; 3],
    },
    SetVringBase {
        index: u32,
        base: u32,
    },
    GetVringBase {
        index: u32,
    },
    SetVringKick {
        index: u32,
        fd: Option<OwnedFd>,
    },
    SetVringCall {
        index: u32,
        fd: Option<OwnedFd>,
    },
    SetVringErr {
        index: u32,
        fd: Option<OwnedFd>,
    },
    SetVringEnable {
        index: u32,
        enable: bool,
    },
    SendRarp(Mac),
    SetBackendReqFd(OwnedFd),
}

/// Why a message is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadMessage {
    #[error("a message with flags {0:#x}")]
    Flags(u32),
    #[error("request {request} with {len} bytes")]
    Length { request: u32, len: usize },
    #[error("request {request} with {count} file descriptors")]
    Fds { request: u32, count: usize },
    #[error("request {0} was not offered")]
    Unknown(u32),
}

/// What comes before the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    request: u32,
    /// Bytes that follow.
    pub(super) len: usize,
    need_reply: bool,
}

impl Header {
    pub(super) fn parse(bytes: [u8; HEADER]) -> Result<Self, BadMessage> {
        let [request, flags, len] = words(bytes);
        if flags & !NEED_REPLY != VERSION {
            return Err(BadMessage::Flags(flags));
        }
        let len = len as usize;
        if len > LONGEST {
            return Err(BadMessage::Length { request, len });
        }
        Ok(Self { request, len, need_reply: flags & NEED_REPLY != 0 })
    }
}

fn words<const N: usize, const M: usize>(bytes: [u8; N]) -> [u32; M] {
    std::array::from_fn(|i| {
        bytes.get(4 * i..).and_then(|b| b.first_chunk()).map_or(0, |word| u32::from_ne_bytes(*word))
    })
}

/// A whole message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) request: Request,
    /// The front end waits to be told whether it was obeyed, if that was agreed upon.
    pub(super) need_reply: bool,
    number: u32,
}

/// A payload that is read from its front.
struct Payload<'a>(&'a [u8]);

impl Payload<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn region(&mut self) -> Option<RegionInfo> {
        let (guest, size, user, offset) = (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
        Some(RegionInfo { guest, size, user, offset })
    }
}

/// File descriptors of a message; those that nobody takes are closed.
struct Fds {
    fds: std::vec::IntoIter<OwnedFd>,
    request: u32,
    count: usize,
}

impl Fds {
    fn next(&mut self) -> Result<OwnedFd, BadMessage> {
        self.fds.next().ok_or(BadMessage::Fds { request: self.request, count: self.count })
    }
}

impl Message {
    pub(super) fn parse(header: Header, payload: &[u8], fds: Vec<OwnedFd>) -> Result<Self, BadMessage> {
        let request = header.request;
        let count = fds.len();
        let mut fds = Fds { fds: fds.into_iter(), request, count };
        let parsed = parse(request, Payload(payload), &mut fds)?;
        let parsed = parsed.ok_or(BadMessage::Length { request, len: payload.len() })?;
        // A region to be removed may come with its file, to please back ends that want one.
        if fds.fds.len() > usize::from(matches!(parsed, Request::RemMemReg(_))) {
            return Err(BadMessage::Fds { request, count });
        }
        Ok(Self { request: parsed, need_reply: header.need_reply, number: request })
    }

    /// The answer of one number.
    pub(super) fn reply(number: u32, value: u64) -> Reply {
        Reply { number, payload: value.to_ne_bytes() }
    }

    /// The request's number, for its reply.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }
}

/// `None` when the payload is too short.
fn parse(number: u32, mut payload: Payload<'_>, fds: &mut Fds) -> Result<Option<Request>, BadMessage> {
    let request = match number {
        1 => Some(Request::GetFeatures),
        2 => payload.u64().map(Request::SetFeatures),
        3 => Some(Request::SetOwner),
        4 => Some(Request::ResetOwner),
        5 => return mem_table(payload, fds),
        8 => payload.u32().zip(payload.u32()).map(|(index, size)| Request::SetVringNum { index, size }),
        9 => vring_addr(payload),
        10 => payload.u32().zip(payload.u32()).map(|(index, base)| Request::SetVringBase { index, base }),
        11 => payload.u32().map(|index| Request::GetVringBase { index }),
        12 => eventfd(payload, fds)?.map(|(index, fd)| Request::SetVringKick { index, fd }),
        13 => eventfd(payload, fds)?.map(|(index, fd)| Request::SetVringCall { index, fd }),
        14 => eventfd(payload, fds)?.map(|(index, fd)| Request::SetVringErr { index, fd }),
        15 => Some(Request::GetProtocolFeatures),
        16 => payload.u64().map(Request::SetProtocolFeatures),
        17 => Some(Request::GetQueueNum),
        18 => payload
            .u32()
            .zip(payload.u32())
            .map(|(index, on)| Request::SetVringEnable { index, enable: on != 0 }),
        19 => payload.take().map(|mac| Request::SendRarp(Mac(mac))),
        21 => Some(Request::SetBackendReqFd(fds.next()?)),
        36 => Some(Request::GetMaxMemSlots),
        37 | 38 => match payload.u64().and_then(|_padding| payload.region()) {
            Some(region) if number == 37 => Some(Request::AddMemReg(region, fds.next()?)),
            region => region.map(Request::RemMemReg),
        },
        unknown => return Err(BadMessage::Unknown(unknown)),
    };
    Ok(request)
}

fn mem_table(mut payload: Payload<'_>, fds: &mut Fds) -> Result<Option<Request>, BadMessage> {
    let Some((count, _padding)) = payload.u32().zip(payload.u32()) else { return Ok(None) };
    if count as usize > REGIONS {
        return Ok(None);
    }
    let mut regions = Vec::new();
    for _ in 0..count {
        let Some(region) = payload.region() else { return Ok(None) };
        regions.push((region, fds.next()?));
    }
    Ok(Some(Request::SetMemTable(regions)))
}

fn vring_addr(mut payload: Payload<'_>) -> Option<Request> {
    let (index, _flags) = payload.u32().zip(payload.u32())?;
    let (descriptors, device, driver) = (payload.u64()?, payload.u64()?, payload.u64()?);
    Some(Request::SetVringAddr { index, areas: [descriptors, driver, device] })
}

fn eventfd(mut payload: Payload<'_>, fds: &mut Fds) -> Result<Option<(u32, Option<OwnedFd>)>, BadMessage> {
    let Some(value) = payload.u64() else { return Ok(None) };
    let fd = if value & NO_FD == 0 { Some(fds.next()?) } else { None };
    Ok(Some((value as u8 as u32, fd)))
}

/// An answer: a number, or a ring's index and position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    number: u32,
    payload: [u8; 8],
}

impl Reply {
    /// The answer to [`Request::GetVringBase`].
    pub(super) fn vring(number: u32, index: u32, base: u32) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (index.to_ne_bytes(), base.to_ne_bytes());
        Self { number, payload: [a, b, c, d, e, f, g, h] }
    }

    /// As on the wire.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let header = [self.number, VERSION | REPLY, 8].map(u32::to_ne_bytes);
        [header.as_flattened(), &self.payload].concat()
    }
}
