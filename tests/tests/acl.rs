//! Filters of ports and networks: who reaches whom, what is counted, what is told, and changes under way.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use vswitch_api::response::AclState;
use vswitch_tests::{Frame, Lab, SOON, scenario, wait_until};
use vswitch_wire::Mac;
use vswitch_wire::testing::{FrameBuilder, frame};

/// Hosts `a` and `b`, which send nothing unless told to; what else is to be there.
fn lab(more: &str, network: &str, a: &str, b: &str) -> String {
    format!(
        r#"
        network = [{{ name = "lan" {network} }}]
        port = [{{ name = "a", access = "lan" {a} }}, {{ name = "b", access = "lan" {b} }}]
        host = [{{ name = "a", port = "a" }}, {{ name = "b", port = "b" }}]
        {more}
        "#
    )
}

/// Allows TCP to port 80 from 10/8 and fd00::/8, and the markers of this file; denies all else.
const WEB: &str = r#"
    [[acl]]
    name = "web"
    rule = [
        { action = "allow", source = "10.0.0.0/8", protocol = "tcp", destination-port = 80 },
        { action = "allow", source = "fd00::/8", protocol = "tcp", destination-port = "80-89" },
        { action = "deny", protocol = "tcp", tcp-flags = "syn/syn,ack" },
        { action = "allow", ether-type = 0x88b5 },
    ]
"#;

fn from_a(lab: &Lab) -> FrameBuilder {
    frame(Mac::BROADCAST, lab.host("a").mac)
}

fn read(builder: &FrameBuilder) -> Frame {
    Frame::read(&builder.clone().payload(&[7; 20]).bytes())
}

fn v4(lab: &Lab, port: u16) -> Frame {
    read(&from_a(lab).ip([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1000, port, 2))
}

fn v6(lab: &Lab, port: u16) -> Frame {
    let address = |last| std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
    read(&from_a(lab).ip(address(1), address(2)).tcp(1000, port, 2))
}

fn udp(lab: &Lab) -> Frame {
    read(&from_a(lab).ip([10, 0, 0, 1], [10, 0, 0, 2]).udp(1000, 80))
}

fn marker(lab: &Lab) -> Frame {
    Frame::new(Mac::BROADCAST, lab.host("a").mac, "this one passes")
}

fn acl(lab: &Lab, name: &str) -> AclState {
    lab.switch.ask(&["acl", "show", name])
}

fn packets(acl: &AclState) -> Vec<u64> {
    acl.rules.iter().map(|rule| rule.packets).chain([acl.default_packets, acl.unreadable_packets]).collect()
}

/// The same list at each of the four places: the same frames pass, and the same are counted, each once.
fn judges_at(network: &str, a: &str, b: &str, (port, reason): (&str, &str), place: &str) {
    scenario(&lab(WEB, network, a, b), |lab| {
        let [link, other] = lab.raw(["a", "b"]);
        let frames = [v4(lab, 80), v4(lab, 81), v6(lab, 80), v6(lab, 89), v6(lab, 90), udp(lab)];
        let mut cut = v4(lab, 80);
        cut.payload.truncate(30);
        frames.iter().chain([&cut, &marker(lab)]).for_each(|frame| link.send(frame));
        other.sees([v4(lab, 80), v6(lab, 80), v6(lab, 89), marker(lab)]);
        assert_eq!(packets(&acl(lab, "web")), [1, 2, 2, 1, 1, 1]);
        assert_eq!((lab.switch.drops(port, reason), lab.switch.drops(port, "acl_unreadable")), (3, 1));

        let words = |frame: &Frame| -> Vec<String> {
            let steps = lab.switch.trace("a", frame).steps;
            steps.into_iter().filter(|step| step.stage == "acl").map(|step| step.text).collect()
        };
        assert_eq!(words(&v6(lab, 80)), [format!("allowed by rule 2 of acl web, {place}")]);
        assert_eq!(words(&v4(lab, 81))[0], format!("denied by rule 3 of acl web, {place}"));
        assert_eq!(words(&udp(lab))[0], format!("denied by the default of acl web, {place}"));
        assert_eq!(lab.switch.trace("a", &udp(lab)).reason.as_deref(), Some(reason));
        assert_eq!(packets(&acl(lab, "web")), [1, 2, 2, 1, 1, 1], "trace counts nothing");
    });
}

const INGRESS: &str = r#", acl = { ingress = "web" }"#;
const EGRESS: &str = r#", acl = { egress = "web" }"#;

#[test]
fn a_port_judges_what_comes_in() {
    judges_at("", INGRESS, "", ("a", "acl_ingress"), "ingress of port a");
}

#[test]
fn a_port_judges_what_leaves() {
    judges_at("", "", EGRESS, ("b", "acl_egress"), "egress of port b");
}

#[test]
fn a_network_judges_what_enters_it() {
    judges_at(INGRESS, "", "", ("a", "acl_ingress"), "ingress of network lan");
}

#[test]
fn a_network_judges_what_leaves_it() {
    judges_at(EGRESS, "", "", ("b", "acl_egress"), "egress of network lan");
}

/// By command, one rule after the other, while frames come all the time: none is lost count of, and the rules that stay
/// go on counting.
#[test]
fn a_list_is_changed_while_frames_come() {
    scenario(&lab(WEB, "", INGRESS, ""), |lab| {
        let [link] = lab.raw(["a"]);
        let frame = v4(lab, 80);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut sent = 0;
                while !is_over.load(Relaxed) {
                    link.send(&frame);
                    sent += 1;
                }
                sent
            });
            let rule = |number: usize| acl(lab, "web").rules[number - 1].packets;
            let grows = |number| {
                let before = rule(number);
                wait_until("the rule counts", SOON, || rule(number) > before + 100);
            };
            let mut counted = 0;
            for _ in 0..3 {
                grows(1);
                let first = lab
                    .switch
                    .change(&["acl", "rule", "add", "web", "deny", "--at", "1", "--source", "10.0.0.1"]);
                assert_eq!(first, ["~ acl web: rule 1 none -> deny source 10.0.0.1"]);
                let kept = rule(2);
                assert!(kept > counted, "its count is kept");
                grows(1);
                assert_eq!(rule(2), kept, "no frame comes so far");
                counted = kept;
                lab.switch.change(&["acl", "rule", "del", "web", "1"]);
            }
            grows(1);
            is_over.store(true, Relaxed);
            let sent: u64 = sender.join().unwrap();
            let counters = || lab.switch.port("a").counters;
            // The sender may be faster than the switch, and what the kernel had no room for is asked for now and then.
            wait_until("every frame is accounted for", SOON, || {
                counters().rx_packets + counters().missed == sent
            });
            lab.switch.wait_quiet();
            let counters = counters();
            assert_eq!(rule(1) + lab.switch.drops("a", "acl_ingress"), counters.rx_packets);
        });
    });
}

