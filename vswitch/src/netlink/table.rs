//! What is known of the links: a dump, and then one change after the other. No socket, no clock.

use std::collections::HashMap;

use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use vswitch_wire::Mac;

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
    /// Its MAC, of Ethernet links.
    pub mac: Option<Mac>,
    /// Its frames are Ethernet's: `lo` and tunnels of IP have others.
    pub is_ethernet: bool,
    /// The kind in `ip -d link` terms, as in `veth` or `tun`; `None` for physical devices.
    pub kind: Option<String>,
    /// A bridge or bond that owns it.
    pub controller: Option<u32>,
    /// The device that it sends by: of a VLAN, macvlan or ipvlan device, for example.
    pub lower: Option<u32>,
}

/// All links, by index and by name.
#[derive(Debug, Default)]
pub struct Table {
    by_index: HashMap<u32, Link>,
    /// Name to index.
    names: HashMap<String, u32>,
}

impl Table {
    /// The link of that name, if there is one now.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.by_index(*self.names.get(name)?)
    }

    /// The link of that index.
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.by_index.get(&index)
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

    /// Takes an event in; true when it is news.
    pub(super) fn take(&mut self, message: &RouteNetlinkMessage) -> bool {
        match message {
            RouteNetlinkMessage::NewLink(m) if is_of_device(m) => {
                read_link(m).is_some_and(|link| self.insert(link))
            }
            RouteNetlinkMessage::DelLink(m) if is_of_device(m) => self.remove(m.header.index),
            _ => false,
        }
    }

    /// Takes a whole dump in the place of all that was known; true when it is news.
    pub(super) fn replace(&mut self, dump: &[LinkMessage]) -> bool {
        let mut now = Self::default();
        for link in dump.iter().filter_map(read_link) {
            now.insert(link);
        }
        let is_news = now.by_index != self.by_index;
        *self = now;
        is_news
    }

    fn insert(&mut self, link: Link) -> bool {
        if self.by_index.get(&link.index) == Some(&link) {
            return false;
        }
        self.remove(link.index);
        self.names.insert(link.name.clone(), link.index);
        self.by_index.insert(link.index, link);
        true
    }

    fn remove(&mut self, index: u32) -> bool {
        let Some(gone) = self.by_index.remove(&index) else { return false };
        // Its name may be another link's by now.
        if self.names.get(&gone.name) == Some(&index) {
            self.names.remove(&gone.name);
        }
        true
    }
}

#[cfg(test)]
impl FromIterator<Link> for Table {
    fn from_iter<I: IntoIterator<Item = Link>>(links: I) -> Self {
        let mut table = Self::default();
        for link in links {
            table.insert(link);
        }
        table
    }
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
        mac: None,
        is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        kind: None,
        controller: None,
        lower: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(address) => link.mac = address.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Link(index) => link.lower = Some(*index).filter(|&i| i != link.index),
            LinkAttribute::Controller(index) => link.controller = Some(*index).filter(|&i| i != 0),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(index: u32, name: &str, up: bool) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if up {
            message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        }
        message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Mtu(1500)];
        message
    }

    fn new(index: u32, name: &str, up: bool) -> RouteNetlinkMessage {
        RouteNetlinkMessage::NewLink(message(index, name, up))
    }

    fn index_of(table: &Table, name: &str) -> Option<u32> {
        table.by_name(name).map(|link| link.index)
    }

    #[test]
    fn only_what_differs_is_news() {
        let mut table = Table::default();
        assert!(table.take(&new(1, "a", false)));
        assert!(!table.take(&new(1, "a", false)), "the same once more");
        assert!(table.take(&new(1, "a", true)));
        assert!(table.by_name("a").is_some_and(|link| link.up && link.mtu == 1500));
        let mut of_bridge = message(1, "a", false);
        of_bridge.header.interface_family = AddressFamily::Bridge;
        assert!(!table.take(&RouteNetlinkMessage::DelLink(of_bridge)), "a bridge lets go of its port");
        assert!(table.take(&RouteNetlinkMessage::DelLink(message(1, "a", true))));
        assert!(!table.take(&RouteNetlinkMessage::DelLink(message(1, "a", true))));
        assert_eq!(index_of(&table, "a"), None);
    }

    #[test]
    fn a_name_is_that_of_the_link_that_took_it_last() {
        let mut table = Table::default();
        table.take(&new(1, "a", true));
        table.take(&new(1, "b", true));
        assert_eq!((index_of(&table, "a"), index_of(&table, "b")), (None, Some(1)));
        // Another link takes the name before the end of the first is told.
        table.take(&new(2, "b", true));
        table.take(&RouteNetlinkMessage::DelLink(message(1, "b", true)));
        assert_eq!((index_of(&table, "b"), table.by_index(1)), (Some(2), None));
    }

    #[test]
    fn a_dump_takes_the_place_of_all() {
        let mut table = Table::default();
        table.take(&new(1, "a", true));
        assert!(!table.replace(&[message(1, "a", true)]));
        assert!(table.replace(&[message(2, "b", true)]));
        assert_eq!((index_of(&table, "a"), index_of(&table, "b")), (None, Some(2)));
    }

    #[test]
    fn a_vlan_device_is_carried_by_its_lower_one_and_a_ring_ends() {
        let link = |index, kind: &str, lower| Link {
            index,
            name: format!("l{index}"),
            up: true,
            mtu: 1500,
            mac: None,
            is_ethernet: true,
            kind: Some(kind.to_owned()),
            controller: None,
            lower,
        };
        let table = Table::from_iter([
            link(1, "dummy", None),
            link(2, "vlan", Some(1)),
            link(3, "veth", Some(1)),
            link(4, "macvlan", Some(5)),
            link(5, "macvlan", Some(4)),
        ]);
        assert!(table.is_carried_by(2, 1) && table.is_carried_by(1, 1));
        assert!(!table.is_carried_by(1, 2) && !table.is_carried_by(3, 1) && !table.is_carried_by(4, 1));
    }
}
