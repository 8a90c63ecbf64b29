//! A change that cannot be made in full is not made at all, and the traffic of what runs does not notice.

#![allow(clippy::expect_used, clippy::panic)] // set-up of tests

use std::thread;

use vswitch_api::response::LinkState;
use vswitch_netns::{Veth, veth};
use vswitch_tests::{Lab, Scenario, Switch, scenario};

const PAIR: &str = r#"
network = [{ name = "lan" }]
port = [{ name = "a", kind = "xdp", access = "lan" }, { name = "b", kind = "packet", access = "lan" }]
host = [
    { name = "a", port = "a", address = ["10.0.0.1/24"] },
    { name = "b", port = "b", address = ["10.0.0.2/24"] },
]
"#;

fn ip(switch: &Switch, words: &str) -> String {
    switch.namespace.run("ip", words.split(' ')).expect("ip succeeds")
}

/// What the switch is to do, and does, without counters.
fn state(switch: &Switch) -> String {
    let ports = switch.ports().into_iter().map(|port| {
        format!("{} {} {:?} {:?} {:?}\n", port.name, port.kind, port.state, port.mode, port.access)
    });
    switch.ctl(["dump"]).stdout + &ports.collect::<String>()
}

/// Has `a` ping `b` without a pause while `body` runs; none of it may be lost.
fn without_a_lost_frame(lab: &Lab, body: impl FnOnce()) {
    let ping = ["-q", "-i", "0.002", "-c", "1000", "-W", "5", "10.0.0.2"];
    assert!(lab.host("a").reaches("10.0.0.2"), "addresses are resolved before");
    thread::scope(|scope| {
        let pings = scope.spawn(|| lab.host("a").run("ping", ping));
        body();
        let report = pings.join().expect("ping ends");
        assert!(report.contains("1000 received"), "{report}");
    });
}

/// `PAIR` with two more ports: one that can be had, and then one that cannot.
fn with_two_more(refused: &str) -> String {
    let more = format!(
        "{{ name = \"b\", kind = \"packet\", access = \"lan\" }}, {{ name = \"good\", kind = \"xdp\", access = \"new\" }}, {refused}]"
    );
    PAIR.replace("{ name = \"b\", kind = \"packet\", access = \"lan\" }]", &more)
        .replace("[{ name = \"lan\" }]", "[{ name = \"lan\" }, { name = \"new\" }]")
}

#[test]
fn an_apply_that_fails_halfway_changes_nothing_and_loses_nothing() {
    scenario(PAIR, |lab| {
        let switch = &lab.switch;
        for name in ["good", "bad"] {
            veth((&switch.namespace, name), (&switch.namespace, &format!("{name}-far")), Veth::default())
                .expect("a veth");
        }
        ip(switch, "link add br0 type bridge");
        ip(switch, "link set bad master br0");
        let before = state(switch);
        let links = ip(switch, "-details link show good");
        without_a_lost_frame(lab, || {
            for (kind, reason) in [("xdp", "belongs to br0"), ("packet", "belongs to br0")] {
                let next =
                    with_two_more(&format!("{{ name = \"bad\", kind = \"{kind}\", access = \"new\" }}"));
                let file = switch.write("next.toml", &next);
                let refusal = switch.refusal(&["apply", file.to_str().expect("a path of ASCII")]);
                assert!(refusal.contains("\"bad\"") && refusal.contains(reason), "{refusal}");
                assert!(refusal.contains("nomaster"), "it says how to mend it: {refusal}");
                assert_eq!(state(switch), before);
                let after = ip(switch, "-details link show good");
                assert!(
                    !after.contains("prog/xdp"),
                    "the port before the refused one is attached:\n{links}{after}"
                );
            }
            // Mended, the same file is taken.
            ip(switch, "link set bad nomaster");
            switch.change(&["apply", switch.file("next.toml").to_str().expect("a path of ASCII")]);
        });
    });
}

#[test]
fn a_netdev_with_another_xdp_program_is_refused() {
    scenario(PAIR, |lab| {
        let switch = &lab.switch;
        for name in ["good", "bad"] {
            veth((&switch.namespace, name), (&switch.namespace, &format!("{name}-far")), Veth::default())
                .expect("a veth");
        }
        let owner_of_bad =
            "network = [{ name = \"n\" }]\nport = [{ name = \"bad\", kind = \"xdp\", access = \"n\" }]";
        let mut other = switch.beside(owner_of_bad);
        other.start();
        let before = state(switch);
        without_a_lost_frame(lab, || {
            let next = with_two_more("{ name = \"bad\", kind = \"xdp\", access = \"new\" }");
            let file = switch.write("next.toml", &next);
            let refusal = switch.refusal(&["apply", file.to_str().expect("a path of ASCII")]);
            assert!(refusal.contains("\"bad\"") && refusal.contains("another program"), "{refusal}");
            assert_eq!(state(switch), before);
        });
        assert_eq!(other.port("bad").state, LinkState::Down, "its owner has it still (its far end is down)");
        assert!(other.stop(nix::sys::signal::Signal::SIGTERM).success());
        switch.change(&["apply", switch.file("next.toml").to_str().expect("a path of ASCII")]);
    });
}

#[test]
fn a_port_whose_new_kind_is_refused_gets_its_old_device_back() {
    Scenario::new(&PAIR.replace("\"xdp\"", "\"packet\"")).queues(2).run(|lab| {
        let switch = &lab.switch;
        // Native XDP takes no veth with fewer receive queues than the other end has transmit queues.
        switch.namespace.run("ethtool", ["-L", "a", "rx", "1"]).expect("ethtool -L");
        let before = state(switch);
        let refusal = switch.refusal(&["port", "set", "a", "--kind", "xdp"]);
        assert!(refusal.contains("fewer receive queues"), "{refusal}");
        assert_eq!(state(switch), before);
        assert!(lab.host("a").reaches("10.0.0.2"));

        switch.namespace.run("ethtool", ["-L", "a", "rx", "2"]).expect("ethtool -L");
        switch.change(&["port", "set", "a", "--kind", "xdp"]);
        lab.wait_up(["a"]);
        assert_eq!(switch.port("a").kind.to_string(), "xdp");
        assert!(lab.host("a").reaches("10.0.0.2"));
        switch.change(&["port", "set", "a", "--kind", "auto"]);
        lab.wait_up(["a"]);
        assert_eq!(switch.port("a").kind.to_string(), "packet");
        assert!(lab.host("a").reaches("10.0.0.2"));
    });
}
