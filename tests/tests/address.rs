//! The switch's own addresses in networks: it answers there, and nowhere else.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use vswitch_api::topology::{OWN_PORT, own_mac};
use vswitch_tests::{Frame, Host, Lab, SOON, scenario, topology_file, wait_until};
use vswitch_wire::Mac;
use vswitch_wire::checksum::Sum;

const OWN4: [u8; 4] = [10, 0, 0, 254];
const HOST4: [u8; 4] = [10, 0, 0, 1];

/// The switch's MAC in a network.
fn own(network: &str) -> Mac {
    own_mac("vswitch", network)
}

/// ARP for IPv4 over Ethernet (RFC 826), padded as a switch pads it.
fn arp(to: Mac, operation: u8, from: (Mac, [u8; 4]), target: (Mac, [u8; 4])) -> Frame {
    let mut payload = vec![0, 1, 8, 0, 6, 4, 0, operation];
    for (mac, ip) in [from, target] {
        payload.extend(mac.0);
        payload.extend(ip);
    }
    payload.resize(46, 0);
    Frame { to, from: from.0, tags: Vec::new(), ether_type: 0x0806, payload }
}

/// Who has the switch's address?
fn question(from: Mac) -> Frame {
    arp(Mac::BROADCAST, 1, (from, HOST4), (Mac::ZERO, OWN4))
}

fn answer(to: Mac, network: &str) -> Frame {
    arp(to, 2, (own(network), OWN4), (to, HOST4))
}

/// An ICMP echo (RFC 792) in IPv4: type 8 asks, 0 answers.
fn echo(kind: u8, (from, source): (Mac, [u8; 4]), (to, destination): (Mac, [u8; 4])) -> Frame {
    let mut icmp = vec![kind, 0, 0, 0, 0, 7, 0, 8];
    icmp.extend([0x5a; 32]);
    let checksum = Sum::of(&icmp).checksum().to_be_bytes();
    icmp[2..4].copy_from_slice(&checksum);
    let mut payload = vec![0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 1, 0, 0];
    payload.extend(source);
    payload.extend(destination);
    let checksum = Sum::of(&payload).checksum().to_be_bytes();
    payload[10..12].copy_from_slice(&checksum);
    payload.extend(icmp);
    Frame { to, from, tags: Vec::new(), ether_type: 0x0800, payload }
}

/// Ends what the host still tries from before.
fn ask_anew(host: &Host) {
    host.run("ip", ["neighbour", "flush", "dev", "eth0", "nud", "all"]);
}

/// Everything that comes in by the own port was made by the switch, and what leaves by it was taken by it.
fn holds_balance(lab: &Lab) {
    lab.switch.wait_quiet();
    let stats = lab.switch.stats();
    let own = stats.switch.expect("the switch has an address");
    assert_eq!(
        (own.rx_packets, own.tx_packets),
        (stats.conservation.originated, stats.conservation.consumed)
    );
    let received: u64 = stats.ports.iter().map(|port| port.counters.rx_packets).sum();
    assert_eq!(received, stats.conservation.received, "made frames were not received");
}

