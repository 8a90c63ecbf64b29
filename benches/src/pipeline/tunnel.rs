//! VXLAN on the way: a second port that is the underlay's, and another VTEP in the place of one of the two.

use std::net::IpAddr;
use std::sync::Arc;

use clap::ValueEnum;
use vswitch_dataplane::tunnel::{Outer, Outgoing};
use vswitch_dataplane::{Attachment, NetId, Port, PortId, Snapshot, Tunnel, Underlay};
use vswitch_wire::testing::frame;
use vswitch_wire::{Mac, Vni, vxlan};

use crate::Result;

/// The underlay's network and port.
pub(super) const UNDERLAY: NetId = NetId(1);
pub(super) const UPLINK: PortId = PortId(2);
/// Bytes in front of a frame, over IPv4.
pub(super) const OVERHEAD: usize = 50;

const VTEP: Mac = Mac([2, 0, 0, 0, 9, 1]);
const NEXT_HOP: Mac = Mac([2, 0, 0, 0, 9, 2]);
const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

/// Which way frames go through the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Way {
    /// Into it.
    Encap,
    /// Out of it.
    Decap,
}

impl Way {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Encap => "encap",
            Self::Decap => "decap",
        }
    }
}

pub(super) fn vni() -> Result<Vni> {
    Ok(Vni::new(7)?)
}

/// The port that stands for the other VTEP, which is a peer of `network`.
pub(super) fn peer(network: NetId) -> Port {
    let outer = Outer::new(&Outgoing {
        source_mac: VTEP,
        next_hop: NEXT_HOP,
        source: OWN,
        destination: OTHER,
        udp_port: vxlan::UDP_PORT,
        ttl: 64,
        dscp: 0,
        checksum: false,
    });
    let tunnel = Tunnel::new(OTHER, [network], outer);
    Port::new(Attachment::Tunnel(Arc::new(tunnel)), 1464, Arc::from([Default::default()]))
}

/// The same switch, with the peer `peer` and `network` in the tunnel.
pub(super) fn with_underlay(snapshot: Snapshot, peer: PortId, network: NetId) -> Result<Snapshot> {
    let own = (VTEP, OWN, vxlan::UDP_PORT);
    let underlay = Underlay::new((UNDERLAY, UPLINK), own, &[(OTHER, peer)], &[(vni()?, network)], [0; 2]);
    Ok(snapshot.with_underlay(Some(underlay)))
}

/// A packet of the tunnel with this frame in it.
pub(super) fn packet(inner: &[u8]) -> Result<Vec<u8>> {
    let payload = [&vxlan::header(vni()?)[..], inner].concat();
    Ok(frame(VTEP, NEXT_HOP).ip(OTHER, OWN).udp(50_000, vxlan::UDP_PORT).payload(&payload).bytes())
}
