//! What protects the operator: a netdev by which the host is reached is not taken without being told so twice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_api::response::{ErrorBody, ErrorCode};
use vswitch_api::topology::{Kind, Port};

use crate::netlink::Links;

/// Stand for any far address: documentation prefixes (RFC 5737, RFC 3849, RFC 9637). A lab may have a route of its
/// own to some of them; the others still meet the default route.
const FAR: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1)),
];

/// A netdev by which the host is reached, wanted by a port that was not told to take it all the same.
pub(super) struct Danger {
    port: String,
    /// Which netdev carries what.
    what: String,
}

impl Danger {
    /// Why the port waits. What takes it all the same can be done now.
    pub(super) fn reason(&self) -> String {
        let Self { port, what } = self;
        format!(
            "{what}; to attach it all the same, set force = true for this port in the topology file, or run \
             `vswitchctl port set {port} --force` once"
        )
    }

    /// The refusal of a command.
    pub(super) fn refusal(&self) -> ErrorBody {
        let mend = "use another netdev, or say --force (in a topology file: force = true) if you are sure that you \
                    will still reach this host";
        ErrorBody::new(ErrorCode::NeedsForce, format!("port {:?}: {}", self.port, self.what), mend)
    }
}

/// Finds whether the port's netdev carries the default route, or the caller's session (`peer`). `forced` says that a
/// command wants it all the same; the port's own `force` does so for good.
pub(super) async fn check(
    links: &Links,
    port: &Port,
    forced: bool,
    peer: Option<IpAddr>,
) -> Result<(), Danger> {
    let is_guarded = !forced && !port.force && port.kind != Kind::Tap;
    let link = port.netdev().and_then(|netdev| links.table().by_name(netdev));
    let Some(link) = link.filter(|_| is_guarded) else { return Ok(()) };
    let carries = |what: String| {
        let what = format!("{} carries {what}, and attaching it would cut that off", link.name);
        Err(Danger { port: port.name.clone(), what })
    };
    for far in FAR {
        let out = links.default_route(far).await;
        if out.iter().any(|&out| links.table().is_carried_by(out, link.index)) {
            return carries("the default route of this host".to_owned());
        }
    }
    if let Some(peer) = peer.filter(|p| !p.is_loopback())
        && is_reached_by(links, peer, link.index).await
    {
        return carries(format!("your session from {peer}"));
    }
    Ok(())
}

async fn is_reached_by(links: &Links, address: IpAddr, link: u32) -> bool {
    links.route_to(address).await.is_some_and(|out| links.table().is_carried_by(out, link))
}
