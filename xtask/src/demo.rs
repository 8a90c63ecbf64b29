//! `cargo xtask demo`: a switch and a lab of hosts on the real data path, and the proof that it switches.
//!
//! Everything lives in network namespaces that this process holds, so the machine's own links are not
//! touched, and whatever happens to this process, the kernel cleans up.

mod proofs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use vswitch_netns::{Namespace, Process, Scratch};

use crate::packages::{self, IPERF3, PING};
use crate::{Result, shell};

/// How long the daemon may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of the daemon's log a failure shows.
const LOG_LINES: usize = 40;

/// Runs the demo; with `exit` it ends after the proofs.
pub(crate) async fn run(exit: bool) -> Result<()> {
    shell::need_root("the demo makes network namespaces")?;
    packages::install_missing(&[PING, IPERF3]).await?;
    shell::title("Building the switch");
    let mut build = shell::cargo();
    // All of them, so that features agree and `cargo xtask test` builds no dependency again.
    build.args(["build", "--workspace", "--bins"]);
    shell::build(build).await?;

    let mut demo = Demo::start()?;
    let shown = tokio::select! {
        shown = demo.show(exit) => shown,
        ended = told_to_end() => ended,
    };
    if shown.is_err() {
        demo.print_log();
    }
    let ended = demo.end().await;
    match (shown, ended) {
        (Err(first), Err(second)) => Err(format!("{first}; {second}").into()),
        (shown, ended) => shown.and(ended),
    }
}

/// A running switch with its lab.
struct Demo {
    /// The switch's network namespace: the near ends of all veths are here.
    namespace: Namespace,
    daemon: Process,
    /// Socket and log.
    folder: Scratch,
    programs: PathBuf,
    topology: PathBuf,
}

impl Demo {
    /// Starts the daemon in a namespace of its own.
    fn start() -> Result<Self> {
        let namespace = Namespace::new()?;
        let folder = Scratch::new()?;
        let programs = shell::bin_dir()?;
        let topology = shell::root().join("topologies/demo.toml");
        let mut command = namespace.command(programs.join("vswitch"));
        command.arg("--config").arg(&topology).arg("--socket").arg(folder.path().join("socket"));
        command.stderr(fs::File::create(folder.path().join("log"))?);
        // Ctrl-C is for us alone: the lab goes before the switch.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let daemon = Process::spawn(command)?;
        Ok(Self { namespace, daemon, folder, programs, topology })
    }

    /// Makes the lab and proves what the switch does with it.
    async fn show(&mut self, exit: bool) -> Result<()> {
        self.wait_for_daemon().await?;
        self.print_how_to_repeat();
        shell::title("A lab: hosts, each a network namespace with a veth into the switch");
        shell::show_success(self.control_in_namespace(["lab", "up"], &self.topology)).await?;
        let failed = proofs::run(self).await?;
        shell::title("Result");
        if !failed.is_empty() {
            return Err(format!("{} of the claims do not hold: {}", failed.len(), failed.join("; ")).into());
        }
        println!("{} the switch does what this demo claims", shell::green("yes:"));
        if exit {
            return Ok(());
        }
        self.print_what_to_try();
        std::future::pending().await
    }

    async fn wait_for_daemon(&mut self) -> Result<()> {
        shell::title("The switch");
        println!(
            "started in a network namespace of its own:  vswitch --config {} --socket {}",
            self.topology.display(),
            self.folder.path().join("socket").display()
        );
        let mut ended = None;
        shell::wait_until("the switch answers", PATIENCE, async || {
            ended = self.daemon.wait_timeout(Duration::ZERO)?;
            Ok(ended.is_some() || shell::quiet(self.control(["status"])).await?.status.success())
        })
        .await?;
        if let Some(status) = ended {
            return Err(format!("vswitch ended at its start with {status}").into());
        }
        shell::show_success(self.control(["status"])).await.map(drop)
    }

