//! The socket: bytes and file descriptors to messages, whole ones only.
//!
//! Never more than the current message is read, so that file descriptors cannot get to a wrong one: the kernel gives
//! them out with the first byte that they were sent with.

use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;

use super::message::{BadMessage, HEADER, Header, Message, REGIONS, Reply};

/// File descriptors that the kernel passes in one go (`SCM_MAX_FD`): with room for all, none gets lost.
const MOST_FDS: usize = 253;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("the front end closed the connection")]
    End,
    #[error("the front end does not read its answers")]
    Stuck,
    #[error("{0} file descriptors with one message")]
    Fds(usize),
    #[error("file descriptors were lost: {0}")]
    Truncated(&'static str),
    #[error(transparent)]
    Message(#[from] BadMessage),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
}

/// A connection, and the part of a message that has come.
pub(super) struct Connection {
    stream: UnixStream,
    header: Option<Header>,
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Connection {
    /// Takes over a stream.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, header: None, bytes: Vec::new(), fds: Vec::new() })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// The next message, if all of it has come.
    pub(super) fn receive(&mut self) -> Result<Option<Message>, Closed> {
        loop {
            let wanted = self.header.map_or(HEADER, |header| header.len);
            if let Some(missing) = wanted.checked_sub(self.bytes.len()).filter(|missing| *missing > 0) {
                if !self.read(missing)? {
                    return Ok(None);
                }
                continue;
            }
            let bytes = mem::take(&mut self.bytes);
            match (self.header.take(), bytes.first_chunk()) {
                (Some(header), _) => {
                    return Ok(Some(Message::parse(header, &bytes, mem::take(&mut self.fds))?));
                }
                (None, Some(header)) => self.header = Some(Header::parse(*header)?),
                (None, None) => {} // not with `wanted` bytes
            }
        }
    }

    /// Reads at most `len` bytes; false when there are none yet.
    fn read(&mut self, len: usize) -> Result<bool, Closed> {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        let result = receive(&self.stream, self.bytes.get_mut(start..).unwrap_or_default(), &mut self.fds);
        let count = result.as_ref().copied().unwrap_or(0);
        self.bytes.truncate(start + count);
        if self.fds.len() > REGIONS {
            return Err(Closed::Fds(self.fds.len()));
        }
        match result {
            Ok(0) => Err(Closed::End),
            Ok(_) => Ok(true),
            Err(Closed::Broken(e)) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(Closed::Broken(e)) if e.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(Closed::Broken(e)) if has_left(&e) => Err(Closed::End),
            Err(e) => Err(e),
        }
    }

    /// Sends an answer. It is short, and goes whole or not at all.
    pub(super) fn send(&mut self, reply: Reply) -> Result<(), Closed> {
        let bytes = reply.bytes();
        match self.stream.write(&bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(Closed::Stuck),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(Closed::Stuck),
            Err(e) if has_left(&e) => Err(Closed::End),
            Err(e) => Err(e.into()),
        }
    }
}

/// The front end is gone, without having read all that was sent to it: it was killed, or listens no more.
fn has_left(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// `recvmsg` with file descriptors, each of which is owned as soon as it is there.
fn receive(stream: &UnixStream, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Closed> {
    // SAFETY: arithmetic only.
    const CONTROL: usize = unsafe { libc::CMSG_SPACE((MOST_FDS * size_of::<RawFd>()) as u32) } as usize;
    let mut control = [0_u64; CONTROL.div_ceil(8)]; // aligned as a cmsghdr is
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    // SAFETY: everything that the message points to is valid, and as long as it says.
    let count = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel filled in the control buffer; the macros stay within it.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: not null, so a whole header.
        let libc::cmsghdr { cmsg_len, cmsg_level, cmsg_type, .. } = unsafe { *header };
        if (cmsg_level, cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: arithmetic only.
            let before = unsafe { libc::CMSG_LEN(0) } as usize;
            #[allow(clippy::unnecessary_cast)] // musl has another type
            let len = (cmsg_len as usize).saturating_sub(before);
            for i in 0..len / size_of::<RawFd>() {
                // SAFETY: within the header's length, new, and owned by nobody else.
                fds.push(unsafe {
                    let place = libc::CMSG_DATA(header).cast::<RawFd>().add(i);
                    OwnedFd::from_raw_fd(ptr::read_unaligned(place))
                });
            }
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(Closed::Truncated("this process may not open more"));
    }
    Ok(count)
}
