//! Netdevs that go, come back and change while the switch runs.

#![allow(clippy::expect_used, clippy::panic)] // set-up of tests

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::Signal;
use vswitch_api::response::LinkState;
use vswitch_netns::Process;
use vswitch_tests::{Frame, Host, Lab, SOON, Scenario, scenario, wait_until};
use vswitch_wire::Mac;

/// Hosts `a` and `b` on ports of this kind.
fn two(kind: &str) -> String {
    format!(
        r#"
network = [{{ name = "lan" }}]
port = [
    {{ name = "a", kind = "{kind}", access = "lan" }},
    {{ name = "b", kind = "{kind}", access = "lan" }},
]
host = [
    {{ name = "a", port = "a", address = ["10.0.0.1/24"] }},
    {{ name = "b", port = "b", address = ["10.0.0.2/24"] }},
]
"#
    )
}

const TO: [(&str, &str); 2] = [("a", "10.0.0.2"), ("b", "10.0.0.1")];

/// Load in both directions, until dropped. (Every ping of a host is shown all answers that come to it, so with a
/// flood of them it may miss its own.)
fn load(lab: &Lab) -> Vec<Process> {
    TO.map(|(host, to)| lab.host(host).start("ping", ["-q", "-i", "0.001", to])).into()
}

#[track_caller]
fn assert_connected(lab: &Lab) {
    for (host, to) in TO {
        assert!(lab.host(host).reaches(to), "{host} does not reach {to}");
    }
}

fn wait_waiting(lab: &Lab, port: &str) {
    wait_until("the port waits", SOON, || lab.switch.port(port).state == LinkState::Waiting);
}

#[test]
fn a_netdev_that_is_removed_and_made_again_under_load_is_attached_again() {
    for kind in ["xdp", "packet"] {
        scenario(&two(kind), |lab| {
            let load = load(lab);
            for _ in 0..3 {
                let before = lab.switch.port("b").counters.tx_packets;
                wait_until("there is traffic", SOON, || {
                    lab.switch.port("b").counters.tx_packets > before + 500
                });
                lab.host("b").unplug();
                wait_waiting(lab, "b");
                let reason = lab.switch.port("b").reason.expect("a port that waits says for what");
                assert!(reason.contains('b'), "{reason}");
                assert_eq!(lab.switch.port("a").state, LinkState::Up);
                lab.host("b").plug();
                lab.wait_up(["b"]);
                assert!(lab.host("a").reaches("10.0.0.2"), "{kind}");
            }
            drop(load);
            assert_connected(lab);
        });
    }
}

/// A new netdev of the same name at once: there may never have been a time at which none was seen.
#[test]
fn a_netdev_that_is_replaced_at_once_is_attached() {
    for kind in ["xdp", "packet"] {
        scenario(&two(kind), |lab| {
            let load = load(lab);
            for _ in 0..5 {
                lab.host("b").unplug();
                lab.host("b").plug();
                // The switch may not have seen the change yet, and its port be up with the old netdev.
                wait_until("b is reached again", SOON, || lab.host("a").reaches("10.0.0.2"));
            }
            drop(load);
            assert_connected(lab);
        });
    }
}

#[test]
fn a_tap_that_is_deleted_in_a_container_is_made_again_only_when_told() {
    let taps = two("tap").lines().take_while(|line| !line.starts_with("host")).collect::<Vec<_>>().join("\n");
    let scenario = Scenario::new(&taps);
    let scenario = TO
        .iter()
        .zip(["10.0.0.1/24", "10.0.0.2/24"])
        .fold(scenario, |scenario, ((name, _), address)| scenario.tap_host(name, [address.to_owned()]));
    scenario.run(|lab| {
        let load = load(lab);
        assert_connected(lab);
        let mac = lab.host("b").mac;
        lab.host("b").namespace.delete_link("eth0").expect("the tap is in the host");
        wait_until("the port waits, and says why", SOON, || {
            lab.switch.port("b").reason.is_some_and(|why| why.contains("another network namespace"))
        });
        assert!(lab.switch.namespace.link("b").expect("links").is_none(), "no tap of this host in its place");
        lab.switch.change(&["port", "del", "b"]);
        lab.switch.change(&["port", "add", "b", "--kind", "tap", "--access", "lan"]);
        assert_eq!(lab.switch.place_of("lan", mac), None, "the FDB has forgotten the old one");
        lab.plug_tap("b");
        assert!(lab.host("a").reaches("10.0.0.2"));
        drop(load);
        assert_connected(lab);
    });
}

