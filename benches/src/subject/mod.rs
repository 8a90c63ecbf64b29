//! What is compared. Switches of veths are brought up in the switch's namespace of a bed of their own, switches of guests in a
//! namespace of their own.

mod linux_bridge;
mod ovs;
mod ovs_dpdk;
mod testpmd;
mod vswitch;

use std::path::Path;
use std::process::Command;

use vswitch_api::topology::Kind;
use vswitch_netns::{Namespace, Process};

use crate::Result;
use crate::bed::Bed;
use crate::dpdk::Memory;
use ovs_dpdk::Rules;

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// This one, with ports of a kind.
    Vswitch {
        /// The kind.
        kind: Kind,
        /// Whether frames may pass in the kernel.
        shortcut: bool,
    },
    /// The kernel's.
    LinuxBridge,
    /// Open vSwitch's userspace datapath.
    Ovs,
}

/// A switch at work; dropping it ends it.
pub(crate) trait Switch {
    /// What it does, in words.
    fn describe(&self) -> Result<String>;

    /// Once traffic is quiet: whether every frame is accounted for. An error says that it is not.
    fn audit(&mut self) -> Result<()>;
}

/// Sockets of vhost-user ports, in the switch's folder.
pub(crate) const SOCKETS: [&str; 2] = ["vm0", "vm1"];

/// A switch between two guests, which listens for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuestSwitch {
    /// This one.
    Vswitch,
    /// Open vSwitch with DPDK.
    OvsDpdk(Rules),
    /// No switch: all that comes in by one port leaves by the other.
    Testpmd,
}

/// A switch whose thread polls, so that it takes its CPU from others unless it is stopped.
pub(crate) trait Poller: Switch {
    /// The process with the thread.
    fn process(&self) -> &Process;
}

impl GuestSwitch {
    /// Those of the table.
    pub(crate) const ALL: [Self; 4] =
        [Self::Vswitch, Self::OvsDpdk(Rules::Static), Self::OvsDpdk(Rules::Normal), Self::Testpmd];

    /// Its name in tables and files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vswitch => "vswitch",
            Self::OvsDpdk(Rules::Static) => "ovs-dpdk-static",
            Self::OvsDpdk(Rules::Normal) => "ovs-dpdk-normal",
            Self::Testpmd => "testpmd",
        }
    }

    /// MiB of huge pages that it needs.
    pub(crate) const fn memory_mib(self) -> u32 {
        match self {
            Self::Vswitch => 0,
            Self::OvsDpdk(_) => ovs_dpdk::MEMORY_MIB,
            Self::Testpmd => crate::dpdk::MEMORY_MIB,
        }
    }

    /// Why it cannot run here, if it cannot.
    pub(crate) fn hindrance(self, memory: Memory) -> Option<&'static str> {
        match self {
            Self::OvsDpdk(_) if memory == Memory::Small => Some("it needs huge pages, and there are none"),
            Self::OvsDpdk(_) if !ovs_dpdk::is_there() => Some("openvswitch-switch-dpdk is not there"),
            _ => None,
        }
    }

    /// Starts it with its ports in `folder`, which is its own.
    pub(crate) fn start(
        self,
        namespace: &Namespace,
        folder: &Path,
        memory: Memory,
    ) -> Result<Box<dyn Poller>> {
        Ok(match self {
            Self::Vswitch => Box::new(vswitch::Vswitch::between_guests(namespace, folder)?),
            Self::OvsDpdk(rules) => Box::new(ovs_dpdk::OvsDpdk::start(namespace, folder, rules)?),
            Self::Testpmd => Box::new(testpmd::Testpmd::start(namespace, folder, memory)?),
        })
    }
}

impl Subject {
    /// Its name in tables and files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vswitch { .. } => "vswitch",
            Self::LinuxBridge => "linux-bridge",
            Self::Ovs => "ovs",
        }
    }

    /// Starts it on the ports of `bed`; `folder` is its own.
    pub(crate) fn start(self, bed: &Bed, folder: &Path) -> Result<Box<dyn Switch>> {
        Ok(match self {
            Self::Vswitch { kind, shortcut } => {
                Box::new(vswitch::Vswitch::start(bed, folder, kind, shortcut)?)
            }
            Self::LinuxBridge => Box::new(linux_bridge::LinuxBridge::start(bed)?),
            Self::Ovs => Box::new(ovs::Ovs::start(bed, folder)?),
        })
    }
}

/// Starts a daemon in a namespace with its log in `folder`.
fn daemon(
    namespace: &Namespace,
    folder: &Path,
    log: &str,
    build: impl FnOnce(&mut Command),
    program: &Path,
) -> Result<Process> {
    let mut command = namespace.command(program);
    build(&mut command);
    let log = std::fs::File::create(folder.join(log))?;
    command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Process::spawn(command)?)
}
