//! A database server of Open vSwitch's own, for one switch.

use std::path::{Path, PathBuf};
use std::process::Command;

use vswitch_netns::{Namespace, Process};

use crate::Result;
use crate::clock::wait_until;
use crate::subject::daemon;

/// Where its package puts its data, unless its own variable `OVS_PKGDATADIR` says otherwise.
const DATA: &str = "/usr/share/openvswitch";

/// The running server.
pub(super) struct Database {
    folder: PathBuf,
    namespace: Namespace,
    _server: Process,
}

impl Database {
    /// An empty database in `folder`, made ready for a switch.
    pub(super) fn start(namespace: &Namespace, folder: &Path) -> Result<Self> {
        let file = folder.join("conf.db");
        let mut create = Command::new("ovsdb-tool");
        let data = std::env::var_os("OVS_PKGDATADIR").map_or_else(|| DATA.into(), PathBuf::from);
        create.arg("create").arg(&file).arg(data.join("vswitch.ovsschema"));
        Process::run(create)?;
        let serve = |command: &mut Command| {
            at_home(command, folder);
            command.arg(&file).arg(format!("--remote=p{}", socket(folder)));
            command.arg(format!("--unixctl={}/db.ctl", folder.display()));
        };
        let server = daemon(namespace, folder, "db.log", serve, Path::new("ovsdb-server"))?;
        wait_until("the database of Open vSwitch", || Ok(folder.join("db.sock").exists()))?;
        let database = Self { folder: folder.to_owned(), namespace: namespace.clone(), _server: server };
        database.vsctl(&["--no-wait", "init"])?;
        Ok(database)
    }

    /// Starts the switch, the words of whose command line begin with `words`.
    pub(super) fn start_switch(&self, words: &[&str]) -> Result<Process> {
        let (program, words) = words.split_first().ok_or("no program")?;
        let switch = |command: &mut Command| {
            at_home(command, &self.folder);
            command.args(words).arg(socket(&self.folder));
            command.arg(format!("--unixctl={}/switch.ctl", self.folder.display()));
        };
        daemon(&self.namespace, &self.folder, "switch.log", switch, Path::new(program))
    }

    /// Configures the switch, and waits until it is so.
    pub(super) fn vsctl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.namespace.command("ovs-vsctl");
        command.arg(format!("--db={}", socket(&self.folder))).arg("--timeout=15").args(args);
        Ok(Process::run(command)?)
    }
}

fn socket(folder: &Path) -> String {
    format!("unix:{}/db.sock", folder.display())
}

/// All of its files are in `folder`.
fn at_home(command: &mut Command, folder: &Path) {
    // The last is DPDK's.
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "RUNTIME_DIRECTORY"] {
        command.env(variable, folder);
    }
}
