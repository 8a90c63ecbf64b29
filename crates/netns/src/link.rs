//! Links of a namespace: veth pairs, addresses, state and counters, over rtnetlink.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage, Stats64,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, MulticastGroup};

use crate::{Error, Namespace, Result};

/// What both ends of a veth pair have.
#[derive(Clone, Copy, Debug)]
pub struct Veth {
    /// Largest payload of a frame, in bytes.
    pub mtu: u32,
    /// Receive and transmit queues, all in use.
    pub queues: u32,
}

impl Default for Veth {
    fn default() -> Self {
        Self { mtu: 1500, queues: 1 }
    }
}

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The number the kernel knows it by.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address; zero where it has none.
    pub mac: [u8; 6],
    /// Largest payload of a frame, in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub is_up: bool,
    /// Whether it is set up and has carrier: for a veth, its other end is up as well.
    pub is_running: bool,
    /// What went through it.
    pub counters: LinkCounters,
}

/// What went through a link, as its owner sees it: `rx` came out of the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames that arrived and were dropped.
    pub rx_dropped: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames that were to be sent and were dropped.
    pub tx_dropped: u64,
}

/// Makes a veth pair with one end in each namespace, both down.
pub fn veth(near: (&Namespace, &str), far: (&Namespace, &str), options: Veth) -> Result<()> {
    let attributes = |name: &str| {
        [
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(options.mtu),
            LinkAttribute::NumTxQueues(options.queues),
            LinkAttribute::NumRxQueues(options.queues),
        ]
    };
    let mut peer = LinkMessage::default();
    peer.attributes.extend(attributes(far.1));
    peer.attributes.push(LinkAttribute::NetNsFd(far.0.as_fd().as_raw_fd()));
    let pair = attributes(near.1)
        .into_iter()
        .fold(LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth), |message, attribute| {
            message.append_extra_attribute(attribute)
        })
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    let what = format!("make the veth pair {} - {}", near.1, far.1);
    near.0.netlink(async |handle| handle.link().add(pair).execute().await.map_err(Error::netlink(what)))
}

impl Namespace {
    /// Sets a link up.
    pub fn set_up(&self, name: &str) -> Result<()> {
        self.change(name, LinkMessageBuilder::up)
    }

    /// Sets a link down.
    pub fn set_down(&self, name: &str) -> Result<()> {
        self.change(name, LinkMessageBuilder::down)
    }

    /// Sets the largest payload of a frame, in bytes.
    pub fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        self.change(name, |message| message.mtu(mtu))
    }

    /// Sets the hardware address.
    pub fn set_mac(&self, name: &str, mac: [u8; 6]) -> Result<()> {
        self.change(name, |message| message.address(mac.to_vec()))
    }

    /// Adds an address with its prefix length, such as `10.0.0.1/24`; it can be used at once.
    pub fn add_address(&self, name: &str, address: &str) -> Result<()> {
        let (ip, prefix) = parse_address(address)?;
        self.netlink(async |handle| {
            let index = find(&handle, name).await?.ok_or_else(|| Error::NoLink(name.to_owned()))?.index;
            let mut request = handle.address().add(index, ip, prefix);
            if ip.is_ipv6() {
                let flags = AddressAttribute::Flags(AddressFlags::Nodad);
                request.message_mut().attributes.push(flags);
            }
            request.execute().await.map_err(Error::netlink(format!("add {address} to {name}")))
        })
    }

    /// Deletes a link; of a veth pair both ends go.
    pub fn delete_link(&self, name: &str) -> Result<()> {
        self.netlink(async |handle| {
            let index = find(&handle, name).await?.ok_or_else(|| Error::NoLink(name.to_owned()))?.index;
            handle.link().del(index).execute().await.map_err(Error::netlink(format!("delete {name}")))
        })
    }

    /// The link of that name, if there is one.
    pub fn link(&self, name: &str) -> Result<Option<Link>> {
        self.netlink(async |handle| find(&handle, name).await)
    }

    /// All links, in the kernel's order.
    pub fn links(&self) -> Result<Vec<Link>> {
        self.netlink(async |handle| {
            let links = handle.link().get().execute().map_ok(|message| Link::from(&message));
            links.try_collect().await.map_err(Error::netlink("list the links"))
        })
    }

    /// Waits until `is_reached` holds for the link (`None`: there is none), woken by the kernel's events.
    pub fn wait_for_link(
        &self,
        name: &str,
        timeout: Duration,
        is_reached: impl Fn(Option<&Link>) -> bool + Send,
    ) -> Result<()> {
        let watch = self.block_on(async || watch(name, Some(timeout), is_reached).await)?;
        if watch { Ok(()) } else { Err(Error::Timeout(format!("the change of link {name}"))) }
    }

    /// Blocks until there is no link of that name, for ever if need be.
    pub fn wait_for_link_end(&self, name: &str) -> Result<()> {
        self.block_on(async || watch(name, None, |link| link.is_none()).await).map(drop)
    }

    /// Changes an existing link.
    fn change(
        &self,
        name: &str,
        edit: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec> + Send,
    ) -> Result<()> {
        self.netlink(async |handle| {
            let index = find(&handle, name).await?.ok_or_else(|| Error::NoLink(name.to_owned()))?.index;
            let message = edit(LinkUnspec::new_with_index(index)).build();
            handle.link().change(message).execute().await.map_err(Error::netlink(format!("change {name}")))
        })
    }

    /// Runs netlink requests on a socket of this namespace.
    fn netlink<T: Send>(&self, work: impl AsyncFnOnce(Handle) -> Result<T> + Send) -> Result<T> {
        self.block_on(async || {
            let (connection, handle, _) =
                rtnetlink::new_connection().map_err(Error::system("open a netlink socket"))?;
            tokio::spawn(connection);
            work(handle).await
        })
    }

    /// Runs asynchronous work on a thread inside this namespace.
    fn block_on<T: Send>(&self, work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
        // Made outside: the first event loop of a process opens sockets (for signals) that stay for ever,
        // and any socket keeps its namespace alive.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::system("start an event loop"))?;
        // Ended inside: a caller's own event loop would not let us.
        self.enter(move || runtime.block_on(work()))?
    }
}

