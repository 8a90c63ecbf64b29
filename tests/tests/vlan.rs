//! VLANs on the real data path: who sees a frame, and how it is tagged there.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

use vswitch_tests::{Frame, Lab, scenario, topology_file};
use vswitch_wire::Mac;
use vswitch_wire::vlan::TPID_8021Q;

/// A broadcast from this host.
fn broadcast(lab: &Lab, host: &str, text: &str) -> Frame {
    Frame::new(Mac::BROADCAST, lab.host(host).mac, text)
}

#[test]
fn a_trunk_carries_each_network_with_its_tag() {
    scenario(&topology_file("trunk.toml"), |lab| {
        let [red1, blue1, tagged] = lab.raw(["red1", "blue1", "tagged"]);
        let [red, blue] = ["red1", "blue1"].map(|host| broadcast(lab, host, host));
        red1.send(&red);
        tagged.sees([red.tagged(10)]);
        blue1.send(&blue);
        tagged.sees([blue.tagged(20)]);

        let frame = |text| broadcast(lab, "tagged", text);
        tagged.send(&frame("in red").tagged(10));
        tagged.send(&frame("in blue").tagged(20));
        tagged.send(&frame("in no network").tagged(30));
        tagged.send(&frame("in none, as there is no native network"));
        tagged.send(&frame("reserved").tagged(4095));
        tagged.send(&frame("last in red").tagged(10));
        tagged.send(&frame("last in blue").tagged(20));
        red1.sees(["in red", "last in red"].map(frame));
        blue1.sees(["in blue", "last in blue"].map(frame));
        for reason in ["vlan_not_allowed", "untagged_no_native", "reserved_vid"] {
            assert_eq!(lab.switch.drops("tagged", reason), 1, "{reason}");
        }
    });
}

#[test]
fn a_native_network_is_untagged_on_its_trunk() {
    scenario(&topology_file("trunk.toml"), |lab| {
        assert!(lab.host("red1").reaches("10.0.0.2"), "the host on the trunk speaks untagged");
        let [red1, blue1, native] = lab.raw(["red1", "blue1", "native"]);
        let [red, blue] = ["red1", "blue1"].map(|host| broadcast(lab, host, host));
        red1.send(&red);
        native.sees([red]);
        blue1.send(&blue);
        native.sees([blue.tagged(20)]);

        let frame = |text| broadcast(lab, "native", text);
        native.send(&frame("in red"));
        native.send(&frame("red is not in the list of tagged networks").tagged(10));
        native.send(&frame("in blue").tagged(20));
        native.send(&frame("last in red"));
        native.send(&frame("last in blue").tagged(20));
        red1.sees(["in red", "last in red"].map(frame));
        blue1.until(&frame("in blue"));
        blue1.sees([frame("last in blue")]);
        assert_eq!(lab.switch.drops("native", "vlan_not_allowed"), 1);
    });
}

#[test]
fn a_vlan_id_is_translated_on_the_trunk_that_says_so() {
    scenario(&topology_file("trunk.toml"), |lab| {
        let [blue1, tagged, translated] = lab.raw(["blue1", "tagged", "translated"]);
        let blue = broadcast(lab, "blue1", "from blue1");
        blue1.send(&blue);
        translated.sees([blue.clone().tagged(200)]);
        tagged.sees([blue.tagged(20)]);

        let frame = |text| broadcast(lab, "translated", text);
        translated.send(&frame("the ID that blue has elsewhere").tagged(20));
        translated.send(&frame("in blue").tagged(200));
        blue1.sees([frame("in blue")]);
        tagged.sees([frame("in blue").tagged(20)]);
        assert_eq!(lab.switch.drops("translated", "vlan_not_allowed"), 1);
    });
}

#[test]
fn a_priority_survives_a_trunk() {
    scenario(&topology_file("trunk.toml"), |lab| {
        let [red1, tagged, translated] = lab.raw(["red1", "tagged", "translated"]);
        let frame = broadcast(lab, "tagged", "PCP 5, DEI set");
        tagged.send(&frame.clone().with_tag(TPID_8021Q, 0xb000 | 20));
        translated.sees([frame.clone().with_tag(TPID_8021Q, 0xb000 | 200)]);
        tagged.send(&frame.clone().with_tag(TPID_8021Q, 0xb000 | 10));
        red1.sees([frame]);
    });
}

#[test]
fn a_priority_tagged_frame_counts_as_untagged() {
    scenario(&topology_file("trunk.toml"), |lab| {
        let [red1, tagged, native] = lab.raw(["red1", "tagged", "native"]);
        let frame = |text| broadcast(lab, "red1", text);
        red1.send(&frame("PCP 7").with_tag(TPID_8021Q, 0xe000));
        red1.send(&frame("behind it the tag of blue").tagged(20).with_tag(TPID_8021Q, 0xe000));
        red1.send(&frame("last"));
        tagged.sees([frame("PCP 7").with_tag(TPID_8021Q, 0xe000 | 10), frame("last").tagged(10)]);
        native.sees(["PCP 7", "last"].map(frame));
        assert_eq!(lab.switch.drops("red1", "tagged_on_access"), 1);

        let from_native = broadcast(lab, "native", "in the native network");
        native.send(&from_native.clone().with_tag(TPID_8021Q, 0xe000));
        red1.sees([from_native.clone()]);
        tagged.sees([from_native.with_tag(TPID_8021Q, 0xe000 | 10)]);
    });
}

/// One network over access ports of a kind and a trunk.
fn service_tags_are_payload(kind: &str) {
    let topology = format!(
        r#"
        network = [{{ name = "red", vlan = 10 }}]
        port = [
            {{ name = "a", kind = "{kind}", access = "red" }},
            {{ name = "b", kind = "{kind}", access = "red" }},
            {{ name = "t", kind = "{kind}", trunk = ["red"] }},
        ]
        host = [{{ name = "a", port = "a" }}, {{ name = "b", port = "b" }}, {{ name = "t", port = "t" }}]
        "#
    );
    scenario(&topology, |lab| {
        let [a, b, t] = lab.raw(["a", "b", "t"]);
        let single = broadcast(lab, "a", "one service tag").service_tagged(100);
        let double = broadcast(lab, "a", "a customer's tag behind it").tagged(20).service_tagged(100);
        for frame in [single, double] {
            a.send(&frame);
            b.sees([frame.clone()]);
            t.sees([frame.tagged(10)]);
        }
        let inside = broadcast(lab, "t", "a service tag in red").service_tagged(10);
        t.send(&broadcast(lab, "t", "a service tag is no VLAN of this trunk").service_tagged(10));
        t.send(&inside.clone().tagged(10));
        a.sees([inside.clone()]);
        b.sees([inside]);
        assert_eq!(lab.switch.drops("t", "untagged_no_native"), 1);
    });
}

#[test]
fn service_tags_are_payload_on_packet_ports() {
    service_tags_are_payload("packet");
}

#[test]
fn service_tags_are_payload_on_xdp_ports() {
    service_tags_are_payload("xdp");
}
