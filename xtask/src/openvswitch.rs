//! Open vSwitch for the benchmarks: unpacked, not installed.
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

/// Variables of the environment in which its programs are found.
pub(crate) async fn provide() -> Result<Vec<(&'static str, OsString)>> {
    if packages::is_installed(PACKAGE.program) {
        return Ok(Vec::new());
    }
    let folder = shell::root().join("target/openvswitch");
    if !folder.exists() {
        unpack_into(&folder).await?;
    }
    environment(&folder)
}

/// All or nothing: the folder gets its name when it is complete.
async fn unpack_into(folder: &Path) -> Result<()> {
    shell::title("Unpacking Open vSwitch");
    println!("{} (no program {:?} here), to {}", PACKAGE.name, PACKAGE.program, PACKAGE.purpose);
    println!("It is not installed, since it would start as a service: it goes to {}", folder.display());
    let (archives, unpacked) = (folder.with_extension("archives"), folder.with_extension("unpacked"));
    for made in [&archives, &unpacked] {
        if made.exists() {
            fs::remove_dir_all(made)?;
        }
    }
    fs::create_dir_all(archives.join("partial"))?;
    packages::download(PACKAGE.name, &archives).await?;
    packages::unpack(&archives, &unpacked).await?;
    fs::remove_dir_all(archives)?;
    Ok(fs::rename(unpacked, folder)?)
}

fn environment(folder: &Path) -> Result<Vec<(&'static str, OsString)>> {
    // Debian's multiarch name, for the architectures that the project is built for.
    let libraries = format!("{}-linux-gnu", env::consts::ARCH);
    let within = |paths: &[&str]| paths.iter().map(|path| folder.join(path)).collect::<Vec<_>>();
    let programs = within(&["usr/bin", "usr/sbin", "usr/lib/openvswitch-switch"]);
    let libraries = within(&["usr/lib", "lib"]).into_iter().map(|path| path.join(&libraries)).collect();
    Ok(vec![
        ("PATH", extended("PATH", programs)?),
        ("LD_LIBRARY_PATH", extended("LD_LIBRARY_PATH", libraries)?),
        // Its own variable, for the schema of its database.
        ("OVS_PKGDATADIR", folder.join("usr/share/openvswitch").into()),
    ])
}

/// A list of folders with ours behind what is there.
fn extended(variable: &str, ours: Vec<PathBuf>) -> Result<OsString> {
    let there = env::var_os(variable).unwrap_or_default();
    let there = env::split_paths(&there).filter(|path| !path.as_os_str().is_empty());
    Ok(env::join_paths(there.chain(ours))?)
}
