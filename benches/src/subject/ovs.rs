//! Open vSwitch with its userspace datapath: `NORMAL` forwarding between two AF_PACKET ports, a database and
//! daemons of its own.

use std::path::Path;

use vswitch_netns::{Namespace, Process};
use vswitch_tests::openvswitch::Database;

use crate::bed::{Bed, HOST, PORTS};
use crate::subject::Switch;
use crate::{Result, noise};

const BRIDGE: &str = "bridge";

/// The two daemons; the switch ends before its database.
pub(super) struct Ovs {
    namespace: Namespace,
    _switch: Process,
    _database: Database,
}

impl Ovs {
    pub(super) fn start(bed: &Bed, folder: &Path) -> Result<Self> {
        let namespace = bed.switch.clone();
        let database = Database::start(&namespace, folder)?;
        // Ports of this kind are polled by its main thread: away from what makes the frames, as ours.
        let cpu = noise::CPUS[1].to_string();
        let switch = database.start_switch(&["taskset", "--cpu-list", &cpu, "ovs-vswitchd"])?;
        database.vsctl(&["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"])?;
        for port in PORTS {
            database.vsctl(&["add-port", BRIDGE, port])?;
        }
        // Without DPDK it has no offloads: GSO frames would be lost, and unfinished checksums stay so.
        for host in [&bed.sender, &bed.receiver] {
            host.run("ethtool", ["-K", HOST, "tx", "off"])?;
        }
        Ok(Self { namespace, _switch: switch, _database: database })
    }
}

impl Switch for Ovs {
    fn describe(&self) -> Result<String> {
        let version = self.namespace.run("ovs-vswitchd", ["--version"])?;
        let version = version.lines().next().unwrap_or_default();
        Ok(format!("{version}: datapath_type=netdev, system ports, NORMAL, hosts with `ethtool -K tx off`"))
    }

    fn audit(&mut self) -> Result<()> {
        Ok(()) // it keeps no such account
    }
}
