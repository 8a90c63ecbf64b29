//! An AF_XDP socket: made, bound to one queue of a device, kicked, closed.
//!
//! Closing is where care is needed, since the kernel lets go of chunks later than one thinks:
//!
//! * Receiving (copy mode) has ended when close(2) returns: unbinding waits for an RCU grace period, within which
//!   every receive path that saw the socket runs to its end.
//! * Sending (copy mode) may go on: some devices (virtio-net) send from the chunk itself, and a driver keeps such
//!   a frame for as long as it likes. Every such frame holds the socket.
//! * In zero-copy mode the device itself writes to chunks until the driver was told to stop, by a work item that
//!   runs some time after close.
//!
//! When the last of these is over the kernel frees the buffer pool, and the queue may be bound again. So where it
//! matters, a bind that succeeds is the proof; chunks that have no proof stay out of the pool rather than be
//! overwritten in flight, until a later bind brings it (see `unproven`). All chunks of idle ports and of ports on
//! veth come back with the first rule, at once.

use std::io;
use std::mem::{self, ManuallyDrop, MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use libc::c_int;

use super::device::new_socket;
use super::ring::{Completion, Fill, Rx, Tx};
use super::umem::{self, Lent};
use super::unproven;
use crate::pool::Pool;

/// Times that a bind is tried while the queue is busy, [`REST`] apart: 200 ms; a teardown was seen to take 32 ms.
pub(super) const BIND_TRIES: u32 = 100;
const REST: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Why a socket was not to be had.
#[derive(Debug)]
pub(super) enum SocketError {
    /// Somebody else's socket serves the queue.
    Busy,
    /// The kernel does not bind it in this way.
    Bind(io::Error),
    /// Anything before: which step, and what it said.
    Setup(&'static str, io::Error),
}

/// The four rings of one socket.
pub(super) struct Rings {
    pub(super) rx: Rx,
    pub(super) fill: Fill,
    pub(super) tx: Tx,
    pub(super) completion: Completion,
}

/// Which queue a socket serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    ifindex: u32,
    number: u32,
    /// The network namespace of the index.
    netns: u64,
}

/// A bound socket, shared by its receiving and its sending half; they and their mappings end before it does.
pub(super) struct Socket {
    fd: ManuallyDrop<OwnedFd>,
    pool: &'static Pool,
    queue: Queue,
    zerocopy: bool,
    gone: AtomicBool,
    /// What the halves had lent to the kernel when they ended.
    orphans: Mutex<Orphans>,
}

#[derive(Default)]
struct Orphans {
    received: Option<Lent>,
    sent: Option<Lent>,
}

impl Socket {
    /// Binds `queue` of a device with rings of `size` entries (a power of two); `flags` are those of bind(2).
    pub(super) fn bind(
        pool: &'static Pool,
        ifindex: u32,
        queue: u32,
        size: u32,
        flags: u16,
    ) -> Result<(Self, Rings), SocketError> {
        Self::bind_within(BIND_TRIES, pool, ifindex, queue, size, flags)
    }

    fn bind_within(
        tries: u32,
        pool: &'static Pool,
        ifindex: u32,
        queue: u32,
        size: u32,
        flags: u16,
    ) -> Result<(Self, Rings), SocketError> {
        let fd = new_socket(libc::AF_XDP, libc::SOCK_RAW).map_err(step("make a socket"))?;
        umem::register(fd.as_fd(), pool).map_err(step("register the frame pool"))?;
        let rings = map_rings(fd.as_fd(), size).map_err(step("make rings"))?;
        let netns = netns_of(fd.as_fd()).map_err(step("ask for the namespace"))?;
        let queue = Queue { ifindex, number: queue, netns };
        bind_when_free(tries, fd.as_fd(), queue, flags | libc::XDP_USE_NEED_WAKEUP)?;
        unproven::settle(queue);
        let options: libc::xdp_options = get_option(fd.as_fd(), libc::SOL_XDP, libc::XDP_OPTIONS)
            .map_err(step("ask for the socket's mode"))?;
        let socket = Self {
            fd: ManuallyDrop::new(fd),
            pool,
            queue,
            zerocopy: options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0,
            gone: AtomicBool::new(false),
            orphans: Mutex::default(),
        };
        Ok((socket, rings))
    }

    /// The device reads and writes chunks itself.
    pub(super) fn is_zerocopy(&self) -> bool {
        self.zerocopy
    }

    /// What it serves.
    #[cfg(test)]
    pub(super) fn queue(&self) -> Queue {
        self.queue
    }

    /// Readable when a frame is there.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The device was deleted.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Asks the kernel to send what is in the tx ring: in copy mode it does so within the call.
    pub(super) fn kick_tx(&self) -> io::Result<()> {
        // SAFETY: no buffer is given.
        let sent =
            unsafe { libc::sendto(self.fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
        self.judge(sent)
    }

    /// Asks the kernel to go on receiving, and whether it can.
    pub(super) fn kick_rx(&self) -> io::Result<()> {
        let (fd, flags) = (self.fd.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: no buffer is given.
        let got = unsafe { libc::recvfrom(fd, ptr::null_mut(), 0, flags, ptr::null_mut(), ptr::null_mut()) };
        self.judge(got)
    }

    fn judge(&self, result: isize) -> io::Result<()> {
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // ENXIO: unbound, since the device was deleted. It comes back as another device, if ever.
        if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV | libc::EBADFD)) {
            self.gone.store(true, Ordering::Relaxed);
        }
        Err(error)
    }

    /// The kernel's counters since the socket was bound.
    pub(super) fn statistics(&self) -> io::Result<libc::xdp_statistics> {
        get_option(self.fd(), libc::SOL_XDP, libc::XDP_STATISTICS)
    }

    /// Leaves what the receiving half had lent, to be reclaimed when the socket is closed.
    pub(super) fn leave_received(&self, lent: Lent) {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).received = Some(lent);
    }

    /// As [`Self::leave_received`], of the sending half.
    pub(super) fn leave_sent(&self, lent: Lent) {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).sent = Some(lent);
    }
}

