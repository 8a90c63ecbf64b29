//! Frames that pass in the kernel: they are switched and counted as all others, and no change comes too late for them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

use vswitch_netns::Process;
use vswitch_tests::{Frame, Host, Lab, Raw, SOON, scenario, transfer, wait_until};
use vswitch_wire::Mac;

const IPV4: u16 = 0x0800;

/// Three hosts on one network, and two on another, which send nothing unless told to.
const LAB: &str = r#"
    network = [{ name = "lan" }, { name = "other" }]
    port = [
        { name = "a", access = "lan" },
        { name = "b", access = "lan" },
        { name = "c", access = "lan" },
        { name = "d", access = "other" },
        { name = "e", access = "other" },
    ]
    host = [
        { name = "a", port = "a", address = ["10.0.0.1/24"] },
        { name = "b", port = "b", address = ["10.0.0.2/24"] },
        { name = "c", port = "c" },
        { name = "d", port = "d" },
        { name = "e", port = "e" },
    ]
"#;

/// A frame that may be of a flow: the switch does not look behind the EtherType.
fn ip(to: Mac, from: Mac, text: &str) -> Frame {
    Frame { ether_type: IPV4, ..Frame::new(to, from, text) }
}

/// Frames of the port that passed in the kernel.
fn passed(lab: &Lab, port: &str) -> u64 {
    lab.switch.port(port).counters.shortcut
}

/// The station `from` at `link` and the station `to` at `other` know each other, and frames from the one to the other
/// pass in the kernel.
fn let_pass(lab: &Lab, port: &str, [link, other]: [&Raw; 2], frame: &Frame) {
    let answer = Frame { to: frame.from, from: frame.to, ..frame.clone() };
    link.send(frame);
    other.until(frame);
    other.send(&answer);
    link.until(&answer);
    let before = passed(lab, port);
    wait_until("a busy flow passes in the kernel", SOON, || {
        for _ in 0..32 {
            link.send(frame);
            other.until(frame);
        }
        passed(lab, port) > before
    });
}

/// A flow from a to b, both hosts' own stations.
fn a_to_b(lab: &Lab) -> Frame {
    ip(lab.host("b").mac, lab.host("a").mac, "a to b")
}

/// The next frame of a flow, which passes in the kernel.
#[track_caller]
fn assert_passes(lab: &Lab, port: &str, [link, other]: [&Raw; 2], frame: &Frame) {
    let before = passed(lab, port);
    link.send(frame);
    other.until(frame);
    assert_eq!(passed(lab, port), before + 1, "the frame passes in the kernel");
}

/// Sends frames as fast as it can while the result lives.
fn flood(host: &Host, to: &str) -> Process {
    host.start("iperf3", ["--client", to, "--time", "600"])
}

#[test]
fn what_passes_is_whole_and_counted_where_it_was_received_and_sent() {
    scenario(LAB, |lab| {
        let received = |host: &Host| host.namespace.link("eth0").unwrap().unwrap().counters.rx_packets;
        let (a, b) = (lab.host("a"), lab.host("b"));
        for _ in 0..3 {
            transfer::tcp(a, b, "10.0.0.2", 64 << 20);
            transfer::tcp(b, a, "10.0.0.1", 16 << 20);
        }
        assert_eq!((a.checksum_errors(), b.checksum_errors()), (0, 0));
        lab.switch.wait_quiet();
        for (host, port) in [(a, "a"), (b, "b")] {
            let counters = lab.switch.port(port).counters;
            assert!(
                counters.shortcut > counters.rx_packets / 2,
                "most frames pass in the kernel: {counters:?}"
            );
            assert_eq!(counters.tx_packets, received(host), "{port}");
        }
        let stats = lab.switch.stats();
        let lan = stats.networks.iter().find(|network| network.name == "lan").unwrap();
        let sum = |of: fn(&vswitch_api::response::PortCounters) -> u64| -> u64 {
            ["a", "b", "c"].iter().map(|port| of(&lab.switch.port(port).counters)).sum()
        };
        assert_eq!((lan.traffic.packets, lan.traffic.bytes), (sum(|c| c.rx_packets), sum(|c| c.rx_bytes)));
    });
}

#[test]
fn others_never_see_what_passes() {
    scenario(LAB, |lab| {
        let [a, b, c, d, e] = lab.raw(["a", "b", "c", "d", "e"]);
        let frame = a_to_b(lab);
        let_pass(lab, "a", [&a, &b], &frame);
        c.drain();
        d.drain();
        (0..100).for_each(|_| assert_passes(lab, "a", [&a, &b], &frame));
        let last = Frame::new(Mac::BROADCAST, lab.host("a").mac, "everybody sees this");
        a.send(&last);
        c.sees([last.clone()]);
        let last = Frame::new(Mac::BROADCAST, lab.host("e").mac, "the first that the other network hears");
        e.send(&last);
        d.sees([last]);
    });
}

