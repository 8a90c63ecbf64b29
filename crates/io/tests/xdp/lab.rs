//! A switch in a namespace of the test's own thread, and hosts behind its veths.

use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::ptr;

use super::net::Netns;

/// Moves the calling thread, which is the switch, into a new namespace; it goes with the thread.
pub(crate) fn enter_switch() {
    // SAFETY: moves the calling thread only.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "these tests need root");
}

/// Runs a command in the thread's namespace and returns what it printed; panics when it fails.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The far end of a veth: the netdev `eth` of its own namespace.
pub(crate) struct Host(Netns);

impl Host {
    /// A host behind the switch's netdev `name`; `options` go to the netdevs' creation on both sides.
    pub(crate) fn new(name: &str, options: &str) -> Self {
        let host = Self(Netns::new());
        let netns = host.inside(|| File::open("/proc/thread-self/ns/net").unwrap());
        let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        run(&format!("ip link add name {name} {options} type veth peer name eth {options} netns {path}"));
        run(&format!("ip link set dev {name} up"));
        host.0.ip("link set dev eth up");
        host
    }

    /// Runs `f` in the host's namespace.
    pub(crate) fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.0.within(f)
    }

    /// The host's namespace.
    pub(crate) fn netns(&self) -> &Netns {
        &self.0
    }

    /// A raw socket on the host's netdev that sees what arrives.
    pub(crate) fn socket(&self) -> RawSocket {
        self.inside(RawSocket::new)
    }
}

/// AF_PACKET with auxiliary data.
pub(crate) struct RawSocket(OwnedFd);

/// A frame that arrived, and the TCI that the host's stack took out of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tci: Option<u16>,
}

impl RawSocket {
    fn new() -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: plain system calls; the fd is new.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            Self(OwnedFd::from_raw_fd(fd))
        };
        for (name, value) in [(libc::PACKET_AUXDATA, 1), (libc::PACKET_IGNORE_OUTGOING, 1)] {
            socket.set(libc::SOL_PACKET, name, &value);
        }
        socket.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &libc::timeval { tv_sec: 2, tv_usec: 0 });
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(8 << 20));
        // SAFETY: plain numbers; the name ends with a zero; the address is as long as is said.
        unsafe {
            let mut address: libc::sockaddr_ll = zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol;
            address.sll_ifindex = libc::if_nametoindex(c"eth".as_ptr()) as i32;
            let len = size_of::<libc::sockaddr_ll>() as u32;
            assert_eq!(libc::bind(socket.0.as_raw_fd(), (&raw const address).cast(), len), 0);
        }
        socket
    }

    fn set<T>(&self, level: i32, name: i32, value: &T) {
        let (value, len) = (ptr::from_ref(value).cast(), size_of::<T>() as u32);
        // SAFETY: the value is as long as is said.
        assert_eq!(unsafe { libc::setsockopt(self.0.as_raw_fd(), level, name, value, len) }, 0);
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: the buffer is as long as is said.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// The next frame of the tests' own EtherType; `None` after two seconds without any frame.
    pub(crate) fn receive(&self) -> Option<Arrived> {
        loop {
            let arrived = self.receive_any()?;
            if arrived.bytes[12..14] == super::ETHERTYPE {
                return Some(arrived);
            }
        }
    }

    fn receive_any(&self) -> Option<Arrived> {
        let mut bytes = vec![0; 70000];
        let mut control = [0_u64; 32];
        let mut io = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the message's pointers go to live buffers of the lengths said; the control message is read as
        // the struct that its type says.
        unsafe {
            let mut message: libc::msghdr = zeroed();
            message.msg_iov = &raw mut io;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control) as _;
            let len = libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0);
            bytes.truncate(usize::try_from(len).ok()?);
            let aux = libc::CMSG_FIRSTHDR(&raw const message);
            assert!(!aux.is_null() && (*aux).cmsg_type == libc::PACKET_AUXDATA);
            let aux: libc::tpacket_auxdata = ptr::read_unaligned(libc::CMSG_DATA(aux).cast());
            let tagged = aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
            Some(Arrived { bytes, tci: tagged.then_some(aux.tp_vlan_tci) })
        }
    }
}
