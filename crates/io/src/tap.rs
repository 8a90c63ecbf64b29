//! A tap that the switch creates, or opens where it is persistent: it holds the fd, with vnet headers.
//!
//! One queue for each worker, for both directions. A read takes one frame: its first bytes go into a wire frame and
//! what is beyond into the back of a spare large one, so that small frames are never copied and a large one
//! only has its first bytes moved. The kernel may cut the frame of neither side: the netdev's offloads are set so that
//! GSO frames come in whole, and any kind may be written.
//!
//! The netdev belongs to the host; what its stack sends comes in by the port. A tap that was created here goes with
//! the last fd. What the netdev drops before it is read is counted in its own statistics (`tx_dropped`).

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use libc::{TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6};
use vswitch_wire::segment::{is_tunnelled, l4_header_end};
use vswitch_wire::{Caps, FrameBuf, vlan, vnet};

use crate::pool::{LARGE_CAPACITY, WIRE_CAPACITY};
use crate::port::{Facts, Kind, OpenError, Opened, PortError, RxQueue, TxQueue, TxReport};
use crate::{Frame, FrameClass, FrameVec, PoolCache, netdev};

/// The largest MTU of a tap: `IP_MAX_MTU` less the Ethernet header (drivers/net/tun.c).
const MTU_LIMIT: u32 = 65535 - 14;
/// Bytes of the vnet header before each frame.
const VNET: usize = vnet::HEADER_LEN;

/// Creates the tap `name` in the calling thread's network namespace, or opens it, with a queue for each of
/// `workers` workers. One that exists keeps its MTU and link state: see [`set_mtu`] and [`set_up`].
///
/// # Errors
/// [`OpenError`]; nothing is left behind then.
pub fn open(name: &str, workers: usize) -> Result<Opened, OpenError> {
    let queues = attach(name, workers)?;
    let mut uso = true;
    for queue in &queues {
        uso &= set_offloads(queue).map_err(OpenError::at("set the tap's offloads"))?;
    }
    let mtu = netdev::mtu(name).map_err(OpenError::at("read the tap's MTU"))?;
    let queues: Vec<_> = queues.into_iter().map(Arc::new).collect();
    let caps = Caps { uso, ..Caps::ALL };
    let rx = |file| Box::new(Rx { file: Arc::clone(file), spare: None, missed: 0 }) as Box<dyn RxQueue>;
    let tx = |file| Box::new(Tx(Arc::clone(file))) as Box<dyn TxQueue>;
    Ok(Opened {
        rx: queues.iter().map(rx).collect(),
        tx: queues.iter().cycle().take(workers).map(tx).collect(),
        facts: Facts {
            kind: Kind::Tap,
            mode: if uso { "vnet headers" } else { "vnet headers, no USO" }.to_owned(),
            rx_queues: queues.len() as u32,
            caps,
            rx_caps: caps,
            mtu_limit: MTU_LIMIT,
            mtu,
            vlan: Ok(()),
            shortcut_ifindex: None,
            why: "the switch holds the tap's fd".to_owned(),
        },
        guard: Box::new(()),
    })
}

/// Gives a tap of the calling thread's network namespace another MTU, in bytes.
///
/// # Errors
/// What the kernel said.
pub fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    netdev::set_mtu(name, mtu)
}

/// Sets the link of a tap of the calling thread's network namespace up.
///
/// # Errors
/// What the kernel said.
pub fn set_up(name: &str) -> io::Result<()> {
    netdev::set_up(name)
}

/// One queue for each worker, or a single one where the tap exists without `multi_queue`.
fn attach(name: &str, workers: usize) -> Result<Vec<File>, OpenError> {
    let multi = |count| (0..count).map(|_| attach_queue(name, libc::IFF_MULTI_QUEUE)).collect();
    let single = || attach_queue(name, 0).map(|file| vec![file]);
    let queues: io::Result<Vec<File>> = if workers > 1 { multi(workers) } else { single() };
    let queues = match queues {
        // An existing tap was made the other way.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            if workers > 1 {
                single()
            } else {
                multi(1)
            }
        }
        other => other,
    };
    queues.map_err(|e| match e.raw_os_error() {
        Some(libc::EBUSY) => OpenError::Refused(format!("the tap `{name}` is held by another program")),
        Some(libc::EINVAL) => {
            OpenError::Refused(format!("`{name}` exists and is no tap, or is no name of a netdev"))
        }
        Some(libc::E2BIG) => {
            OpenError::Refused(format!("the tap `{name}` has not as many queues as there are workers"))
        }
        _ => OpenError::System { step: "attach to the tap", source: e },
    })
}

