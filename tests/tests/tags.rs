//! Tags that a veth carries beside the frame are never lost: a frame of one VLAN that looks untagged would be in
//! another network. `tests/offload.rs` has the same under TCP.

#![allow(clippy::expect_used, clippy::panic)] // set-up of tests

use vswitch_tests::{Frame, scenario};
use vswitch_wire::Mac;

/// The kinds that have a netdev with out-of-band tags at the other end.
const KINDS: [&str; 3] = ["xdp", "packet", "tap"];

/// `edge` is the port in question; untagged frames of it would be in `red`.
fn topology(kind: &str, membership: &str) -> String {
    format!(
        r#"
network = [{{ name = "red", vlan = 10 }}, {{ name = "blue", vlan = 20 }}]
port = [
    {{ name = "edge", kind = "{kind}", {membership} }},
    {{ name = "red", access = "red" }},
    {{ name = "blue", access = "blue" }},
]
host = [{{ name = "edge", port = "edge" }}, {{ name = "red", port = "red" }}, {{ name = "blue", port = "blue" }}]
"#
    )
}

#[test]
fn a_tag_beside_the_frame_leads_into_its_network() {
    for kind in KINDS {
        scenario(&topology(kind, r#"trunk = ["red", "blue"], native = "red""#), |lab| {
            let [edge, red, blue] = lab.raw(["edge", "red", "blue"]);
            let [at_edge, at_blue] = ["edge", "blue"].map(|name| lab.host(name).mac);
            let tagged = lab.host("edge").namespace.tag_link("eth0", 20).expect("a tagged link");
            let secret = Frame::new(Mac::BROADCAST, at_edge, "for blue only");
            edge.send(&secret);
            assert_eq!(blue.until(&secret), [], "{kind}");
            let answer = Frame::new(at_edge, at_blue, "from blue");
            blue.send(&answer);
            assert_eq!(edge.until(&answer.tagged(20)), [], "{kind}");

            drop(tagged);
            let open = Frame::new(Mac::BROADCAST, at_edge, "for red only");
            edge.send(&open);
            assert_eq!(red.until(&open), [], "{kind}: the frame for blue was seen in red");
            assert_eq!(blue.drain(), [], "{kind}");
        });
    }
}

#[test]
fn a_tag_beside_the_frame_is_no_way_into_an_access_port() {
    for kind in KINDS {
        scenario(&topology(kind, r#"access = "red""#), |lab| {
            let [edge, red, blue] = lab.raw(["edge", "red", "blue"]);
            let at_edge = lab.host("edge").mac;
            // Of another network, and of the port's own: it is tagged either way.
            for vid in [20, 10] {
                let _tagged = lab.host("edge").namespace.tag_link("eth0", vid).expect("a tagged link");
                edge.send(&Frame::new(Mac::BROADCAST, at_edge, "tagged"));
            }
            let last = Frame::new(Mac::BROADCAST, at_edge, "untagged");
            edge.send(&last);
            assert_eq!(red.until(&last), [], "{kind}: a tagged frame was taken for an untagged one");
            assert_eq!(blue.drain(), [], "{kind}");
            assert_eq!(lab.switch.drops("edge", "tagged_on_access"), 2, "{kind}");
        });
    }
}

/// A bridge passes on what the devices below it took out of the frame, and no XDP program can ask it for that.
#[test]
fn a_device_whose_tags_cannot_be_recovered_is_refused_by_af_xdp_and_served_by_af_packet() {
    scenario(&topology("packet", r#"access = "red""#), |lab| {
        let ip = |words: &str| lab.switch.namespace.run("ip", words.split(' ')).expect("ip succeeds");
        ip("link add br0 type bridge");
        ip("link set br0 up");
        for membership in [["--access", "red"], ["--trunk", "red"]] {
            let add = ["port", "add", "br0", "--kind", "xdp"];
            let refusal = lab.switch.refusal(&[&add[..], &membership].concat());
            assert!(refusal.contains("would lose VLAN tags"), "{refusal}");
            assert!(refusal.contains("kind `packet`"), "{refusal}");
        }
        lab.switch.change(&["port", "add", "br0", "--trunk", "red"]);
        let port = lab.switch.port("br0");
        assert_eq!(port.kind.to_string(), "packet", "{:?}", port.why);
    });
}
