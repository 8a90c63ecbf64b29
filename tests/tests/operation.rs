//! How the switch is operated: apply, diff and dump, changes by command, signals, trace, safety.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use vswitch_api::response::{LinkState, Outcome};
use vswitch_netns::{Veth, veth};
use vswitch_tests::{Frame, Lab, SOON, Scenario, scenario, topology_file, wait_until};
use vswitch_wire::Mac;

/// The same subnet on both networks of `access.toml`.
const RED2: &str = "10.0.0.2";

#[test]
fn what_is_dumped_can_be_applied_and_changes_nothing() {
    let guests = ["kvm-tap.toml", "kvm-vhost-user.toml"];
    for name in ["access.toml", "demo.toml", "kinds.toml", "trunk.toml"].into_iter().chain(guests) {
        Scenario::new(&topology_file(name)).unplugged().run(|lab| {
            let dump = lab.switch.ctl(["dump"]).stdout;
            let file = lab.switch.write("dump.toml", &dump);
            let diff = lab.switch.ctl(["diff", file.to_str().unwrap()]);
            assert_eq!((diff.code, diff.stdout.as_str()), (0, ""), "{name}: {}", diff.stderr);
            assert_eq!(lab.switch.apply(&dump), [""; 0]);
            assert_eq!(lab.switch.ctl(["dump"]).stdout, dump);
        });
    }
}

#[test]
fn apply_does_what_diff_said_and_going_back_restores_all() {
    let before = topology_file("access.toml");
    let after =
        before.replacen("name = \"blue2\"\naccess = \"blue\"", "name = \"blue2\"\naccess = \"red\"", 1)
            + "[[network]]\nname = \"green\"\nvlan = 30\nageing = \"10s\"\n";
    scenario(&before, |lab| {
        let original = lab.switch.ctl(["dump"]).stdout;
        let file = lab.switch.write("after.toml", &after);
        let path = file.to_str().unwrap();
        let diff = lab.switch.ctl(["diff", path]);
        let lines: Vec<&str> = diff.stdout.lines().collect();
        assert_eq!(diff.code, 1);
        assert_eq!(lines, ["+ network green: vlan 30, ageing 10s", "~ port blue2: access blue -> red"]);

        assert_eq!(lab.switch.change(&["apply", path, "--dry-run"]), lines);
        assert_eq!(lab.switch.ctl(["dump"]).stdout, original, "a dry run changes nothing");
        let (red1, blue2) = (lab.host("red1"), lab.host("blue2"));
        assert_eq!(lab.switch.change(&["apply", path]), lines);
        assert_eq!(lab.switch.ctl(["diff", path]).code, 0);
        blue2.run("ip", ["address", "add", "10.0.0.7/24", "dev", "eth0"]);
        assert!(red1.reaches("10.0.0.7"), "the port is in red now");

        assert_eq!(lab.switch.apply(&original), ["- network green", "~ port blue2: access red -> blue"]);
        assert_eq!(lab.switch.ctl(["dump"]).stdout, original);
        assert!(red1.is_cut_off_from("10.0.0.7"));
        assert!(lab.host("blue1").reaches("10.0.0.7"));
        assert_eq!(lab.switch.log().matches("detached").count(), 0, "no port lost its device meanwhile");
    });
}

#[test]
fn a_file_with_a_mistake_is_refused_with_its_place_and_changes_nothing() {
    scenario(&topology_file("access.toml"), |lab| {
        let original = lab.switch.ctl(["dump"]).stdout;
        let file = lab.switch.write("wrong.toml", "[[network]]\nname = \"green\"\nvlam = 30\n");
        let answer = lab.switch.ctl(["apply", file.to_str().unwrap()]);
        assert_eq!(answer.code, 2);
        assert!(
            answer.stderr.contains("wrong.toml:3:1: network[0].vlam: unknown key; write vlan"),
            "{}",
            answer.stderr
        );
        assert_eq!(lab.switch.ctl(["dump"]).stdout, original);
        assert!(lab.host("red1").reaches(RED2));
    });
}