fn attach_queue(name: &str, flags: libc::c_int) -> io::Result<File> {
    let mut request = netdev::request(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let flags = flags | libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: the kernel reads and writes an `ifreq`.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let header_len = VNET as libc::c_int;
    // SAFETY: the kernel reads an int.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header_len) })?;
    Ok(file)
}

/// Lets the netdev leave checksums and segmentation to us; whether that includes UDP (Linux 6.2).
fn set_offloads(file: &File) -> io::Result<bool> {
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    let set = |offloads: libc::c_uint| {
        // SAFETY: the argument is a plain integer.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) })
    };
    match set(tcp | TUN_F_USO4 | TUN_F_USO6) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => set(tcp).map(|()| false),
        other => other.map(|()| true),
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A receive queue.
#[derive(Debug)]
struct Rx {
    file: Arc<File>,
    /// Takes what is beyond the wire frame; its first [`WIRE_CAPACITY`] bytes are left free for that frame's bytes.
    spare: Option<Frame>,
    missed: u64,
}

/// What one read gave.
enum Received {
    Frame(Frame),
    /// Cut, since no large frame was left, or its headers make no sense.
    Lost,
    /// Nothing there, or no free frame to read into.
    Nothing,
}

impl Rx {
    fn read(&mut self, pool: &mut PoolCache) -> Result<Received, PortError> {
        if self.spare.is_none() {
            self.spare = pool.acquire(FrameClass::Large);
            self.spare.iter_mut().for_each(|spare| spare.set_len(LARGE_CAPACITY));
        }
        let Some(mut wire) = pool.acquire(FrameClass::Wire) else { return Ok(Received::Nothing) };
        wire.set_len(WIRE_CAPACITY);
        let mut header = [0; VNET];
        let beyond = self.spare.as_mut().map_or(&mut [][..], |spare| &mut spare.bytes_mut()[WIRE_CAPACITY..]);
        let limit = WIRE_CAPACITY + beyond.len();
        let mut parts = [&mut header[..], wire.bytes_mut(), beyond].map(IoSliceMut::new);
        let len = match (&*self.file).read_vectored(&mut parts) {
            Ok(len) => len.saturating_sub(VNET),
            Err(e) => {
                pool.release(wire);
                return match e.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => Ok(Received::Nothing),
                    // The netdev was deleted, or taken out of our namespace.
                    Some(libc::EBADFD | libc::ENODEV | libc::ENXIO) => Err(PortError::Gone),
                    _ => Err(PortError::Failed(e)),
                };
            }
        };
        let mut frame = self.assemble(wire, len, pool);
        match vnet::parse(&header, frame.bytes()) {
            // A frame that fills the whole buffer was cut: none of a netdev is as long.
            Ok(offload) if len < limit => {
                frame.meta_mut().offload = offload;
                Ok(Received::Frame(frame))
            }
            _ => {
                pool.release(frame);
                Ok(Received::Lost)
            }
        }
    }

    /// The frame of `len` bytes that begins in `wire` and may go on in the spare.
    fn assemble(&mut self, mut wire: Frame, len: usize, pool: &mut PoolCache) -> Frame {
        match self.spare.take_if(|_| len > WIRE_CAPACITY) {
            None => {
                wire.set_len(len.min(WIRE_CAPACITY));
                wire
            }
            Some(mut large) => {
                large.bytes_mut()[..WIRE_CAPACITY].copy_from_slice(wire.bytes());
                large.set_len(len);
                pool.release(wire);
                large
            }
        }
    }
}

impl RxQueue for Rx {
    fn rx(&mut self, pool: &mut PoolCache, out: &mut FrameVec) -> Result<usize, PortError> {
        let mut count = 0;
        // A frame that is lost counts as one too, or a sender of such frames could keep us here.
        for _ in 0..out.room() {
            match self.read(pool) {
                Ok(Received::Frame(frame)) => count += usize::from(out.push(frame).is_ok()),
                Ok(Received::Lost) => self.missed += 1,
                Ok(Received::Nothing) => break,
                // What came before is worth having; the error comes again.
                Err(_) if count > 0 => break,
                Err(e) => {
                    self.spare.take().into_iter().for_each(|spare| pool.release(spare));
                    return Err(e);
                }
            }
        }
        // Large frames are few: a quiet tap keeps none.
        self.spare.take().into_iter().for_each(|spare| pool.release(spare));
        Ok(count)
    }

    fn arm(&mut self) {
        // A tap is always readable while a frame waits.
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn missed(&mut self) -> u64 {
        self.missed
    }
}

/// A way out. Several may share a queue: one write is one frame.
#[derive(Debug)]
struct Tx(Arc<File>);

impl Tx {
    fn send(&self, frame: &mut Frame, report: &mut TxReport) {
        let pushed = vlan::push(frame);
        let (bytes, offload) = (frame.bytes(), frame.meta().offload);
        // Given a tunnel to cut, the kernel would take the frame and drop it later, uncounted.
        if pushed.is_err() || offload.check(bytes).is_err() || is_tunnelled(bytes, &offload) {
            report.refused += 1;
            return;
        }
        // A hint: the kernel copies so many bytes into the packet's linear part.
        let header_len = l4_header_end(bytes, &offload).and_then(|len| u16::try_from(len).ok());
        let header = vnet::emit(offload, header_len.unwrap_or(0));
        match (&*self.0).write_vectored(&[IoSlice::new(&header), IoSlice::new(bytes)]) {
            Ok(_) => {
                report.sent += 1;
                report.sent_bytes += bytes.len() as u64;
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM)) => {
                report.full += 1;
            }
            // EIO while the link is down.
            Err(_) => report.refused += 1,
        }
    }
}

impl TxQueue for Tx {
    fn tx(&mut self, pool: &mut PoolCache, frames: &mut FrameVec) -> TxReport {
        let mut report = TxReport::default();
        for mut frame in frames.drain() {
            self.send(&mut frame, &mut report);
            pool.release(frame);
        }
        report.stalls = u32::from(report.full > 0);
        report
    }

    fn reclaim(&mut self, _pool: &mut PoolCache) {
        // The kernel has copied every frame.
    }
}
