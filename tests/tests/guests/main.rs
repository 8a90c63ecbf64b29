//! Guests with a kernel of their own, on vhost-user and on taps, in the topologies that are there for hypervisors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // set-up of tests

mod agent;
mod initramfs;
mod network_boot;
mod outside;
mod pings;
mod qemu;
mod uml;

use std::env;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use vswitch_api::response::LinkState;
use vswitch_netns::Process;
use vswitch_tests::{Frame, Host, Lab, Raw, SOON, Witness, scenario, topology_file, wait_until};
use vswitch_wire::Mac;

use initramfs::Boot;
use network_boot::BootServer;
use outside::Guest;
use pings::Pings;
use uml::Nic;

/// A host in the guests' network, and two in another one where the same addresses are in use.
const HOSTS: &str = r#"
[[port]]
name = "host"
access = "red"

[[port]]
name = "other1"
access = "blue"

[[port]]
name = "other2"
access = "blue"

[[host]]
name = "host"
port = "host"
address = ["10.0.0.9/24"]

[[host]]
name = "other1"
port = "other1"
address = ["10.0.0.1/24"]

[[host]]
name = "other2"
port = "other2"
"#;

/// Makes a tap as libvirt does for QEMU.
fn make_tap(lab: &Lab, tap: &str) {
    for command in ["tuntap add mode tap vnet_hdr dev", "link set up dev"] {
        lab.switch.namespace.run("ip", command.split(' ').chain([tap])).unwrap();
    }
}

/// Holds that another network has seen nothing: not before a frame of its own.
fn others_see_nothing(lab: &Lab, other1: &Raw) {
    let last = Frame::new(Mac::BROADCAST, lab.host("other2").mac, "last");
    lab.raw(["other2"])[0].send(&last);
    other1.sees([last]);
}

/// Ports for taps beside those for vhost-user.
const TAPS: &str = r#"
[[port]]
name = "vm4"
netdev = "tap-vm4"
access = "red"

[[port]]
name = "vm5"
netdev = "tap-vm5"
access = "red"
"#;

/// In one network a guest of QEMU and one of user-mode Linux, each on vhost-user and on a tap; in another network one
/// with the address of the first.
struct OfBothKinds {
    red: [Guest; 4],
    blue: Guest,
}

impl OfBothKinds {
    const TEST: &str = "guests_of_both_kinds";

    fn boot(lab: &Lab) -> Self {
        let boot = Boot::new(&lab.switch.file(""));
        let namespace = &lab.switch.namespace;
        let socket = |port: &str| lab.switch.file(&format!("{port}.sock"));
        ["tap-vm4", "tap-vm5"].iter().for_each(|tap| make_tap(lab, tap));
        let of_qemu =
            |name, nic: &qemu::Nic, address| qemu::start(name, Self::TEST, namespace, nic, address, &boot);
        let of_uml = |name, nic: &Nic, address| uml::start(name, Self::TEST, namespace, nic, address);
        let mut guests = Self {
            red: [
                of_qemu("vm1", &qemu::Nic::Listens(socket("vm1")), "10.0.0.1"),
                of_uml("vm2", &Nic::VhostUser(socket("vm2")), "10.0.0.2"),
                of_qemu("vm4", &qemu::Nic::Tap("tap-vm4"), "10.0.0.4"),
                of_uml("vm5", &Nic::Tap("tap-vm5"), "10.0.0.5"),
            ],
            blue: of_uml("vm3", &Nic::VhostUser(socket("vm3")), "10.0.0.1"),
        };
        guests.red.iter_mut().chain([&mut guests.blue]).for_each(Guest::boot);
        lab.wait_up(["vm1", "vm2", "vm3", "vm4", "vm5"]);
        guests
    }

    /// Every guest to every other.
    #[track_caller]
    fn each_pair(&mut self, mut talk: impl FnMut(&mut Guest, &mut Guest)) {
        for first in 0..self.red.len() {
            for second in 0..self.red.len() {
                if let Ok([from, to]) = self.red.get_disjoint_mut([first, second]) {
                    talk(from, to);
                }
            }
        }
    }
}

