//! What the kernel says of a netdev over rtnetlink: one RTM_GETLINK, asked by name.

use std::io;
use std::os::fd::AsRawFd;

use super::device::new_socket;

/// Within IFLA_XDP; libc does not name it.
const IFLA_XDP_PROG_ID: u16 = 4;
/// The low bits of an attribute's type; the rest are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// Bytes of `struct nlmsghdr` and `struct ifinfomsg`.
const HEADERS: usize = 16 + 16;

/// A netdev of the calling thread's network namespace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) ifindex: u32,
    /// Its frames are Ethernet's.
    pub(super) is_ethernet: bool,
    /// Bytes, without the Ethernet header.
    pub(super) mtu: u32,
    /// The kind of a device that is made by software, as `veth`.
    pub(super) kind: Option<String>,
    /// Whether a device with a bus is behind it.
    pub(super) has_parent: bool,
    /// The number of the XDP program attached to it, 0 for several.
    pub(super) xdp_program: Option<u32>,
}

impl Link {
    /// # Errors
    /// ENODEV where there is none of that name.
    pub(super) fn find(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.bytes().any(|b| b == 0) {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let socket = new_socket(libc::AF_NETLINK, libc::SOCK_RAW)?; // protocol 0 is NETLINK_ROUTE
        let request = request(name);
        // SAFETY: the buffer is as long as is said. An unconnected netlink socket sends to the kernel.
        let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut answer = vec![0_u8; 32 << 10];
        // SAFETY: the buffer is as long as is said.
        let len = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
        answer.truncate(usize::try_from(len).map_err(|_| io::Error::last_os_error())?);
        parse(&answer)
    }
}

/// RTM_GETLINK with the name as its one attribute, zero-terminated and padded.
fn request(name: &str) -> Vec<u8> {
    let padded = (name.len() + 1).next_multiple_of(4);
    let mut out = Vec::with_capacity(HEADERS + 4 + padded);
    out.extend(((HEADERS + 4 + padded) as u32).to_ne_bytes());
    out.extend(libc::RTM_GETLINK.to_ne_bytes());
    out.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    out.resize(HEADERS, 0);
    out.extend(((4 + name.len() + 1) as u16).to_ne_bytes());
    out.extend(libc::IFLA_IFNAME.to_ne_bytes());
    out.extend(name.as_bytes());
    out.resize(HEADERS + 4 + padded, 0);
    out
}

fn parse(answer: &[u8]) -> io::Result<Link> {
    let strange = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = half(answer, 4).ok_or_else(strange)?;
    if kind == libc::NLMSG_ERROR as u16 {
        let errno = word(answer, 16).ok_or_else(strange)? as i32;
        return Err(io::Error::from_raw_os_error(errno.wrapping_neg()));
    }
    let body = answer.get(HEADERS..).filter(|_| kind == libc::RTM_NEWLINK).ok_or_else(strange)?;
    let is_ethernet = half(answer, 18) == Some(libc::ARPHRD_ETHER);
    let ifindex = word(answer, 20).ok_or_else(strange)?;
    let mut link = Link { ifindex, is_ethernet, mtu: 0, kind: None, has_parent: false, xdp_program: None };
    for (kind, value) in attributes(body) {
        match kind {
            libc::IFLA_MTU => link.mtu = word(value, 0).unwrap_or(0),
            libc::IFLA_LINKINFO => {
                let name =
                    attributes(value).find(|&(kind, _)| kind == libc::IFLA_INFO_KIND).map(|(_, name)| name);
                link.kind = name.map(|n| String::from_utf8_lossy(n).trim_end_matches('\0').to_owned());
            }
            libc::IFLA_PARENT_DEV_NAME => link.has_parent = true,
            libc::IFLA_XDP => {
                let id = attributes(value).find(|&(kind, _)| kind == IFLA_XDP_PROG_ID);
                link.xdp_program = id.and_then(|(_, id)| word(id, 0));
            }
            _ => {}
        }
    }
    Ok(link)
}

/// Type and value of each attribute; ends at the first that does not fit.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (len, kind) = (half(bytes, 0)? as usize, half(bytes, 2)? & NLA_TYPE_MASK);
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_namespace_has_a_loopback() {
        let link = Link::find("lo").unwrap();
        assert_eq!((link.ifindex, link.kind, link.has_parent, link.xdp_program), (1, None, false, None));
        assert!(link.mtu > 0);
    }

    #[test]
    fn no_such_device() {
        for name in ["", "no-such-device", "longer-than-sixteen-bytes", "a\0b"] {
            assert_eq!(Link::find(name).unwrap_err().raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), is_link: bool) {
            if is_link && bytes.len() > 6 {
                bytes[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
            }
            let _ = parse(&bytes);
        }
    }
}
