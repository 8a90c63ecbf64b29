//! A port's device: which driver serves it, and opening it.

use std::path::Path;

use vswitch_api::topology::{Kind, Port, QUEUES_RANGE, Role};
use vswitch_io::shortcut::Shortcut;
use vswitch_io::vhost_user::{self, Watch};
use vswitch_io::{Facts, OpenError, Opened, Pool, RxQueue, TxQueue, packet, tap, xdp};

use super::backing::Backing;
use super::filters::Filters;
use super::front_end::{FrontEnd, Watched};
use super::ring_records::RingRecords;
use crate::netlink::{Link, Table};
use crate::parallel;
use crate::worker::Queues;

const _: () = assert!(*QUEUES_RANGE.end() == vhost_user::MOST_PAIRS);

/// A port whose queues the workers have.
pub(super) struct Device {
    /// Interface index: another device of the same name has another one. `None` until the link is known, and where
    /// there is none.
    pub(super) index: Option<u32>,
    pub(super) backing: Backing,
    /// Of a vhost-user port.
    pub(super) front_end: Option<Box<FrontEnd>>,
    /// Tells this device from those that the port had before.
    pub(super) attachment: u64,
    /// The netdev of a tap is in another network namespace.
    pub(super) elsewhere: bool,
    pub(super) facts: Facts,
    /// Administratively up and with carrier; or with a guest whose rings run.
    pub(super) up: bool,
    /// The netdev's MTU in bytes.
    pub(super) mtu: u32,
    /// Dropped after every queue.
    pub(super) guard: Box<dyn Send>,
}

/// What the links say of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Nothing new.
    Same,
    /// Another link state or MTU, which the device has now.
    Changed {
        /// The link state before.
        was_up: bool,
    },
    /// The netdev of a tap is in another network namespace from now on.
    Elsewhere,
    /// Its netdev was deleted or renamed.
    Gone,
}

impl Device {
    /// Takes in what the links are now.
    pub(super) fn look_at(&mut self, links: &Table) -> Outlook {
        let Some(netdev) = self.backing.netdev().filter(|_| !self.elsewhere) else { return Outlook::Same };
        // A tap is newer than the last event when it is attached; its link is adopted by name.
        let index = self.index.or_else(|| links.by_name(netdev).map(|l| l.index));
        let Some(index) = index else { return Outlook::Same };
        self.index = Some(index);
        let Some(link) = links.by_index(index).filter(|l| l.name == netdev) else {
            if self.facts.kind != vswitch_io::Kind::Tap {
                return Outlook::Gone;
            }
            self.let_go();
            return Outlook::Elsewhere;
        };
        if (self.up, self.mtu) == (link.up, link.mtu) {
            return Outlook::Same;
        }
        let was_up = std::mem::replace(&mut self.up, link.up);
        self.mtu = link.mtu;
        Outlook::Changed { was_up }
    }

    /// The netdev of a tap was moved into another network namespace, a container's for example: the fd serves it
    /// there too. Its link state and MTU are out of sight from now on. (One that was deleted looks the same at first;
    /// then the worker says so.)
    fn let_go(&mut self) {
        self.elsewhere = true;
        self.up = true;
        self.facts.why += "; the netdev is in another network namespace, its MTU and state are not followed";
    }