#[test]
fn two_tenants_with_the_same_addresses_are_answered_each_in_its_own_network() {
    scenario(&topology_file("address.toml"), |lab| {
        let [red1, blue1, green1] = ["red1", "blue1", "green1"].map(|name| lab.host(name));
        blue1.namespace.set_mac("eth0", red1.mac.0).unwrap();
        for host in [red1, blue1] {
            wait_until("the host has a link-local address to ask from", SOON, || {
                let own = host.run("ip", ["-6", "address", "show", "dev", "eth0", "scope", "link"]);
                own.contains("fe80::") && !own.contains("tentative")
            });
            for own in ["10.0.0.254", "fd00::fe"] {
                assert!(host.reaches(own), "{} is answered at {own}", host.name);
            }
            let network = host.name.trim_end_matches('1');
            let [a, b, c, d, e, f] = own(network).0;
            let local = format!("fe80::{:02x}{b:02x}:{c:02x}ff:fe{d:02x}:{e:02x}{f:02x}%eth0", a ^ 2);
            assert!(host.reaches(&local), "{} is answered at {local}", host.name);
        }
        assert_eq!(
            ["red", "blue"].map(|n| lab.switch.place_of(n, own(n))),
            [(); 2].map(|()| Some(OWN_PORT.to_owned()))
        );
        for nowhere in ["10.0.0.254", "fd00::fe"] {
            assert!(green1.is_cut_off_from(nowhere), "green has no such address");
        }
        holds_balance(lab);
        let stats = lab.switch.stats();
        assert!(stats.conservation.originated >= 8 && stats.conservation.consumed >= 8, "{stats:?}");
        assert!(lab.switch.ports().iter().all(|port| port.name != OWN_PORT));
    });
}

#[test]
fn a_trunk_is_answered_with_the_tag_of_each_network() {
    scenario(&topology_file("address.toml"), |lab| {
        let [tagged, red1, green1] = lab.raw(["tagged", "red1", "green1"]);
        let from = lab.host("tagged").mac;
        for (network, vid) in [("red", 10), ("blue", 20)] {
            tagged.send(&question(from).tagged(vid));
            tagged.until(&answer(from, network).tagged(vid));
            tagged.send(&echo(8, (from, HOST4), (own(network), OWN4)).tagged(vid));
            tagged.until(&echo(0, (own(network), OWN4), (from, HOST4)).tagged(vid));
        }
        // A priority is no network: only the VLAN ID counts.
        tagged.send(&question(from).tagged(30));
        tagged.send(&question(from).with_tag(0x8100, 0xe000 | 10));
        let seen = tagged.until(&answer(from, "red").tagged(10));
        assert!(seen.iter().all(|frame| frame.ether_type != 0x0806 || frame.from != own("red")), "{seen:?}");
        // Nobody else's MAC is answered, whatever address is asked for.
        tagged.send(&echo(8, (from, HOST4), (own("blue"), OWN4)).tagged(10));
        tagged.send(&question(from).tagged(10));
        let seen = tagged.until(&answer(from, "red").tagged(10));
        assert!(seen.iter().all(|frame| frame.ether_type != 0x0800), "{seen:?}");
        // The questions were seen by others of the network, the answers by nobody.
        let of_switch = |seen: Vec<Frame>| {
            seen.into_iter().filter(|f| f.from == own("red") && f.ether_type == 0x0806).count()
        };
        assert_eq!((of_switch(red1.drain()), of_switch(green1.drain())), (0, 0));
        let trace = lab.switch.trace("red1", &question(lab.host("red1").mac));
        assert_eq!(trace.ports, [OWN_PORT, "tagged"]);
        holds_balance(lab);
    });
}

#[test]
fn the_flood_of_one_tenant_does_not_keep_the_other_from_its_answers() {
    scenario(&topology_file("address.toml"), |lab| {
        let [blue1, red1] = ["blue1", "red1"].map(|name| lab.host(name));
        assert!(blue1.reaches("10.0.0.254"));
        let raw = red1.raw();
        let ping = echo(8, (red1.mac, HOST4), (own("red"), OWN4)).bytes();
        let is_over = AtomicBool::new(false);
        let pings = thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let mut sent = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    raw.send_bytes(&ping);
                    sent += 1;
                }
                sent
            });
            wait_until("the flood is more than the switch answers", SOON, || {
                lab.switch.stats().switch.is_some_and(|own| own.drops.contains_key("tx_full"))
            });
            let pings = blue1.run("ping", ["-q", "-c", "50", "-i", "0.02", "-W", "5", "10.0.0.254"]);
            is_over.store(true, Ordering::Relaxed);
            assert!(flood.join().unwrap() > 1000);
            pings
        });
        assert!(pings.contains("50 received"), "{pings}");
        assert!(lab.switch.status().health.iter().all(|part| part.ok), "control is as well as before");
        holds_balance(lab);
    });
}

