//! AF_XDP: the fast path of small frames, and of NICs.
//!
//! A port is one socket for each rx queue of the device, a program that sends every frame to the socket of its
//! queue, and a bpf_link that holds the program to the device for as long as the port is open (so it goes with
//! the process, however that ends). Frames cross from port to port by their address in the pool: see `umem`.
//!
//! What AF_XDP does not say about a frame has to be known otherwise, or frames would be wrong or, worse, in the
//! wrong VLAN:
//!
//! * *VLAN tags.* A veth carries them beside the frame, and NICs take them out of it. On a veth the program asks the
//!   driver for the tag; a NIC is told to leave tags in frames while the port is open. Where neither can be had the
//!   device is not opened at all, as access port neither: a frame of any VLAN would look untagged, and so get into
//!   the port's own network. The `packet` kind serves such a device.
//! * *Unfinished checksums.* On veth and tap the sender may leave them to a device that is not there. They are
//!   recognised by their value.
//! * *GSO.* There is none: the kernel turns it off at a veth's other end when the program is attached. A tap's
//!   guest is not told; its large frames arrive as chains of buffers without their segment size. Those of TCP
//!   are taken for segments of the device's MTU, those of UDP are too big for anyone. Such a guest is better served by
//!   the `packet` kind.
//!
//! Threads: queues belong to workers; opening and dropping the guard to control. Both may block, for a fifth of a
//! second at worst.

mod device;
mod features;
mod link;
mod program;
mod ring;
mod rx;
mod socket;
mod tx;
mod umem;
mod unproven;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use vswitch_wire::Caps;

use crate::pool::{LARGE_CAPACITY, Pool};
use crate::{Facts, FrameClass, Kind, OpenError, Opened, RxQueue, TxQueue};
use crate::{bpf, btf};
use device::{Device, Family};
use link::Link;
use rx::{Looks, XdpRx};
use socket::{Rings, Socket, SocketError};
use tx::{COPY_PARTS, PART, Sender, XdpTx, ZEROCOPY_PARTS};
use umem::{Lent, SINGLE_BUFFER};

pub use device::rx_queue_count;

/// Bytes of an Ethernet header with one 802.1Q tag: what a frame has besides its MTU.
const L2_HEADER: usize = 18;
/// The largest MTU that a device can have.
const MAX_MTU: usize = 65535;

/// The fewest entries of a ring: one batch.
const RING_MIN: u32 = 64;

/// What may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Entries of each ring, a power of two. As many chunks of the pool wait in each rx queue.
    pub ring: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { ring: 512 }
    }
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// In the driver, before an skb is made.
    Native,
    /// In the stack, after it; any device.
    Generic,
}

impl Mode {
    /// `XDP_FLAGS_DRV_MODE` and `XDP_FLAGS_SKB_MODE` of linux/if_link.h.
    const fn flags(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }
}

/// What outlives the queues. In this order: no frame is redirected any more, then the sockets are closed and
/// their chunks come back, then the device is as it was.
struct Guard {
    _link: bpf::Attached,
    _sockets: Vec<Arc<Socket>>,
    _promiscuous: Option<OwnedFd>,
    _features: Option<features::TurnedOff>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        unproven::retry();
    }
}

/// Opens a netdev of the calling thread's network namespace for `workers` workers.
///
/// Every rx queue is bound. Native mode where the driver has it, else generic mode; zero-copy where the driver
/// has it. When the device's queues change ([`rx_queue_count`]) it has to be opened anew.
///
/// # Errors
/// [`OpenError`]; the device is as it was before then.
pub fn open(
    netdev: &str,
    workers: usize,
    pool: &'static Pool,
    options: Options,
) -> Result<Opened, OpenError> {
    open_in(&[Mode::Native, Mode::Generic], netdev, workers, pool, options)
}

