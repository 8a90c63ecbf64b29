//! What protects the operator: a netdev by which the host is reached is not taken without being told so twice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_api::response::{ErrorBody, ErrorCode};
use vswitch_api::topology::{Kind, Port};

use super::edit::refuse;
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

/// Refuses a netdev that carries the default route, or by which the caller's session (`peer`) is reached.
pub(super) async fn check(
    links: &Links,
    port: &Port,
    forced: bool,
    peer: Option<IpAddr>,
) -> Result<(), ErrorBody> {
    let Some(link) = links.by_name(port.netdev()).filter(|_| !forced && port.kind != Kind::Tap) else {
        return Ok(());
    };
    let mend = "use another netdev, or say --force if you are sure that you will still reach this host";
    let refusal = |what: String| {
        let message = format!(
            "port {:?}: {} carries {what}, and attaching it would cut that off",
            port.name, link.name
        );
        Err(refuse(ErrorCode::NeedsForce, message, mend))
    };
    for far in FAR {
        let out = links.default_route(far).await;
        if out.iter().any(|&out| links.is_carried_by(out, link.index)) {
            return refusal("the default route of this host".to_owned());
        }
    }
    if let Some(peer) = peer.filter(|p| !p.is_loopback())
        && is_reached_by(links, peer, link.index).await
    {
        return refusal(format!("your session from {peer}"));
    }
    Ok(())
}

async fn is_reached_by(links: &Links, address: IpAddr, link: u32) -> bool {
    links.route_to(address).await.is_some_and(|out| links.is_carried_by(out, link))
}
