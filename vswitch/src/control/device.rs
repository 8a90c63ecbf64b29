//! A port's device: which driver serves it, and opening it.

use vswitch_api::topology::{Kind, Port};
use vswitch_io::{Facts, OpenError, Opened, Pool, RxQueue, TxQueue, packet, tap, xdp};

use crate::netlink::{Link, Links};
use crate::parallel;
use crate::worker::Queues;

/// A port whose queues the workers have.
pub(super) struct Device {
    /// Interface index: another device of the same name has another one. `None` until the link is known.
    pub(super) index: Option<u32>,
    pub(super) netdev: String,
    /// Tells this device from those that the port had before.
    pub(super) attachment: u64,
    /// The netdev of a tap is in another network namespace.
    pub(super) elsewhere: bool,
    pub(super) facts: Facts,
    /// Administratively up and with carrier.
    pub(super) up: bool,
    /// The netdev's MTU in bytes.
    pub(super) mtu: u32,
    /// Dropped after every queue.
    pub(super) guard: Box<dyn Send>,
}

impl Device {
    /// The netdev of a tap was moved into another network namespace, a container's for example: the fd serves it
    /// there too. Its link state and MTU are out of sight from now on. (One that was deleted looks the same at first;
    /// then the worker says so.)
    pub(super) fn let_go(&mut self) {
        self.elsewhere = true;
        self.up = true;
        self.facts.why += "; the netdev is in another network namespace, its MTU and state are not followed";
    }

    /// `ethtool -L` changed the receive queues that AF_XDP is bound to.
    pub(super) fn has_other_queues(&self) -> bool {
        self.facts.kind == vswitch_io::Kind::Xdp
            && xdp::rx_queue_count(&self.netdev).is_ok_and(|n| n != self.facts.rx_queues)
    }
}

/// Why a device could not be opened.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// There is no such netdev now; the port waits for it.
    Missing(String),
    /// It is there, and cannot be had.
    Refused(String),
}

impl NotOpened {
    /// A netdev that went while it was opened is one to wait for.
    fn from_driver(error: &OpenError) -> Self {
        match error {
            OpenError::NoDevice(_) => Self::Missing(in_words(error)),
            _ => Self::Refused(in_words(error)),
        }
    }

    pub(super) fn into_text(self) -> String {
        match self {
            Self::Missing(text) | Self::Refused(text) => text,
        }
    }
}

/// What it takes to open a device.
#[derive(Clone, Copy)]
pub(super) struct Opener {
    pub(super) pool: &'static Pool,
    pub(super) workers: usize,
}

impl Opener {
    /// Opens the devices of `ports`, many at a time; the results are in their order.
    pub(super) fn open(self, ports: &[&Port], links: &Links) -> Vec<Result<Opened, NotOpened>> {
        let found = ports.iter().map(|&port| (port, links)).map(find).collect();
        parallel::map(found, |found| found.and_then(|(port, link)| self.open_one(port, link)))
    }

    /// Opens a device, and checks that it can do what the port is to do. `link` is that of a netdev; a tap is made.
    fn open_one(self, port: &Port, link: Option<&Link>) -> Result<Opened, NotOpened> {
        let opened = match link {
            None => tap::open(port.netdev(), self.workers, port.mtu),
            Some(link) => self.open_netdev(port.kind, link),
        };
        let opened = opened.map_err(|e| NotOpened::from_driver(&e))?;
        check(port, &opened.facts).map_err(NotOpened::Refused)?;
        Ok(opened)
    }

    fn open_netdev(self, kind: Kind, link: &Link) -> Result<Opened, OpenError> {
        match kind {
            Kind::Xdp => self.open_xdp(link),
            Kind::Packet | Kind::Tap => packet::open(&link.name, self.workers),
            Kind::Auto => self.open_auto(link),
        }
    }