#[test]
fn tagged_frames_pass_with_their_tag_and_no_others() {
    let topology = r#"
        network = [{ name = "red", vlan = 10 }, { name = "blue", vlan = 20 }]
        port = [
            { name = "a", trunk = ["red", "blue"] },
            { name = "b", trunk = ["red", { network = "blue", vlan = 200 }] },
            { name = "c", access = "red" },
        ]
        host = [{ name = "a", port = "a" }, { name = "b", port = "b" }, { name = "c", port = "c" }]
    "#;
    scenario(topology, |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        let [to, from] = ["b", "a"].map(|name| lab.host(name).mac);
        let red = ip(to, from, "red").tagged(10);
        let_pass(lab, "a", [&a, &b], &red);
        c.drain();
        assert_passes(lab, "a", [&a, &b], &red);
        // Its priority goes with it.
        assert_passes(lab, "a", [&a, &b], &ip(to, from, "red").with_tag(0x8100, 0xe00a));
        // The same addresses in the other network, where nobody knows them: translated on their way.
        let blue = ip(to, from, "blue").tagged(20);
        let before = passed(lab, "a");
        a.send(&blue);
        b.until(&ip(to, from, "blue").tagged(200));
        // A second tag behind the first makes another frame of it.
        let double = ip(to, from, "double").tagged(20).tagged(10);
        a.send(&double);
        b.until(&double);
        assert_eq!(passed(lab, "a"), before);
        let last = Frame::new(Mac::BROADCAST, from, "everybody in red sees this");
        a.send(&last.clone().tagged(10));
        c.sees([last]);
    });
}

#[test]
fn a_station_that_moves_takes_its_flows_along() {
    scenario(LAB, |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        let frame = a_to_b(lab);
        let_pass(lab, "a", [&a, &b], &frame);
        let moved = Frame::new(Mac::BROADCAST, frame.to, "I am at c now");
        c.send(&moved);
        a.until(&moved);
        b.until(&moved);
        // From now on nothing comes to b.
        a.send(&frame);
        c.until(&frame);
        let_pass(lab, "a", [&a, &c], &frame);
        // The sender moves as well, and frames of the old place are from another one.
        let back = Frame::new(Mac::BROADCAST, frame.from, "I am at b now");
        b.send(&back);
        a.until(&back);
        c.until(&back);
        let before = passed(lab, "a");
        assert_eq!(lab.switch.place_of("lan", frame.from).as_deref(), Some("b"));
        a.send(&frame);
        c.until(&frame);
        assert_eq!(passed(lab, "a"), before, "the move is to be seen by the switch");
        assert_eq!(lab.switch.place_of("lan", frame.from).as_deref(), Some("a"));
        assert!(b.drain().iter().all(|seen| seen.ether_type != IPV4));
    });
}

#[test]
fn a_change_of_the_configuration_ends_every_flow() {
    scenario(LAB, |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        let frame = a_to_b(lab);
        let last = Frame::new(Mac::BROADCAST, frame.from, "everybody in the network sees this");
        let nothing_passes = |why: &str| {
            a.send(&frame);
            a.send(&last);
            c.until(&last);
            assert!(b.drain().iter().all(|seen| *seen != frame), "{why}");
        };
        let set = |args: &[&str]| lab.switch.change(&[&["port", "set", "b"], args].concat());
        let_pass(lab, "a", [&a, &b], &frame);
        set(&["--access", "other"]);
        nothing_passes("b is in another network");
        set(&["--access", "lan"]);
        let_pass(lab, "a", [&a, &b], &frame);

        for port in ["a", "b"] {
            lab.switch.change(&["port", "set", port, "--isolated"]);
        }
        nothing_passes("both are isolated");
        lab.switch.change(&["port", "set", "a", "--isolated=false"]);
        let_pass(lab, "a", [&a, &b], &frame);

        lab.switch.change(&["port", "del", "b"]);
        nothing_passes("the port is deleted");
        assert!(lab.switch.stats().conservation.is_balanced());
    });
}

#[test]
fn a_limit_of_length_holds_in_the_kernel_too() {
    scenario(LAB, |lab| {
        let [a, b] = lab.raw(["a", "b"]);
        let long = Frame { payload: vec![1; 1500], ..a_to_b(lab) };
        let_pass(lab, "a", [&a, &b], &long);
        lab.switch.change(&["port", "set", "b", "--mtu", "1400"]);
        let short = Frame { payload: vec![1; 1400], ..a_to_b(lab) };
        let_pass(lab, "a", [&a, &b], &short);
        a.send(&long);
        assert_passes(lab, "a", [&a, &b], &short);
        wait_until("the long frame is dropped", SOON, || lab.switch.drops("b", "too_big_egress") == 1);
    });
}

