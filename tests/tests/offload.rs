//! What stacks leave to devices is right at the receiver, between ports of every kind, with the kernel's default
//! settings: checksums, segmentation, tags beside the frame, and all of these inside a host's own tunnel.

#![allow(clippy::expect_used, clippy::panic)] // set-up of tests

use std::fmt::Write;

use vswitch_netns::{TaggedLink, Veth};
use vswitch_tests::{Host, Lab, Scenario, Switch, transfer};

/// Name and kind of each port. Two of a kind where they may have something that others have not.
const PORTS: [(&str, &str); 7] = [
    ("xdp1", "xdp"),
    ("xdp2", "xdp"),
    ("packet1", "packet"),
    ("packet2", "packet"),
    ("tap1", "tap"),
    ("tap2", "tap"),
    ("auto1", "auto"),
];
/// Bytes of one TCP transfer: some dozens of GSO frames.
const TCP_BYTES: usize = 2 << 20;
/// The smallest, ones that are padded on the wire, ones about MTU 1500, and fragmented ones.
const UDP_SIZES: [usize; 8] = [0, 1, 17, 18, 1000, 1452, 1473, 9000];

/// Runs `body` with all ports on one network, a host on each; `membership` is their part in the network.
fn run(membership: &str, body: impl FnOnce(&mut Lab)) {
    run_with("", 1, membership, body);
}

/// As [`run`], with these lines before all others, and so many queues for each netdev that has some before the switch.
fn run_with(head: &str, queues: u32, membership: &str, body: impl FnOnce(&mut Lab)) {
    let mut text = format!("{head}\n[[network]]\nname = \"lan\"\nvlan = 10\n");
    for (name, kind) in PORTS {
        write!(text, "[[port]]\nname = \"{name}\"\nkind = \"{kind}\"\n{membership}\n").expect(WRITTEN);
    }
    for (name, _) in PORTS.iter().filter(|(_, kind)| *kind != "tap") {
        let [v4, v6] = addresses(name);
        write!(
            text,
            "[[host]]\nname = \"{name}\"\nport = \"{name}\"\naddress = [\"{v4}/24\", \"{v6}/64\"]\n"
        )
        .expect(WRITTEN);
    }
    let taps = PORTS.iter().filter(|(_, kind)| *kind == "tap");
    let scenario = taps.fold(Scenario::new(&text).queues(queues), |scenario, (name, _)| {
        let [v4, v6] = addresses(name);
        scenario.tap_host(name, [format!("{v4}/24"), format!("{v6}/64")])
    });
    scenario.run(body);
}

const WRITTEN: &str = "a string takes everything";

/// The addresses of a port's host.
fn addresses(name: &str) -> [String; 2] {
    let n = 1 + PORTS.iter().position(|(port, _)| *port == name).expect("a port of the topology");
    [format!("10.0.0.{n}"), format!("fd00::{n}")]
}

/// Every pair of hosts, in both orders.
fn pairs(lab: &Lab) -> impl Iterator<Item = (&Host, &Host)> {
    lab.hosts().flat_map(|a| lab.hosts().filter(|b| b.name != a.name).map(move |b| (a, b)))
}

fn assert_checksums_right(lab: &Lab) {
    for host in lab.hosts() {
        assert_eq!(host.checksum_errors(), 0, "wrong checksums came to {}", host.name);
    }
}

fn transfer_between_all(lab: &Lab) {
    for (from, to) in pairs(lab) {
        for address in addresses(&to.name) {
            transfer::tcp(from, to, &address, TCP_BYTES);
            transfer::udp(from, to, &address, &UDP_SIZES);
        }
    }
    assert_checksums_right(lab);
}

#[test]
fn tcp_and_udp_between_every_pair_of_kinds() {
    run("access = \"lan\"", |lab| transfer_between_all(lab));
}

/// Each worker has its own way out of every port, and frames of one flow may come in by any queue.
#[test]
fn two_workers_carry_tcp_and_udp_between_every_pair_of_kinds() {
    run_with("[switch]\ncpus = [0, 1]", 2, "access = \"lan\"", |lab| {
        assert_eq!(lab.switch.status().workers.len(), 2);
        transfer_between_all(lab);
    });
}

#[test]
fn tagged_tcp_and_udp_between_every_pair_of_kinds() {
    run("trunk = [\"lan\"]", |lab| {
        let in_vlan = |host: &Host| host.namespace.tag_link("eth0", 10).expect("a tagged link");
        let _tagged: Vec<TaggedLink> = lab.hosts().map(in_vlan).collect();
        transfer_between_all(lab);
    });
}

#[test]
fn a_tagged_host_and_an_untagged_one_exchange_tcp_and_udp() {
    run("trunk = [\"lan\"]", |lab| {
        let names: Vec<String> = lab.hosts().map(|host| host.name.clone()).collect();
        for name in &names {
            let _tagged = lab.host(name).namespace.tag_link("eth0", 10).expect("a tagged link");
            for other in names.iter().filter(|other| *other != name) {
                lab.switch.change(&["port", "set", other, "--access", "lan"]);
                let (a, b) = (lab.host(name), lab.host(other));
                for (from, to) in [(a, b), (b, a)] {
                    for address in addresses(&to.name) {
                        transfer::tcp(from, to, &address, TCP_BYTES / 4);
                        transfer::udp(from, to, &address, &UDP_SIZES);
                    }
                }
                lab.switch.change(&["port", "set", other, "--trunk", "lan"]);
            }
        }
        assert_checksums_right(lab);
    });
}

