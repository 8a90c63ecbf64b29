//! The daemon's own life: killed, restarted, started twice, started with nonsense.

#![allow(clippy::expect_used, clippy::panic)] // set-up of tests

use std::fs;

use nix::sys::signal::Signal;
use vswitch_tests::{Lab, SOON, Scenario, Switch, scenario, wait_until};

const TWO_KINDS: &str = r#"
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

/// Whether an XDP program is attached to the netdev.
fn has_xdp(switch: &Switch, netdev: &str) -> bool {
    ip(switch, &format!("-details link show {netdev}")).contains("prog/xdp")
}

fn assert_connected(lab: &Lab) {
    assert!(lab.host("a").reaches("10.0.0.2") && lab.host("b").reaches("10.0.0.1"));
}

#[test]
fn a_killed_daemon_leaves_its_netdevs_to_the_host_and_to_the_next_daemon() {
    scenario(TWO_KINDS, |lab| {
        assert_connected(lab);
        assert!(has_xdp(&lab.switch, "a"));
        let load = lab.host("a").start("ping", ["-q", "-i", "0.001", "10.0.0.2"]);
        for _ in 0..3 {
            lab.switch.stop(Signal::SIGKILL);
            // Not at once: the kernel ends a killed process's links and filters after its parent knows of the end.
            wait_until("the XDP program is gone", SOON, || !has_xdp(&lab.switch, "a"));
            for (name, near, far) in [("a", "10.0.0.91/24", "10.0.0.91"), ("b", "10.0.0.92/24", "10.0.0.92")]
            {
                lab.switch.namespace.add_address(name, near).expect("an address for the host itself");
                wait_until("the host's own stack has the netdev", SOON, || lab.host(name).reaches(far));
                ip(&lab.switch, &format!("address flush dev {name}"));
            }
            assert!(lab.switch.socket().exists(), "a killed daemon cannot remove its socket");
            lab.switch.start();
            lab.wait_up(["a", "b"]);
            assert_connected(lab);
        }
        // With nothing between the end of one and the start of the next: queues may still be bound.
        lab.switch.stop(Signal::SIGKILL);
        lab.switch.start();
        lab.wait_up(["a", "b"]);
        drop(load);
        assert_connected(lab);
    });
}

#[test]
fn the_host_hears_nothing_of_a_port() {
    scenario(TWO_KINDS, |lab| {
        for (name, near, far) in [("a", "10.0.0.91/24", "10.0.0.91"), ("b", "10.0.0.92/24", "10.0.0.92")] {
            lab.switch.namespace.add_address(name, near).expect("an address of the host itself");
            assert!(
                lab.host(name).is_cut_off_from(far),
                "the switch's host answered on the netdev of port {name}"
            );
        }
    });
}

#[test]
fn a_restart_under_load_carries_on() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        scenario(TWO_KINDS, |lab| {
            let load = lab.host("a").start("ping", ["-q", "-i", "0.001", "10.0.0.2"]);
            for _ in 0..3 {
                let status = lab.switch.stop(signal);
                assert_eq!(status.code(), Some(0), "{signal}: {status}");
                assert!(!lab.switch.socket().exists(), "the daemon has left its socket behind");
                assert!(!has_xdp(&lab.switch, "a"), "the daemon has left its XDP program behind");
                lab.switch.start();
                lab.wait_up(["a", "b"]);
                assert_connected(lab);
            }
            drop(load);
        });
    }
}

