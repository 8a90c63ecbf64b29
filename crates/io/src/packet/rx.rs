//! The receive queue.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};

use vswitch_wire::vlan::TPID_8021Q;
use vswitch_wire::{FrameBuf, FrameMeta, Tag, vnet};

use super::filter::{Filter, FilterError};
use super::ring::{Ring, Slot};
use super::socket::{Socket, VNET};
use crate::pool::LARGE_CAPACITY;
use crate::shortcut::Shortcut;
use crate::{Frame, FrameClass, FrameVec, PoolCache, PortError, RxQueue};

/// Slots of the ring, 1 MiB of memory that the kernel cannot swap, at every port: 1 ms at 0.5 Mpps, twenty times as
/// long as a worker takes to wake.
const SLOTS: usize = 512;
/// Bytes of large frames that may wait on the socket.
const WAITING: libc::c_int = 8 << 20;
/// How many slots ahead of the one that is read are asked for.
const PREFETCH: usize = 8;
/// A queue that is polled without pause looks for the device each time after so many empty polls.
const POLLS_PER_CHECK: u32 = 4096;

/// What became of one slot.
enum Received {
    Frame(Frame),
    /// Cut by the kernel, or its headers make no sense.
    Lost,
    /// The pool is empty: the slot was not touched.
    NoFrame,
}

/// The one receive queue of a device.
#[derive(Debug)]
pub(super) struct Rx {
    socket: Socket,
    filter: Result<Filter, FilterError>,
    ring: Ring,
    next: usize,
    missed: u64,
    empty_polls: u32,
    gone: bool,
    /// `missed` at the last look, where there was no filter and nothing in the ring, then and since.
    missed_while_empty: Option<u64>,
    /// A frame that no filter refused has blocked the ring (see `filter`).
    blocked: bool,
}

impl Rx {
    pub(super) fn open(ifindex: u32, shortcut: Option<&Shortcut>) -> io::Result<Self> {
        let socket = Socket::new()?;
        socket.set(libc::PACKET_IGNORE_OUTGOING, 1)?;
        socket.set(libc::PACKET_AUXDATA, 1)?;
        // Any value makes frames larger than a slot wait on the socket.
        socket.set(libc::PACKET_COPY_THRESH, 1)?;
        socket.set_buffer(libc::SO_RCVBUFFORCE, WAITING)?;
        let ring = Ring::map(&socket, SLOTS)?;
        socket.set(
            libc::PACKET_ADD_MEMBERSHIP,
            libc::packet_mreq {
                mr_ifindex: ifindex as i32,
                mr_type: libc::PACKET_MR_PROMISC as u16,
                mr_alen: 0,
                mr_address: [0; 8],
            },
        )?;
        let filter = Filter::attach(&socket, shortcut);
        socket.bind(ifindex, libc::ETH_P_ALL)?;
        Ok(Self {
            socket,
            filter,
            ring,
            next: 0,
            missed: 0,
            empty_polls: 0,
            gone: false,
            missed_while_empty: None,
            blocked: false,
        })
    }

    /// Whether frames have Ethernet headers.
    pub(super) fn is_ethernet(&self) -> io::Result<bool> {
        Ok(self.socket.name()?.sll_hatype == libc::ARPHRD_ETHER)
    }

    /// Whether frames may pass by the shortcut.
    pub(super) fn has_shortcut(&self) -> bool {
        self.filter.as_ref().is_ok_and(Filter::has_shortcut)
    }

    /// Why frames of an unknown GSO type are not refused.
    pub(super) fn unfiltered(&self) -> Option<&FilterError> {
        self.filter.as_ref().err()
    }

