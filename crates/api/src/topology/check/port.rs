//! What each `[[port]]` must hold.

use std::path::Path;

use super::{Checker, FirstSeen};
use crate::topology::{
    Kind, MTU_RANGE, PORTS_MAX, Port, QUEUES_RANGE, Role, SOCKET_PATH_MAX, TRUNK_ENTRIES_MAX, TRUNK_MAX,
};

/// The longest name of a netdev: the kernel's IFNAMSIZ less its NUL.
const NETDEV_MAX: usize = 15;

impl Checker<'_> {
    pub(super) fn check_ports(&mut self, ports: &[Port]) {
        let ports = self.within("port", "ports", ports, PORTS_MAX);
        self.check_trunks(ports);
        let (mut names, mut netdevs, mut sockets) = (FirstSeen::new(), FirstSeen::new(), FirstSeen::new());
        for (i, port) in ports.iter().enumerate() {
            let path = format!("port[{i}]");
            let is_new = self.check_own_name(&mut names, "port", &path, &port.name);
            if let Some(netdev) = port.netdev() {
                // Two ports of one name and no netdev are one mistake, not two.
                let taken = netdevs.insert(netdev, &path).filter(|_| is_new || port.netdev.is_some());
                if let Some(first) = taken {
                    let what = format!("netdev {netdev:?} is taken by {first}");
                    self.report(netdev_path(&path, port), what, "give each port its own netdev");
                }
                self.check_netdev(&path, port, netdev);
            }
            self.check_socket(&path, port, &mut sockets);
            self.check_queues(&path, port);
            self.check_attachment(&path, port);
            self.check_limits(&path, port);
            self.check_acl_use(&path, &port.acl);
            self.check_security(&format!("{path}.security"), &port.security);
        }
    }

    /// A port of kind vhost-user has a socket and no netdev, all others have it the other way round.
    fn check_socket<'p>(&mut self, path: &str, port: &'p Port, sockets: &mut FirstSeen<&'p Path>) {
        let at = format!("{path}.socket");
        let is_vhost_user = port.kind == Kind::VhostUser;
        if is_vhost_user && port.netdev.is_some() {
            let what = "a port of kind vhost-user has no netdev";
            self.report(format!("{path}.netdev"), what, "leave netdev out, or choose another kind");
        }
        if !is_vhost_user && port.role != Role::default() {
            let what = format!("role is for ports of kind vhost-user, and this one is {}", port.kind);
            self.report(format!("{path}.role"), what, "leave role out, or set kind = \"vhost-user\"");
        }
        match &port.socket {
            None if is_vhost_user => {
                let mend = format!("add socket = \"/run/vswitch/{}.sock\"", port.name);
                self.report(format!("{path}.kind"), "kind vhost-user needs a socket", mend);
            }
            None => {}
            Some(_) if !is_vhost_user => {
                let what = format!("socket is for ports of kind vhost-user, and this one is {}", port.kind);
                self.report(at, what, "leave socket out, or set kind = \"vhost-user\"");
            }
            Some(socket) => {
                self.check_socket_path(&at, socket);
                // As a path: `//` and `/./` make no difference.
                if let Some(first) = sockets.insert(Path::new(socket), path) {
                    let what = format!("socket {socket:?} is taken by {first}");
                    self.report(at, what, "give each port its own socket");
                }
            }
        }
    }

    /// How many queues a guest may use is said; of a netdev all are served.
    fn check_queues(&mut self, path: &str, port: &Port) {
        let Some(queues) = port.queues else { return };
        let at = format!("{path}.queues");
        if port.kind != Kind::VhostUser {
            let what = format!("queues is for ports of kind vhost-user, and this one is {}", port.kind);
            self.report(at, what, "leave queues out, or set kind = \"vhost-user\"");
        } else if !QUEUES_RANGE.contains(&queues) {
            let mend = format!("use {} to {}", QUEUES_RANGE.start(), QUEUES_RANGE.end());
            self.report(at, format!("{queues} is out of range"), mend);
        }
    }

    /// What a Unix socket can be bound to, wherever the daemon was started.
    fn check_socket_path(&mut self, at: &str, socket: &str) {
        if !socket.starts_with('/') {
            let mend = "write it from the root on, as in \"/run/vswitch/vm1.sock\"";
            self.report(at, format!("{socket:?} is no absolute path"), mend);
        }
        if socket.len() > SOCKET_PATH_MAX {
            let what = format!("a path of {} bytes is too long for a socket", socket.len());
            self.report(at, what, format!("use at most {SOCKET_PATH_MAX} bytes"));
        }
        if socket.chars().any(char::is_control) {
            self.report(at, format!("{socket:?} holds a control character"), "leave it out");
        }
    }

    /// What the kernel takes as a name of a netdev (`dev_valid_name`).
    fn check_netdev(&mut self, path: &str, port: &Port, netdev: &str) {
        let is_valid = !netdev.is_empty()
            && netdev.len() <= NETDEV_MAX
            && !matches!(netdev, "." | "..")
            && !netdev.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
        if !is_valid {
            let mend = match port.netdev {
                Some(_) => format!("use 1 to {NETDEV_MAX} bytes without '/', ':' and spaces"),
                None => {
                    format!("set netdev, which is the port's name by default, to at most {NETDEV_MAX} bytes")
                }
            };
            self.report(netdev_path(path, port), format!("{netdev:?} cannot be a netdev"), mend);
        }
    }

    fn check_attachment(&mut self, path: &str, port: &Port) {
        for (key, network) in [("access", &port.access), ("native", &port.native)] {
            if let Some(network) = network {
                self.check_network(format!("{path}.{key}"), network);
            }
        }
        if port.access.is_some() && !port.trunk.is_empty() {
            let mend =
                "keep access for untagged frames of one network, or trunk for tagged frames of several";
            self.report(format!("{path}.access"), "a port has either access or trunk", mend);
        } else if port.native.is_some() && port.trunk.is_empty() {
            let mend = "use access for a port of one untagged network, or add trunk";
            self.report(
                format!("{path}.native"),
                "native is the untagged network of a trunk, and there is none",
                mend,
            );
        }
    }

    /// Every trunk, up to the one that is too much.
    fn check_trunks(&mut self, ports: &[Port]) {
        let mut sum = 0;
        for (i, port) in ports.iter().enumerate() {
            sum += port.trunk.len();
            if sum > TRUNK_ENTRIES_MAX {
                let all: usize = ports.iter().map(|p| p.trunk.len()).sum();
                let what = format!("{all} networks of all trunks are too many");
                let mend = format!("use at most {TRUNK_ENTRIES_MAX}");
                return self.report(format!("port[{i}].trunk"), what, mend);
            }
            self.check_trunk(&format!("port[{i}].trunk"), port);
        }
    }

    fn check_trunk(&mut self, path: &str, port: &Port) {
        let (mut networks, mut vlans) = (FirstSeen::new(), FirstSeen::new());
        let entries = self.within(path, "networks of a trunk", &port.trunk, TRUNK_MAX);
        for (i, entry) in entries.iter().enumerate() {
            let at = format!("{path}[{i}]");
            self.check_network(&at, &entry.network);
            if let Some(first) = networks.insert(&entry.network, &at) {
                let what = format!("network {:?} is given by {first} already", entry.network);
                self.report(&at, what, "name each network of a trunk once");
                continue;
            }
            let Some(network) = self.networks.get(entry.network.as_str()) else { continue };
            let Some(vlan) = entry.vlan.or(network.vlan) else {
                let what = format!("network {:?} has no VLAN ID", entry.network);
                let mend = format!("give it one, or write {{ network = {:?}, vlan = 10 }}", entry.network);
                self.report(&at, what, mend);
                continue;
            };
            if let Some(first) = vlans.insert(vlan, &at) {
                let what = format!("VLAN {vlan} is taken by {first}");
                let mend = format!(
                    "write {{ network = {:?}, vlan = ... }} with a VLAN ID of its own",
                    entry.network
                );
                self.report(&at, what, mend);
            }
        }
    }

    fn check_limits(&mut self, path: &str, port: &Port) {
        if let Some(max_macs) = port.max_macs {
            self.check_max_macs(path, max_macs);
        }
        if let Some(mtu) = port.mtu.filter(|mtu| !MTU_RANGE.contains(mtu)) {
            let mend = format!("use {} to {} bytes", MTU_RANGE.start(), MTU_RANGE.end());
            self.report(format!("{path}.mtu"), format!("{mtu} is out of range"), mend);
        }
    }
}

/// Where the port's netdev is said: its key, or the name that stands for it.
fn netdev_path(path: &str, port: &Port) -> String {
    if port.netdev.is_some() { format!("{path}.netdev") } else { format!("{path}.name") }
}
