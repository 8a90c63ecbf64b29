//! What is compared: each switch is brought up in the switch's namespace of a bed of its own.

mod linux_bridge;
mod ovs;
mod vswitch;

use std::path::Path;
use std::process::Command;

use vswitch_api::topology::Kind;
use vswitch_netns::{Namespace, Process};

use crate::Result;
use crate::bed::Bed;

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