/// As [`open`], in the first of the modes that the device takes.
fn open_in(
    modes: &[Mode],
    netdev: &str,
    workers: usize,
    pool: &'static Pool,
    options: Options,
) -> Result<Opened, OpenError> {
    // One at a time: each looks at what the others left of the pool.
    static OPENING: Mutex<()> = Mutex::new(());
    let _turn = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    unproven::retry();
    let device = Device::find(netdev).map_err(lost(netdev, "look the device up"))?;
    let options = Options { ring: affordable_ring(netdev, device.queues.rx, options.ring, pool)? };
    let port = Port { netdev, device: &device, pool, options };
    let (promiscuous, features) = match &device.family {
        Family::Veth | Family::Tun => (None, None),
        Family::Hardware => {
            let promiscuous = device::promiscuous(device.ifindex);
            (Some(promiscuous.map_err(lost(netdev, "make the device promiscuous"))?), Some(port.keep_tags()?))
        }
        Family::NotEthernet => return Err(OpenError::Refused(format!("`{netdev}` is no Ethernet device"))),
        Family::Other(kind) => {
            return Err(
                port.tags_lost(&format!("a {kind} device passes on what others took out of the frame"))
            );
        }
    };
    let map = bpf::map::of_sockets(device.queues.rx).map_err(lost(netdev, "make the socket map"))?;
    let bound = port.bind_queues()?;
    for (queue, (socket, _)) in (0..).zip(&bound.sockets) {
        bpf::map::set_socket(map.as_fd(), queue, socket.fd()).map_err(lost(netdev, "fill the socket map"))?;
    }
    let (link, mode, refusal) = port.attach(modes, &map)?;

    let facts = port.facts(&bound, mode, refusal);
    let Halves { sockets, rx, senders } = port.halves(bound);
    let by_turns = senders.iter().cycle().take(workers);
    let tx = by_turns.map(|sender| Box::new(XdpTx::new(Arc::clone(sender))) as Box<dyn TxQueue>).collect();
    let guard = Guard { _link: link, _sockets: sockets, _promiscuous: promiscuous, _features: features };
    Ok(Opened { rx, tx, facts, guard: Box::new(guard) })
}

/// Entries of a ring that the pool can fill for every queue: as many as asked for, or less. A queue without frames
/// to receive into would be deaf. All AF_XDP ports together get half of the pool, and each at most half of what is
/// left of that, so that it serves many; the other half is for copies and other kinds of ports.
fn affordable_ring(netdev: &str, queues: u32, wanted: u32, pool: &Pool) -> Result<u32, OpenError> {
    let kept = pool.total(FrameClass::Wire) / 2;
    let room = pool.free(FrameClass::Wire).saturating_sub(kept) / 2;
    let mut ring = wanted;
    while ring as usize * queues as usize > room {
        ring /= 2;
        if ring < RING_MIN {
            return Err(OpenError::Refused(format!(
                "the frame pool has no room for the {queues} receive queue(s) of `{netdev}`: use the kind \
                 `packet`, or lower the queues of AF_XDP ports (`ethtool -L DEV combined N`)"
            )));
        }
    }
    Ok(ring)
}

/// A port that is being opened.
struct Port<'a> {
    netdev: &'a str,
    device: &'a Device,
    pool: &'static Pool,
    options: Options,
}

/// One socket for each rx queue, bound in the same way.
struct Bound {
    sockets: Vec<(Socket, Rings)>,
    /// Frames of several buffers are taken.
    has_sg: bool,
}

/// The sockets, and both halves of each.
struct Halves {
    sockets: Vec<Arc<Socket>>,
    rx: Vec<Box<dyn RxQueue>>,
    senders: Vec<Arc<Mutex<Sender>>>,
}

