//! `cargo xtask test`: every test of the workspace, root tests included, in a [`sandbox`].

use std::process::Command;

use crate::packages::{
    self, BINUTILS, BPFTOOL, DHCLIENT, DNSMASQ, ETHTOOL, IPERF3, IPROUTE2, PING, QEMU, TESTPMD, TSHARK,
    USER_MODE_LINUX,
};
use crate::sandbox::{self, Snapshot};
use crate::{Result, guest_kernel, openvswitch, shell};

/// Builds outside of the sandbox, where there is a network, then runs the tests inside.
pub(crate) async fn run(filter: Option<&str>) -> Result<()> {
    shell::need_root("the tests make network namespaces")?;
    let network = [IPROUTE2, PING, IPERF3, ETHTOOL, BPFTOOL, DNSMASQ, DHCLIENT, TSHARK];
    packages::install_missing(&network).await?;
    packages::install_missing(&[USER_MODE_LINUX, QEMU, TESTPMD, BINUTILS]).await?;
    guest_kernel::provide().await?;
    openvswitch::provide(false).await?;
    shell::title("Building");
    let mut programs = shell::cargo();
    programs.args(["build", "--workspace", "--bins"]);
    shell::build(programs).await?;
    let mut tests = shell::cargo();
    tests.args(["test", "--workspace", "--no-run"]);
    shell::build(tests).await?;
    if wants_loom(filter) {
        let mut models = loom();
        models.arg("--no-run");
        shell::build(models).await?;
    }
    let args: Vec<&str> = std::iter::once("test-in-sandbox").chain(filter).collect();
    sandbox::enter(&args)
}

/// Runs the tests, and fails if they leave anything behind.
pub(crate) async fn run_in_sandbox(filter: Option<&str>) -> Result<()> {
    let before = Snapshot::first().await?;
    shell::title("Testing");
    let mut tests = shell::cargo();
    tests.args(["test", "--workspace", "--no-fail-fast"]).args(filter);
    tests
        .env("TMPDIR", sandbox::FOLDER)
        .env("VSWITCH_BIN_DIR", shell::bin_dir()?)
        .env("CARGO_NET_OFFLINE", "true");
    // Unpacked by now, if it is not installed.
    tests.envs(openvswitch::provide(false).await?);
    let tested = shell::run(tests).await;
    let mut results = vec![("every test passes", tested)];
    if wants_loom(filter) {
        results.push(("the concurrent table holds in every interleaving (loom)", test_models().await));
    }
    let left = before.expect_again().await;
    results.push(("links, namespaces, processes and /run are as before", left));

    shell::title("Result");
    for (claim, result) in &results {
        match result {
            Ok(()) => println!("{} {claim}", shell::green("yes")),
            Err(error) => println!("{} {claim}: {error}", shell::red("NO ")),
        }
    }
    if results.iter().all(|(_, result)| result.is_ok()) { Ok(()) } else { Err("not all is well".into()) }
}

async fn test_models() -> Result<()> {
    shell::title("Exploring interleavings");
    let mut models = loom();
    models.arg("loom").env("CARGO_NET_OFFLINE", "true");
    shell::run(models).await
}

/// Model tests have `loom` in their path, and are built with another standard library of atomics.
fn loom() -> Command {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--package", "vswitch-dataplane", "--lib", "--release"]);
    cargo.arg("--target-dir").arg(shell::root().join("target/loom")).env("RUSTFLAGS", "--cfg loom");
    cargo
}

fn wants_loom(filter: Option<&str>) -> bool {
    filter.is_none_or(|filter| filter.contains("loom"))
}
