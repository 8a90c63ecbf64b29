//! The way of frames past the workers: when it is open, what passes by it, and that it keeps stations from ageing.
//!
//! Workers find the flows (`worker/scout.rs`). No flow may outlive the snapshot that it was found in, so none passes from
//! before a change until every worker has the new snapshot; then they are found anew.

use std::time::Duration;

use vswitch_api::response::Health;
use vswitch_api::topology::NETWORKS_MAX;
use vswitch_dataplane::{NetId, PortId, shortcut};
use vswitch_io::shortcut::{Lost, NETWORKS, PORTS, Shortcut, Traffic};
use vswitch_wire::Mac;

use super::Control;
use super::record::PortRecord;

/// How often flows are looked at. An address that is in use is not to be a second old, since that is the shortest
/// ageing time.
const SWEEP: Duration = Duration::from_millis(500);
/// After so many sweeps a flow without frames is forgotten: 10 s.
const IDLE_SWEEPS: u64 = 20;

const _: () = assert!(NETWORKS_MAX <= NETWORKS);
const _: () = assert!(shortcut::MIN_SEGMENT == vswitch_io::shortcut::MIN_SEGMENT);

/// Makes it, or says why all frames go by the workers.
pub(super) fn open() -> Option<&'static Shortcut> {
    Shortcut::open()
        .inspect_err(|error| tracing::warn!(%error, "no frame passes in the kernel, all go by the workers"))
        .ok()
}

impl Control {
    /// The netdev by whose index frames pass from and to the port, if they may. While ports are exchanged for others,
    /// there may be more numbers than are counted for.
    pub(super) fn shortcut_ifindex(&self, id: u16, record: &PortRecord) -> Option<u32> {
        let device = record.device().filter(|_| usize::from(id) < PORTS)?;
        // A netdev may be renamed, and another one have its name, while it is opened.
        let is_followed = |index: &u32| device.index == Some(*index) && self.filters.has(*index);
        device.facts.shortcut_ifindex.filter(is_followed)
    }

    /// No frame passes until the next snapshot is published.
    pub(super) fn pause_shortcut(&self) {
        if let Some(shortcut) = self.shortcut {
            shortcut.pause();
        }
    }

    /// Flows may pass that are found from now on.
    pub(super) fn resume_shortcut(&self) {
        if let Some(shortcut) = self.shortcut.filter(|_| self.shortcut_given_up.is_none()) {
            shortcut.resume();
        }
    }

    /// The flows from and to these ports end.
    pub(super) fn end_flows(&self, ports: &[PortId]) {
        let Some(shortcut) = self.shortcut else { return };
        ports.iter().filter(|port| port.index() < PORTS).for_each(|port| shortcut.end_port(port.0));
    }

    /// Has the sources of flows stay known, and forgets flows that are over: from time to time.
    pub(super) fn sweep_flows(&mut self) {
        let now = self.clock.now();
        if self.shortcut_given_up.is_some() || now.since(self.swept_at) < SWEEP {
            return;
        }
        self.swept_at = now;
        let Some(shortcut) = self.shortcut else { return };
        let swept = shortcut.sweep(|flow| {
            if flow.idle == 0 {
                let (network, port) = (NetId(flow.network), PortId(flow.ingress));
                self.fdb.refresh(network, Mac(flow.source), port, now);
            }
            flow.idle < IDLE_SWEEPS
        });
        if let Err(Lost { port, frames }) = swept {
            let port = self.port_ids.name(port).unwrap_or("that is gone");
            let why = format!(
                "another tcx program took {frames} frames of port {port} that were to pass in the kernel: all go by the workers \
                 until the daemon starts anew"
            );
            tracing::error!(why, "no shortcut");
            shortcut.pause();
            self.shortcut_given_up = Some(why);
        }
    }

    /// Whether frames pass in the kernel, for `status`.
    pub(super) fn shortcut_health(&self) -> Health {
        let (ok, text) = match (&self.shortcut_given_up, self.shortcut) {
            (Some(why), _) => (false, why.clone()),
            (None, Some(_)) => (true, "busy flows pass in the kernel".to_owned()),
            (None, None) if self.started.shortcut => {
                (true, "the kernel refuses it, all frames go by the workers; the log says why".to_owned())
            }
            (None, None) => (true, "off, all frames go by the workers".to_owned()),
        };
        Health { part: "shortcut".to_owned(), ok, text }
    }

    /// What passed in by a port, and out.
    pub(super) fn passed_by_port(&self, name: &str) -> (Traffic, Traffic) {
        let id = self.port_ids.get(name).filter(|&id| usize::from(id) < PORTS);
        id.zip(self.shortcut).map(|(id, shortcut)| shortcut.port(id)).unwrap_or_default()
    }

    /// What passed in a network.
    pub(super) fn passed_in_network(&self, name: &str) -> Traffic {
        let id = self.net_ids.get(name).filter(|&id| usize::from(id) < NETWORKS);
        id.zip(self.shortcut).map(|(id, shortcut)| shortcut.network(id)).unwrap_or_default()
    }

    /// A port has a number that another one may have had before.
    pub(super) fn count_port_anew(&self, id: u16) {
        if let Some(shortcut) = self.shortcut.filter(|_| usize::from(id) < PORTS) {
            shortcut.clear_port(id);
        }
    }

    /// A network has a number that another one may have had before.
    pub(super) fn count_network_anew(&self, id: u16) {
        if let Some(shortcut) = self.shortcut.filter(|_| usize::from(id) < NETWORKS) {
            shortcut.clear_network(id);
        }
    }
}
