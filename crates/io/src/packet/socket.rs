//! A packet socket and its options.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Bytes of the vnet header before each frame.
pub(super) const VNET: usize = vswitch_wire::vnet::HEADER_LEN;

/// A raw packet socket with vnet headers, of no protocol yet: it receives nothing until it is bound to one.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: plain integers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new fd that nobody else owns.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        socket.set(libc::PACKET_VNET_HDR, 1)?;
        Ok(socket)
    }

    /// Binds it to a device. `protocol` in host order; 0 receives nothing.
    pub(super) fn bind(&self, ifindex: u32, protocol: libc::c_int) -> io::Result<()> {
        // SAFETY: all zero is a valid address.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (protocol as u16).to_be();
        address.sll_ifindex = ifindex as i32;
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is as long as said.
        check(unsafe { libc::bind(self.raw(), (&raw const address).cast(), len) })
    }

    /// What it is bound to; `sll_ifindex` is -1 once the device is deleted.
    pub(super) fn name(&self) -> io::Result<libc::sockaddr_ll> {
        // SAFETY: all zero is a valid address.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        let mut len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes.
        check(unsafe { libc::getsockname(self.raw(), (&raw mut address).cast(), &raw mut len) })?;
        Ok(address)
    }

    /// Sets an option of SOL_PACKET. `T` must be what the kernel expects for it, without padding.
    pub(super) fn set<T>(&self, option: libc::c_int, value: T) -> io::Result<()> {
        self.set_at(libc::SOL_PACKET, option, value)
    }

    /// Lets so many bytes wait, beyond the host's limit for ordinary programs.
    pub(super) fn set_buffer(&self, option: libc::c_int, bytes: libc::c_int) -> io::Result<()> {
        self.set_at(libc::SOL_SOCKET, option, bytes)
    }

    /// Puts a program before the socket, which sees each frame first and says how many of its bytes are kept.
    pub(super) fn filter(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        self.set_at(libc::SOL_SOCKET, libc::SO_ATTACH_BPF, program.as_raw_fd())
    }

    fn set_at<T>(&self, level: libc::c_int, option: libc::c_int, value: T) -> io::Result<()> {
        let len = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel reads at most `len` bytes of `value`.
        check(unsafe { libc::setsockopt(self.raw(), level, option, (&raw const value).cast(), len) })
    }

    /// Takes and clears the pending error, without which poll would report it for ever.
    pub(super) fn clear_error(&self) {
        let mut error: libc::c_int = 0;
        let mut len = size_of_val(&error) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes.
        unsafe {
            libc::getsockopt(
                self.raw(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &raw mut len,
            )
        };
    }

    /// Frames dropped since the last call.
    pub(super) fn dropped(&self) -> io::Result<u32> {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = size_of_val(&stats) as libc::socklen_t;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
        // SAFETY: the kernel writes at most `len` bytes.
        check(unsafe { libc::getsockopt(self.raw(), level, option, (&raw mut stats).cast(), &raw mut len) })?;
        Ok(stats.tp_drops)
    }

    pub(super) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
