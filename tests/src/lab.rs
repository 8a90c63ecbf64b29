//! A switch with its hosts, from a topology file; and what holds at the end of every scenario.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use nix::sys::signal::Signal;
use vswitch_api::response::LinkState;
use vswitch_api::{Topology, topology};
use vswitch_netns::Veth;

use crate::wait::{SOON, wait_until};
use crate::{Host, Raw, Switch};

/// Where files of `topologies/` have the sockets of vhost-user ports.
const SOCKETS: &str = "/run/vswitch/";

/// A scenario about to run.
#[derive(Clone, Debug)]
pub struct Scenario<'a> {
    topology: &'a str,
    plugged: bool,
    queues: u32,
    /// What the first host's MAC is made of; the others' follow.
    first_host: u16,
    /// Port, and addresses in its tap.
    taps: Vec<(&'a str, Vec<String>)>,
}

/// Runs `body` with the switch and the hosts of `topology`, all ports up.
pub fn scenario(topology: &str, body: impl FnOnce(&mut Lab)) {
    Scenario::new(topology).run(body);
}

/// The text of a file of `topologies/`.
#[must_use]
pub fn topology_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl<'a> Scenario<'a> {
    /// Of this topology file's text.
    #[must_use]
    pub fn new(topology: &'a str) -> Self {
        Self { topology, plugged: true, queues: 1, first_host: 1, taps: Vec::new() }
    }

    /// Hosts are there, and their veths are not.
    #[must_use]
    pub fn unplugged(self) -> Self {
        Self { plugged: false, ..self }
    }

    /// Veths have so many queues.
    #[must_use]
    pub fn queues(self, queues: u32) -> Self {
        Self { queues, ..self }
    }

    /// Hosts have other MACs than those of a scenario beside it.
    #[must_use]
    pub fn other_macs(self) -> Self {
        Self { first_host: 0x1001, ..self }
    }

    /// A host whose link is the tap of a port, and of the port's name. (A `[[host]]` has a veth always.)
    #[must_use]
    pub fn tap_host(mut self, port: &'a str, addresses: impl IntoIterator<Item = String>) -> Self {
        self.taps.push((port, addresses.into_iter().collect()));
        self
    }

    /// Runs `body`, then holds what must hold at the end.
    pub fn run(self, body: impl FnOnce(&mut Lab)) {
        let mut lab = self.start();
        body(&mut lab);
        lab.end();
    }

    fn start(&self) -> Lab {
        let mut switch = Switch::new("");
        // Sockets that a file has in a folder of the machine are in the scenario's own.
        let folder = switch.file("").display().to_string();
        let text = self.topology.replace(SOCKETS, &folder);
        switch.write_config(&text);
        let topology = topology::load(&text, "the scenario's topology");
        let topology = topology.unwrap_or_else(|problems| panic!("{problems:?}"));
        let hosts = self.make_hosts(&switch, &topology);
        switch.start();
        let lab = Lab { switch, hosts, expected: Vec::new(), end: Signal::SIGTERM };
        if self.plugged {
            lab.hosts.values().filter(|host| host.is_tap).for_each(|host| lab.give_tap(host));
            lab.wait_up(lab.hosts.values().map(|host| host.port.as_str()));
        }
        lab
    }

    fn make_hosts(&self, switch: &Switch, topology: &Topology) -> BTreeMap<String, LabHost> {
        let mut hosts = BTreeMap::new();
        for (number, host) in (self.first_host..).zip(&topology.host) {
            let port = topology.port.iter().find(|port| port.name == host.port);
            let port = port.expect("the check found the host's port");
            let netdev = port.netdev().expect("the check found that a host's port has a netdev");
            let mtu = port.mtu.unwrap_or(Veth::default().mtu);
            let options = Veth { mtu, queues: self.queues };
            let addresses = host.address.iter().map(ToString::to_string);
            let made =
                Host::new(&switch.namespace, &host.name, number, netdev, options).with_addresses(addresses);
            let made = made.with_mac(port.security.mac.first().copied());
            if self.plugged {
                made.plug();
            }
            hosts.insert(host.name.clone(), LabHost { host: made, port: port.name.clone(), is_tap: false });
        }
        for (number, (port, addresses)) in (0x100..).zip(&self.taps) {
            let host = Host::new(&switch.namespace, port, number, port, Veth::default());
            let host = host.with_addresses(addresses.iter().cloned());
            hosts.insert((*port).to_owned(), LabHost { host, port: (*port).to_owned(), is_tap: true });
        }
        hosts
    }
}