#[test]
fn guests_of_both_kinds() {
    if agent::is_inside() {
        agent::run();
    }
    // User-mode Linux takes no device of several pairs of queues.
    let topology = topology_file("kvm-vhost-user.toml").replace("queues = 2", "") + HOSTS + TAPS;
    scenario(&topology, |lab| {
        let [other1] = lab.raw(["other1"]);
        let mut guests = OfBothKinds::boot(lab);
        guests.each_pair(|from, to| assert!(from.reaches(to.address), "{} from {from:?}", to.address));
        for guest in &mut guests.red {
            assert!(guest.reaches("10.0.0.9") && lab.host("host").reaches(guest.address), "{guest:?}");
        }
        guests.each_pair(Guest::sends_tcp_to);
        // One on vhost-user, and one on a tap. What they receive stays: without GRO user-mode Linux' taps have no room
        // for what others send in large frames.
        for guest in &mut guests.red[1..3] {
            guest.run(&["ethtool", "-K", guest.link, "tx", "off", "tso", "off", "gso", "off"]);
        }
        guests.each_pair(Guest::sends_tcp_to);
        for guest in &mut guests.red {
            assert_eq!(guest.checksum_errors(), 0, "{guest:?}");
        }
        for port in ["vm1", "vm2"] {
            let front_end = lab.switch.port(port).front_end.unwrap();
            assert!(front_end.slow.is_empty() && front_end.features.len() >= 10, "{front_end:?}");
        }
        others_see_nothing(lab, &other1);
        // That was all that the third ever received.
        wait_until("the last frame is there", SOON, || guests.blue.received() > 0);
        assert_eq!(guests.blue.received(), 1);
    });
}

/// From the kill of the switch, its new start included, to a guest's first answer. QEMU looks for the switch once a
/// second where it has to connect (`reconnect=1`). It is within 2 s where the machine has the time; here several guests
/// share its CPUs.
const OUTAGE: Duration = Duration::from_secs(5);

/// Pairs of queues that a guest has.
const QUEUES: u32 = 2;

/// A guest of QEMU on a port of each kind, by either end of the socket. Each has its own kernel, and none of these is
/// booted anew because of what becomes of the switch.
struct OfQemu {
    boot: Boot,
    /// On vhost-user, where QEMU listens.
    vm1: Guest,
    /// On vhost-user with packed rings, where the switch listens, with several pairs of queues.
    vm2: Guest,
    /// On a tap that QEMU makes, as it does by default.
    vm4: Guest,
}

impl OfQemu {
    const TEST: &str = "guests_of_qemu";

    fn boot(lab: &Lab) -> Self {
        let boot = Boot::new(&lab.switch.file(""));
        let start = |name, nic: &qemu::Nic, address| {
            qemu::start(name, Self::TEST, &lab.switch.namespace, nic, address, &boot)
        };
        let vm1 = start("vm1", &qemu::Nic::Listens(lab.switch.file("vm1.sock")), "10.0.0.1");
        let vm2 = start("vm2", &qemu::Nic::Connects(lab.switch.file("vm2.sock"), QUEUES), "10.0.0.2");
        let vm4 = Self::start_vm4(lab, &boot);
        let mut guests = Self { boot, vm1, vm2, vm4 };
        [&mut guests.vm1, &mut guests.vm2, &mut guests.vm4].into_iter().for_each(Guest::boot);
        lab.wait_up(["vm1", "vm2", "vm4"]);
        guests
    }

    fn start_vm4(lab: &Lab, boot: &Boot) -> Guest {
        let namespace = &lab.switch.namespace;
        let guest = qemu::start("vm4", Self::TEST, namespace, &qemu::Nic::Tap("tap-vm4"), "10.0.0.4", boot);
        namespace.wait_for_link("tap-vm4", SOON, |link| link.is_some()).expect("QEMU makes the tap");
        namespace.set_up("tap-vm4").expect("the tap is there");
        guest
    }

