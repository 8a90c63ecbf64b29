//! The other VTEP is Linux'.

use std::fmt::Write;

use vswitch_api::response::{Reach, VxlanState};
use vswitch_netns::PacketSocket;
use vswitch_tests::{Frame, Host, Lab, SOON, scenario, topology_file, transfer, wait_until};
use vswitch_wire::Mac;

/// Bytes of one TCP transfer.
const TCP_BYTES: usize = 4 << 20;

/// Gives the host `linux` a VXLAN device of the network `n` to the switch, with this MAC and these addresses.
pub(crate) fn add_vtep(host: &Host, n: u32, family: &Family, addresses: &[String]) {
    let [own, other] = [family.other, family.switch];
    let device = format!("vx{n}");
    let id = (10_000 + n).to_string();
    let mut add = vec!["link", "add", &device, "type", "vxlan", "id", &id, "local", own, "remote", other];
    add.extend(["dstport", "4789"]);
    host.run("ip", add);
    for address in addresses {
        let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        host.run("ip", ["addr", "add", address, "dev", &device].iter().chain(nodad));
    }
    host.run("ip", ["link", "set", &device, "up"]);
}

/// The two ends of the underlay.
pub(crate) struct Family {
    switch: &'static str,
    other: &'static str,
    prefix: u8,
}

pub(crate) const V4: Family = Family { switch: "192.0.2.1", other: "192.0.2.2", prefix: 24 };
pub(crate) const V6: Family = Family { switch: "2001:db8::1", other: "2001:db8::2", prefix: 64 };

/// So many networks, each with a port and a host `h<n>` at 10.0.<n>.1 and fd00:<n>::1, and a Linux VTEP.
pub(crate) fn topology(networks: u32, family: &Family, underlay: &str) -> String {
    let Family { switch, other, prefix } = family;
    let mut text = format!(
        "[underlay]\naddress = \"{switch}/{prefix}\"\nport = \"uplink\"\n{underlay}\n[[port]]\nname = \"uplink\"\n\
         [[host]]\nname = \"linux\"\nport = \"uplink\"\naddress = [\"{other}/{prefix}\"]\n"
    );
    for n in 0..networks {
        write!(
            text,
            "[[network]]\nname = \"n{n}\"\nvni = {vni}\npeers = [\"{other}\"]\n\
             [[port]]\nname = \"h{n}\"\naccess = \"n{n}\"\n\
             [[host]]\nname = \"h{n}\"\nport = \"h{n}\"\naddress = [\"10.0.{n}.1/24\", \"fd00:{n}::1/64\"]\n",
            vni = 10_000 + n,
        )
        .unwrap();
    }
    text
}

pub(crate) fn vxlan(lab: &Lab) -> VxlanState {
    lab.switch.ask(&["vxlan", "show"])
}

fn wait_resolved(lab: &Lab) {
    wait_until("all peers are resolved", SOON, || {
        vxlan(lab).peers.iter().all(|peer| peer.reach == Reach::Resolved)
    });
}

#[test]
fn the_example_works() {
    scenario(&topology_file("vxlan-with-linux.toml"), |lab| {
        let linux = lab.host("linux");
        let run = "ip link add red type vxlan id 10010 local 192.0.2.2 remote 192.0.2.1 dstport 4789 && \
                   ip addr add 10.0.0.2/24 dev red && ip link set red up";
        linux.run("sh", ["-c", run]);
        assert!(lab.host("red1").reaches("10.0.0.2"));
        assert!(linux.reaches("10.0.0.1"), "red1 and not blue1, which has the same address");
        assert!(lab.host("blue1").is_cut_off_from("10.0.0.2"));
        assert!(linux.reaches("192.0.2.1"), "the VTEP's own address");
    });
}

#[test]
fn pings_and_tcp_pass_both_ways_over_both_families() {
    for family in [V4, V6] {
        scenario(&topology(1, &family, ""), |lab| {
            let (linux, host) = (lab.host("linux"), lab.host("h0"));
            add_vtep(linux, 0, &family, &["10.0.0.2/24".to_owned(), "fd00:0::2/64".to_owned()]);
            for (there, back) in [("10.0.0.2", "10.0.0.1"), ("fd00:0::2", "fd00:0::1")] {
                assert!(host.reaches(there) && linux.reaches(back), "{there} and {back}");
                transfer::tcp(host, linux, there, TCP_BYTES);
                transfer::tcp(linux, host, back, TCP_BYTES);
            }
            assert!(linux.reaches(family.switch));
            let counters = vxlan(lab).peers[0].counters.clone();
            assert_eq!(
                counters.drops.values().sum::<u64>(),
                counters.drops.get("too_big_egress").copied().unwrap_or(0)
            );
            assert_eq!([host, linux].map(Host::checksum_errors), [0, 0]);
        });
    }
}