/// A running switch with its hosts.
#[derive(Debug)]
pub struct Lab {
    /// The switch.
    pub switch: Switch,
    hosts: BTreeMap<String, LabHost>,
    /// Parts of the log's warnings that the scenario brings about.
    expected: Vec<String>,
    /// What ends the daemon.
    end: Signal,
}

#[derive(Debug)]
struct LabHost {
    host: Host,
    port: String,
    /// Its link is the tap that the switch makes, and no veth.
    is_tap: bool,
}

impl Lab {
    /// The host of that name.
    ///
    /// # Panics
    /// When the topology has none.
    #[must_use]
    #[track_caller]
    pub fn host(&self, name: &str) -> &Host {
        &self.hosts.get(name).unwrap_or_else(|| panic!("the topology has no host {name}")).host
    }

    /// Moves the tap of a host's port into the host, and waits until the switch has seen it.
    ///
    /// # Panics
    /// When the host's port is no tap.
    #[track_caller]
    pub fn plug_tap(&self, host: &str) {
        let host = self.hosts.get(host).expect("the topology has this host");
        assert!(host.is_tap, "{} has a veth", host.host.name);
        self.give_tap(host);
    }

    #[track_caller]
    fn give_tap(&self, LabHost { host, port, .. }: &LabHost) {
        self.wait_up([port.as_str()]);
        host.take_tap();
        wait_until("the switch sees that the tap has moved", SOON, || {
            self.switch.port(port).why.is_some_and(|why| why.contains("another network namespace"))
        });
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values().map(|host| &host.host)
    }

    /// The links of some hosts, to send on and to see what comes.
    #[must_use]
    #[track_caller]
    pub fn raw<const N: usize>(&self, names: [&str; N]) -> [Raw; N] {
        names.map(|name| self.host(name).raw())
    }

    /// Waits until these ports are up.
    #[track_caller]
    pub fn wait_up<'a>(&self, ports: impl IntoIterator<Item = &'a str>) {
        let wanted: Vec<&str> = ports.into_iter().collect();
        wait_until("the ports are up", SOON, || {
            let states = self.switch.ports();
            let is_up = |name: &&str| states.iter().any(|p| p.name == **name && p.state == LinkState::Up);
            wanted.iter().all(is_up)
        });
    }

    /// From here on a warning or an error with this text in it is no failure.
    pub fn expect_warning(&mut self, text: &str) {
        self.expected.push(text.to_owned());
    }

    /// The daemon is to be ended by this signal instead of SIGTERM.
    pub fn end_by(&mut self, signal: Signal) {
        self.end = signal;
    }

    /// What holds at the end of every scenario. A daemon that the scenario has ended itself is not asked.
    fn end(mut self) {
        if self.switch.is_started() {
            self.switch.wait_quiet();
            let status = self.switch.stop(self.end);
            assert_eq!(status.code(), Some(0), "the daemon ended with {status}");
            assert!(!self.switch.socket().exists(), "the daemon has left its socket behind");
        }
        let log = self.switch.log();
        let is_expected = |line: &&str| self.expected.iter().any(|text| line.contains(text));
        let unexpected: Vec<&str> =
            log.lines().filter(|line| is_warning(line)).filter(|line| !is_expected(line)).collect();
        assert!(unexpected.is_empty(), "unexpected in the log:\n{}", unexpected.join("\n"));
    }

    /// All that may tell why a scenario failed.
    fn print_state(&self) {
        if self.switch.is_started() {
            for args in [&["status"][..], &["port", "list"], &["fdb", "list"], &["stats"]] {
                let answer = self.switch.ctl(args.iter().copied());
                eprintln!("--- vswitchctl {}\n{}{}", args.join(" "), answer.stdout, answer.stderr);
            }
            eprintln!("--- the daemon's descriptors\n{:#?}", self.switch.descriptors());
        }
        eprintln!("--- the daemon's log\n{}", self.switch.log());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            self.print_state();
        }
    }
}

/// A line of the log begins with the time and the level.
fn is_warning(line: &str) -> bool {
    matches!(line.split_whitespace().nth(1), Some("WARN" | "ERROR"))
}
