//! This switch: the release build of the daemon, told by a topology file, asked by its API.

use std::path::Path;

use tokio::runtime::{Builder, Runtime};
use vswitch_api::client::Client;
use vswitch_api::paths;
use vswitch_api::response::{Conservation, LinkState, PortState, Stats};
use vswitch_api::topology::{self, Kind, Network, Port, Topology};
use vswitch_netns::Process;

use crate::bed::{Bed, PORTS};
use crate::clock::wait_until;
use crate::subject::{Switch, daemon};
use crate::{Result, noise};

/// The running daemon.
pub(super) struct Vswitch {
    client: Client,
    runtime: Runtime,
    _daemon: Process,
}

impl Vswitch {
    pub(super) fn start(bed: &Bed, folder: &Path, kind: Kind, shortcut: bool) -> Result<Self> {
        let file = folder.join("topology.toml");
        std::fs::write(&file, topology::to_toml(&topology(kind, shortcut)))?;
        let socket = folder.join("socket");
        let program = std::env::current_exe()?.with_file_name("vswitch");
        if !program.exists() {
            return Err(
                format!("{} is not there: cargo build --release -p vswitch", program.display()).into()
            );
        }
        let start = |command: &mut std::process::Command| {
            command.arg("--config").arg(&file).arg("--socket").arg(&socket);
        };
        let daemon = daemon(&bed.switch, folder, "log", start, &program)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let switch = Self { client: Client::new(socket), runtime, _daemon: daemon };
        wait_until("both ports of vswitch are up", || {
            Ok(switch.ports().is_ok_and(|ports| ports.iter().all(|port| port.state == LinkState::Up)))
        })?;
        Ok(switch)
    }

    fn ports(&self) -> Result<Vec<PortState>> {
        Ok(self.runtime.block_on(self.client.get(paths::PORTS, &()))?)
    }

    fn conservation(&self) -> Result<Conservation> {
        let stats: Stats = self.runtime.block_on(self.client.get(paths::STATS, &()))?;
        Ok(stats.conservation)
    }
}

/// One network with both ports, one worker on the second CPU.
fn topology(kind: Kind, shortcut: bool) -> Topology {
    let mut topology = Topology::default();
    topology.switch.shortcut = shortcut;
    topology.switch.cpus = vec![noise::CPUS[1] as u32];
    topology.network = vec![Network::new("lan")];
    topology.port = PORTS
        .map(|name| {
            let mut port = Port::new(name);
            port.kind = kind;
            port.access = Some("lan".to_owned());
            port
        })
        .into();
    topology
}

impl Switch for Vswitch {
    fn describe(&self) -> Result<String> {
        let ports = self.ports()?;
        let port = ports.first().ok_or("the switch has no port")?;
        let mode = port.mode.as_deref().unwrap_or_default();
        Ok(format!("{}: {}, {mode}", env!("CARGO_PKG_VERSION"), port.kind.name()))
    }

    /// `received + originated + replicated = transmitted + consumed + dropped`, exactly.
    fn audit(&mut self) -> Result<()> {
        let mut last = self.conservation()?;
        wait_until("vswitch is quiet", || {
            let now = self.conservation()?;
            Ok(std::mem::replace(&mut last, now) == now)
        })?;
        if last.received == 0 {
            return Err("vswitch has received nothing: the figures are not its own".into());
        }
        if !last.is_balanced() {
            return Err(format!("vswitch has lost count of frames: {last:?}").into());
        }
        Ok(())
    }
}
