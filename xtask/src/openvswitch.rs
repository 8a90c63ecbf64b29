//! Open vSwitch for tests and benchmarks: unpacked, not installed.
//!
//! They need its programs. Installing its package would start a switch on this machine, now and at every boot, so
//! the package and what it depends on are unpacked into a folder below `target`, and found there by variables
//! of the environment. Where Open vSwitch is installed already, nothing is done.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::packages::{self, Package};
use crate::{Result, shell};

const PACKAGE: Package =
    Package { name: "openvswitch-switch", program: "ovs-vswitchd", purpose: "compare with Open vSwitch" };
const WITH_DPDK: Package = Package {
    name: "openvswitch-switch-dpdk",
    program: "ovs-vswitchd-dpdk",
    purpose: "compare with Open vSwitch on DPDK",
};
/// Where the second has its program, which is in no PATH; the benchmarks look there, or where the variable says.
const WITH_DPDK_PROGRAM: &str = "usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const WITH_DPDK_VARIABLE: &str = "VSWITCH_BENCH_OVS_DPDK";

/// Variables of the environment in which its programs are found. DPDK itself has to be installed.
pub(crate) async fn provide(with_dpdk: bool) -> Result<Vec<(&'static str, OsString)>> {
    let mut folders = Vec::new();
    if !packages::is_installed(PACKAGE.program) {
        folders.push(unpacked(&PACKAGE, "openvswitch").await?);
    }
    let mut variables = Vec::new();
    if with_dpdk && !Path::new("/").join(WITH_DPDK_PROGRAM).is_file() {
        let folder = unpacked(&WITH_DPDK, "openvswitch-dpdk").await?;
        variables.push((WITH_DPDK_VARIABLE, folder.join(WITH_DPDK_PROGRAM).into()));
        folders.push(folder);
    }
    if !folders.is_empty() {
        variables.extend(environment(&folders)?);
    }
    Ok(variables)
}

/// The folder below `target` that a package is unpacked in.
async fn unpacked(package: &Package, name: &str) -> Result<PathBuf> {
    let folder = shell::root().join("target").join(name);
    if !folder.exists() {
        unpack_into(package, &folder).await?;
    }
    Ok(folder)
}

/// All or nothing: the folder gets its name when it is complete.
async fn unpack_into(package: &Package, folder: &Path) -> Result<()> {
    shell::title("Unpacking Open vSwitch");
    println!("{} (no program {:?} here), to {}", package.name, package.program, package.purpose);
    println!("It is not installed, since it would start as a service: it goes to {}", folder.display());
    let (archives, unpacked) = (folder.with_extension("archives"), folder.with_extension("unpacked"));
    for made in [&archives, &unpacked] {
        if made.exists() {
            fs::remove_dir_all(made)?;
        }
    }
    fs::create_dir_all(archives.join("partial"))?;
    packages::download(package.name, &archives).await?;
    packages::unpack(&archives, &unpacked).await?;
    fs::remove_dir_all(archives)?;
    Ok(fs::rename(unpacked, folder)?)
}

fn environment(folders: &[PathBuf]) -> Result<Vec<(&'static str, OsString)>> {
    // Debian's multiarch name, for the architectures that the project is built for.
    let libraries = format!("{}-linux-gnu", env::consts::ARCH);
    let within = |paths: &[&str]| -> Vec<PathBuf> {
        folders.iter().flat_map(|folder| paths.iter().map(|path| folder.join(path))).collect()
    };
    let programs = within(&["usr/bin", "usr/sbin", "usr/lib/openvswitch-switch"]);
    let libraries = within(&["usr/lib", "lib"]).into_iter().map(|path| path.join(&libraries)).collect();
    let mut variables = vec![
        ("PATH", extended("PATH", programs)?),
        ("LD_LIBRARY_PATH", extended("LD_LIBRARY_PATH", libraries)?),
    ];
    // Its own variable, for the schema of its database.
    let data = within(&["usr/share/openvswitch"]).into_iter().find(|data| data.is_dir());
    variables.extend(data.map(|data| ("OVS_PKGDATADIR", data.into())));
    Ok(variables)
}

/// A list of folders with ours behind what is there.
fn extended(variable: &str, ours: Vec<PathBuf>) -> Result<OsString> {
    let there = env::var_os(variable).unwrap_or_default();
    let there = env::split_paths(&there).filter(|path| !path.as_os_str().is_empty());
    Ok(env::join_paths(there.chain(ours))?)
}
