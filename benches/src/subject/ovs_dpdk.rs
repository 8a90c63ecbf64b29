//! Open vSwitch with DPDK between two vhost-user ports, a PMD thread on the second CPU.

use std::path::{Path, PathBuf};

use vswitch_netns::{Namespace, Process};
use vswitch_tests::openvswitch::Database;

use crate::subject::{Poller, SOCKETS, Switch};
use crate::{Result, noise};

/// Where its package puts it. The variable is for one that is unpacked elsewhere.
const PROGRAM: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const PROGRAM_VARIABLE: &str = "VSWITCH_BENCH_OVS_DPDK";
const BRIDGE: &str = "bridge";
/// MiB of huge pages.
pub(super) const MEMORY_MIB: u32 = 256;

/// How it is told to forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// One flow for each port: what comes in by it leaves by the other.
    Static,
    /// As a switch that learns addresses.
    Normal,
}

/// The two daemons; the switch ends before its database.
pub(super) struct OvsDpdk {
    rules: Rules,
    namespace: Namespace,
    switch: Process,
    _database: Database,
}

impl OvsDpdk {
    pub(super) fn start(namespace: &Namespace, folder: &Path, rules: Rules) -> Result<Self> {
        let database = Database::start(namespace, folder)?;
        let [first, second] = noise::CPUS.map(|cpu| 1_u64 << cpu);
        let settings = [
            "dpdk-init=true".to_owned(),
            format!("dpdk-lcore-mask={first:#x}"),
            format!("pmd-cpu-mask={second:#x}"),
            format!("dpdk-socket-mem={MEMORY_MIB}"),
            // As many buffers as its ports need, where it would fill all that there is, and have nothing left for rings.
            "per-port-memory=true".to_owned(),
            "dpdk-extra=--no-pci --no-telemetry".to_owned(),
        ];
        let settings: Vec<String> = settings.iter().map(|setting| setting_of(setting)).collect();
        let words = ["--no-wait", "set", "Open_vSwitch", "."].into_iter();
        database.vsctl(&words.chain(settings.iter().map(String::as_str)).collect::<Vec<_>>())?;
        let switch = database.start_switch(&[&program()])?;
        database.vsctl(&["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"])?;
        for port in SOCKETS {
            database.vsctl(&[
                "add-port",
                BRIDGE,
                port,
                "--",
                "set",
                "Interface",
                port,
                "type=dpdkvhostuser",
            ])?;
            let error = database.vsctl(&["get", "Interface", port, "error"])?;
            if error.trim() != "[]" {
                return Err(format!("Open vSwitch has no port {port}: {error}").into());
            }
        }
        if rules == Rules::Static {
            let management = format!("unix:{}/{BRIDGE}.mgmt", folder.display());
            for args in [
                &["del-flows"][..],
                &["add-flow", "in_port=1,actions=output:2"],
                &["add-flow", "in_port=2,actions=output:1"],
            ] {
                let (verb, flow) = (&args[..1], &args[1..]);
                namespace.run("ovs-ofctl", verb.iter().chain([&management.as_str()]).chain(flow))?;
            }
        }
        Ok(Self { rules, namespace: namespace.clone(), switch, _database: database })
    }
}

/// As `ovs-vsctl` reads it: what has spaces in it is in quotes.
fn setting_of(setting: &str) -> String {
    let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
    format!("other_config:{key}=\"{value}\"")
}

fn program() -> String {
    std::env::var(PROGRAM_VARIABLE).unwrap_or_else(|_| PROGRAM.to_owned())
}

/// Whether it is there.
pub(crate) fn is_there() -> bool {
    PathBuf::from(program()).is_file()
}

impl Switch for OvsDpdk {
    fn describe(&self) -> Result<String> {
        let version = self.namespace.run(&program(), ["--version"])?;
        let version: Vec<&str> = version.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let rules = match self.rules {
            Rules::Static => "in_port=1,actions=output:2 and back",
            Rules::Normal => "NORMAL",
        };
        Ok(format!("{}: dpdkvhostuser, {rules}", version.join(", ")))
    }

    fn audit(&mut self) -> Result<()> {
        Ok(()) // it keeps no such account
    }
}

impl Poller for OvsDpdk {
    fn process(&self) -> &Process {
        &self.switch
    }
}