    /// `ethtool -L` changed the receive queues that AF_XDP is bound to.
    pub(super) fn has_other_queues(&self) -> bool {
        self.facts.kind == vswitch_io::Kind::Xdp
            && self
                .backing
                .netdev()
                .is_some_and(|netdev| xdp::rx_queue_count(netdev).is_ok_and(|n| n != self.facts.rx_queues))
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

/// An open device that no port has yet.
pub(super) struct Fresh {
    pub(super) opened: Opened,
    /// Tells of a vhost-user port's front end.
    pub(super) watched: Option<Watched>,
}

impl Fresh {
    /// Needs a tokio runtime where there is a watch.
    fn new((opened, watch): (Opened, Option<Watch>)) -> Result<Self, NotOpened> {
        let refused = |e| NotOpened::Refused(format!("cannot wait for the front end: {e}"));
        let watched = watch.map(Watched::new).transpose().map_err(refused)?;
        Ok(Self { opened, watched })
    }
}

/// What it takes to open a device.
pub(super) struct Opener {
    pub(super) pool: &'static Pool,
    pub(super) workers: usize,
    pub(super) shortcut: Option<&'static Shortcut>,
    /// Where the positions of packed rings are written down.
    pub(super) records: Option<RingRecords>,
}

impl Opener {
    /// Opens the devices of `ports`, many at a time; the results are in their order. The host is kept off each netdev
    /// before that, so that it never answers a frame that the switch carries as well; it is off those that are
    /// refused here too.
    pub(super) fn open(
        &self,
        ports: &[&Port],
        links: &Table,
        filters: &Filters,
    ) -> Vec<Result<Fresh, NotOpened>> {
        let opened = parallel::map(ports.to_vec(), |port| self.open_one(port, links, filters));
        opened.into_iter().map(|opened| opened.and_then(Fresh::new)).collect()
    }

    /// Opens the device of `port`, and checks that it can do what the port is to do.
    fn open_one(
        &self,
        port: &Port,
        links: &Table,
        filters: &Filters,
    ) -> Result<(Opened, Option<Watch>), NotOpened> {
        let backing = Backing::of(port);
        let opened = match (&backing, port.kind) {
            (Backing::Socket(socket), _) => self.open_socket(socket, port),
            (Backing::Netdev(netdev), Kind::Tap) => {
                tap::open(netdev, self.workers).map(|opened| (opened, None))
            }
            (Backing::Netdev(netdev), kind) => {
                let link = find(netdev, links)?;
                filters.hold(link.index);
                let opened = match kind {
                    Kind::Xdp => self.open_xdp(link),
                    Kind::Packet => self.open_packet(link),
                    // The last two have had their turn.
                    Kind::Auto | Kind::Tap | Kind::VhostUser => self.open_auto(link),
                };
                opened.map(|opened| (opened, None))
            }
        };
        let opened = opened.map_err(|e| NotOpened::from_driver(&e))?;
        check(port, &opened.0.facts).map_err(NotOpened::Refused)?;
        Ok(opened)
    }

    fn open_socket(&self, socket: &Path, port: &Port) -> Result<(Opened, Option<Watch>), OpenError> {
        let role = match port.role {
            Role::Server => vhost_user::Role::Server,
            Role::Client => vhost_user::Role::Client,
        };
        let (record, no_record) = match self.records.as_ref().map(|records| records.file(socket)) {
            Some(Ok(file)) => (Some(file), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let pairs = port.queues.unwrap_or(1);
        let config = vhost_user::Config { socket: socket.to_owned(), role, pairs, record };
        let (mut opened, watch) = vhost_user::open(&config, self.workers)?;
        if let Some(error) = no_record {
            opened.facts.why += &format!("; its packed rings do not outlive a killed switch: {error}");
        }
        Ok((opened, Some(watch)))
    }

    /// `auto` (docs/decisions/0003-kind-of-a-port.md): devices whose frames are made by a stack on this host bring
    /// GSO and unfinished checksums, which AF_PACKET keeps and AF_XDP cannot; a NIC brings finished frames of one
    /// segment, which AF_XDP moves at less cost.
    fn open_auto(&self, link: &Link) -> Result<Opened, OpenError> {
        let because = |mut opened: Opened, why: String| {
            opened.facts.why = why;
            opened
        };
        let packet = || self.open_packet(link);
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

    fn open_packet(&self, link: &Link) -> Result<Opened, OpenError> {
        packet::open(&link.name, self.workers, self.shortcut)
    }

    fn open_xdp(&self, link: &Link) -> Result<Opened, OpenError> {
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

impl From<Fresh> for Closing {
    fn from(Fresh { opened: Opened { rx, tx, guard, .. }, .. }: Fresh) -> Self {
        Self::of(rx, tx, guard)
    }
}

/// Closes devices, many at a time: every queue, then what must outlive them.
pub(super) fn close(devices: impl IntoIterator<Item = Closing>) {
    let (queues, guards): (Vec<_>, Vec<_>) = devices.into_iter().map(|d| (d.queues, d.guard)).unzip();
    parallel::map(queues.into_iter().flatten().collect(), drop);
    parallel::map(guards, drop);
}

/// The link of that name, free to be taken.
pub(super) fn find<'a>(netdev: &str, links: &'a Table) -> Result<&'a Link, NotOpened> {
    let missing = || NotOpened::Missing(format!("waits for the netdev {netdev:?}, which does not exist"));
    let link = links.by_name(netdev).ok_or_else(missing)?;
    if !link.is_ethernet {
        return Err(NotOpened::Refused(format!("{netdev} is no Ethernet device")));
    }
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

#[cfg(test)]
mod tests {
    use vswitch_wire::Caps;

    use super::*;

    fn link(index: u32, name: &str, up: bool) -> Link {
        let (kind, controller, lower) = (None, None, None);
        Link {
            index,
            name: name.to_owned(),
            up,
            mtu: 1500,
            mac: None,
            is_ethernet: true,
            kind,
            controller,
            lower,
        }
    }

    fn links(all: &[Link]) -> Table {
        all.iter().cloned().collect()
    }

    fn device(kind: vswitch_io::Kind, index: Option<u32>) -> Device {
        let facts = Facts {
            kind,
            mode: String::new(),
            rx_queues: 1,
            caps: Caps::NONE,
            rx_caps: Caps::NONE,
            mtu_limit: 9000,
            mtu: 1500,
            shortcut_ifindex: None,
            vlan: Ok(()),
            why: String::new(),
        };
        Device {
            index,
            backing: Backing::Netdev("a".to_owned()),
            front_end: None,
            attachment: 1,
            elsewhere: false,
            facts,
            up: true,
            mtu: 1500,
            guard: Box::new(()),
        }
    }

    #[test]
    fn a_netdev_is_followed() {
        let mut device = device(vswitch_io::Kind::Packet, Some(3));
        assert_eq!(device.look_at(&links(&[link(3, "a", true)])), Outlook::Same);
        assert_eq!(device.look_at(&links(&[link(3, "a", false)])), Outlook::Changed { was_up: true });
        assert!(!device.up);
        let jumbo = Link { mtu: 9000, ..link(3, "a", false) };
        assert_eq!(device.look_at(&links(&[jumbo])), Outlook::Changed { was_up: false });
        assert_eq!(device.mtu, 9000);
        for gone in [&[][..], &[link(3, "renamed", true)], &[link(4, "a", true)]] {
            assert_eq!(device.look_at(&links(gone)), Outlook::Gone);
        }
    }

    #[test]
    fn a_tap_is_adopted_by_name_and_let_go_into_another_namespace() {
        let mut device = device(vswitch_io::Kind::Tap, None);
        assert_eq!(device.look_at(&links(&[])), Outlook::Same, "its event has not come yet");
        assert_eq!(device.look_at(&links(&[link(3, "a", false)])), Outlook::Changed { was_up: true });
        assert_eq!(device.index, Some(3));
        assert_eq!(device.look_at(&links(&[link(4, "a", true)])), Outlook::Elsewhere);
        assert!(device.up, "its state is its new owner's affair");
        assert_eq!(device.look_at(&links(&[])), Outlook::Same);
    }

    #[test]
    fn a_netdev_of_a_bridge_is_refused_and_a_missing_one_awaited() {
        let lo = Link { is_ethernet: false, ..link(1, "lo", true) };
        let of_bridge = Link { controller: Some(9), ..link(3, "a", true) };
        let table = links(&[lo, of_bridge, link(9, "br0", true)]);
        let refused = find("a", &table).map(|_| ()).unwrap_err();
        assert!(matches!(refused, NotOpened::Refused(why) if why.contains("belongs to br0")));
        assert!(matches!(find("lo", &table), Err(NotOpened::Refused(why)) if why.contains("no Ethernet")));
        assert!(matches!(find("b", &table), Err(NotOpened::Missing(_))));
    }

    #[test]
    fn a_device_must_do_what_the_port_is_for() {
        let mut facts = device(vswitch_io::Kind::Packet, None).facts;
        facts.vlan = Err("tags are lost".to_owned());
        let trunk = Port { trunk: vec!["red".parse().unwrap()], ..Port::new("a") };
        assert!(check(&trunk, &facts).unwrap_err().contains("tags are lost"));
        let large = |mtu| Port { mtu: Some(mtu), ..Port::new("a") };
        assert!(check(&large(9000), &facts).is_ok() && check(&large(9001), &facts).is_err());
    }
}