#[test]
fn fifty_networks_share_the_tunnel_and_none_hears_another() {
    scenario(&topology(50, &V4, ""), |lab| {
        let linux = lab.host("linux");
        wait_resolved(lab);
        for n in 0..50 {
            add_vtep(linux, n, &V4, &[format!("10.0.{n}.2/24")]);
        }
        for n in 0..50 {
            assert!(lab.host(&format!("h{n}")).reaches(&format!("10.0.{n}.2")), "network {n}");
        }
        let raw = lab.raw(["h0", "h1"]);
        let socket = PacketSocket::open(&linux.namespace, "vx0").unwrap();
        let frame = Frame::new(Mac::BROADCAST, Mac([2, 7, 7, 7, 7, 7]), "in network 0");
        socket.send(&frame.bytes()).unwrap();
        raw[0].until(&frame);
        let second = Frame::new(Mac::BROADCAST, Mac([2, 7, 7, 7, 7, 8]), "in network 1");
        PacketSocket::open(&linux.namespace, "vx1").unwrap().send(&second.bytes()).unwrap();
        assert!(!raw[1].until(&second).contains(&frame));
    });
}

#[test]
fn a_flood_reaches_each_peer_once_and_a_station_moves_to_and_fro() {
    scenario(&topology(1, &V4, ""), |lab| {
        let linux = lab.host("linux");
        add_vtep(linux, 0, &V4, &["10.0.0.2/24".to_owned()]);
        wait_resolved(lab);
        let [host] = lab.raw(["h0"]);
        let remote = PacketSocket::open(&linux.namespace, "vx0").unwrap();
        let before = vxlan(lab).peers[0].counters.tx_packets;
        let wanderer = Mac([2, 0, 0, 0, 7, 7]);
        for n in 0..100 {
            host.send(&Frame::new(Mac::BROADCAST, wanderer, &format!("flooded {n}")));
        }
        wait_until("a hundred frames went to the peer", SOON, || {
            vxlan(lab).peers[0].counters.tx_packets - before == 100
        });
        assert_eq!(lab.switch.place_of("n0", wanderer).as_deref(), Some("h0"));
        for (round, place) in [(1, "192.0.2.2"), (2, "h0"), (3, "192.0.2.2")] {
            let frame = Frame::new(Mac::BROADCAST, wanderer, &format!("here {round}"));
            if place == "h0" {
                host.send(&frame);
            } else {
                remote.send(&frame.bytes()).unwrap();
                host.until(&frame);
            }
            wait_until("the station has moved", SOON, || {
                lab.switch.place_of("n0", wanderer).as_deref() == Some(place)
            });
        }
        // What is sent to it goes to the peer alone.
        host.send(&Frame::new(wanderer, lab.host("h0").mac, "to the wanderer"));
        wait_until("one more frame went to the peer", SOON, || {
            vxlan(lab).peers[0].counters.tx_packets - before == 102
        });
    });
}

#[test]
fn packets_that_are_too_long_are_answered_or_cut() {
    for family in [V4, V6] {
        scenario(&topology(1, &family, ""), |lab| {
            let (linux, host) = (lab.host("linux"), lab.host("h0"));
            add_vtep(linux, 0, &family, &["10.0.0.2/24".to_owned(), "fd00:0::2/64".to_owned()]);
            // Its own end knows of the tunnel; make it as ignorant as the host.
            linux.run("ip", ["link", "set", "vx0", "mtu", "1500"]);
            let inner = if family.switch.contains(':') { 1430 } else { 1450 };
            let state = vxlan(lab);
            assert_eq!((state.underlay.unwrap().mtu, state.networks[0].mtu), (Some(1500), Some(inner)));
            for (there, headers) in [("10.0.0.2", 28), ("fd00:0::2", 48)] {
                assert!(host.reaches(there));
                let fits = (inner - headers).to_string();
                host.run("ping", ["-c", "1", "-W", "5", "-M", "do", "-s", &fits, there]);
                // The first is answered with what would fit, and so the kernel knows.
                let long = (1500 - headers).to_string();
                let failed =
                    host.namespace.run("ping", ["-c", "1", "-W", "1", "-M", "do", "-s", &long, there]);
                assert!(failed.is_err());
                let route = host.run("ip", ["route", "get", there]);
                assert!(route.contains(&format!("mtu {inner}")), "{route}");
                transfer::tcp(host, linux, there, TCP_BYTES);
            }
        });
    }
}