#[test]
fn port_set_changes_a_port_under_traffic() {
    scenario(&topology_file("access.toml"), |lab| {
        let (red1, blue2) = (lab.host("red1"), lab.host("blue2"));
        blue2.run("ip", ["address", "add", "10.0.0.7/24", "dev", "eth0"]);
        assert!(red1.is_cut_off_from("10.0.0.7"));
        let set = |args: &[&str]| lab.switch.change(&[&["port", "set", "blue2"], args].concat());
        assert_eq!(set(&["--access", "red"]), ["~ port blue2: access blue -> red"]);
        assert!(red1.reaches("10.0.0.7"));
        assert_eq!(set(&["--vlan", "20"]), ["~ port blue2: access red -> blue"]);
        assert!(red1.is_cut_off_from("10.0.0.7"));
        let lines = set(&["--vlan", "30"]);
        assert_eq!(lines, ["+ network vlan30: vlan 30", "~ port blue2: access blue -> vlan30"]);
        set(&["--trunk", "blue", "--native", "red"]);
        assert!(red1.reaches("10.0.0.7"), "the native network is untagged");
        assert_eq!(lab.switch.log().matches("detached").count(), 0, "the port kept its device");

        let refusal = lab.switch.refusal(&["port", "set", "nobody", "--vlan", "10"]);
        assert!(refusal.contains("there is no port \"nobody\""), "{refusal}");
    });
}

#[test]
fn ports_come_and_go_by_command() {
    scenario(&topology_file("access.toml"), |lab| {
        lab.switch.change(&["port", "del", "red2"]);
        assert!(lab.host("red1").is_cut_off_from(RED2));
        lab.switch.change(&["port", "add", "again", "--netdev", "red2", "--vlan", "10"]);
        assert!(lab.host("red1").reaches(RED2));
        assert_eq!(lab.switch.port("again").access.as_deref(), Some("red"));
        assert!(lab.switch.refusal(&["network", "del", "red"]).contains("is used by port"));
    });
}

#[test]
fn sighup_applies_the_file_again() {
    scenario(&topology_file("access.toml"), |lab| {
        let names = |lab: &Lab| -> Vec<String> {
            let networks: Vec<vswitch_api::response::NetworkState> = lab.switch.ask(&["network", "list"]);
            networks.into_iter().map(|network| network.name).collect()
        };
        lab.switch.write_config(&(topology_file("access.toml") + "[[network]]\nname = \"green\"\n"));
        lab.switch.signal(Signal::SIGHUP);
        wait_until("the new network is there", SOON, || names(lab) == ["red", "blue", "green"]);
        assert!(lab.host("red1").reaches(RED2));

        lab.switch.write_config("[[network]]\nnam = \"x\"\n");
        lab.switch.signal(Signal::SIGHUP);
        wait_until("the mistake is told", SOON, || {
            lab.switch.log().contains("config.toml:2:1: network[0].nam")
        });
        assert_eq!(names(lab), ["red", "blue", "green"]);
        assert!(lab.host("red1").reaches(RED2));
    });
}

#[test]
fn sigint_ends_the_daemon_in_order() {
    scenario(&topology_file("access.toml"), |lab| {
        assert!(lab.host("red1").reaches(RED2));
        lab.end_by(Signal::SIGINT);
    });
}

#[test]
fn the_daemon_starts_before_its_netdevs() {
    Scenario::new(&topology_file("access.toml")).unplugged().run(|lab| {
        for port in lab.switch.ports() {
            assert_eq!(port.state, LinkState::Waiting);
            assert!(port.reason.unwrap().contains("which does not exist"));
        }
        lab.hosts().for_each(vswitch_tests::Host::plug);
        lab.wait_up(["red1", "red2", "blue1", "blue2"]);
        assert!(lab.host("red1").reaches(RED2));
        assert!(lab.host("blue1").reaches("fd00::2"));
    });
}

/// Transmitted by each port, and dropped by reason over the switch.
fn counts(lab: &Lab) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let stats = lab.switch.stats();
    (stats.ports.into_iter().map(|port| (port.name, port.counters.tx_packets)).collect(), stats.drops)
}

