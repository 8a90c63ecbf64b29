//! `cargo xtask bench`: builds the switch and the benchmarks as they are released, and runs the benchmarks.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use crate::packages::{self, ETHTOOL, IPERF3, IPROUTE2, OPENVSWITCH, Package, VALGRIND};
use crate::{Result, shell};

/// What can be measured; its name is that of the benchmarks' own command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Instructions and nanoseconds per packet through the forwarding pipeline
    Pipeline,
    /// Frames of 64 bytes from veth to veth
    VethL2,
    /// One TCP stream from veth to veth
    TcpVeth,
}

impl Case {
    fn packages(self) -> &'static [Package] {
        match self {
            Self::Pipeline => &[VALGRIND],
            Self::VethL2 => &[IPROUTE2, ETHTOOL, OPENVSWITCH],
            Self::TcpVeth => &[IPROUTE2, ETHTOOL, IPERF3, OPENVSWITCH],
        }
    }
}

/// Runs some cases, or all.
pub(crate) async fn run(cases: &[Case], quick: bool, json: Option<&Path>) -> Result<()> {
    shell::need_root("the benchmarks make network namespaces")?;
    let cases = if cases.is_empty() { Case::value_variants() } else { cases };
    let mut needed: Vec<Package> = Vec::new();
    for package in cases.iter().flat_map(|case| case.packages()) {
        if needed.iter().all(|other| other.name != package.name) {
            needed.push(*package);
        }
    }
    packages::install_missing(&needed).await?;
    shell::title("Building the release");
    let mut build = shell::cargo_for_build();
    build.args(["build", "--release", "--package", "vswitch", "--package", "vswitch-benches"]);
    shell::run(build).await?;
    // Cargo has built this program in a folder beside that of releases.
    let own = shell::bin_dir()?;
    let target = own.parent().ok_or("this program is not where cargo builds programs")?;
    let mut bench = Command::new(target.join("release/vswitch-bench"));
    bench.args(cases.iter().filter_map(ValueEnum::to_possible_value).map(|case| case.get_name().to_owned()));
    bench.args(quick.then_some("--quick"));
    if let Some(file) = json {
        bench.arg("--json").arg(file);
    }
    shell::run(bench).await
}
