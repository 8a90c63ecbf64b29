//! Open vSwitch with its userspace datapath, as another VTEP and for comparison: a database and daemons of its own, in a
//! namespace.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vswitch_netns::{Namespace, Process};

use crate::wait::{SOON, wait_until};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Where its package puts its data, unless its own variable `OVS_PKGDATADIR` says otherwise.
const DATA: &str = "/usr/share/openvswitch";

/// A running database server.
#[derive(Debug)]
pub struct Database {
    folder: PathBuf,
    namespace: Namespace,
    _server: Process,
}

impl Database {
    /// An empty database in `folder`, made ready for a switch.
    ///
    /// # Errors
    /// A program is missing, or fails.
    pub fn start(namespace: &Namespace, folder: &Path) -> Result<Self> {
        let file = folder.join("conf.db");
        let mut create = Command::new("ovsdb-tool");
        let data = std::env::var_os("OVS_PKGDATADIR").map_or_else(|| DATA.into(), PathBuf::from);
        create.arg("create").arg(&file).arg(data.join("vswitch.ovsschema"));
        Process::run(create)?;
        let mut command = namespace.command("ovsdb-server");
        command.arg(&file).arg(format!("--remote=p{}", socket(folder)));
        command.arg(format!("--unixctl={}/db.ctl", folder.display()));
        let server = daemon(command, folder, "db.log")?;
        wait_until("the database of Open vSwitch", SOON, || folder.join("db.sock").exists());
        let database = Self { folder: folder.to_owned(), namespace: namespace.clone(), _server: server };
        database.vsctl(&["--no-wait", "init"])?;
        Ok(database)
    }

    /// Starts the switch, the words of whose command line begin with `words`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_switch(&self, words: &[&str]) -> Result<Process> {
        let (program, words) = words.split_first().ok_or("no program")?;
        let mut command = self.namespace.command(program);
        command.args(words).arg(socket(&self.folder));
        command.arg(format!("--unixctl={}/switch.ctl", self.folder.display()));
        daemon(command, &self.folder, "switch.log")
    }

    /// Configures the switch, and waits until it is so.
    ///
    /// # Errors
    /// What it says.
    pub fn vsctl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.namespace.command("ovs-vsctl");
        command.arg(format!("--db={}", socket(&self.folder))).arg("--timeout=15").args(args);
        Ok(Process::run(command)?)
    }

    /// Asks the running switch something, as `ovs-appctl` does.
    ///
    /// # Errors
    /// What it says.
    pub fn appctl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.namespace.command("ovs-appctl");
        command.arg(format!("--target={}/switch.ctl", self.folder.display())).args(args);
        Ok(Process::run(command)?)
    }
}

fn socket(folder: &Path) -> String {
    format!("unix:{}/db.sock", folder.display())
}

/// Starts a daemon all of whose files are in `folder`.
fn daemon(mut command: Command, folder: &Path, log: &str) -> Result<Process> {
    // The last is DPDK's.
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "RUNTIME_DIRECTORY"] {
        command.env(variable, folder);
    }
    let log = std::fs::File::create(folder.join(log))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Process::spawn(command)?)
}