impl Drop for Socket {
    /// Closes it and returns chunks to the pool, as the module's head says. Blocks for an RCU grace period (some
    /// ten milliseconds), so it is the port's guard that should come last.
    fn drop(&mut self) {
        let orphans = mem::take(self.orphans.get_mut().unwrap_or_else(PoisonError::into_inner));
        let Orphans { mut received, mut sent } = orphans;
        let in_use = [received.take_if(|_| self.zerocopy), sent.take_if(|lent| !lent.is_empty())];
        let mut has_some = false;
        // Before it is closed: whoever binds the queue next finds them.
        for lent in in_use.into_iter().flatten() {
            unproven::add(self.queue, lent);
            has_some = true;
        }
        // SAFETY: dropped here alone, and not used afterwards. The rings were unmapped before (a mapping would
        // keep the socket open): their owners hold an `Arc` of this.
        unsafe { ManuallyDrop::drop(&mut self.fd) };
        received.iter_mut().for_each(Lent::reclaim);
        if has_some {
            is_torn_down(self.queue, self.pool, BIND_TRIES);
        }
    }
}

/// Whether the socket that served the queue until now has ended in the kernel too, within so many tries to bind. What
/// it had lent goes back to the pool then.
pub(super) fn is_torn_down(queue: Queue, pool: &'static Pool, tries: u32) -> bool {
    // An index of another namespace would prove nothing.
    let here = new_socket(libc::AF_XDP, libc::SOCK_RAW).and_then(|fd| netns_of(fd.as_fd()));
    if !here.is_ok_and(|netns| netns == queue.netns) {
        return false;
    }
    // Nothing is received by the new one: its fill ring is empty.
    let bound = Socket::bind_within(tries, pool, queue.ifindex, queue.number, 1, libc::XDP_COPY);
    match bound {
        Ok((_, rings)) => drop(rings),
        // Deleted: unregistering the device ends its sockets before the index is free.
        Err(SocketError::Bind(e)) if e.raw_os_error() == Some(libc::ENODEV) => unproven::settle(queue),
        Err(_) => return false,
    }
    true
}

fn step(name: &'static str) -> impl FnOnce(io::Error) -> SocketError {
    move |source| SocketError::Setup(name, source)
}

fn map_rings(socket: BorrowedFd<'_>, size: u32) -> io::Result<Rings> {
    for ring in
        [libc::XDP_RX_RING, libc::XDP_TX_RING, libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING]
    {
        set_option(socket, libc::SOL_XDP, ring, &size)?;
    }
    let offsets: libc::xdp_mmap_offsets = get_option(socket, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
    let completion = libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t;
    let fill = libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t;
    Ok(Rings {
        rx: Rx::map(socket, libc::XDP_PGOFF_RX_RING, &offsets.rx, size)?,
        fill: Fill::map(socket, fill, &offsets.fr, size)?,
        tx: Tx::map(socket, libc::XDP_PGOFF_TX_RING, &offsets.tx, size)?,
        completion: Completion::map(socket, completion, &offsets.cr, size)?,
    })
}

/// Binds, waiting while a socket that was closed just before still holds the queue.
fn bind_when_free(tries: u32, socket: BorrowedFd<'_>, queue: Queue, flags: u16) -> Result<(), SocketError> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: queue.ifindex,
        sxdp_queue_id: queue.number,
        sxdp_shared_umem_fd: 0,
    };
    for tried in 1..=tries {
        let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
        // SAFETY: the address is live, and as long as it is said to be.
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(SocketError::Bind(error));
        }
        if tried == tries {
            break;
        }
        // The kernel tells nobody when a closed socket's teardown ends; asking again, at intervals and with an
        // end, is the only way.
        // SAFETY: reads a constant.
        unsafe { libc::nanosleep(&REST, ptr::null_mut()) };
    }
    Err(SocketError::Busy)
}

fn netns_of(socket: BorrowedFd<'_>) -> io::Result<u64> {
    get_option(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE)
}

pub(super) fn set_option<T>(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is live and as long as it is said to be; memory that it points to is the pool's, which is
    // never unmapped.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(value).cast(), len) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Only for structs of plain numbers. One that an older kernel knows in a shorter form is refused.
fn get_option<T: Copy>(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes.
    let got =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    if len as usize != size_of::<T>() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: plain numbers, of which zeros and whatever the kernel wrote are values.
    Ok(unsafe { value.assume_init() })
}