/// The names whose count has grown.
fn grown(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Vec<String> {
    let has_grown = |name: &&String| after[*name] > before.get(*name).copied().unwrap_or(0);
    after.keys().filter(has_grown).cloned().collect()
}

#[test]
fn trace_says_what_then_happens() {
    let isolated = "[[port]]\nname = \"alone1\"\naccess = \"red\"\nisolated = true\n\
        [[port]]\nname = \"alone2\"\naccess = \"red\"\nisolated = true\n\
        [[host]]\nname = \"alone1\"\nport = \"alone1\"\n[[host]]\nname = \"alone2\"\nport = \"alone2\"\n";
    scenario(&(topology_file("trunk.toml") + isolated), |lab| {
        let mac = |host: &str| lab.host(host).mac;
        let frame = |to: Mac, from: &str| Frame::new(to, mac(from), "to be traced");
        let everybody = Mac::BROADCAST;
        let cases = [
            ("red1", frame(mac("native"), "red1")),
            ("native", frame(everybody, "native")),
            ("red1", frame(mac("native"), "red1")),
            ("red1", frame(everybody, "red1").tagged(10)),
            ("red1", frame(everybody, "red1").tagged(20).tagged(0)),
            ("red1", frame(everybody, "red1").service_tagged(20)),
            ("red1", frame(mac("red1"), "red1")),
            ("red1", frame(Mac([0x01, 0x80, 0xc2, 0, 0, 0]), "red1")),
            ("red1", Frame::new(everybody, everybody, "from a group")),
            ("tagged", frame(everybody, "tagged").tagged(10)),
            ("tagged", frame(everybody, "tagged").tagged(20)),
            ("tagged", frame(everybody, "tagged").tagged(20).tagged(10)),
            ("tagged", frame(mac("red1"), "tagged").tagged(20).tagged(10)),
            ("tagged", frame(everybody, "tagged").tagged(30)),
            ("tagged", frame(everybody, "tagged").tagged(4095)),
            ("tagged", frame(everybody, "tagged")),
            ("native", frame(everybody, "native").tagged(10)),
            ("translated", frame(everybody, "translated").tagged(200)),
            ("alone1", frame(everybody, "alone1")),
            ("alone2", frame(mac("alone1"), "alone2")),
        ];
        for (host, frame) in cases {
            let told = lab.switch.trace(host, &frame);
            let before = counts(lab);
            let received = lab.switch.stats().conservation.received;
            lab.host(host).raw().send(&frame);
            wait_until("the frame has come in", SOON, || {
                lab.switch.stats().conservation.received == received + 1
            });
            lab.switch.wait_quiet();
            let after = counts(lab);
            let mut ports = told.ports.clone();
            ports.sort();
            assert_eq!(grown(&before.0, &after.0), ports, "{frame:?} from {host}: {told:#?}");
            match (told.outcome, told.reason) {
                (Outcome::Drop, reason) => {
                    assert_eq!(grown(&before.1, &after.1), [reason.unwrap()], "{frame:?}");
                }
                (Outcome::Unicast, reason) => assert_eq!((told.ports.len(), reason), (1, None), "{frame:?}"),
                (Outcome::Flood, reason) => assert_eq!(reason, None, "{frame:?}"),
            }
        }
    });
}

#[test]
fn the_way_to_the_host_is_not_taken_without_force() {
    scenario(&topology_file("access.toml"), |lab| {
        let host = lab.host("red1");
        let switch = &lab.switch.namespace;
        for name in ["uplink", "side"] {
            veth((switch, name), (&host.namespace, name), Veth::default()).unwrap();
            switch.set_up(name).unwrap();
            host.namespace.set_up(name).unwrap();
        }
        switch.add_address("uplink", "192.0.2.1/24").unwrap();
        switch.add_address("side", "198.51.100.1/24").unwrap();
        switch.run("ip", ["route", "add", "default", "via", "192.0.2.254"]).unwrap();
        let original = lab.switch.ctl(["dump"]).stdout;

        let refusal = lab.switch.refusal(&["port", "add", "uplink", "--access", "red"]);
        assert!(refusal.contains("carries the default route") && refusal.contains("--force"), "{refusal}");
        let taken = format!("{original}\n[[port]]\nname = \"x\"\nnetdev = \"uplink\"\naccess = \"red\"\n");
        let file = lab.switch.write("taken.toml", &taken);
        let refusal = lab.switch.refusal(&["apply", file.to_str().unwrap()]);
        assert!(refusal.contains("carries the default route"), "{refusal}");
        let refusal = lab.switch.refusal(&["port", "set", "red2", "--netdev", "uplink"]);
        assert!(refusal.contains("carries the default route"), "{refusal}");
        let side = ["port", "add", "side", "--access", "red"];
        let answer = lab.switch.ctl_in_session("198.51.100.7", side);
        assert_eq!(answer.code, 1);
        assert!(answer.stderr.contains("your session from 198.51.100.7"), "{}", answer.stderr);
        assert_eq!(lab.switch.ctl(["dump"]).stdout, original, "what was refused has changed nothing");

        assert_eq!(lab.switch.ctl_in_session("203.0.113.7", side).code, 0, "that session comes another way");
        lab.switch.change(&["port", "add", "uplink", "--access", "red", "--force"]);
        lab.wait_up(["uplink"]);
    });
}
