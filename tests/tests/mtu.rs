//! Jumbo frames on every kind of port, and what is too big for one.

#![allow(clippy::expect_used, clippy::panic)] // set-up of tests

use std::fmt::Write;

use vswitch_tests::{Frame, Lab, SOON, Scenario, scenario, transfer, wait_until};
use vswitch_wire::Mac;

const KINDS: [&str; 5] = ["xdp", "packet", "tap", "auto", "xdp"];

/// A port of each kind with MTU 9000: `p1`, `p2` and so on.
fn jumbo() -> String {
    let mut text = "[[network]]\nname = \"lan\"\n".to_owned();
    for (n, kind) in (1..).zip(KINDS) {
        write!(text, "[[port]]\nname = \"p{n}\"\nkind = \"{kind}\"\nmtu = 9000\naccess = \"lan\"\n")
            .expect("a string takes everything");
        if kind != "tap" {
            let address = addresses(n).map(|address| format!("{address:?}")).join(", ");
            write!(text, "[[host]]\nname = \"p{n}\"\nport = \"p{n}\"\naddress = [{address}]\n")
                .expect("a string takes everything");
        }
    }
    text
}

fn addresses(n: usize) -> [String; 2] {
    [format!("10.0.0.{n}/24"), format!("fd00::{n}/64")]
}

fn run_jumbo(body: impl FnOnce(&mut Lab)) {
    Scenario::new(&jumbo()).tap_host("p3", addresses(3)).run(body);
}

#[test]
fn jumbo_frames_pass_between_every_pair_of_kinds() {
    run_jumbo(|lab| {
        for host in lab.hosts().map(|host| &host.namespace) {
            // Of a tap the host's end has the MTU too; nothing is to be fragmented.
            assert_eq!(host.link("eth0").expect("links").expect("a link").mtu, 9000);
        }
        for from in lab.hosts() {
            for (n, to) in (1..).zip(lab.hosts()).filter(|(_, to)| to.name != from.name) {
                // 8972 and 8952 bytes of payload make a packet of 9000.
                for (address, largest) in [(format!("10.0.0.{n}"), 8972), (format!("fd00::{n}"), 8952)] {
                    transfer::udp(from, to, &address, &[largest, largest - 1, 5000, 3489, 3488]);
                    transfer::tcp(from, to, &address, 1 << 20);
                }
            }
        }
        for host in lab.hosts() {
            assert_eq!(host.checksum_errors(), 0, "{}", host.name);
        }
        for port in lab.switch.ports() {
            assert_eq!(port.mtu, Some(9000));
            assert!(port.mtu_limit >= Some(9000), "{port:?}");
            assert_eq!(port.counters.drops.get("too_big_ingress"), None, "{port:?}");
            assert_eq!(port.counters.drops.get("too_big_egress"), None, "{port:?}");
        }
    });
}

#[test]
fn a_frame_that_is_too_big_is_a_counted_drop() {
    for kind in ["xdp", "packet"] {
        let topology = format!(
            r#"
network = [{{ name = "lan" }}]
port = [
    {{ name = "small", kind = "{kind}", mtu = 1500, access = "lan" }},
    {{ name = "big", kind = "{kind}", mtu = 9000, access = "lan" }},
]
host = [{{ name = "small", port = "small" }}, {{ name = "big", port = "big" }}]
"#
        );
        scenario(&topology, |lab| {
            let hosts = ["small", "big"].map(|name| lab.host(name));
            let [small, big] = ["small", "big"].map(|name| lab.host(name).raw());
            // The netdev takes more than the port is to take.
            lab.switch.namespace.set_mtu("small", 9000).expect("the near end's MTU");
            hosts[0].namespace.set_mtu("eth0", 9000).expect("the far end's MTU");
            assert_eq!(lab.switch.port("small").mtu, Some(1500));

            let text = "x".repeat(1500);
            let [largest, larger] =
                [&text[..], &text[..1]].map(|text| Frame::new(Mac::BROADCAST, hosts[1].mac, text));
            let too_big = Frame { payload: vec![0; 1501], ..larger };
            big.send(&too_big);
            big.send(&largest);
            assert_eq!(small.until(&largest), [], "{kind}");
            assert_eq!(lab.switch.drops("small", "too_big_egress"), 1, "{kind}");

            let largest = Frame { from: hosts[0].mac, ..largest };
            small.send(&Frame { from: hosts[0].mac, ..too_big });
            small.send(&largest);
            assert_eq!(big.until(&largest), [], "{kind}");
            assert_eq!(lab.switch.drops("small", "too_big_ingress"), 1, "{kind}");

            // A tag does not count (IEEE 802.3-2022 clause 3.2.7 gives it room of its own).
            let tagged = largest.tagged(5);
            small.send(&tagged);
            wait_until("the tagged frame is dropped for its tag", SOON, || {
                lab.switch.drops("small", "tagged_on_access") == 1
            });
            assert_eq!(lab.switch.drops("small", "too_big_ingress"), 1, "{kind}");
        });
    }
}

