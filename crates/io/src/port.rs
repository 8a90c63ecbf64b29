//! The contract between drivers and workers.

use std::io;
use std::os::fd::BorrowedFd;

use vswitch_wire::Caps;

use crate::{FrameVec, PoolCache};

/// Which driver serves a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// AF_XDP on an existing netdev.
    Xdp,
    /// A tap whose fd the switch holds.
    Tap,
    /// AF_PACKET with virtio-net headers on an existing netdev.
    Packet,
    /// A guest's virtio-net rings in shared memory.
    VhostUser,
    /// In memory: the switch itself as a station of its networks.
    Internal,
    /// In memory, for tests.
    Loopback,
}

/// Why a device could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such netdev, or it went while it was opened: the port waits for it.
    #[error("there is no netdev `{0}`")]
    NoDevice(String),
    /// This driver cannot serve the device; why, and how to mend it, in words.
    #[error("{0}")]
    Refused(String),
    /// The kernel refused a step.
    #[error("cannot {step}")]
    System {
        /// What was tried, as in `bind the socket`.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    /// For `map_err`: names the step that failed.
    pub(crate) fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { step, source }
    }
}

/// The device is lost to this driver; the port has to be opened anew.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The netdev was deleted (ENXIO, ENODEV, EBADFD).
    #[error("the device is gone")]
    Gone,
    /// Any other failure that does not pass by itself.
    #[error("the device failed")]
    Failed(#[source] io::Error),
}

/// One receive queue, owned by one worker.
pub trait RxQueue: Send {
    /// Appends received frames, at most `out.room()`, and returns how many; never blocks. Each frame has at
    /// least [`crate::pool::HEADROOM`] bytes before it, and its metadata set.
    ///
    /// # Errors
    /// [`PortError`] when the device is lost; a link that is down is no error.
    fn rx(&mut self, pool: &mut PoolCache, out: &mut FrameVec) -> Result<usize, PortError>;

    /// Asks to be woken: after this `fd` is readable when a frame is there, one that came before included. `rx` is
    /// called again now and then all the same, since a lost device or an empty pool wakes nobody.
    fn arm(&mut self);

    /// What an idle worker waits on.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Frames that were lost before this queue gave them out, since it was opened: dropped by the kernel, cut off,
    /// or with a vnet header that makes no sense.
    fn missed(&mut self) -> u64;
}

/// What became of the frames given to [`TxQueue::tx`]; their sum is the number of frames given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxReport {
    /// Handed to the kernel or the peer.
    pub sent: u32,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Dropped, since the queue stayed full.
    pub full: u32,
    /// Dropped, since the kernel refused them.
    pub refused: u32,
    /// Times that the kernel or the peer took nothing, or nothing more, however often asked (no frames: not in the
    /// sum).
    pub stalls: u32,
}

/// One way out of a port, owned by one worker. Queues of the same port may share a socket, behind a lock that one holds
/// for a batch.
pub trait TxQueue: Send {
    /// Takes every frame, sent or not; what is not sent goes back to the pool. Order is kept.
    fn tx(&mut self, pool: &mut PoolCache, frames: &mut FrameVec) -> TxReport;

    /// Takes back frames whose transmission has ended. Called now and then while the port is quiet too.
    fn reclaim(&mut self, pool: &mut PoolCache);
}

/// What is known of an open port, for the snapshot and for `port show`.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The driver.
    pub kind: Kind,
    /// Its mode in words, as in `native, copy` or `vnet headers`.
    pub mode: String,
    /// Receive queues of the device that are served.
    pub rx_queues: u32,
    /// The unfinished work it can send on.
    pub caps: Caps,
    /// The unfinished work that may come in by it.
    pub rx_caps: Caps,
    /// The largest MTU that this driver can carry on this device, in bytes (what a user would give `ip link set mtu`).
    pub mtu_limit: u32,
    /// The device's MTU when it was opened.
    pub mtu: u32,
    /// Where frames may pass by the [`crate::shortcut`]: the interface index of its netdev.
    pub shortcut_ifindex: Option<u32>,
    /// `Err(why)` where 802.1Q tags would be lost: the port must not be a trunk.
    pub vlan: Result<(), String>,
    /// Why this kind and mode were chosen, in words.
    pub why: String,
}

/// An open port.
pub struct Opened {
    /// Receive queues, to be spread over the workers.
    pub rx: Vec<Box<dyn RxQueue>>,
    /// One for each worker.
    pub tx: Vec<Box<dyn TxQueue>>,
    /// What is known of it.
    pub facts: Facts,
    /// Dropped by control after every queue is: holds what must outlive them (the bpf_link, chunks to
    /// reclaim).
    pub guard: Box<dyn Send>,
}
