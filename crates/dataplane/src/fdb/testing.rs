//! Snapshots for the FDB's tests.

use alloc::sync::Arc;
use core::time::Duration;
use std::vec::Vec;

use vswitch_wire::{Caps, Mac, Vid};

use super::Fdb;
use crate::snapshot::{Attachment, Trunk, TrunkEntry};
use crate::{NetId, Network, Port, Snapshot, Storm};

/// Some address.
pub(super) const MAC: Mac = Mac([2, 0, 0, 0, 0, 0x11]);

/// An access port of one network, or a trunk of several (network n under VLAN ID n + 1).
pub(super) fn port(networks: &[NetId], max_macs: u32) -> Port {
    let attachment = match networks {
        [] => Attachment::None,
        [network] => Attachment::Access(*network),
        _ => {
            let entry = |&network: &NetId| TrunkEntry { vid: Vid::new(network.0 + 1).unwrap(), network };
            Attachment::Trunk(Arc::new(Trunk::new(&networks.iter().map(entry).collect::<Vec<_>>(), None)))
        }
    };
    Port {
        attachment,
        isolated: false,
        up: true,
        max_frame: 1514,
        caps: Caps::default(),
        max_macs,
        storm: Storm::default(),
        counters: Arc::from([]),
    }
}

/// A network; ageing in seconds.
pub(super) fn network(max_macs: u32, ageing_s: u64) -> Network {
    Network::new(max_macs, Duration::from_secs(ageing_s), Arc::from([]))
}

pub(super) fn snapshot<const P: usize, const N: usize>(
    ports: [Port; P],
    networks: [Network; N],
    fdb: Arc<Fdb>,
) -> Snapshot {
    Snapshot::new(ports.map(Some).into(), networks.map(Some).into(), fdb)
}