    /// The next frame that was too large for a slot. With several CPUs receiving it may be another one than that of
    /// the slot that said so; so everything about it is taken from the message.
    fn receive_waiting(&self, pool: &mut PoolCache) -> Received {
        let Some(mut frame) = pool.acquire(FrameClass::Large) else { return Received::NoFrame };
        frame.set_len(LARGE_CAPACITY);
        let mut header = [0; VNET];
        let mut control = Control([0; CONTROL]);
        let mut parts = [
            libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: VNET },
            libc::iovec { iov_base: frame.bytes_mut().as_mut_ptr().cast(), iov_len: LARGE_CAPACITY },
        ];
        // SAFETY: all zero is a valid message.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), parts.len());
        (message.msg_control, message.msg_controllen) = (control.0.as_mut_ptr().cast(), control.0.len());
        // The first call may tell a pending error (the link went down) instead, and clears it.
        let len = (0..2).find_map(|_| {
            // SAFETY: every part is as long as said and outlives the call.
            let len = unsafe { libc::recvmsg(self.socket.raw(), &raw mut message, libc::MSG_DONTWAIT) };
            usize::try_from(len).ok()
        });
        let Some(len) = len.and_then(|len| len.checked_sub(VNET)) else {
            pool.release(frame);
            return Received::Lost;
        };
        frame.set_len(len);
        let whole = message.msg_flags & libc::MSG_TRUNC == 0;
        match finish(frame, whole, &header, auxiliary_tag(&message), pool) {
            // Large frames are scarce: one that fits a wire frame moves, where there is one.
            Received::Frame(large) if large.bytes().len() <= crate::pool::WIRE_CAPACITY => {
                let Some(copy) = pool.copy(&large) else { return Received::Frame(large) };
                pool.release(large);
                Received::Frame(copy)
            }
            other => other,
        }
    }

    /// Notes whether the device still exists, and clears what poll would report for ever.
    fn check(&mut self) {
        self.empty_polls = 0;
        self.socket.clear_error();
        self.gone = self.socket.name().is_ok_and(|name| name.sll_ifindex <= 0);
        if self.filter.is_err() {
            self.look_for_block();
        }
    }

    /// The kernel drops frames for want of an empty slot, or of a vnet header. So a ring that was empty at the last
    /// look, gave out nothing since, and is empty, while frames were dropped, is blocked: there is no way but a new
    /// one.
    fn look_for_block(&mut self) {
        let is_empty = self.ring.slot(self.next).status() & libc::TP_STATUS_USER == 0;
        self.missed += u64::from(self.socket.dropped().unwrap_or(0));
        self.blocked |= is_empty && self.missed_while_empty.is_some_and(|before| before < self.missed);
        self.missed_while_empty = is_empty.then_some(self.missed);
    }
}

/// The frame in a slot that is ours.
fn receive(slot: Slot<'_>, status: u32, pool: &mut PoolCache) -> Received {
    let header = slot.header();
    let (start, len) = (header.tp_mac as usize, header.tp_snaplen as usize);
    let vnet = start.checked_sub(VNET).and_then(|at| slot.bytes(at, VNET)).and_then(<[u8]>::first_chunk);
    let (Some(vnet), Some(bytes)) = (vnet, slot.bytes(start, len)) else { return Received::Lost };
    let Some(mut frame) = pool.acquire(FrameClass::Wire) else { return Received::NoFrame };
    frame.set_len(len);
    frame.bytes_mut().copy_from_slice(bytes);
    let whole = header.tp_snaplen == header.tp_len;
    finish(frame, whole, vnet, tag(status, header.tp_vlan_tci, header.tp_vlan_tpid), pool)
}

/// Completes a received frame's metadata.
fn finish(
    mut frame: Frame,
    whole: bool,
    header: &[u8; VNET],
    tag: Option<Tag>,
    pool: &mut PoolCache,
) -> Received {
    match vnet::parse(header, frame.bytes()) {
        Ok(offload) if whole => {
            *frame.meta_mut() = FrameMeta { offload, tag };
            Received::Frame(frame)
        }
        _ => {
            pool.release(frame);
            Received::Lost
        }
    }
}

/// The tag that the kernel (or the device) took out of the bytes.
fn tag(status: u32, tci: u16, tpid: u16) -> Option<Tag> {
    let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { tpid } else { TPID_8021Q };
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(Tag { tpid, tci })
}

/// Bytes that a control message with a `tpacket_auxdata` needs at most.
const CONTROL: usize = 64;

/// Room for one, aligned as `cmsghdr` asks.
#[repr(align(8))]
struct Control([u8; CONTROL]);