#[test]
fn a_link_that_goes_down_and_up_is_followed() {
    for kind in ["xdp", "packet"] {
        scenario(&two(kind), |lab| {
            assert_connected(lab);
            let (near, b) = (&lab.switch.namespace, lab.host("b"));
            let downs: [(&str, &dyn Fn(bool)); 2] = [
                ("far end", &|up| b.set_up(up)),
                ("near end", &|up| if up { near.set_up("b") } else { near.set_down("b") }.expect("the link")),
            ];
            for (what, set_up) in downs {
                set_up(false);
                wait_until("the port is down", SOON, || lab.switch.port("b").state == LinkState::Down);
                assert_eq!(lab.switch.place_of("lan", b.mac), None, "{what}: its MACs are forgotten");
                set_up(true);
                lab.wait_up(["b"]);
                assert_connected(lab);
            }
        });
    }
}

#[test]
fn a_port_may_be_added_before_its_netdev_exists() {
    for kind in ["xdp", "packet", "auto"] {
        Scenario::new(&two(kind)).unplugged().run(|lab| {
            assert!(lab.switch.ports().iter().all(|port| port.state == LinkState::Waiting));
            lab.hosts().for_each(Host::plug);
            lab.wait_up(["a", "b"]);
            assert_connected(lab);
        });
    }
}

#[test]
fn a_netdevs_new_mtu_is_followed() {
    for kind in ["xdp", "packet"] {
        scenario(&two(kind), |lab| {
            for mtu in [9000, 1500, 3000] {
                for host in lab.hosts() {
                    host.namespace.set_mtu("eth0", mtu).expect("the far end's MTU");
                    lab.switch.namespace.set_mtu(&host.netdev, mtu).expect("the near end's MTU");
                }
                wait_until("the switch knows the MTU", SOON, || {
                    lab.switch.ports().iter().all(|port| port.mtu == Some(mtu))
                });
                let [a, b] = lab.raw(["a", "b"]);
                let from = lab.host("a").mac;
                let frame = |len| Frame {
                    payload: vec![7; len],
                    ..Frame::new(Mac::BROADCAST, from, "as large as can be")
                };
                a.send(&frame(mtu as usize));
                assert_eq!(b.until(&frame(mtu as usize)), [], "{kind}");
                assert_connected(lab);
            }
        });
    }
}

#[test]
fn queues_of_a_veth_are_followed() {
    for kind in ["xdp", "packet"] {
        Scenario::new(&two(kind)).queues(4).run(|lab| {
            let is_xdp = kind == "xdp";
            assert_eq!(lab.switch.port("b").queues, if is_xdp { 4 } else { 1 });
            // The near end first: XDP needs as many receive queues as the other end has transmit queues.
            let set_queues = |count| {
                let channels = |link| ["-L", link, "rx", count, "tx", count];
                // No queue is taken away that an AF_XDP socket is bound to, and the kernel ends sockets later than
                // close(2) does.
                wait_until("the kernel sets the queues", SOON, || {
                    lab.switch.namespace.run("ethtool", channels("b")).is_ok()
                });
                lab.host("b").run("ethtool", channels("eth0"));
            };
            lab.switch.change(&["port", "del", "b"]);
            set_queues("1");
            lab.switch.change(&["port", "add", "b", "--kind", kind, "--access", "lan"]);
            lab.wait_up(["b"]);
            let load = load(lab);
            for count in ["2", "4"] {
                set_queues(count);
                if is_xdp {
                    wait_until("every queue is served", SOON, || {
                        lab.switch.port("b").queues.to_string() == count
                    });
                    lab.wait_up(["b"]);
                }
                assert_connected(lab);
            }
            drop(load);
        });
    }
}