#[test]
fn an_mtu_beyond_the_limit_is_refused_by_its_number() {
    run_jumbo(|lab| {
        let mut tried = 0;
        for port in lab.switch.ports() {
            let limit = port.mtu_limit.expect("the port is attached");
            // What no kind can carry is invalid already.
            if limit >= 65535 {
                continue;
            }
            tried += 1;
            let refusal = lab.switch.refusal(&["port", "set", &port.name, "--mtu", &(limit + 1).to_string()]);
            assert!(refusal.contains("the limit"), "{refusal}");
            assert!(refusal.contains(&limit.to_string()), "{refusal}");
            let after = lab.switch.port(&port.name);
            assert_eq!(
                (after.state, after.mtu, after.why),
                (port.state, port.mtu, port.why),
                "nothing has changed"
            );
        }
        assert!(tried > 0, "every kind can carry everything: this test tests nothing");
        for (from, to) in [("p1", "10.0.0.3"), ("p3", "10.0.0.1")] {
            assert!(lab.host(from).reaches(to), "the ports carry on");
        }
    });
}

#[test]
fn a_port_s_mtu_is_no_more_than_its_netdev_s() {
    for kind in ["xdp", "packet"] {
        let topology = format!(
            r#"
network = [{{ name = "lan" }}]
port = [{{ name = "a", kind = "{kind}", access = "lan" }}]
host = [{{ name = "a", port = "a" }}]
"#
        );
        scenario(&topology, |lab| {
            lab.switch.change(&["port", "set", "a", "--mtu", "3000"]);
            let port = lab.switch.port("a");
            assert_eq!((port.mtu, port.configured_mtu), (Some(1500), Some(3000)));
            let shown = lab.switch.ctl(["port", "show", "a"]).stdout;
            assert!(shown.contains("1500 (3000 asked for, the netdev has less"), "{shown}");
            lab.host("a").namespace.set_mtu("eth0", 9000).expect("the far end's MTU");
            lab.switch.namespace.set_mtu("a", 9000).expect("the near end's MTU");
            wait_until("the port has what was asked for", SOON, || lab.switch.port("a").mtu == Some(3000));
        });
    }
}

/// A tap that was there before, as `ip` tells of it: whether it is up, and its MTU.
fn tap_state(lab: &Lab) -> (bool, u32) {
    let link = lab.switch.namespace.link("t").expect("links").expect("the tap is there");
    (link.is_up, link.mtu)
}

#[test]
fn a_persistent_tap_is_changed_with_the_configuration_alone() {
    scenario("network = [{ name = \"lan\" }]", |lab| {
        lab.switch.namespace.run("ip", ["tuntap", "add", "t", "mode", "tap"]).expect("a tap");
        let refused = "network = [{ name = \"lan\" }]\nport = [\
            { name = \"t\", kind = \"tap\", mtu = 4000, access = \"lan\" },\
            { name = \"no\", kind = \"packet\", netdev = \"lo\", access = \"lan\" }]";
        let refused = lab.switch.write("refused.toml", refused);
        let refusal = lab.switch.refusal(&["apply", refused.to_str().expect("a path of ASCII")]);
        assert!(refusal.contains("no Ethernet device"), "{refusal}");
        assert_eq!(tap_state(lab), (false, 1500), "a refused change has changed nothing");
        lab.switch.change(&["port", "add", "t", "--kind", "tap", "--access", "lan", "--mtu", "4000"]);
        assert_eq!(tap_state(lab), (true, 4000));
        lab.switch.change(&["port", "set", "t", "--mtu", "default"]);
        assert_eq!(tap_state(lab), (true, 1500));
    });
}