#[test]
fn ports_come_and_go_without_a_leak() {
    const CYCLES: usize = 10;
    scenario(TWO_KINDS, |lab| {
        let cycle = || {
            for (name, kind) in [("a", "xdp"), ("b", "packet")] {
                lab.switch.change(&["port", "del", name]);
                lab.switch.change(&["port", "add", name, "--kind", kind, "--access", "lan"]);
            }
            lab.switch.change(&["port", "add", "t", "--kind", "tap", "--access", "lan"]);
            lab.wait_up(["a", "b"]);
            assert_connected(lab);
            lab.switch.change(&["port", "del", "t"]);
        };
        cycle();
        let before = lab.switch.descriptors();
        for _ in 0..CYCLES {
            cycle();
        }
        // A worker opens its BPF program for bursts once, when it first meets one, which may be after the first count;
        // and a connection of a command may be open still. A leak is one descriptor a cycle, at least.
        wait_until(&format!("about as many descriptors as before: {before:#?}"), SOON, || {
            lab.switch.descriptors().len() < before.len() + CYCLES
        });
        assert!(lab.switch.namespace.link("t").expect("links").is_none(), "the tap is left behind");
    });
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused() {
    scenario(TWO_KINDS, |lab| {
        let socket = lab.switch.socket();
        let second = lab.switch.daemon(["--socket".as_ref(), socket.as_os_str()]);
        assert_eq!(second.code, 1, "{second:?}");
        assert!(second.stderr.contains("another vswitch"), "{}", second.stderr);
        assert_eq!(second.stderr.lines().count(), 1, "{}", second.stderr);
        assert_connected(lab);
    });
}

#[test]
fn what_is_no_socket_is_not_replaced() {
    Scenario::new("").run(|lab| {
        let file = lab.switch.write("precious", "content");
        let second = lab.switch.daemon(["--socket".as_ref(), file.as_os_str()]);
        assert_eq!(second.code, 1, "{second:?}");
        assert!(second.stderr.contains("no socket"), "{}", second.stderr);
        assert_eq!(fs::read_to_string(file).expect("the file is there"), "content");
    });
}

#[test]
fn check_says_what_is_wrong_and_where() {
    Scenario::new("").run(|lab| {
        let check = |name: &str, text: &str| {
            let file = lab.switch.write(name, text);
            lab.switch.daemon(["--check".as_ref(), file.as_os_str()])
        };
        let good = check("good.toml", TWO_KINDS);
        assert_eq!((good.code, good.stderr.as_str()), (0, ""));
        let bad = check("bad.toml", "[[network]]\nname = \"lan\"\nvlna = 10\n");
        assert_eq!(bad.code, 2, "{bad:?}");
        for part in ["bad.toml:3:1", "vlna", "vlan"] {
            assert!(bad.stderr.contains(part), "{}", bad.stderr);
        }
        let missing = lab.switch.daemon(["--check", "/no/such/file"]);
        assert_eq!(missing.code, 2, "{missing:?}");
        assert!(missing.stderr.contains("/no/such/file"), "{}", missing.stderr);
    });
}

#[test]
fn misuse_ends_with_its_exit_code_and_one_useful_line() {
    scenario(TWO_KINDS, |lab| {
        let bad = lab.switch.write("bad.toml", "[[network]]\nname = \"lan\"\nvlna = 10\n");
        let bad = bad.to_str().expect("a path of ASCII");
        // The code, the arguments, and what the line has to name.
        let cases: [(i32, &[&str], &str); 8] = [
            (1, &["port", "add", "a", "--access", "lan"], "exists already"),
            (1, &["port", "show", "c"], "no port"),
            (1, &["network", "del", "lan"], "used by port"),
            (2, &["port", "add", "c", "--vlan", "4095"], "4095"),
            (2, &["port", "add", "c", "--kind", "dpdk"], "dpdk"),
            (2, &["prot", "list"], "port"),
            (2, &["apply", bad], "bad.toml:3:1"),
            (2, &["apply", "/no/such/file"], "/no/such/file"),
        ];
        for (code, args, named) in cases {
            let answer = lab.switch.ctl(args.iter().copied());
            assert_eq!(answer.code, code, "{args:?}: {answer:?}");
            assert!(answer.stderr.contains(named), "{args:?}: {}", answer.stderr);
            assert_eq!(answer.stdout, "", "{args:?}");
        }
        let silent = Switch::new("").ctl(["status"]);
        assert_eq!(silent.code, 3, "{silent:?}");
        assert!(silent.stderr.contains("/socket"), "{silent:?}");
        assert_connected(lab);
    });
}
