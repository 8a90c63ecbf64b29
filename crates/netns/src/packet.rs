//! Raw frames in and out of a link: what tests send as an attacker and see as a witness.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{Error, Namespace, Result};

/// Room for a 64 KiB GSO packet and its header.
const FRAME_MAX: usize = 65536 + 256;
/// Receive buffer in bytes: a witness must not lose frames of a burst.
const RECEIVE_BUFFER: libc::c_int = 16 << 20;
/// Offset of an 802.1Q tag in a frame: behind the two addresses.
const TAG_OFFSET: usize = 12;

/// A packet socket on one link (packet(7)): sends frames as they are, receives everything that comes out of
/// the link, with a VLAN tag that the kernel carries beside the frame put back into it.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    link: String,
}

impl PacketSocket {
    /// Opens a socket on a link of `namespace`; from here on no frame is missed.
    pub fn open(namespace: &Namespace, link: &str) -> Result<Self> {
        let index = namespace.link(link)?.ok_or_else(|| Error::NoLink(link.to_owned()))?.index;
        let socket = namespace
            .enter(|| open_bound(index))?
            .map_err(Error::system(format!("open a packet socket on {link}")))?;
        Ok(Self { socket, link: link.to_owned() })
    }

    /// Sends one frame, from its destination address to the end of its payload.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        nix::unistd::write(&self.socket, frame).map(drop).map_err(Error::errno(format!(
            "send a frame of {} bytes on {}",
            frame.len(),
            self.link
        )))
    }

    /// The next frame that came out of the link; `None` if there is none within `timeout`.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, timeout) {
                Ok(0) => return Ok(None),
                Ok(_) => {
                    let frame = receive_one(&self.socket);
                    return frame.map(Some).map_err(Error::system(format!("receive on {}", self.link)));
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::errno(format!("wait on {}", self.link))(errno)),
            }
        }
    }

    /// Every frame that has come out of the link and was not yet received.
    pub fn drain(&self) -> Result<Vec<Vec<u8>>> {
        std::iter::from_fn(|| self.receive(Duration::ZERO).transpose()).collect()
    }
}

#[allow(unsafe_code)]
fn open_bound(index: u32) -> io::Result<OwnedFd> {
    // Protocol 0 receives nothing until bind, so that no frame of another link gets in between.
    // SAFETY: the call takes three integers.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    // Frames to other stations are what a witness looks for.
    // SAFETY: an all-zero packet_mreq is valid.
    let mut membership: libc::packet_mreq = unsafe { std::mem::zeroed() };
    membership.mr_ifindex = index as i32;
    membership.mr_type = libc::PACKET_MR_PROMISC as u16;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, membership)?;
    // SAFETY: an all-zero sockaddr_ll is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address lives across the call and its length is its own.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

#[allow(unsafe_code)]
fn set_option<T>(socket: &OwnedFd, level: i32, option: i32, value: T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value lives across the call and its length is its own.
    Errno::result(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length)
    })?;
    Ok(())
}

/// Receives one frame and puts its VLAN tag back (packet(7), `PACKET_AUXDATA`).
#[allow(unsafe_code)]
fn receive_one(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; FRAME_MAX];
    let mut control = [0_u64; 16];
    let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
    // SAFETY: an all-zero msghdr is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message points to buffers that live across the call, with their own lengths.
    let length = Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) })?;
    frame.truncate(length as usize);
    // SAFETY: the kernel has filled in the control buffer and its length; CMSG_FIRSTHDR checks it.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: a header that is not null points into `control`, which is aligned for it.
    let Some(head) = (unsafe { header.as_ref() }) else { return Ok(frame) };
    if head.cmsg_level == libc::SOL_PACKET && head.cmsg_type == libc::PACKET_AUXDATA {
        // SAFETY: the kernel writes a whole tpacket_auxdata behind a header of this type.
        let aux = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
        put_tag_back(&mut frame, &aux);
    }
    Ok(frame)
}

fn put_tag_back(frame: &mut Vec<u8>, aux: &libc::tpacket_auxdata) {
    if aux.tp_status & libc::TP_STATUS_VLAN_VALID == 0 || frame.len() < TAG_OFFSET {
        return;
    }
    let has_tpid = aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let tpid = if has_tpid { aux.tp_vlan_tpid } else { libc::ETH_P_8021Q as u16 };
    let tag = [tpid.to_be_bytes(), aux.tp_vlan_tci.to_be_bytes()].concat();
    frame.splice(TAG_OFFSET..TAG_OFFSET, tag);
}