/// An ARP request for `10.0.0.92` (RFC 826).
fn who_has(from: Mac) -> Frame {
    let ipv4_over_ethernet = [0, 1, 8, 0, 6, 4];
    let (ask, address, nobody) = ([0, 1], [10, 0, 0, 2], [0; 6]);
    let mut frame = Frame { ether_type: ARP, ..Frame::new(Mac::BROADCAST, from, "") };
    let request = [&ipv4_over_ethernet[..], &ask, &from.0, &address, &nobody, &[10, 0, 0, 92]].concat();
    frame.payload[..request.len()].copy_from_slice(&request);
    frame
}

/// EtherType of ARP.
const ARP: u16 = 0x0806;

/// Asks for the address that the switch's own host has, one time after the other until told to stop; how many times,
/// and how many answers came.
fn ask(host: &Host, stop: &AtomicBool) -> (u64, u64) {
    let (link, request) = (host.raw(), who_has(host.mac));
    let (mut asked, mut answered) = (0, 0);
    while !stop.load(Relaxed) {
        link.send(&request);
        asked += 1;
        while let Some(frame) = link.next(Duration::from_micros(500)) {
            let is_answer = frame.ether_type == ARP && frame.payload[6..8] == [0, 2];
            answered += u64::from(is_answer && frame.payload[14..18] == [10, 0, 0, 92]);
        }
    }
    (asked, answered)
}

/// Another kind, another number of queues: the port has no device for a moment, and the netdev is up all the time.
#[test]
fn the_host_hears_nothing_of_a_port_that_is_attached_anew() {
    Scenario::new(&two("xdp")).queues(2).run(|lab| {
        let (near, b) = (&lab.switch.namespace, lab.host("b"));
        near.add_address("b", "10.0.0.92/24").expect("an address of the host itself");
        let set_queues = |count| {
            let channels = |link| ["-L", link, "rx", count, "tx", count];
            // The kernel ends the sockets of the queues later than close(2) does.
            wait_until("the kernel sets the queues", SOON, || near.run("ethtool", channels("b")).is_ok());
            b.run("ethtool", channels("eth0"));
        };
        let stop = AtomicBool::new(false);
        let (asked, answered) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| ask(b, &stop));
            for _ in 0..3 {
                lab.switch.change(&["port", "set", "b", "--kind", "packet"]);
                set_queues("1");
                lab.switch.change(&["port", "set", "b", "--kind", "xdp"]);
                set_queues("2");
                wait_until("both queues are served", SOON, || lab.switch.port("b").queues == 2);
            }
            stop.store(true, Relaxed);
            asking.join().expect("the host asks")
        });
        assert!(asked > 1000 && answered == 0, "the switch's host answered {answered} of {asked} requests");
        lab.switch.change(&["port", "del", "b"]);
        wait_until("the netdev is the host's again", SOON, || b.reaches("10.0.0.92"));
    });
}

/// A port that waits since the netdev must stay the host's does not keep the host off it.
#[test]
fn a_netdev_that_the_switch_may_not_take_stays_the_host_s() {
    scenario(&two("xdp"), |lab| {
        lab.expect_warning("b carries the default route of this host");
        let (near, b) = (&lab.switch.namespace, lab.host("b"));
        lab.switch.change(&["port", "del", "b"]);
        near.add_address("b", "10.0.0.92/24").expect("an address of the host itself");
        near.run("ip", ["route", "add", "default", "via", "10.0.0.2"]).expect("a default route");
        lab.switch.refusal(&["port", "add", "b", "--kind", "xdp", "--access", "lan"]);
        assert!(b.reaches("10.0.0.92"), "a refused command has changed nothing");
        // As a file of the daemon's start wants it: the port waits.
        lab.switch.write_config(&two("xdp"));
        lab.switch.signal(Signal::SIGHUP);
        wait_waiting(lab, "b");
        assert!(b.reaches("10.0.0.92"), "the port that waits has cut the host off");
        near.run("ip", ["route", "del", "default"]).expect("the route is there");
        lab.wait_up(["b"]);
        assert!(b.is_cut_off_from("10.0.0.92"));
    });
}
