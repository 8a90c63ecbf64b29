//! A test program is killed in the midst of a scenario, as a developer or a full machine does it.

#![allow(clippy::expect_used, clippy::panic)] // set-up of tests

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use vswitch_netns::{Namespace, Process, Scratch};
use vswitch_tests::{SOON, Switch, scenario, wait_until};

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

/// Links and named namespaces of the caller's own namespace, and mounts.
fn surroundings() -> [String; 3] {
    let here = Namespace::current().expect("the namespace of the tests");
    let ip = |args: &[&str]| here.run("ip", args).expect("ip succeeds");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    [ip(&["-brief", "link"]), ip(&["netns"]), mounts]
}

/// Processes whose temporary folder is `folder`: the killed one's descendants, wherever they are.
fn processes_with(folder: &Path) -> Vec<String> {
    let wanted = format!("TMPDIR={}", folder.display());
    let has_it = |pid: &String| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(has_it).collect()
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
    let before = surroundings();
    let scratch = Scratch::new().expect("a folder");
    let temporary = scratch.path();
    let mut command = Command::new(env::current_exe().expect("the path of the test program"));
    command.args(["--exact", "a_killed_test_program_leaves_nothing", "--nocapture"]);
    command.env(VICTIM, "yes").env("TMPDIR", &temporary).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut victim = Process::spawn(command).expect("the test program runs");
    let said = BufReader::new(victim.child().stdout.take().expect("stdout is a pipe")).lines();
    let program = said.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("program ")?.to_owned()));
    let program = program.expect("the scenario gets as far as its switch");
    assert!(is_loaded(&program));
    assert!(processes_with(&temporary).len() >= 3, "itself, the daemon and the load");

    drop(victim); // SIGKILL

    wait_until("all processes have ended", SOON, || processes_with(&temporary).is_empty());
    wait_until("the XDP program is gone", SOON, || !is_loaded(&program));
    assert_eq!(surroundings(), before);
    let left: Vec<_> = fs::read_dir(temporary).expect("the folder is there").collect();
    assert!(left.is_empty(), "{left:?}");
}
