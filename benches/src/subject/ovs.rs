//! Open vSwitch with its userspace datapath: `NORMAL` forwarding between two AF_PACKET ports, a database and
//! daemons of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use vswitch_netns::{Namespace, Process};

use crate::bed::{Bed, HOST, PORTS};
use crate::clock::wait_until;
use crate::subject::{Switch, daemon};
use crate::{Result, noise};

/// Where its package puts its data, unless its own variable `OVS_PKGDATADIR` says otherwise.
const DATA: &str = "/usr/share/openvswitch";
const BRIDGE: &str = "bridge";

/// The two daemons; the switch ends before its database.
pub(super) struct Ovs {
    folder: PathBuf,
    namespace: Namespace,
    _switch: Process,
    _database: Process,
}

impl Ovs {
    pub(super) fn start(bed: &Bed, folder: &Path) -> Result<Self> {
        let namespace = bed.switch.clone();
        let database_file = folder.join("conf.db");
        let mut create = Command::new("ovsdb-tool");
        let data = std::env::var_os("OVS_PKGDATADIR").map_or_else(|| DATA.into(), PathBuf::from);
        create.arg("create").arg(&database_file).arg(data.join("vswitch.ovsschema"));
        Process::run(create)?;
        let at_home = |command: &mut Command| {
            for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
                command.env(variable, folder);
            }
        };
        let socket = format!("unix:{}/db.sock", folder.display());
        let serve = |command: &mut Command| {
            at_home(command);
            command.arg(&database_file).arg(format!("--remote=p{socket}"));
            command.arg(format!("--unixctl={}/db.ctl", folder.display()));
        };
        let database = daemon(&namespace, folder, "db.log", serve, Path::new("ovsdb-server"))?;
        wait_until("the database of Open vSwitch", || Ok(folder.join("db.sock").exists()))?;
        let switch = |command: &mut Command| {
            at_home(command);
            // Ports of this kind are polled by its main thread: away from what makes the frames, as ours.
            command.args(["--cpu-list", &noise::CPUS[1].to_string(), "ovs-vswitchd", &socket]);
            command.arg(format!("--unixctl={}/switch.ctl", folder.display()));
        };
        let switch = daemon(&namespace, folder, "switch.log", switch, Path::new("taskset"))?;
        let ovs = Self { folder: folder.to_owned(), namespace, _switch: switch, _database: database };
        ovs.vsctl(&["--no-wait", "init"])?;
        ovs.vsctl(&["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"])?;
        for port in PORTS {
            ovs.vsctl(&["add-port", BRIDGE, port])?;
        }
        // Without DPDK it has no offloads: GSO frames would be lost, and unfinished checksums stay so.
        for host in [&bed.sender, &bed.receiver] {
            host.run("ethtool", ["-K", HOST, "tx", "off"])?;
        }
        Ok(ovs)
    }

    /// Configures it, and waits until it is so.
    fn vsctl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.namespace.command("ovs-vsctl");
        command.arg(format!("--db=unix:{}/db.sock", self.folder.display())).arg("--timeout=15").args(args);
        Ok(Process::run(command)?)
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