impl Port<'_> {
    fn keep_tags(&self) -> Result<features::TurnedOff, OpenError> {
        features::keep_tags(&self.device.name)
            .map_err(lost(self.netdev, "ask for the device's features"))?
            .map_err(|name| self.tags_lost(&format!("`{name}` takes them out, and cannot be turned off")))
    }

    fn tags_lost(&self, why: &str) -> OpenError {
        let netdev = self.netdev;
        OpenError::Refused(format!(
            "AF_XDP on `{netdev}` would lose VLAN tags ({why}): use the kind `packet` for it"
        ))
    }

    fn other_program(&self) -> OpenError {
        let netdev = self.netdev;
        let id = Link::find(netdev).ok().and_then(|link| link.xdp_program);
        let program = id.map_or_else(String::new, |id| format!(" (id {id}; `bpftool prog show id {id}`)"));
        OpenError::Refused(format!(
            "another XDP program{program} is attached to `{netdev}`: stop what holds it, or take it off with \
             `ip link set dev {netdev} xdp off`"
        ))
    }

    fn other_socket(&self, queue: u32) -> OpenError {
        let netdev = self.netdev;
        OpenError::Refused(format!(
            "queue {queue} of `{netdev}` is served by an AF_XDP socket of another program: stop that one first"
        ))
    }

    fn few_queues(&self) -> OpenError {
        let netdev = self.netdev;
        OpenError::Refused(format!(
            "`{netdev}` has fewer receive queues than its other end has transmit queues, so it takes no XDP: \
             give it as many (`ethtool -L {netdev} rx N`) or use the kind `packet`"
        ))
    }

    /// Binds every rx queue in the best way that the device takes.
    fn bind_queues(&self) -> Result<Bound, OpenError> {
        let fits_one_buffer = self.device.mtu as usize + L2_HEADER <= SINGLE_BUFFER;
        let is_hardware = self.device.family == Family::Hardware;
        let (zerocopy, copy, sg) = (libc::XDP_ZEROCOPY, libc::XDP_COPY, libc::XDP_USE_SG);
        let ways =
            [(zerocopy | sg, is_hardware), (zerocopy, is_hardware && fits_one_buffer), (copy | sg, true)];
        let mut refused = io::ErrorKind::Unsupported.into();
        for (flags, _) in ways.into_iter().filter(|(_, is_worth_it)| *is_worth_it) {
            match self.bind_all(flags) {
                Ok(sockets) => return Ok(Bound { sockets, has_sg: flags & sg != 0 }),
                Err((_, SocketError::Bind(error))) => refused = error, // the next way may do
                Err((queue, SocketError::Busy)) => return Err(self.other_socket(queue)),
                Err((_, SocketError::Setup(step, error))) => return Err(lost(self.netdev, step)(error)),
            }
        }
        Err(lost(self.netdev, "bind a queue")(refused))
    }

    fn bind_all(&self, flags: u16) -> Result<Vec<(Socket, Rings)>, (u32, SocketError)> {
        let Device { ifindex, queues, .. } = *self.device;
        (0..queues.rx)
            .map(|queue| {
                Socket::bind(self.pool, ifindex, queue, self.options.ring, flags).map_err(|e| (queue, e))
            })
            .collect()
    }

    /// Attaches the program, and says why a mode before the one taken was refused.
    fn attach(
        &self,
        modes: &[Mode],
        map: &OwnedFd,
    ) -> Result<(bpf::Attached, Mode, Option<io::Error>), OpenError> {
        let program = self.load(map)?;
        let mut refusal = None;
        for &mode in modes {
            let error =
                match bpf::link(program.as_fd(), self.device.ifindex, program::ATTACH_XDP, mode.flags()) {
                    Ok(link) => return Ok((link, mode, refusal)),
                    Err(error) => error,
                };
            match error.raw_os_error() {
                // Native mode says EBUSY where generic mode would say EEXIST: nothing to fall back from.
                Some(libc::EBUSY | libc::EEXIST) => {
                    return Err(self.other_program());
                }
                Some(libc::ENOSPC) if self.device.family == Family::Veth => return Err(self.few_queues()),
                // In generic mode a veth's tags are out of reach: the kernel refuses the program that asks for them.
                _ if self.device.family == Family::Veth => {
                    return Err(self.tags_lost(&format!("native XDP is refused: {error}")));
                }
                _ => refusal = Some(error),
            }
        }
        let refusal = refusal.unwrap_or_else(|| io::ErrorKind::Unsupported.into());
        Err(lost(self.netdev, "attach the XDP program")(refusal))
    }

    fn load(&self, map: &OwnedFd) -> Result<OwnedFd, OpenError> {
        let map = map.as_raw_fd();
        let (insns, flags, ifindex) = if self.device.family == Family::Veth {
            let Some(rx_vlan_tag) = btf::rx_vlan_tag() else {
                return Err(self.tags_lost("this kernel tells no XDP program the tag, Linux 6.8 does"));
            };
            let insns = program::redirect_with_tag(map, rx_vlan_tag);
            (insns, program::F_XDP_DEV_BOUND_ONLY, self.device.ifindex)
        } else {
            (program::redirect(map), 0, 0)
        };
        let program = bpf::Program {
            kind: program::PROG_TYPE_XDP,
            insns: &insns,
            flags: program::F_XDP_HAS_FRAGS | flags,
            ifindex,
            attach: program::ATTACH_XDP,
        };
        let step = "load the XDP program";
        bpf::load(&program).map_err(|e| match e.source.raw_os_error() {
            Some(libc::ENODEV | libc::EPERM) => lost(self.netdev, step)(e.source),
            _ => OpenError::System { step, source: io::Error::other(e) }, // with the verifier's words
        })
    }

    /// Checksums of frames that this host's own stack, or a guest's, sends into the device.
    fn has_unfinished(&self) -> bool {
        matches!(self.device.family, Family::Veth | Family::Tun)
    }

    fn facts(&self, bound: &Bound, mode: Mode, refusal: Option<io::Error>) -> Facts {
        let is_zerocopy = bound.sockets.iter().all(|(socket, _)| socket.is_zerocopy());
        let (mode_word, why) = match (mode, refusal) {
            (Mode::Native, _) => ("native", "the driver runs XDP".to_owned()),
            (Mode::Generic, Some(e)) => ("generic", format!("the driver refused native XDP: {e}")),
            (Mode::Generic, None) => ("generic", "generic XDP was asked for".to_owned()),
        };
        let is_tun = self.device.family == Family::Tun;
        let no_gso = match self.device.family {
            Family::Tun => {
                "; large segments of a guest (vnet_hdr on, TSO) are cut at the MTU, the kind packet keeps them whole"
            }
            _ => "",
        };
        let buffers = match (bound.has_sg, is_zerocopy) {
            (false, _) => SINGLE_BUFFER,
            (true, true) => ZEROCOPY_PARTS * PART,
            (true, false) => (COPY_PARTS * PART).min(LARGE_CAPACITY),
        };
        Facts {
            kind: Kind::Xdp,
            mode: format!("{mode_word}, {}", if is_zerocopy { "zero-copy" } else { "copy" }),
            rx_queues: bound.sockets.len() as u32,
            caps: Caps::NONE,
            rx_caps: Caps { csum: self.has_unfinished(), tso4: is_tun, tso6: is_tun, uso: false },
            mtu_limit: (buffers - L2_HEADER).min(MAX_MTU) as u32,
            mtu: self.device.mtu,
            shortcut_ifindex: None,
            vlan: Ok(()), // or it is not opened
            why: format!("{why}{no_gso}"),
        }
    }

    /// Parts each socket into its halves.
    fn halves(&self, bound: Bound) -> Halves {
        let looks = Looks {
            tag_before: self.device.family == Family::Veth,
            unfinished: self.has_unfinished(),
            segments_beyond: (self.device.family == Family::Tun).then_some(self.device.mtu as usize),
        };
        let mut cache = self.pool.cache();
        let mut halves = Halves { sockets: Vec::new(), rx: Vec::new(), senders: Vec::new() };
        let quota = tx::quota(self.pool, bound.sockets.len());
        for (socket, Rings { rx, fill, tx, completion }) in bound.sockets {
            let max_parts = match (bound.has_sg, socket.is_zerocopy()) {
                (false, _) => 1,
                (true, true) => ZEROCOPY_PARTS,
                (true, false) => COPY_PARTS,
            };
            let socket = Arc::new(socket);
            let receiver = XdpRx::new(Arc::clone(&socket), rx, fill, Lent::new(self.pool), looks, &mut cache);
            let lent = Lent::new(self.pool);
            let sender = Sender::new(Arc::clone(&socket), tx, completion, lent, quota, max_parts);
            halves.rx.push(Box::new(receiver));
            halves.senders.push(Arc::new(Mutex::new(sender)));
            halves.sockets.push(socket);
        }
        // The kernel sends nothing by the socket of a queue that the device has for receiving only.
        halves.senders.truncate(self.device.queues.tx as usize);
        halves
    }
}

/// A device that was deleted while it was opened is one to wait for; a missing right is told by name.
fn lost(netdev: &str, step: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| match source.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => OpenError::NoDevice(netdev.to_owned()),
        Some(libc::EPERM | libc::EACCES) => OpenError::Refused(format!(
            "AF_XDP on `{netdev}` needs root, or CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_IPC_LOCK: no right to {step}"
        )),
        _ => OpenError::System { step, source },
    }
}

#[cfg(test)]
mod tests;