/// Follows a link of the calling thread's namespace; false if `timeout` came first.
async fn watch(
    name: &str,
    timeout: Option<Duration>,
    is_reached: impl Fn(Option<&Link>) -> bool,
) -> Result<bool> {
    let (connection, handle, mut events) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
        .map_err(Error::system("open a netlink socket"))?;
    tokio::spawn(connection);
    // Subscribed before the first look, so that no change falls between them.
    let reached = async {
        while !is_reached(find(&handle, name).await?.as_ref()) {
            if events.next().await.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    };
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, reached).await.unwrap_or(Ok(false)),
        None => reached.await,
    }
}

async fn find(handle: &Handle, name: &str) -> Result<Option<Link>> {
    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    match found.try_next().await {
        Ok(message) => Ok(message.as_ref().map(Link::from)),
        Err(rtnetlink::Error::NetlinkError(error)) if error.to_io().raw_os_error() == Some(libc::ENODEV) => {
            Ok(None)
        }
        Err(error) => Err(Error::netlink(format!("look up {name}"))(error)),
    }
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            is_up: message.header.flags.contains(LinkFlags::Up),
            is_running: message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            counters: LinkCounters::default(),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().unwrap_or_default(),
                LinkAttribute::Stats64(stats) => link.counters = stats.into(),
                _ => {}
            }
        }
        link
    }
}

impl From<&Stats64> for LinkCounters {
    fn from(stats: &Stats64) -> Self {
        Self {
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            rx_dropped: stats.rx_dropped,
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            tx_dropped: stats.tx_dropped,
        }
    }
}

fn parse_address(text: &str) -> Result<(IpAddr, u8)> {
    let invalid = || Error::Address(text.to_owned());
    let (ip, prefix) = text.split_once('/').ok_or_else(invalid)?;
    let ip: IpAddr = ip.parse().map_err(|_| invalid())?;
    let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    if prefix > longest { Err(invalid()) } else { Ok((ip, prefix)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_prefix_length_that_fits() {
        assert_eq!(parse_address("10.0.0.1/24").unwrap(), ("10.0.0.1".parse().unwrap(), 24));
        assert_eq!(parse_address("fd00::1/128").unwrap(), ("fd00::1".parse().unwrap(), 128));
        for wrong in ["10.0.0.1", "10.0.0.1/33", "fd00::1/129", "10.0.0/24", "/24", "", "10.0.0.1/-1"] {
            assert!(parse_address(wrong).is_err(), "{wrong:?}");
        }
    }
}
