//! `cargo xtask bench`: builds the switch and the benchmarks as they are released, and runs the benchmarks.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use crate::packages::{self, ETHTOOL, IPERF3, IPROUTE2, Package, TESTPMD, VALGRIND};
use crate::{Result, openvswitch, shell};

/// The benchmarks' own: they are built for release, which is no reason to build this program with them.
#[path = "../../benches/src/case.rs"]
mod case;

pub(crate) use case::Case;

const fn packages_of(case: Case) -> &'static [Package] {
    match case {
        Case::Pipeline => &[VALGRIND],
        Case::VethL2 => &[IPROUTE2, ETHTOOL],
        Case::TcpVeth => &[IPROUTE2, ETHTOOL, IPERF3],
        Case::VhostUserL2 => &[TESTPMD],
    }
}

/// Runs some cases, or all.
pub(crate) async fn run(cases: &[Case], quick: bool, json: Option<&Path>) -> Result<()> {
    shell::need_root("the benchmarks make network namespaces")?;
    let cases = if cases.is_empty() { Case::value_variants() } else { cases };
    let mut needed: Vec<Package> = Vec::new();
    for package in cases.iter().flat_map(|case| packages_of(*case)) {
        if needed.iter().all(|other| other.name != package.name) {
            needed.push(*package);
        }
    }
    packages::install_missing(&needed).await?;
    let has_peers = cases.iter().any(|case| *case != Case::Pipeline);
    let openvswitch =
        if has_peers { openvswitch::provide(cases.contains(&Case::VhostUserL2)).await? } else { Vec::new() };
    shell::title("Building the release");
    let mut build = shell::cargo();
    build.args(["build", "--release", "--package", "vswitch", "--package", "vswitch-benches"]);
    shell::build(build).await?;
    // Cargo has built this program in a folder beside that of releases.
    let own = shell::bin_dir()?;
    let target = own.parent().ok_or("this program is not where cargo builds programs")?;
    let mut bench = Command::new(target.join("release/vswitch-bench"));
    bench.args(cases.iter().filter_map(ValueEnum::to_possible_value).map(|case| case.get_name().to_owned()));
    bench.args(quick.then_some("--quick"));
    if let Some(file) = json {
        bench.arg("--json").arg(file);
    }
    bench.envs(openvswitch);
    shell::run(bench).await
}
