//! A netdev that is to be a port. Asked by rtnetlink and ioctl rather than in sysfs, which shows the namespace
//! that it was mounted in; these answer for the caller's own.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr;

use super::link::Link;
use super::socket::set_option;
use crate::netdev;

const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// A netdev of the calling thread's network namespace.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) ifindex: u32,
    pub(super) family: Family,
    /// Bytes, without the Ethernet header.
    pub(super) mtu: u32,
    pub(super) queues: Queues,
}

/// What kinds of device differ in for AF_XDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// One end of a veth pair: tags beside the frame, checksums unfinished.
    Veth,
    /// The netdev of a tun/tap fd: tags in the frame, checksums unfinished.
    Tun,
    /// Anything with a bus behind it.
    Hardware,
    /// A device without Ethernet frames.
    NotEthernet,
    /// Anything else, by its kind.
    Other(String),
}

/// Queues in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queues {
    pub(super) rx: u32,
    pub(super) tx: u32,
}

impl Device {
    /// # Errors
    /// ENODEV where there is none of that name.
    pub(super) fn find(name: &str) -> io::Result<Self> {
        let link = Link::find(name)?;
        let family = match link.kind.as_deref() {
            _ if !link.is_ethernet => Family::NotEthernet,
            Some("veth") => Family::Veth,
            Some("tun") => Family::Tun,
            None if link.has_parent => Family::Hardware,
            kind => Family::Other(kind.unwrap_or("virtual").to_owned()),
        };
        let queues = queues(name)?;
        Ok(Self { name: name.to_owned(), ifindex: link.ifindex, family, mtu: link.mtu, queues })
    }
}

/// Receive queues that a netdev has now, of the calling thread's network namespace.
///
/// # Errors
/// ENODEV where there is none of that name.
pub fn rx_queue_count(netdev: &str) -> io::Result<u32> {
    queues(netdev).map(|queues| queues.rx)
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

fn queues(name: &str) -> io::Result<Queues> {
    let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
    // SAFETY: GCHANNELS fills in the struct.
    match unsafe { ethtool(name, &mut channels) } {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(queues_in_sysfs(name)),
        answer => answer.map(|()| Queues {
            rx: channels.rx.saturating_add(channels.combined).max(1),
            tx: channels.tx.saturating_add(channels.combined).max(1),
        }),
    }
}

/// For drivers that do not say by ethtool (tun): sysfs has a folder for each queue. One queue where it has none.
fn queues_in_sysfs(name: &str) -> Queues {
    let folder = Path::new("/sys/class/net").join(name).join("queues");
    let count = |prefix: &str| {
        let entries = folder.read_dir().into_iter().flatten().flatten();
        let queues = entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).count();
        (queues as u32).max(1)
    };
    Queues { rx: count("rx-"), tx: count("tx-") }
}

/// Runs an ethtool command on a netdev.
///
/// # Safety
/// `command` is the struct that its first word, the command's number, asks for.
pub(super) unsafe fn ethtool<T: ?Sized>(name: &str, command: &mut T) -> io::Result<()> {
    let mut request = netdev::request(name)?;
    request.ifr_ifru.ifru_data = ptr::from_mut(command).cast();
    let socket = new_socket(libc::AF_UNIX, libc::SOCK_DGRAM)?;
    // SAFETY: the request is live and points to the command, which is; its size is the caller's promise.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Keeps a device in promiscuous mode while it lives: a switch receives frames for everyone. The kernel counts
/// who asks for it, and forgets us when the process ends.
pub(super) fn promiscuous(ifindex: u32) -> io::Result<OwnedFd> {
    let socket = new_socket(libc::AF_PACKET, libc::SOCK_RAW)?; // of protocol 0: it receives nothing
    let membership = libc::packet_mreq {
        mr_ifindex: ifindex as libc::c_int,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
    Ok(socket)
}

/// A socket of protocol 0, closed on exec.
pub(super) fn new_socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const _: () = assert!(size_of::<Channels>() == 36);
