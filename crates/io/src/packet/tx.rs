//! One worker's way out: small frames in batches, the others by a socket.

use std::io;
use std::mem;

use vswitch_wire::{FrameBuf, checksum, ethernet, l4_header_end, vlan, vnet};

use super::batch::{self, Netns};
use super::socket::{Socket, VNET};
use crate::{Frame, FrameVec, PoolCache, TxQueue, TxReport};

/// Bytes that may be under way to the device.
const IN_FLIGHT: libc::c_int = 4 << 20;
/// Frames of one sendmmsg.
const MESSAGES: usize = 32;
/// Fewer frames leave sooner by the socket. Measured on veth, in thousands of cycles by batch and by socket: one
/// frame 10 and 7, two 12 and 11, three 13 and 15, 64 of them 115 and 270.
const WORTH_A_BATCH: usize = 3;

/// One worker's way out.
#[derive(Debug)]
pub(super) struct Tx {
    socket: Socket,
    ifindex: u32,
    /// Where `ifindex` is valid; the socket keeps it alive. `None`: batches are not to be used.
    netns: Option<Netns>,
}

/// How a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Together with others of its EtherType (as bytes).
    Batch([u8; 2]),
    Socket,
    /// No frame, or metadata that cannot be true of it.
    Refused,
}

impl Tx {
    pub(super) fn open(ifindex: u32, netns: Option<Netns>) -> io::Result<Self> {
        let socket = Socket::new()?;
        socket.set_buffer(libc::SO_SNDBUFFORCE, IN_FLIGHT)?;
        socket.bind(ifindex, 0)?;
        Ok(Self { socket, ifindex, netns })
    }

    /// Sends frames that take the same way. Both ways are done with a frame when they return, so the order is kept.
    fn send(&self, way: Way, frames: &mut [Frame], report: &mut TxReport) {
        match (way, self.netns) {
            (Way::Refused, _) => report.refused += frames.len() as u32,
            (Way::Batch(ether_type), Some(netns)) if frames.len() >= WORTH_A_BATCH => {
                let sent = batch::with(netns, |batch| {
                    frames.iter_mut().for_each(finish);
                    batch.send(self.ifindex, ether_type, frames, report);
                });
                if sent.is_none() {
                    self.send_messages(frames, report);
                }
            }
            _ => self.send_messages(frames, report),
        }
    }

    fn send_messages(&self, frames: &[Frame], report: &mut TxReport) {
        for frames in frames.chunks(MESSAGES) {
            let mut headers = [[0; VNET]; MESSAGES];
            // SAFETY: all zero is a valid iovec and a valid message.
            let (mut parts, mut messages): ([[libc::iovec; 2]; MESSAGES], [libc::mmsghdr; MESSAGES]) =
                unsafe { mem::zeroed() };
            for (((frame, header), part), message) in
                frames.iter().zip(&mut headers).zip(&mut parts).zip(&mut messages)
            {
                *header = vnet_header(frame);
                let bytes = frame.bytes();
                part[0] = libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: VNET };
                part[1] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
                (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (part.as_mut_ptr(), part.len());
            }
            self.send_all(frames, &mut messages[..frames.len()], report);
        }
    }

    /// Each call sends a frame at least, or tells of the first one why it was not sent: that is dropped.
    fn send_all(&self, frames: &[Frame], messages: &mut [libc::mmsghdr], report: &mut TxReport) {
        let mut done = 0;
        while let Some(rest) = messages.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let (fd, count) = (self.socket.raw(), rest.len() as libc::c_uint);
            // SAFETY: every part of every message is as long as said; the kernel only reads them.
            let sent = unsafe { libc::sendmmsg(fd, rest.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
            if let Ok(sent @ 1..) = usize::try_from(sent) {
                report.sent += sent as u32;
                report.sent_bytes +=
                    frames[done..].iter().take(sent).map(|frame| frame.bytes().len() as u64).sum::<u64>();
                done += sent;
                continue;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR) => report.full += 1,
                _ => report.refused += 1,
            }
            done += 1;
        }
    }
}

fn way(frame: &Frame) -> Way {
    let (bytes, meta) = (frame.bytes(), frame.meta());
    let Some([.., high, low]) = bytes.first_chunk::<{ ethernet::HEADER_LEN }>() else { return Way::Refused };
    // A tag that is still beside the bytes found no room in them.
    if meta.tag.is_some() || meta.offload.check(bytes).is_err() {
        Way::Refused
    } else if meta.offload.gso.is_none() && bytes.len() <= batch::LIMIT {
        Way::Batch([*high, *low])
    } else {
        Way::Socket
    }
}

/// Finishes an unfinished checksum: a batch cannot leave it to the device.
fn finish(frame: &mut Frame) {
    if let Some(csum) = frame.meta_mut().offload.csum.take() {
        // `way` has checked that the field is in the frame.
        let _ = checksum::complete(frame.bytes_mut(), csum);
    }
}

fn vnet_header(frame: &Frame) -> [u8; VNET] {
    let offload = frame.meta().offload;
    // A hint: the kernel takes so many bytes out of the pages at once.
    let header_len = l4_header_end(frame.bytes(), &offload).and_then(|len| u16::try_from(len).ok());
    vnet::emit(offload, header_len.unwrap_or(0))
}

impl TxQueue for Tx {
    fn tx(&mut self, pool: &mut PoolCache, frames: &mut FrameVec) -> TxReport {
        let mut report = TxReport::default();
        for frame in frames.as_mut_slice() {
            // The kernel takes tags in the bytes only; `way` sees where this failed.
            let _ = vlan::push(frame);
        }
        for run in frames.as_mut_slice().chunk_by_mut(|a, b| way(a) == way(b)) {
            if let Some(first) = run.first() {
                self.send(way(first), run, &mut report);
            }
        }
        for frame in frames.drain() {
            pool.release(frame);
        }
        report.stalls = u32::from(report.full > 0);
        report
    }

    fn reclaim(&mut self, _pool: &mut PoolCache) {
        // The kernel has copied every frame.
    }
}