    /// Ends lab and switch, in order.
    async fn end(mut self) -> Result<()> {
        shell::title("Cleaning up");
        let labs = shell::quiet(self.control(["--json", "lab", "list"])).await?.stdout;
        let labs: serde_json::Value = serde_json::from_str(&labs)?;
        let inode = self.namespace.inode()?;
        if labs.as_array().is_some_and(|labs| labs.iter().any(|lab| lab["switch_netns"] == inode)) {
            shell::show_success(self.control_in_namespace(["lab", "down"], &self.topology)).await?;
        }
        if self.daemon.wait_timeout(Duration::ZERO)?.is_none() {
            self.daemon.signal(Signal::SIGTERM)?;
        }
        match self.daemon.wait_timeout(PATIENCE)? {
            Some(status) if status.success() => {
                println!("the switch has ended; nothing is left");
                Ok(())
            }
            Some(status) => Err(format!("vswitch ended with {status}").into()),
            None => Err(format!("vswitch did not end within {PATIENCE:?} of SIGTERM").into()),
        }
    }

    /// A vswitchctl command.
    fn control<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(self.programs.join("vswitchctl"));
        self.point_at_daemon(&mut command);
        command.args(args);
        command
    }

    /// A vswitchctl command that must run where the switch is.
    fn control_in_namespace<const N: usize>(&self, args: [&str; N], file: &Path) -> Command {
        let mut command = self.namespace.command(self.programs.join("vswitchctl"));
        self.point_at_daemon(&mut command);
        command.args(args).arg(file);
        command
    }

    fn point_at_daemon(&self, command: &mut Command) {
        command.env("VSWITCH_SOCKET", self.folder.path().join("socket"));
    }

    /// A command in a host of the lab.
    fn in_host(&self, host: &str, command: &str) -> Command {
        self.control(["lab", "exec", host, "--"].into_iter().chain(command.split(' ')))
    }

    fn print_how_to_repeat(&self) {
        println!("\nTo repeat the commands below in another terminal (as root):");
        println!("    export PATH={}:$PATH", self.programs.display());
        println!("    export VSWITCH_SOCKET={}", self.folder.path().join("socket").display());
        println!("and for those of `lab up` and `lab down`, which work where the switch is, first:");
        println!("    nsenter --net=/proc/{}/ns/net", self.daemon.id());
    }

    fn print_what_to_try(&self) {
        shell::title("The lab is up until you press Ctrl-C. Things to try, in another terminal (as root)");
        println!("    export PATH={}:$PATH", self.programs.display());
        println!("    export VSWITCH_SOCKET={}", self.folder.path().join("socket").display());
        for (what, command) in [
            ("a shell in a host", "vswitchctl lab exec red1 -- bash"),
            ("bulk TCP through the switch", "vswitchctl lab exec red1 -- iperf3 -c 10.0.10.2"),
            ("why a port is what it is", "vswitchctl port show red1"),
            ("move a host to another network ...", "vswitchctl port set blue2 --access red"),
            (
                "... and see it reach the other side",
                "vswitchctl lab exec blue2 -- ping -I 10.0.10.3 10.0.10.1",
            ),
            ("what changed against the file", "vswitchctl diff topologies/demo.toml"),
            ("back to the file, all or nothing", "vswitchctl apply topologies/demo.toml"),
            ("counters, live", "vswitchctl stats --watch"),
            ("the same by HTTP", "curl --unix-socket $VSWITCH_SOCKET http://vswitch/v1/status"),
        ] {
            println!("{what:>38}:  {command}");
        }
        println!("{:>38}:  nsenter --net=/proc/{}/ns/net ip -br link", "the switch's side", self.daemon.id());
        println!("{:>38}:  {}", "the switch's log", self.folder.path().join("log").display());
    }

    fn print_log(&self) {
        let Ok(log) = fs::read_to_string(self.folder.path().join("log")) else { return };
        let lines: Vec<&str> = log.lines().collect();
        println!("\nThe end of the switch's log:");
        for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
            println!("    {line}");
        }
    }
}

/// Waits for Ctrl-C, the end of the terminal or a request to end.
async fn told_to_end() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
