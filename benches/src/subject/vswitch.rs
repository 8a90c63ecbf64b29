//! This switch: the release build of the daemon, told by a topology file, asked by its API.

use std::path::Path;

use tokio::runtime::{Builder, Runtime};
use vswitch_api::client::Client;
use vswitch_api::paths;
use vswitch_api::response::{Conservation, LinkState, PortState, Stats};
use vswitch_api::topology::{self, Kind, Network, Polling, Port, Topology};
use vswitch_netns::{Namespace, Process};

use crate::bed::{Bed, PORTS};
use crate::clock::wait_until;
use crate::subject::{Poller, SOCKETS, Switch, daemon};
use crate::{Result, noise};

/// The running daemon.
pub(super) struct Vswitch {
    client: Client,
    runtime: Runtime,
    daemon: Process,
}

impl Vswitch {
    /// With a port of a kind for each netdev of the bed.
    pub(super) fn start(bed: &Bed, folder: &Path, kind: Kind, shortcut: bool) -> Result<Self> {
        let ports = PORTS.map(|name| Port { kind, ..Port::new(name) });
        let mut topology = topology(ports);
        topology.switch.shortcut = shortcut;
        let switch = Self::run(&bed.switch, folder, &topology)?;
        wait_until("both ports of vswitch are up", || {
            Ok(switch.ports().is_ok_and(|ports| ports.iter().all(|port| port.state == LinkState::Up)))
        })?;
        Ok(switch)
    }

    /// With sockets for two guests; its worker polls.
    pub(super) fn between_guests(namespace: &Namespace, folder: &Path) -> Result<Self> {
        let ports = SOCKETS.map(|name| {
            let socket = Some(folder.join(name).display().to_string());
            Port { kind: Kind::VhostUser, socket, ..Port::new(name) }
        });
        let mut topology = topology(ports);
        topology.switch.polling = Polling::Busy;
        let switch = Self::run(namespace, folder, &topology)?;
        wait_until("vswitch listens for guests", || {
            Ok(SOCKETS.iter().all(|name| folder.join(name).exists()))
        })?;
        Ok(switch)
    }

    fn run(namespace: &Namespace, folder: &Path, topology: &Topology) -> Result<Self> {
        let file = folder.join("topology.toml");
        std::fs::write(&file, topology::to_toml(topology))?;
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
        let daemon = daemon(namespace, folder, "log", start, &program)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { client: Client::new(socket), runtime, daemon })
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
fn topology(ports: [Port; 2]) -> Topology {
    let mut topology = Topology::default();
    topology.switch.cpus = vec![noise::CPUS[1] as u32];
    topology.network = vec![Network::new("lan")];
    topology.port = ports.map(|port| Port { access: Some("lan".to_owned()), ..port }).into();
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

impl Poller for Vswitch {
    fn process(&self) -> &Process {
        &self.daemon
    }
}
