//! The file that the daemon is given: at its start and by SIGHUP, with ports that cannot be had.

#![allow(clippy::expect_used, clippy::panic)] // set-up of tests

use nix::sys::signal::Signal;
use vswitch_api::response::{LinkState, PortState};
use vswitch_netns::{Veth, veth};
use vswitch_tests::{Lab, SOON, Scenario, Switch, wait_until};

/// The host is reached by `uplink`, and `taken` belongs to a bridge.
const PORTS: &str = r#"
network = [{ name = "lan" }]
port = [
    { name = "uplink", kind = "packet", access = "lan" },
    { name = "taken", kind = "packet", access = "lan" },
    { name = "side", kind = "packet", access = "lan" },
    { name = "missing", kind = "packet", access = "lan" },
]
"#;

fn ip(switch: &Switch, words: &str) {
    switch.namespace.run("ip", words.split(' ')).expect("ip succeeds");
}

/// A host with its netdevs, before any switch runs there.
fn prepare(switch: &Switch) {
    for name in ["uplink", "taken", "side"] {
        let far = format!("{name}-far");
        veth((&switch.namespace, name), (&switch.namespace, &far), Veth::default()).expect("a veth");
        for end in [name, &far] {
            switch.namespace.set_up(end).expect("the link");
        }
    }
    switch.namespace.add_address("uplink", "192.0.2.1/24").expect("an address");
    ip(switch, "route add default via 192.0.2.254");
    ip(switch, "link add br0 type bridge");
    ip(switch, "link set taken master br0");
}

/// Runs `body` with a daemon that was started anew with this file, where the netdevs were there before.
fn started_with(config: &str, body: impl FnOnce(&mut Lab)) {
    Scenario::new("").run(|lab| {
        assert!(lab.switch.stop(Signal::SIGTERM).success());
        prepare(&lab.switch);
        lab.switch.write_config(config);
        lab.expect_warning("the netdev or socket is refused");
        lab.switch.start();
        body(lab);
    });
}

#[track_caller]
fn assert_waits(port: &PortState, reason: &str) {
    let why = port.reason.as_deref().unwrap_or_default();
    assert!(port.state == LinkState::Waiting && why.contains(reason), "{port:?}");
}

/// Every port of `PORTS` is as it has to be while two are refused.
#[track_caller]
fn assert_two_are_refused(lab: &Lab) {
    lab.wait_up(["side"]);
    let [uplink, taken, _, missing] = lab.switch.ports().try_into().expect("four ports");
    assert_waits(&uplink, "carries the default route");
    assert_waits(&uplink, "force = true");
    assert_waits(&uplink, "vswitchctl port set uplink --force");
    assert_waits(&taken, "ip link set taken nomaster");
    assert_waits(&missing, "does not exist");
    let status = lab.switch.status();
    let is_told = |part: &str| status.health.iter().any(|h| h.part == part && !h.ok);
    assert!(is_told("port uplink") && is_told("port taken"), "{status:?}");
}

#[test]
fn a_port_that_is_refused_at_the_start_waits_and_the_others_run() {
    started_with(PORTS, |lab| {
        assert_two_are_refused(lab);
        assert_eq!(lab.switch.log().matches("the netdev or socket is refused").count(), 2);
        // What was in the way goes, and the port is attached without being told.
        ip(&lab.switch, "link set taken nomaster");
        lab.wait_up(["taken"]);
        // The command says once what the file does not say.
        lab.switch.change(&["port", "set", "uplink", "--force"]);
        lab.wait_up(["uplink"]);
        assert!(!lab.switch.ctl(["dump"]).stdout.contains("force"));
    });
}

#[test]
fn a_file_says_force_for_the_netdev_by_which_the_host_is_reached() {
    let forced = PORTS.replacen("access = \"lan\" }", "access = \"lan\", force = true }", 1);
    started_with(&forced, |lab| {
        lab.wait_up(["uplink", "side"]);
        assert!(lab.switch.ctl(["dump"]).stdout.contains("force = true"));
        let file = lab.switch.write("without.toml", PORTS);
        let diff = lab.switch.ctl(["diff", file.to_str().expect("a path of ASCII")]);
        assert_eq!((diff.code, diff.stdout.as_str()), (1, "~ port uplink: force true -> default\n"));
        // The netdev of a port that runs is not taken away for it.
        assert_eq!(lab.switch.apply(PORTS), ["~ port uplink: force true -> default"]);
        assert_eq!(lab.switch.port("uplink").state, LinkState::Up);
    });
}

#[test]
fn sighup_does_as_the_start_does() {
    started_with("", |lab| {
        lab.switch.write_config(PORTS);
        lab.switch.signal(Signal::SIGHUP);
        wait_until("the file is applied", SOON, || lab.switch.ports().len() == 4);
        assert_two_are_refused(lab);
        let forced = PORTS.replacen("access = \"lan\" }", "access = \"lan\", force = true }", 1);
        lab.switch.write_config(&forced);
        lab.switch.signal(Signal::SIGHUP);
        lab.wait_up(["uplink"]);
    });
}

#[test]
fn sighup_without_a_file_is_told_and_changes_nothing() {
    Scenario::new("").run(|lab| {
        assert!(lab.switch.stop(Signal::SIGTERM).success());
        lab.switch.start_without_config();
        lab.switch.change(&["network", "add", "red"]);
        lab.switch.signal(Signal::SIGHUP);
        wait_until("it is told", SOON, || lab.switch.log().contains("there is no file to apply"));
        assert!(lab.switch.ctl(["dump"]).stdout.contains("name = \"red\""));
    });
}
