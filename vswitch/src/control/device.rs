//! A port's device: which driver serves it, and opening it.

use vswitch_api::topology::{Kind, Port};
use vswitch_io::{Facts, OpenError, Opened, Pool, packet, tap, xdp};

use crate::netlink::{Link, Links};

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
    /// Opens the device of `port`, and checks that it can do what the port is to do.
    pub(super) fn open(self, port: &Port, links: &Links) -> Result<Opened, NotOpened> {
        let opened = match port.kind {
            Kind::Tap => tap::open(port.netdev(), self.workers, port.mtu),
            kind => self.open_netdev(kind, find(port.netdev(), links)?),
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

/// The link of that name, free to be taken.
fn find<'a>(netdev: &str, links: &'a Links) -> Result<&'a Link, NotOpened> {
    let missing = || NotOpened::Missing(format!("waits for the netdev {netdev:?}, which does not exist"));
    let link = links.by_name(netdev).ok_or_else(missing)?;
    let Some(owner) = link.controller else { return Ok(link) };
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