/// The tag of a received message.
fn auxiliary_tag(message: &libc::msghdr) -> Option<Tag> {
    // SAFETY: the kernel filled in the message's control part, whose length it says.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(control) = header.as_ref() {
            if (control.cmsg_level, control.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
                let aux = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
                return tag(aux.tp_status, aux.tp_vlan_tci, aux.tp_vlan_tpid);
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

impl RxQueue for Rx {
    fn rx(&mut self, pool: &mut PoolCache, out: &mut FrameVec) -> Result<usize, PortError> {
        let mut count = 0;
        // A frame that is lost counts as one too, or a sender of such frames could keep us here.
        for _ in 0..out.room() {
            let slot = self.ring.slot(self.next);
            let status = slot.status();
            if status & libc::TP_STATUS_USER == 0 {
                break;
            }
            self.ring.slot(self.next + PREFETCH).prefetch();
            let received = if status & libc::TP_STATUS_COPY != 0 {
                self.receive_waiting(pool)
            } else {
                receive(slot, status, pool)
            };
            match received {
                Received::Frame(frame) => count += usize::from(out.push(frame).is_ok()),
                Received::Lost => self.missed += 1,
                Received::NoFrame => break,
            }
            slot.set_status(libc::TP_STATUS_KERNEL);
            self.next = self.ring.after(self.next);
            self.missed_while_empty = None;
        }
        if count > 0 {
            self.empty_polls = 0;
            return Ok(count);
        }
        self.empty_polls += 1;
        if self.empty_polls >= POLLS_PER_CHECK {
            self.check();
        }
        if self.blocked {
            let why = "a frame of an unknown GSO type has blocked the receive ring";
            return Err(PortError::Failed(io::Error::other(why)));
        }
        if self.gone { Err(PortError::Gone) } else { Ok(0) }
    }

    fn arm(&mut self) {
        // Poll looks at the ring itself; only an error has to be taken out of its way.
        self.check();
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn missed(&mut self) -> u64 {
        self.missed += u64::from(self.socket.dropped().unwrap_or(0));
        // The kernel does not count what a filter refuses.
        self.missed + self.filter.as_ref().map_or(0, |filter| filter.refused().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use libc::{TP_STATUS_USER, TP_STATUS_VLAN_TPID_VALID, TP_STATUS_VLAN_VALID, tpacket2_hdr};
    use vswitch_wire::Offload;

    use super::super::ring::SLOT;
    use super::*;
    use crate::{Pool, PoolConfig};

    /// The kernel's part: `frame` at `tp_mac` with a vnet header before it.
    fn header(mac: u16, snaplen: u32, len: u32) -> tpacket2_hdr {
        tpacket2_hdr {
            tp_status: TP_STATUS_USER,
            tp_len: len,
            tp_snaplen: snaplen,
            tp_mac: mac,
            tp_net: 0,
            tp_sec: 0,
            tp_nsec: 0,
            tp_vlan_tci: 0x600a,
            tp_vlan_tpid: 0x88a8,
            tp_padding: [0; 4],
        }
    }

    #[test]
    fn slots_are_taken_only_where_they_make_sense() {
        let pool = Pool::new(PoolConfig { wire: 4, large: 0 }).unwrap();
        let mut cache = pool.cache();
        let ring = Ring::anonymous(1).unwrap();
        let slot = ring.slot(0);
        let room = (SLOT - 76) as u32;
        for (header, whole) in [
            (header(76, 60, 60), true),
            (header(76, room, room), true),
            (header(76, room + 1, room + 1), false),
            (header(76, u32::MAX, u32::MAX), false),
            (header(76, 60, 61), false),
            (header(VNET as u16 - 1, 60, 60), false),
            (header(0, 60, 60), false),
            (header(u16::MAX, 60, 60), false),
            (header(SLOT as u16, 0, 0), true),
        ] {
            slot.set_header(header);
            let got = receive(slot, slot.status(), &mut cache);
            assert_eq!(matches!(got, Received::Frame(_)), whole, "{header:?}");
        }
        // A vnet header that speaks of unknown GSO.
        slot.write(76 - VNET, &[0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
        slot.set_header(header(76, 60, 60));
        assert!(matches!(receive(slot, TP_STATUS_USER, &mut cache), Received::Lost));
        drop(cache);
        assert_eq!(pool.free(FrameClass::Wire), 4);
    }

    #[test]
    fn an_empty_pool_leaves_the_slot_alone() {
        let pool = Pool::new(PoolConfig { wire: 1, large: 0 }).unwrap();
        let mut cache = pool.cache();
        let _taken = cache.acquire(FrameClass::Wire).unwrap();
        let ring = Ring::anonymous(1).unwrap();
        ring.slot(0).set_header(header(76, 60, 60));
        assert!(matches!(receive(ring.slot(0), TP_STATUS_USER, &mut cache), Received::NoFrame));
    }

    #[test]
    fn tags_need_their_flags() {
        let pool = Pool::new(PoolConfig { wire: 1, large: 0 }).unwrap();
        let mut cache = pool.cache();
        let ring = Ring::anonymous(1).unwrap();
        ring.slot(0).set_header(header(76, 60, 60));
        for (flags, tag) in [
            (0, None),
            (TP_STATUS_VLAN_TPID_VALID, None),
            (TP_STATUS_VLAN_VALID, Some(Tag::dot1q(0x600a))),
            (TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID, Some(Tag { tpid: 0x88a8, tci: 0x600a })),
        ] {
            let Received::Frame(frame) = receive(ring.slot(0), TP_STATUS_USER | flags, &mut cache) else {
                panic!("{flags:#x}")
            };
            assert_eq!(*frame.meta(), FrameMeta { offload: Offload::NONE, tag });
            cache.release(frame);
        }
    }
}
