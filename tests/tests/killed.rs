//! A test program is killed in the midst of a scenario, as a developer or a full machine does it.

#![allow(clippy::expect_used, clippy::panic)] // set-up of tests

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use vswitch_netns::Process;
use vswitch_tests::{SOON, Switch, Witness, scenario, wait_until};

const TOPOLOGY: &str = r#"
network = [{ name = "lan" }]
port = [{ name = "a", kind = "xdp", access = "lan" }, { name = "b", kind = "tap", access = "lan" }]
host = [{ name = "a", port = "a", address = ["10.0.0.1/24"] }]
"#;

/// The kernel's number of the XDP program on a netdev.
fn xdp_program(switch: &Switch, netdev: &str) -> String {
    let link = switch.namespace.run("ip", ["-details", "link", "show", netdev]).expect("ip succeeds");
    let id = link.split("prog/xdp id ").nth(1).and_then(|tail| tail.split_whitespace().next());
    id.unwrap_or_else(|| panic!("no XDP program in {link}")).to_owned()
}

fn is_loaded(program: &str) -> bool {
    let mut bpftool = Command::new("bpftool");
    let shown = bpftool.args(["prog", "show", "id", program]).output().expect("bpftool runs");
    shown.status.success()
}

/// The scenario that is killed.
fn run_until_killed() {
    scenario(TOPOLOGY, |lab| {
        let load = lab.host("a").start("ping", ["-q", "-b", "10.0.0.255"]);
        println!("\nprogram {}", xdp_program(&lab.switch, "a"));
        std::io::stdin().read_line(&mut String::new()).expect("stdin is open");
        drop(load);
        unreachable!("killed while it waits");
    });
}

#[test]
fn a_killed_test_program_leaves_nothing() {
    const VICTIM: &str = "VSWITCH_TEST_VICTIM";
    if env::var_os(VICTIM).is_some() {
        return run_until_killed();
    }
    let witness = Witness::new();
    let mut command = Command::new(env::current_exe().expect("the path of the test program"));
    command.args(["--exact", "a_killed_test_program_leaves_nothing", "--nocapture"]);
    command.env(VICTIM, "yes").env("TMPDIR", witness.folder()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut victim = Process::spawn(command).expect("the test program runs");
    let said = BufReader::new(victim.child().stdout.take().expect("stdout is a pipe")).lines();
    let program = said.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("program ")?.to_owned()));
    let program = program.expect("the scenario gets as far as its switch");
    assert!(is_loaded(&program));
    assert!(witness.processes().len() >= 3, "itself, the daemon and the load");

    drop(victim); // SIGKILL

    witness.expect_nothing_left();
    wait_until("the XDP program is gone", SOON, || !is_loaded(&program));
}
