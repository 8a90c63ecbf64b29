//! The kernel's links as the daemon follows them: one dump at the start, then events.

mod pace;
mod table;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures_channel::mpsc::UnboundedReceiver;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};

use crate::clock::Clock;
use pace::Pace;
pub use table::{Link, Table};

/// Follows the links.
pub struct Links {
    handle: Handle,
    events: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr)>,
    clock: Clock,
    table: Table,
    pace: Pace,
    /// Events were lost: only a new dump tells the truth.
    stale: bool,
}

impl Links {
    /// Subscribes, then reads all links. Needs a tokio runtime.
    ///
    /// # Errors
    /// What netlink said.
    pub async fn open(clock: Clock) -> io::Result<Self> {
        let (connection, handle, events) = new_multicast_connection(&[MulticastGroup::Link])?;
        tokio::spawn(connection);
        let (table, pace) = (Table::default(), Pace::default());
        let mut links = Self { handle, events, clock, table, pace, stale: true };
        links.resync().await?;
        Ok(links)
    }

    /// What is known of the links.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Waits until the links have changed in a way that matters, and it is time to look at them: a storm of events
    /// costs the caller one round every few milliseconds. [`Self::catch_up`] is to follow. Cancel-safe.
    ///
    /// # Errors
    /// The netlink socket failed.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            match self.pace.due_in(self.clock.now()) {
                Some(Duration::ZERO) => return Ok(()),
                Some(wait) => tokio::time::sleep(wait).await,
                None => {
                    let Some((message, _)) = self.events.next().await else {
                        return Err(io::Error::other("the netlink socket was closed"));
                    };
                    self.take(message);
                }
            }
        }
    }

    /// Takes in everything that there is to be read.
    ///
    /// # Errors
    /// What netlink said.
    pub async fn catch_up(&mut self) -> io::Result<()> {
        while let Some(Some((message, _))) = self.events.next().now_or_never() {
            self.take(message);
        }
        self.pace.on_pass(self.clock.now());
        if self.stale {
            self.resync().await?;
        }
        Ok(())
    }

    fn take(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) {
        match message.payload {
            NetlinkPayload::InnerMessage(event) if self.table.take(&event) => self.pace.on_news(),
            // The socket's buffer ran over: what was lost is unknown.
            NetlinkPayload::Overrun(_) => {
                self.stale = true;
                self.pace.on_news();
            }
            _ => {}
        }
    }

    /// Reads all links anew: after this, what was there before the call is known. True when that is news.
    ///
    /// # Errors
    /// What netlink said.
    pub async fn resync(&mut self) -> io::Result<bool> {
        let dump: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(io::Error::other)?;
        self.stale = false;
        Ok(self.table.replace(&dump))
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
