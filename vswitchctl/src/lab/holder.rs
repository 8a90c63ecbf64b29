//! The process behind a lab: makes the hosts, holds them, and takes them away when it ends.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::{io, process, thread};

use vswitch_api::{Topology, topology};
use vswitch_netns::{Namespace, Process, Veth, adopt_orphans, leave_terminal, reap_orphans, veth};

use super::READY;
use super::registry::{self, Endpoint, Lab, LabHost, Request};
use crate::failure::Failure;

/// The host's end of its veth.
const FAR: &str = "eth0";

/// Holds the lab of `file` until it is ended.
pub(crate) fn run(file: &Path) -> Result<(), Failure> {
    leave_terminal()?;
    adopt_orphans()?;
    let topology = topology::read(file)?;
    // The switch's namespace must be able to go while the lab is up.
    let switch = Namespace::leave()?;
    let switch_netns = switch.inode()?;
    let endpoint = Endpoint::new()?;
    let mut hosts = Vec::new();
    for host in &topology.host {
        hosts.push(Host::new(&switch, host, &topology)?);
    }
    for host in &mut hosts {
        host.start()?;
    }
    drop(switch);
    writeln!(io::stdout(), "{READY}")
        .and_then(|()| io::stdout().flush())
        .map_err(|error| Failure::Refused(format!("cannot tell that the lab is up: {error}")))?;
    end_with_the_last_link(&hosts);
    let mut lab = Lab { file: file.to_owned(), pid: process::id(), switch_netns, hosts: Vec::new() };
    loop {
        let client = endpoint.accept()?;
        lab.hosts = hosts.iter_mut().map(Host::describe).collect();
        // A client that goes away in the middle is its own affair.
        if let Ok(Request::End(_answer)) = registry::serve(client, &lab) {
            drop(hosts);
            reap_orphans();
            drop(endpoint);
            return Ok(());
        }
    }
}

/// When the switch's namespace goes, every host loses its link, for ever: the lab has no purpose any more.
fn end_with_the_last_link(hosts: &[Host]) {
    let namespaces: Vec<Namespace> = hosts.iter().map(|host| host.namespace.clone()).collect();
    thread::spawn(move || {
        if namespaces.iter().all(|namespace| namespace.wait_for_link_end(FAR).is_ok()) {
            // As any client would; if that fails, so does the whole process, and a user will see it.
            let _ = registry::end(process::id());
        }
    });
}

/// A host that is up. Dropping it removes its link and ends everything that runs in it.
struct Host {
    namespace: Namespace,
    process: Option<Process>,
    description: LabHost,
}

impl Host {
    /// Makes the namespace, the veth and the addresses.
    fn new(switch: &Namespace, host: &topology::Host, topology: &Topology) -> Result<Self, Failure> {
        let Some(port) = topology.port.iter().find(|port| port.name == host.port) else {
            return Err(Failure::Refused(format!("host {}: there is no port {}", host.name, host.port)));
        };
        let Some(netdev) = port.netdev() else {
            return Err(Failure::Refused(format!("host {}: port {} has no netdev", host.name, host.port)));
        };
        let namespace = Namespace::new()?;
        let mut options = Veth::default();
        if let Some(mtu) = port.mtu {
            options.mtu = mtu;
        }
        veth((switch, netdev), (&namespace, FAR), options)?;
        let description = LabHost {
            name: host.name.clone(),
            port: host.port.clone(),
            netdev: netdev.to_owned(),
            address: host.address.iter().map(ToString::to_string).collect(),
            netns: namespace.path(),
            run: host.run.clone(),
            run_ended: None,
        };
        // From here on an error takes the veth along.
        let host = Self { namespace, process: None, description };
        switch.disable_ipv6(netdev)?;
        switch.set_up(netdev)?;
        // Whom the port is held to be.
        if let Some(mac) = port.security.mac.first() {
            host.namespace.set_mac(FAR, mac.0)?;
        }
        for address in &host.description.address {
            host.namespace.add_address(FAR, address)?;
        }
        host.namespace.set_up(FAR)?;
        Ok(host)
    }

    /// Starts the host's command, as process 1 of a process namespace: when that goes, and it goes with
    /// the holder, the kernel ends whatever the command has started.
    fn start(&mut self) -> Result<(), Failure> {
        if let Some(run) = &self.description.run {
            let mut command = self.namespace.command("unshare");
            command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", run]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            self.process = Some(Process::spawn(command)?);
        }
        Ok(())
    }

    /// What is known of the host now.
    fn describe(&mut self) -> LabHost {
        if let Some(process) = &mut self.process
            && let Ok(Some(status)) = process.wait_timeout(Duration::ZERO)
        {
            self.description.run_ended = Some(status.to_string());
        }
        self.description.clone()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Both fail only where the kernel has done the work before us.
        let _ = self.namespace.delete_link(FAR);
        let _ = self.namespace.kill_processes();
    }
}
