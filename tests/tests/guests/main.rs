//! Guests with a kernel of their own, on vhost-user and on a tap.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // set-up of tests

mod agent;
mod uml;

use vswitch_tests::{Frame, scenario};
use vswitch_wire::Mac;

use uml::{Nic, Uml};

/// Two networks that use the same addresses. The guests' ports are added when their sockets have a place.
const TOPOLOGY: &str = r#"
network = [{ name = "red", vlan = 10 }, { name = "blue", vlan = 20 }]
port = [
    { name = "host", access = "red" },
    { name = "other1", access = "blue" },
    { name = "other2", access = "blue" },
    { name = "tap3", access = "red" },
]
host = [
    { name = "host", port = "host", address = ["10.0.0.9/24"] },
    { name = "other1", port = "other1", address = ["10.0.0.1/24"] },
    { name = "other2", port = "other2" },
]
"#;

#[test]
fn guests_of_one_network_reach_each_other_and_others_see_nothing() {
    if agent::is_inside() {
        agent::run();
    }
    const SELF: &str = "guests_of_one_network_reach_each_other_and_others_see_nothing";
    scenario(TOPOLOGY, |lab| {
        let switch = &lab.switch;
        let sockets = ["g1", "g2"].map(|name| switch.file(&format!("{name}.sock")));
        for (name, socket) in ["g1", "g2"].iter().zip(&sockets) {
            let socket = socket.to_str().unwrap();
            let kind = ["--kind", "vhost-user", "--socket", socket, "--access", "red"];
            switch.change(&[&["port", "add", name][..], &kind].concat());
        }
        // As libvirt makes it for QEMU.
        for command in ["tuntap add dev tap3 mode tap vnet_hdr", "link set dev tap3 up"] {
            switch.namespace.run("ip", command.split(' ')).unwrap();
        }
        let [other] = lab.raw(["other1"]);

        let [first, second] = sockets.map(Nic::VhostUser);
        let nics =
            [("g1", first, "10.0.0.1"), ("g2", second, "10.0.0.2"), ("g3", Nic::Tap("tap3"), "10.0.0.3")];
        let start = |(name, nic, address)| Uml::start(name, SELF, &switch.namespace, &nic, address);
        let [mut g1, mut g2, mut g3] = nics.map(start);
        [&mut g1, &mut g2, &mut g3].into_iter().for_each(Uml::boot);
        lab.wait_up(["g1", "g2", "tap3"]);

        for to in ["10.0.0.2", "10.0.0.3", "10.0.0.9"] {
            assert!(g1.reaches(to), "g1 does not reach {to}");
        }
        assert!(lab.host("host").reaches("10.0.0.1") && lab.host("host").reaches("10.0.0.3"));
        g1.sends_tcp_to(&mut g2);
        g2.sends_tcp_to(&mut g1);
        g3.sends_tcp_to(&mut g1);
        g2.sends_tcp_to(&mut g3);
        let front_end = lab.switch.port("g1").front_end.unwrap();
        assert!(front_end.slow.is_empty(), "{front_end:?}");

        // Without the offloads that virtio_net has negotiated.
        let link = g1.link;
        g1.run(&["ethtool", "-K", link, "tx", "off", "tso", "off", "gso", "off", "gro", "off"]);
        g1.sends_tcp_to(&mut g2);
        g1.sends_tcp_to(&mut g3);
        g2.sends_tcp_to(&mut g1);
        for guest in [&mut g1, &mut g2, &mut g3] {
            assert_eq!(guest.checksum_errors(), 0, "{guest:?}");
        }

        // The first that is seen in the other network: nothing of all that.
        let last = Frame::new(Mac::BROADCAST, lab.host("other2").mac, "last");
        lab.raw(["other2"])[0].send(&last);
        other.sees([last]);
    });
}