#[test]
fn addresses_come_change_and_go_with_a_change() {
    let with = |red: &str, blue: &str| {
        let network = |name: &str, address: &str| {
            let address =
                if address.is_empty() { String::new() } else { format!(r#", address = ["{address}"]"#) };
            format!(r#"{{ name = "{name}"{address} }}"#)
        };
        format!(
            r#"
            network = [{}, {}]
            port = [{{ name = "red1", access = "red" }}, {{ name = "blue1", access = "blue" }}]
            host = [
                {{ name = "red1", port = "red1", address = ["10.0.0.1/24"] }},
                {{ name = "blue1", port = "blue1", address = ["10.0.0.1/24"] }},
            ]
            "#,
            network("red", red),
            network("blue", blue)
        )
    };
    scenario(&with("", ""), |lab| {
        let [red1, blue1] = ["red1", "blue1"].map(|name| lab.host(name));
        assert!(lab.switch.stats().switch.is_none(), "there is no such port yet");
        assert!(red1.is_cut_off_from("10.0.0.254"));
        let changes = lab.switch.apply(&with("10.0.0.254/24", ""));
        assert_eq!(changes, [r#"~ network red: address default -> ["10.0.0.254/24"]"#]);
        ask_anew(red1);
        assert!(red1.reaches("10.0.0.254") && blue1.is_cut_off_from("10.0.0.254"));
        let place = || lab.switch.place_of("red", own("red"));
        assert_eq!(place().as_deref(), Some(OWN_PORT));

        // It is not the user's to delete, to flush or to give away.
        let mac = own("red").to_string();
        let refusal = lab.switch.refusal(&["fdb", "del", "red", &mac]);
        assert!(refusal.contains("is the switch's own in network \"red\""), "{refusal}");
        let refusal = lab.switch.refusal(&["fdb", "add", "red", &mac, "--port", "red1"]);
        assert!(refusal.contains("is the switch's own in network \"red\""), "{refusal}");
        assert_eq!(lab.switch.ctl(["port", "add", OWN_PORT, "--access", "red"]).code, 1);
        lab.switch.ctl(["fdb", "flush"]);
        assert_eq!(place().as_deref(), Some(OWN_PORT));

        // What is dumped is what runs.
        let dump = lab.switch.ctl(["dump"]).stdout;
        assert!(dump.contains(r#"address = ["10.0.0.254/24"]"#) && !dump.contains("[[fdb]]"), "{dump}");
        assert_eq!(lab.switch.apply(&dump), [""; 0]);

        lab.switch.apply(&with("10.0.0.253/24", ""));
        assert!(red1.reaches("10.0.0.253") && red1.is_cut_off_from("10.0.0.254"));
        // The VLAN ID of the own port is free for the other one.
        lab.switch.apply(&with("", "10.0.0.254/24"));
        ask_anew(blue1);
        assert!(blue1.reaches("10.0.0.254"));
        assert!(red1.is_cut_off_from("10.0.0.253") && red1.is_cut_off_from("10.0.0.254"));
        assert_eq!(place(), None);
        let networks: serde_json::Value = lab.switch.ask(&["network", "list"]);
        assert_eq!(networks[1]["own_mac"], own("blue").to_string());
        lab.switch.apply(&with("", ""));
        assert!(blue1.is_cut_off_from("10.0.0.254"));
        lab.switch.change(&[
            "network",
            "add",
            "green",
            "--address",
            "10.0.0.254/24",
            "--address",
            "fd00::fe/64",
        ]);
        lab.switch.change(&["port", "set", "red1", "--access", "green"]);
        ask_anew(red1);
        assert!(red1.reaches("10.0.0.254"));
        holds_balance(lab);
    });
}
