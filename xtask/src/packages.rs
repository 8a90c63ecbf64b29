//! Debian packages that a command needs: installed when their program is missing, and not otherwise.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::shell;

/// A package, known by a program that it brings.
#[derive(Clone, Copy)]
pub(crate) struct Package {
    /// Its name in Debian.
    pub(crate) name: &'static str,
    /// The program that is looked for.
    pub(crate) program: &'static str,
    /// What it is needed for, to be read after "to".
    pub(crate) purpose: &'static str,
}

pub(crate) const PING: Package =
    Package { name: "iputils-ping", program: "ping", purpose: "see which host reaches which" };
pub(crate) const IPERF3: Package =
    Package { name: "iperf3", program: "iperf3", purpose: "send TCP and UDP through the switch" };
pub(crate) const IPROUTE2: Package =
    Package { name: "iproute2", program: "ip", purpose: "look at links from outside the project" };
pub(crate) const ETHTOOL: Package =
    Package { name: "ethtool", program: "ethtool", purpose: "look at and set offloads and queues" };
pub(crate) const BPFTOOL: Package =
    Package { name: "bpftool", program: "bpftool", purpose: "see which BPF programs are loaded" };
pub(crate) const USER_MODE_LINUX: Package = Package {
    name: "user-mode-linux",
    program: "linux.uml",
    purpose: "have guests with a kernel of their own",
};
pub(crate) const QEMU: Package = Package {
    name: "qemu-system-x86",
    program: "qemu-system-x86_64",
    purpose: "have guests as on a host of virtual machines",
};
pub(crate) const DNSMASQ: Package =
    Package { name: "dnsmasq-base", program: "dnsmasq", purpose: "have a server of DHCP and of what boots" };
pub(crate) const DHCLIENT: Package = Package {
    name: "isc-dhcp-client",
    program: "dhclient",
    purpose: "have hosts that ask for their addresses",
};
pub(crate) const BINUTILS: Package =
    Package { name: "binutils", program: "strip", purpose: "make programs small for guests" };
pub(crate) const TESTPMD: Package = Package {
    name: "dpdk-dev",
    program: "dpdk-testpmd",
    purpose: "have guests that send as fast as they can",
};
pub(crate) const TSHARK: Package =
    Package { name: "tshark", program: "tshark", purpose: "have captures read by Wireshark" };
pub(crate) const VALGRIND: Package =
    Package { name: "valgrind", program: "valgrind", purpose: "count instructions" };

/// Installs those of `packages` whose program is missing.
pub(crate) async fn install_missing(packages: &[Package]) -> Result<()> {
    let missing: Vec<&Package> = packages.iter().filter(|package| !is_installed(package.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    shell::title("Installing what is missing");
    for package in &missing {
        println!("{} (no program {:?} here), to {}", package.name, package.program, package.purpose);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if !is_installed("apt-get") {
        return Err(format!("there is no apt-get here: install {} by hand", names.join(", ")).into());
    }
    shell::need_root("packages are to be installed")?;
    install(&names, &[]).await?;
    match missing.iter().find(|package| !is_installed(package.program)) {
        Some(package) => Err(format!("package {} brought no {}", package.name, package.program).into()),
        None => Ok(()),
    }
}

/// Fetches a package, and all that it needs and that is missing here, into a folder with a folder `partial`.
pub(crate) async fn download(name: &str, folder: &Path) -> Result<()> {
    let archives = format!("Dir::Cache::Archives={}", folder.display());
    install(&[name], &["--download-only", "--option", &archives]).await
}

/// Fetches the package that a package without content stands for, and that alone, and unpacks it into a folder.
pub(crate) async fn unpack_what_stands_behind(name: &str, folder: &Path) -> Result<()> {
    let archives = folder.join("archives");
    fs::create_dir_all(&archives)?;
    with_fresh_lists(&[name], async || {
        let mut command = apt_get(&["download"]);
        command.arg(only_dependency(name).await?).current_dir(&archives);
        shell::run_uninterrupted(command).await
    })
    .await?;
    unpack(&archives, folder).await?;
    Ok(fs::remove_dir_all(archives)?)
}

async fn only_dependency(name: &str) -> Result<String> {
    let mut command = Command::new("apt-cache");
    command.args(["depends", name]);
    let shown = shell::quiet_success(command).await?;
    let package = shown.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(package.ok_or_else(|| format!("package {name} depends on nothing"))?.to_owned())
}

/// Unpacks every package of `archives`, without installing it.
pub(crate) async fn unpack(archives: &Path, folder: &Path) -> Result<()> {
    for archive in fs::read_dir(archives)? {
        let archive = archive?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            let mut extract = Command::new("dpkg-deb");
            extract.arg("--extract").arg(archive).arg(folder);
            shell::quiet_success(extract).await?;
        }
    }
    Ok(())
}

async fn install(names: &[&str], options: &[&str]) -> Result<()> {
    with_fresh_lists(names, async || {
        let mut command = apt_get(&["install", "--yes", "--no-install-recommends"]);
        command.args(options).args(names);
        shell::run_uninterrupted(command).await
    })
    .await
}

/// Package lists may be missing (a fresh system) or old (a version that is no longer served).
async fn with_fresh_lists(names: &[&str], work: impl AsyncFn() -> Result<()>) -> Result<()> {
    if !are_known(names).await? || work().await.is_err() {
        shell::run_uninterrupted(apt_get(&["update"])).await?;
        work().await?;
    }
    Ok(())
}

async fn are_known(names: &[&str]) -> Result<bool> {
    let mut command = Command::new("apt-cache");
    command.args(["show", "--no-all-versions"]).args(names);
    Ok(shell::quiet(command).await?.status.success())
}

fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Whether a program is found.
pub(crate) fn is_installed(program: &str) -> bool {
    // Root's tools may be outside a user's PATH.
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Path::new).map(Path::to_owned);
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}