#[test]
fn a_command_about_an_address_holds_in_the_kernel_too() {
    scenario(LAB, |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        let frame = a_to_b(lab);
        let_pass(lab, "a", [&a, &b], &frame);
        let to = frame.to.to_string();
        lab.switch.change(&["fdb", "add", "lan", &to, "--port", "c"]);
        b.drain();
        a.send(&frame);
        c.until(&frame);
        assert!(b.drain().is_empty());
        lab.switch.change(&["fdb", "del", "lan", &to]);
        a.send(&frame);
        b.until(&frame);
        c.until(&frame);
        let_pass(lab, "a", [&a, &b], &frame);
        let _: serde_json::Value = lab.switch.ask(&["fdb", "flush", "--network", "lan"]);
        c.drain();
        a.send(&frame);
        c.until(&frame);
    });
}

#[test]
fn a_station_whose_frames_pass_does_not_age_and_a_silent_one_does() {
    let short = LAB.replace(r#"{ name = "lan" }"#, r#"{ name = "lan", ageing = "2s" }"#);
    scenario(&short, |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        let frame = a_to_b(lab);
        let_pass(lab, "a", [&a, &b], &frame);
        c.drain();
        // The destination says nothing: it ages after 2 s, and then its frames are flooded.
        let (before, mut sent) = (passed(lab, "a"), 0);
        wait_until("the silent destination ages", SOON, || {
            a.send(&frame);
            sent += 1;
            b.until(&frame);
            assert_eq!(lab.switch.place_of("lan", frame.from).as_deref(), Some("a"), "the sender is known");
            c.drain().contains(&frame)
        });
        assert_eq!(lab.switch.place_of("lan", frame.to), None);
        assert_eq!(passed(lab, "a"), before + sent - 1, "all but the flooded frame have passed");
    });
}

#[test]
fn netdevs_that_come_and_go_under_a_flow_are_switched_as_before() {
    scenario(LAB, |lab| {
        let [a, b] = ["a", "b"].map(|name| lab.host(name));
        let _server = b.serve_iperf();
        let _flood = flood(a, "10.0.0.2");
        for _ in 0..3 {
            let before = passed(lab, "a");
            wait_until("the flow passes in the kernel", SOON, || passed(lab, "a") > before);
            b.unplug();
            wait_until("the port waits", SOON, || lab.switch.port("b").reason.is_some());
            b.plug();
            lab.wait_up(["b"]);
        }
        b.set_up(false);
        wait_until("the link is down", SOON, || lab.switch.port("b").reason.is_some());
        let before = passed(lab, "a");
        b.set_up(true);
        wait_until("the flow passes again", SOON, || passed(lab, "a") > before);
    });
}

#[test]
fn a_link_that_flaps_ends_its_own_flows_alone() {
    scenario(LAB, |lab| {
        let [a, b] = lab.raw(["a", "b"]);
        let frame = a_to_b(lab);
        let_pass(lab, "a", [&a, &b], &frame);
        for _ in 0..5 {
            lab.host("d").set_up(false);
            wait_until("the link is down", SOON, || lab.switch.port("d").reason.is_some());
            assert_passes(lab, "a", [&a, &b], &frame);
            lab.host("d").set_up(true);
            lab.wait_up(["d"]);
            assert_passes(lab, "a", [&a, &b], &frame);
        }
        let before = passed(lab, "a");
        lab.host("b").set_up(false);
        wait_until("the link is down", SOON, || lab.switch.port("b").reason.is_some());
        let flooded = lab.switch.port("a").counters.flooded;
        a.send(&frame);
        wait_until("the frame goes by a worker, who floods it", SOON, || {
            lab.switch.port("a").counters.flooded > flooded
        });
        assert_eq!(passed(lab, "a"), before);
        lab.host("b").set_up(true);
        lab.wait_up(["b"]);
    });
}

#[test]
fn all_frames_go_by_the_workers_where_there_is_no_shortcut() {
    let lab = |switch: &str, kind: &str| {
        format!(
            r#"
            switch = {{ {switch} }}
            network = [{{ name = "lan" }}]
            port = [{{ name = "a", access = "lan" }}, {{ name = "b", access = "lan", kind = "{kind}" }}]
            host = [
                {{ name = "a", port = "a", address = ["10.0.0.1/24"] }},
                {{ name = "b", port = "b", address = ["10.0.0.2/24"] }},
            ]
            "#
        )
    };
    for topology in [lab("shortcut = false", "auto"), lab("", "xdp")] {
        scenario(&topology, |lab| {
            transfer::tcp(lab.host("a"), lab.host("b"), "10.0.0.2", 8 << 20);
            assert_eq!(passed(lab, "a") + passed(lab, "b"), 0);
        });
    }
}