    /// Each guest reaches each other, and a host.
    #[track_caller]
    fn ping(&mut self, host: &Host) {
        for (from, to) in [(&mut self.vm1, [2, 4, 9]), (&mut self.vm2, [1, 4, 9]), (&mut self.vm4, [1, 2, 9])]
        {
            for to in to {
                assert!(from.reaches(&format!("10.0.0.{to}")), "10.0.0.{to} from {from:?}");
            }
            assert!(host.reaches(from.address), "{from:?}");
        }
    }

    /// TCP both ways, between each kind of port and each other, and between two of one kind.
    #[track_caller]
    fn transfer(&mut self, host: &Host) {
        self.vm1.sends_tcp_to(&mut self.vm2);
        self.vm2.sends_tcp_to(&mut self.vm1);
        self.vm1.sends_tcp_to(&mut self.vm4);
        self.vm4.sends_tcp_to(&mut self.vm2);
        self.vm1.exchanges_tcp_with(host, "10.0.0.9");
        self.vm4.exchanges_tcp_with(host, "10.0.0.9");
    }

    /// A guest of one processor begins with one pair; then it takes up all, and what it receives comes by each.
    #[track_caller]
    fn use_all_queues(&mut self, lab: &Lab) {
        let running = || lab.switch.port("vm2").front_end.map(|front_end| front_end.queue_pairs);
        assert_eq!((lab.switch.port("vm2").queues, running()), (QUEUES, Some(1)));
        self.vm2.run(&["ethtool", "-L", self.vm2.link, "combined", &QUEUES.to_string()]);
        wait_until("all pairs run", SOON, || running() == Some(QUEUES));
        let to = SocketAddr::new(self.vm2.address.parse().unwrap(), 9);
        let send =
            || (0..64).try_for_each(|_| UdpSocket::bind("0.0.0.0:0")?.send_to(b"a flow", to).map(|_| ()));
        lab.host("host").namespace.enter(send).unwrap().unwrap();
        wait_until("each pair has flows", SOON, || {
            self.vm2.received_by_queue().iter().filter(|count| **count > 0).count() == QUEUES as usize
        });
    }

    /// The daemon is killed while a host pings guests on vhost-user, and started again: nobody touches the guests.
    /// A TCP connection goes on as well.
    #[track_caller]
    fn outlive_the_switch(&mut self, lab: &mut Lab) {
        let mut upload = self.vm1.begin_to_receive(lab.host("host"));
        let pings = [&self.vm1, &self.vm2].map(|guest| Pings::start(lab.host("host"), guest.address));
        let started = now();
        for pings in &pings {
            pings.answered_after(started);
        }
        lab.switch.stop(Signal::SIGKILL);
        let killed = now();
        upload.send(64 << 10).expect("the host's socket holds it");
        lab.switch.start();
        let outages = pings.map(|pings| pings.answered_after(killed));
        println!("answers again {outages:?} after the kill");
        assert!(outages.iter().all(|outage| *outage < OUTAGE), "{outages:?}");
        lab.wait_up(["vm1", "vm2", "vm4", "host", "other1", "other2"]);
        self.vm1.receive_the_rest(upload);
    }

    /// A guest of each kind of port boots anew, which QEMU itself outlives.
    #[track_caller]
    fn reboot(&mut self, lab: &Lab) {
        for guest in [&mut self.vm1, &mut self.vm4] {
            guest.reboot();
        }
        wait_until("the rings of the guest rest", SOON, || lab.switch.port("vm1").state == LinkState::Down);
        for guest in [&mut self.vm1, &mut self.vm4] {
            guest.boot();
        }
        lab.wait_up(["vm1", "vm4"]);
    }

