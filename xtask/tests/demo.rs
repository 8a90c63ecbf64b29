//! The demo is killed while it shows what it has.

#![allow(clippy::unwrap_used)] // set-up of tests

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use vswitch_netns::Process;
use vswitch_tests::Witness;

/// Sockets of labs; a killed lab would leave its own.
fn labs() -> Vec<String> {
    let entries = fs::read_dir("/run/vswitch-lab").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_killed_demo_leaves_nothing() {
    let (witness, labs_before) = (Witness::new(), labs());
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("demo").env("TMPDIR", witness.folder()).stdout(Stdio::piped());
    let mut demo = Process::spawn(command).unwrap();
    let mut lines = BufReader::new(demo.child().stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("ping -c 3 -i 0.2 -W 2 10.0.10.2")), "the lab is in use");
    assert!(witness.processes().len() >= 4, "itself, the switch, the lab and a ping");

    drop(demo); // SIGKILL

    witness.expect_nothing_left();
    assert_eq!(labs(), labs_before);
}