/// Frames and bytes that left by a port.
fn sent_by(switch: &Switch, port: &str) -> (u64, u64) {
    let counters = switch.port(port).counters;
    (counters.tx_packets, counters.tx_bytes)
}

#[test]
fn gso_passes_where_both_ends_can_and_is_cut_where_one_cannot() {
    run("access = \"lan\"", |lab| {
        let whole = ["packet1", "packet2", "tap1", "tap2", "auto1"];
        for (from, to) in pairs(lab).filter(|(from, _)| whole.contains(&from.name.as_str())) {
            for address in addresses(&to.name) {
                let before = sent_by(&lab.switch, &to.name);
                transfer::tcp(from, to, &address, TCP_BYTES);
                let after = sent_by(&lab.switch, &to.name);
                let mean = (after.1 - before.1) / (after.0 - before.0);
                let what = format!("{} to {} at {address}: {mean} bytes a frame", from.name, to.name);
                assert_eq!(whole.contains(&to.name.as_str()), mean > 3000, "{what}");
            }
        }
    });
}

/// A VXLAN of two hosts' kernels over `outer` addresses of theirs; the hosts get `inner` addresses in it.
fn make_tunnel(ends: [(&Host, &str); 2], inner: [&str; 2], options: &str) {
    for (n, (host, local)) in ends.iter().enumerate() {
        let remote = ends[1 - n].1;
        let add = format!(
            "link add vx0 type vxlan id 42 dev eth0 local {local} remote {remote} dstport 4789 {options}"
        );
        for command in [&add, &format!("addr add {}/64 dev vx0 nodad", inner[n]), "link set vx0 up"] {
            host.run("ip", command.split(' ').filter(|word| !word.is_empty()));
        }
    }
}

#[test]
fn a_hosts_own_vxlan_carries_tcp_and_udp_over_every_kind() {
    run("access = \"lan\"", |lab| {
        let inner = ["fd01::1", "fd01::2"];
        for (a, b) in pairs(lab).filter(|(a, b)| a.name < b.name) {
            let (of_a, of_b) = (addresses(&a.name), addresses(&b.name));
            // Outer IPv4 with and without a checksum, and outer IPv6, whose checksum is no choice (RFC 8200 section
            // 8.1).
            for (version, options) in [(0, "udpcsum"), (0, "noudpcsum"), (1, "")] {
                make_tunnel([(a, &of_a[version]), (b, &of_b[version])], inner, options);
                for (from, to, at) in [(a, b, inner[1]), (b, a, inner[0])] {
                    transfer::tcp(from, to, at, TCP_BYTES / 4);
                    transfer::udp(from, to, at, &[1, 1000, 9000]);
                }
                for host in [a, b] {
                    host.run("ip", ["link", "del", "vx0"]);
                }
            }
        }
        assert_checksums_right(lab);
    });
}

/// A guest that holds a tap itself, with TSO, as QEMU does: here a second switch is the guest, with a host in it.
/// What it writes are segments of 64 KiB, of which AF_XDP does not say how they are to be cut.
#[test]
fn a_guest_that_leaves_segmentation_to_its_tap_exchanges_tcp_with_every_kind() {
    let guest = r#"
network = [{ name = "n" }]
port = [{ name = "guest", kind = "tap", access = "n" }, { name = "inside", kind = "packet", access = "n" }]
"#;
    for kind in ["xdp", "packet", "auto"] {
        run("access = \"lan\"", |lab| {
            let mut vm = lab.switch.beside(guest);
            vm.start();
            let addresses_inside = ["10.0.0.100/24".to_owned(), "fd00::100/64".to_owned()];
            let inside = Host::new(&lab.switch.namespace, "inside", 0x200, "inside", Veth::default())
                .with_addresses(addresses_inside);
            inside.plug();
            lab.switch.change(&["port", "add", "guest", "--kind", kind, "--access", "lan"]);
            lab.wait_up(["guest"]);
            for other in lab.hosts() {
                for (to_inside, to_other) in ["10.0.0.100", "fd00::100"].iter().zip(addresses(&other.name)) {
                    transfer::tcp(&inside, other, &to_other, TCP_BYTES);
                    transfer::tcp(other, &inside, to_inside, TCP_BYTES);
                    transfer::udp(&inside, other, &to_other, &UDP_SIZES);
                    transfer::udp(other, &inside, to_inside, &UDP_SIZES);
                }
            }
            assert_checksums_right(lab);
            assert_eq!(inside.checksum_errors(), 0, "{kind}");
            assert!(vm.stop(nix::sys::signal::Signal::SIGTERM).success());
        });
    }
}