    /// `auto` (docs/decisions/0003-kind-of-a-port.md): devices whose frames are made by a stack on this host bring GSO and
    /// unfinished checksums, which AF_PACKET keeps and AF_XDP cannot; a NIC brings finished frames of one
    /// segment, which AF_XDP moves at less cost.
    fn open_auto(self, link: &Link) -> Result<Opened, OpenError> {
        let because = |mut opened: Opened, why: String| {
            opened.facts.why = why;
            opened
        };
        let packet = || packet::open(&link.name, self.workers);
        if let Some(kind) = &link.kind {
            return packet()
                .map(|o| because(o, format!("auto: a {kind} brings GSO frames, which AF_PACKET keeps")));
        }
        match self.open_xdp(link) {
            Ok(opened) => {
                let why = format!("auto: a NIC brings finished frames; {}", opened.facts.why);
                Ok(because(opened, why))
            }
            Err(e) => packet().map(|o| because(o, format!("auto: AF_XDP was refused ({})", in_words(&e)))),
        }
    }

    fn open_xdp(self, link: &Link) -> Result<Opened, OpenError> {
        xdp::open(&link.name, self.workers, self.pool, xdp::Options::default())
    }
}

/// An open device without an owner: what is left of it is to be closed.
pub(super) struct Closing {
    queues: Vec<Box<dyn Send>>,
    guard: Box<dyn Send>,
}

impl Closing {
    /// What the workers gave back, and the device that it belongs to.
    pub(super) fn new(queues: Vec<Queues>, device: Device) -> Self {
        let (rx, tx): (Vec<_>, Vec<_>) = queues.into_iter().map(|q| (q.rx, q.tx)).unzip();
        Self::of(rx.into_iter().flatten(), tx, device.guard)
    }

    fn of(
        rx: impl IntoIterator<Item = Box<dyn RxQueue>>,
        tx: impl IntoIterator<Item = Box<dyn TxQueue>>,
        guard: Box<dyn Send>,
    ) -> Self {
        let rx = rx.into_iter().map(|queue| Box::new(queue) as Box<dyn Send>);
        let tx = tx.into_iter().map(|queue| Box::new(queue) as Box<dyn Send>);
        Self { queues: rx.chain(tx).collect(), guard }
    }
}

impl From<Opened> for Closing {
    fn from(Opened { rx, tx, guard, .. }: Opened) -> Self {
        Self::of(rx, tx, guard)
    }
}

/// Closes devices, many at a time: every queue, then what must outlive them.
pub(super) fn close(devices: impl IntoIterator<Item = Closing>) {
    let (queues, guards): (Vec<_>, Vec<_>) = devices.into_iter().map(|d| (d.queues, d.guard)).unzip();
    parallel::map(queues.into_iter().flatten().collect(), drop);
    parallel::map(guards, drop);
}

/// The port's link, free to be taken; `None` for a tap, which the switch makes.
fn find<'a>((port, links): (&'a Port, &'a Links)) -> Result<(&'a Port, Option<&'a Link>), NotOpened> {
    if port.kind == Kind::Tap {
        return Ok((port, None));
    }
    let netdev = port.netdev();
    let missing = || NotOpened::Missing(format!("waits for the netdev {netdev:?}, which does not exist"));
    let link = links.by_name(netdev).ok_or_else(missing)?;
    let Some(owner) = link.controller else { return Ok((port, Some(link))) };
    let owner = links.by_index(owner).map_or("another device", |l| l.name.as_str());
    Err(NotOpened::Refused(format!(
        "{netdev} belongs to {owner}; take it out: ip link set {netdev} nomaster"
    )))
}

/// Whether the open device can do what the port is configured for.
pub(super) fn check(port: &Port, facts: &Facts) -> Result<(), String> {
    let is_trunk = !port.trunk.is_empty() || port.native.is_some();
    if let (true, Err(why)) = (is_trunk, &facts.vlan) {
        return Err(format!("cannot be a trunk: {why}"));
    }
    match port.mtu {
        Some(mtu) if mtu > facts.mtu_limit => Err(format!(
            "cannot carry an MTU of {mtu}: the limit of {} here is {}",
            facts.mode, facts.mtu_limit
        )),
        _ => Ok(()),
    }
}

/// An error with its sources, on one line.
pub(super) fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
