//! The kernel's links as the daemon follows them: one dump at the start, then events.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_channel::mpsc::UnboundedReceiver;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};

/// One netdev of the daemon's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index; a device that is created anew has another one.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Administratively up and with carrier.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// The kind in `ip -d link` terms, as in `veth` or `tun`; `None` for physical devices.
    pub kind: Option<String>,
    /// A bridge or bond that owns it.
    pub controller: Option<u32>,
    /// The device that it sends by: of a VLAN, macvlan or ipvlan device, for example.
    pub lower: Option<u32>,
}

/// Follows the links.
pub struct Links {
    handle: Handle,
    events: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr)>,
    by_index: HashMap<u32, Link>,
    /// Events were lost: only a new dump tells the truth.
    stale: bool,
}

impl Links {
    /// Subscribes, then reads all links. Needs a tokio runtime.
    ///
    /// # Errors
    /// What netlink said.
    pub async fn open() -> io::Result<Self> {
        let (connection, handle, events) = new_multicast_connection(&[MulticastGroup::Link])?;
        tokio::spawn(connection);
        let mut links = Self { handle, events, by_index: HashMap::new(), stale: true };
        links.resync().await?;
        Ok(links)
    }

    /// The link of that name, if there is one now.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.by_index.values().find(|l| l.name == name)
    }

    /// The link of that index.
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.by_index.get(&index)
    }

    /// Waits until some link has changed in a way that matters, and takes in everything that is
    /// there to be read, so that a storm of events costs one round of the caller. Cancel-safe.
    ///
    /// # Errors
    /// The netlink socket failed.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            if self.stale {
                self.resync().await?;
                return Ok(());
            }
            let Some((message, _)) = self.events.next().await else {
                return Err(io::Error::other("the netlink socket was closed"));
            };
            let mut changed = self.take(message);
            while let Some(Some((message, _))) = self.events.next().now_or_never() {
                changed |= self.take(message);
            }
            if changed && !self.stale {
                return Ok(());
            }
        }
    }

    fn take(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> bool {
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(m)) if is_of_device(&m) => {
                let link = read_link(&m);
                link.is_some_and(|link| self.by_index.insert(link.index, link.clone()) != Some(link))
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(m)) if is_of_device(&m) => {
                self.by_index.remove(&m.header.index).is_some()
            }
            // The socket's buffer ran over: what was lost is unknown.
            NetlinkPayload::Overrun(_) => {
                self.stale = true;
                true
            }
            _ => false,
        }
    }

    /// Reads all links anew: after this, what was there before the call is known. True when that is news.
    ///
    /// # Errors
    /// What netlink said.
    pub async fn resync(&mut self) -> io::Result<bool> {
        let dump: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(io::Error::other)?;
        let now: HashMap<u32, Link> = dump.iter().filter_map(read_link).map(|l| (l.index, l)).collect();
        self.stale = false;
        if now == self.by_index {
            return Ok(false);
        }
        self.by_index = now;
        Ok(true)
    }

    /// Whether what leaves by link `upper` leaves by link `lower` in the end. A veth's other end is no lower link.
    pub fn is_carried_by(&self, upper: u32, lower: u32) -> bool {
        let mut at = upper;
        // Bounded, in case that links of two namespaces seem to form a ring.
        for _ in 0..8 {
            if at == lower {
                return true;
            }
            let Some(link) = self.by_index.get(&at).filter(|l| l.kind.as_deref() != Some("veth")) else {
                return false;
            };
            let Some(next) = link.lower else { return false };
            at = next;
        }
        false
    }

    /// The index of the link by which `destination` is reached, if there is a route.
    pub async fn route_to(&self, destination: IpAddr) -> Option<u32> {
        let route = self.look_up(destination, RouteFlags::empty()).await?;
        links_of(&route).next()
    }

    /// The indexes of the links that the default route for `destination` has; none where a route of its own
    /// leads there.
    pub async fn default_route(&self, destination: IpAddr) -> Vec<u32> {
        match self.look_up(destination, RouteFlags::FibMatch).await {
            Some(route) if route.header.destination_prefix_length == 0 => links_of(&route).collect(),
            _ => Vec::new(),
        }
    }

    /// The way to `destination`, or with [`RouteFlags::FibMatch`] the entry of the routing table that gives it.
    async fn look_up(&self, destination: IpAddr, flags: RouteFlags) -> Option<RouteMessage> {
        let mut message = match destination {
            IpAddr::V4(ip) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip, 32).build(),
            IpAddr::V6(ip) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, 128).build(),
        };
        message.header.flags |= flags;
        self.handle.route().get(message).execute().try_next().await.ok()?
    }
}

/// The links by which a route leads, several for a multipath one.
fn links_of(route: &RouteMessage) -> impl Iterator<Item = u32> {
    route.attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    })
}

/// Bridges tell of their ports in the same group, by the port's own index.
fn is_of_device(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

fn read_link(message: &LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp),
        mtu: 0,
        kind: None,
        controller: None,
        lower: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => link.lower = Some(*index).filter(|&i| i != link.index),
            LinkAttribute::Controller(index) => link.controller = Some(*index).filter(|&i| i != 0),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind_name(kind)),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn kind_name(kind: &InfoKind) -> String {
    kind.to_string()
}
