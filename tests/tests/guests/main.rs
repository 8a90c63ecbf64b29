//! Guests with a kernel of their own, on vhost-user and on taps, in the topologies that are there for hypervisors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // set-up of tests

mod agent;
mod uml;

use vswitch_netns::Namespace;
use vswitch_tests::{Frame, Lab, Raw, scenario, topology_file};
use vswitch_wire::Mac;

use uml::{Nic, Uml};

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

/// Boots two guests that run the test `test` as their first process, one for each NIC.
fn boot(test: &str, namespace: &Namespace, nics: [Nic; 2]) -> [Uml; 2] {
    let [first, second] = nics;
    let mut guests = [
        Uml::start("vm1", test, namespace, &first, "10.0.0.1"),
        Uml::start("vm2", test, namespace, &second, "10.0.0.2"),
    ];
    guests.iter_mut().for_each(Uml::boot);
    guests
}

/// Ping and TCP between guests and with a host of their network, as their kernels do it by default, and with finished
/// frames of one segment from one side.
fn talk(lab: &Lab, [vm1, vm2]: &mut [Uml; 2]) {
    lab.wait_up(["vm1", "vm2"]);
    assert!(vm1.reaches("10.0.0.2") && vm1.reaches("10.0.0.9"));
    assert!(lab.host("host").reaches("10.0.0.1") && lab.host("host").reaches("10.0.0.2"));
    vm1.sends_tcp_to(vm2);
    vm2.sends_tcp_to(vm1);
    let link = vm1.link;
    // What it receives stays: without GRO this kernel's taps have no room for what others send in large frames.
    vm1.run(&["ethtool", "-K", link, "tx", "off", "tso", "off", "gso", "off"]);
    vm1.sends_tcp_to(vm2);
    vm2.sends_tcp_to(vm1);
    for guest in [vm1, vm2] {
        assert_eq!(guest.checksum_errors(), 0, "{guest:?}");
    }
}

/// Holds that another network has seen nothing: not before a frame of its own.
fn others_see_nothing(lab: &Lab, other1: &Raw) {
    let last = Frame::new(Mac::BROADCAST, lab.host("other2").mac, "last");
    lab.raw(["other2"])[0].send(&last);
    other1.sees([last]);
}

#[test]
fn guests_on_vhost_user() {
    if agent::is_inside() {
        agent::run();
    }
    // User-mode Linux can connect, and cannot listen.
    let topology = topology_file("kvm-vhost-user.toml").replace("role = \"client\"", "") + HOSTS;
    scenario(&topology, |lab| {
        let [other1] = lab.raw(["other1"]);
        let nics = ["vm1.sock", "vm2.sock"].map(|name| Nic::VhostUser(lab.switch.file(name)));
        let mut guests = boot("guests_on_vhost_user", &lab.switch.namespace, nics);
        talk(lab, &mut guests);
        let front_end = lab.switch.port("vm1").front_end.unwrap();
        assert!(front_end.slow.is_empty() && front_end.features.len() >= 10, "{front_end:?}");
        let waits = lab.switch.port("vm3").reason.unwrap();
        assert!(waits.contains("waits for a front end"), "{waits}");
        others_see_nothing(lab, &other1);
    });
}

#[test]
fn guests_on_taps() {
    if agent::is_inside() {
        agent::run();
    }
    let topology = topology_file("kvm-tap.toml") + HOSTS;
    scenario(&topology, |lab| {
        let [other1] = lab.raw(["other1"]);
        // As libvirt makes them for QEMU.
        for tap in ["tap-vm1", "tap-vm2"] {
            for command in ["tuntap add mode tap vnet_hdr dev", "link set up dev"] {
                lab.switch.namespace.run("ip", command.split(' ').chain([tap])).unwrap();
            }
        }
        let mut guests = boot("guests_on_taps", &lab.switch.namespace, ["tap-vm1", "tap-vm2"].map(Nic::Tap));
        talk(lab, &mut guests);
        others_see_nothing(lab, &other1);
    });
}