    /// A port that is deleted takes the guest's link down, whoever listens, and up when it is there again.
    #[track_caller]
    fn follow_the_ports(&mut self, lab: &Lab) {
        let sockets = [("vm1", "client"), ("vm2", "server")]
            .map(|(port, role)| (port, role, lab.switch.file(&format!("{port}.sock")).display().to_string()));
        for (port, _, _) in &sockets {
            lab.switch.change(&["port", "del", port]);
        }
        for guest in [&mut self.vm1, &mut self.vm2] {
            wait_until("the guest's link is down", SOON, || !guest.has_carrier());
        }
        for (port, role, socket) in &sockets {
            let kind = ["--kind", "vhost-user", "--socket", socket, "--role", role, "--queues", "2"];
            lab.switch.change(&[&["port", "add", port, "--access", "red"], &kind[..]].concat());
        }
        lab.wait_up(["vm1", "vm2"]);
        for guest in [&mut self.vm1, &mut self.vm2] {
            wait_until("the guest's link is up", SOON, || guest.has_carrier());
        }
    }

    /// QEMU is killed, its tap goes with it, and both come back.
    #[track_caller]
    fn restart_vm4(&mut self, lab: &Lab) {
        self.vm4.kill();
        wait_until("the tap's port waits", SOON, || lab.switch.port("vm4").state == LinkState::Waiting);
        self.vm4 = Self::start_vm4(lab, &self.boot);
        self.vm4.boot();
        lab.wait_up(["vm4"]);
    }
}

#[test]
fn guests_of_qemu() {
    if agent::is_inside() {
        agent::run();
    }
    let topology = topology_file("kvm-vhost-user.toml") + HOSTS + TAPS;
    scenario(&topology, |lab| {
        let [other1] = lab.raw(["other1"]);
        let mut guests = OfQemu::boot(lab);
        let all_talk = |lab: &Lab, guests: &mut OfQemu| {
            guests.ping(lab.host("host"));
            guests.transfer(lab.host("host"));
        };
        all_talk(lab, &mut guests);
        let features = lab.switch.port("vm2").front_end.unwrap().features;
        assert!(features.iter().any(|feature| feature == "RING_PACKED"), "{features:?}");
        guests.use_all_queues(lab);
        for guest in [&mut guests.vm1, &mut guests.vm4] {
            guest.run(&["ethtool", "-K", guest.link, "tx", "off", "tso", "off", "gso", "off"]);
        }
        guests.transfer(lab.host("host"));
        guests.outlive_the_switch(lab);
        all_talk(lab, &mut guests);
        guests.restart_vm4(lab);
        guests.reboot(lab);
        guests.follow_the_ports(lab);
        all_talk(lab, &mut guests);
        for guest in [&mut guests.vm1, &mut guests.vm2, &mut guests.vm4] {
            assert_eq!(guest.checksum_errors(), 0, "{guest:?}");
        }
        others_see_nothing(lab, &other1);
    });
}

#[expect(clippy::disallowed_methods, reason = "an outage is measured in real time")]
fn now() -> Instant {
    Instant::now()
}

/// Broadcasts, DHCP and TFTP through the switch, by the boot program (iPXE) that QEMU's network card has.
#[test]
fn a_guest_boots_from_the_network() {
    let hosts = HOSTS.replace("10.0.0.9/24", "10.0.0.9/24\", \"fd00::9/64");
    let topology = topology_file("kvm-tap.toml") + &hosts;
    scenario(&topology, |lab| {
        let [other1] = lab.raw(["other1"]);
        let server = BootServer::start(lab.host("host"));
        make_tap(lab, "tap-vm1");
        let mut machine = qemu::command(&lab.switch.namespace);
        machine.args(["-netdev", "tap,id=n0,ifname=tap-vm1,script=no,downscript=no"]);
        machine.args(["-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,bootindex=0"]);
        network_boot::boot(machine, &server);
        wait_until("the server has sent all", SOON, || server.log().contains("sent "));
        assert!(server.log().contains("DHCPACK"), "{}", server.log());
        others_see_nothing(lab, &other1);
    });
}

#[test]
fn a_killed_test_leaves_no_guest() {
    let witness = Witness::new();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "a_guest_boots_from_the_network"]).env("TMPDIR", witness.folder());
    let victim = Process::spawn(command).unwrap();
    // Itself, the switch, the server, and the guest, which is started last.
    wait_until("the guest boots", SOON, || witness.processes().len() >= 4);

    drop(victim); // SIGKILL

    witness.expect_nothing_left();
}