/// A flow that passes in the kernel is judged by the first filter that it meets.
#[test]
fn a_filter_ends_the_shortcut() {
    scenario(&lab(WEB, "", "", ""), |lab| {
        let [link, other] = lab.raw(["a", "b"]);
        let there = Frame { to: lab.host("b").mac, ..v4(lab, 81) };
        other.send(&Frame { to: there.from, from: there.to, ..there.clone() });
        let passed = || lab.switch.port("a").counters.shortcut;
        wait_until("a busy flow passes in the kernel", SOON, || {
            (0..32).for_each(|_| {
                link.send(&there);
                other.until(&there);
            });
            passed() > 0
        });
        lab.switch.change(&["port", "set", "b", "--acl-egress", "web"]);
        let before = passed();
        (0..100).for_each(|_| link.send(&there));
        link.send(&marker(lab));
        other.sees([marker(lab)]);
        assert_eq!((passed(), lab.switch.drops("b", "acl_egress")), (before, 100));
        lab.switch.change(&["port", "set", "b", "--acl-egress", "none"]);
        link.send(&there);
        other.sees([there]);
    });
}

#[test]
fn lists_are_made_used_and_deleted_by_command() {
    scenario(&lab("", "", "", ""), |lab| {
        let switch = &lab.switch;
        assert_eq!(
            switch.change(&["acl", "add", "open", "--default", "allow"]),
            ["+ acl open: default allow"]
        );
        assert_eq!(
            switch.change(&["network", "set", "lan", "--acl-ingress", "open", "--acl-egress", "open"]),
            [r#"~ network lan: acl default -> { ingress = "open", egress = "open" }"#]
        );
        switch.change(&[
            "acl",
            "rule",
            "add",
            "open",
            "deny",
            "--protocol",
            "udp",
            "--destination-port",
            "80",
        ]);
        let refused = switch.refusal(&["acl", "del", "open"]);
        assert!(refused.contains("is used by network lan (ingress), network lan (egress)"), "{refused}");
        assert!(switch.refusal(&["port", "set", "a", "--acl-ingress", "opne"]).contains("there is no acl"));
        let refused = switch.refusal(&["acl", "rule", "add", "open", "deny", "--destination-port", "80"]);
        assert!(refused.contains("needs a protocol"), "{refused}");
        let [link, other] = lab.raw(["a", "b"]);
        link.send(&udp(lab));
        link.send(&marker(lab));
        other.sees([marker(lab)]);
        assert_eq!(packets(&acl(lab, "open")), [1, 2, 0], "the marker, in and out");
        let dump = switch.ctl(["dump"]).stdout;
        assert_eq!(switch.apply(&dump), Vec::<String>::new());
        switch.change(&["network", "set", "lan", "--acl-ingress", "none", "--acl-egress", "none"]);
        link.send(&udp(lab));
        other.sees([udp(lab)]);
        assert_eq!(switch.change(&["acl", "del", "open"]), ["- acl open"]);
    });
}
