//! The front end's side of the protocol.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::super::message::{Header, Message};
use super::super::session::Session;
use super::{Device, Driver, Features, Guest, PHYSICAL, USER};

/// A message, as it is sent.
pub struct Order {
    /// What is asked for.
    pub number: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// Goes with it.
    pub fds: Vec<OwnedFd>,
}

impl Order {
    /// A message of these words.
    pub fn new(number: u32, words: &[u32]) -> Self {
        Self { number, payload: words.iter().flat_map(|word| word.to_ne_bytes()).collect(), fds: Vec::new() }
    }

    /// A message of these long words.
    pub fn long(number: u32, words: &[u64]) -> Self {
        Self { number, payload: words.iter().flat_map(|word| word.to_ne_bytes()).collect(), fds: Vec::new() }
    }

    /// With a file descriptor.
    #[must_use]
    pub fn with(mut self, fd: &impl AsFd) -> Self {
        self.fds.push(fd.as_fd().try_clone_to_owned().expect("an fd"));
        self
    }

    /// As on the wire, less the descriptors.
    pub fn bytes(&self, need_reply: bool) -> Vec<u8> {
        let flags = 1 | u32::from(need_reply) << 3;
        let header = [self.number, flags, self.payload.len() as u32].map(u32::to_ne_bytes);
        [header.as_flattened(), &self.payload].concat()
    }
}

/// A front end's eventfds.
pub struct Frontend {
    /// For the ring that the guest receives by, and the one that it transmits by.
    pub kick: [EventFd; 2],
    /// As `kick`.
    pub call: [EventFd; 2],
}

impl Default for Frontend {
    fn default() -> Self {
        let pair = || [0, 1].map(|_| EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("an eventfd"));
        Self { kick: pair(), call: pair() }
    }
}

impl Frontend {
    /// What agrees upon features and shares memory, in QEMU's order.
    pub fn negotiate(guest: &Guest, features: Features) -> Vec<Order> {
        vec![
            Order::new(1, &[]),
            Order::new(15, &[]),
            Order::long(16, &[1 | 1 << 3]), // MQ, REPLY_ACK
            Order::new(17, &[]),
            Order::new(3, &[]),
            Order::new(18, &[0, 1]), // before any feature is set
            Order::long(2, &[features.bits()]),
            Self::mem_table(guest),
        ]
    }

    /// The guest's memory, all of it.
    pub fn mem_table(guest: &Guest) -> Order {
        Order::long(5, &[1, PHYSICAL, guest.memory.size(), USER, 0]).with(&guest.memory.fd())
    }

    /// What starts both rings.
    pub fn start(&self, guest: &Guest) -> Vec<Order> {
        self.start_at(guest, [&guest.rx, &guest.tx].map(Driver::base))
    }

    /// The same, where the front end says that they are: of packed ones it does not know it once the back end was killed,
    /// and says where they were when it started them last.
    pub fn start_at(&self, guest: &Guest, bases: [u32; 2]) -> Vec<Order> {
        let mut orders = Vec::new();
        for ((index, ring), base) in (0..).zip([&guest.rx, &guest.tx]).zip(bases) {
            let [descriptors, driver, device] = ring.areas();
            let mut address = Order::new(9, &[index, 0]);
            address.payload.extend(Order::long(9, &[descriptors, device, driver, 0]).payload);
            orders.extend([
                Order::new(8, &[index, ring.size().into()]),
                Order::new(10, &[index, base]),
                address,
                Order::long(12, &[index.into()]).with(&self.kick[index as usize]),
                Order::long(13, &[index.into()]).with(&self.call[index as usize]),
                Order::new(18, &[index, 1]),
            ]);
        }
        orders
    }
}

/// A session of the switch's, without a socket.
pub struct Exchange(Session);

impl Default for Exchange {
    fn default() -> Self {
        Self(Session::new(Arc::new(Device::new(2, None).expect("eventfds"))))
    }
}

impl Exchange {
    /// Gives the session a message; false when it was refused.
    pub fn obey(&mut self, order: &Order) -> bool {
        let bytes = order.bytes(true);
        let (header, payload) = bytes.split_first_chunk().expect("a header");
        let fds = order.fds.iter().map(|fd| fd.try_clone().expect("an fd")).collect();
        let message = Header::parse(*header).and_then(|header| Message::parse(header, payload, fds));
        message.is_ok_and(|message| self.0.on_message(message).is_ok())
    }
}

/// Sends a message over a socket.
///
/// # Errors
/// The other end has closed it.
pub fn send(stream: &UnixStream, order: &Order, need_reply: bool) -> io::Result<()> {
    let fds: Vec<_> = order.fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    let bytes = order.bytes(need_reply);
    sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Reads an answer: the request's number, and eight bytes.
///
/// # Errors
/// The other end has closed the socket.
pub fn answer(mut stream: &UnixStream) -> io::Result<(u32, u64)> {
    let mut bytes = [0; 20];
    stream.read_exact(&mut bytes)?;
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    assert_eq!((word(4), word(8)), (1 | 1 << 2, 8), "an odd answer");
    Ok((word(0), u64::from(word(12)) | u64::from(word(16)) << 32))
}

/// How often an eventfd was signalled since it was last asked.
pub fn signals(event: &EventFd) -> u64 {
    event.read().unwrap_or(0)
}

/// Gives an eventfd a count by which it can be told from others.
pub fn mark(event: &EventFd, count: u64) {
    signals(event);
    event.write(count).expect("there is room");
}

/// How many descriptors of this process are eventfds of this count.
pub fn marked(count: u64) -> usize {
    let count = format!("{count:x}");
    let fds = std::fs::read_dir("/proc/self/fdinfo").expect("procfs");
    // One that another thread closes meanwhile is none.
    let infos = fds.flatten().filter_map(|fd| std::fs::read_to_string(fd.path()).ok());
    let counts = |info: &String| {
        info.lines().filter_map(|line| line.strip_prefix("eventfd-count:")).any(|it| it.trim() == count)
    };
    infos.filter(counts).count()
}
