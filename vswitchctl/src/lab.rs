//! `lab`: the `[[host]]` tables of a topology as network namespaces with a veth into the switch.
//!
//! A lab is one process, the [`holder`]: it holds the namespaces open, owns the `run` commands, and answers
//! on a socket under `/run/vswitch-lab` (see [`registry`]). When it ends, in whatever way, the kernel takes
//! the hosts, their veths and their commands away. It ends by `lab down`, and by itself when the namespace
//! that the lab was made in, the switch's, has gone.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};

use clap::Subcommand;
use vswitch_api::Topology;
use vswitch_netns::Namespace;

mod holder;
mod registry;

use registry::{Lab, LabHost};

/// What the holder writes to its stdout when all hosts are up; anything else is a failure.
const READY: &str = "ready";

/// The `lab` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a network namespace of each [[host]], with a veth into this namespace
    Up {
        /// A topology file
        file: PathBuf,
    },
    /// Remove the hosts of a file that is up
    Down {
        /// The topology file
        file: PathBuf,
    },
    /// Run a command in a host
    Exec {
        /// The host's name
        host: String,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// List the hosts that are up
    List,
    /// The process behind a lab; started by `up`
    #[command(hide = true)]
    Hold {
        /// The topology file
        file: PathBuf,
    },
}

/// Why a lab command was not done.
#[derive(Debug)]
pub(crate) enum Error {
    /// The file cannot be used: one line for each mistake.
    File(Vec<String>),
    /// Everything else, in one line: what, why, how to mend it.
    Refused(String),
}

impl From<vswitch_netns::Error> for Error {
    fn from(error: vswitch_netns::Error) -> Self {
        const EPERM: i32 = 1;
        const EEXIST: i32 = 17;
        let mend = match error.raw_os_error() {
            Some(EPERM) => "; run it as root",
            Some(EEXIST) => "; delete that link (ip link del), or end the lab that it belongs to (vswitchctl lab list)",
            _ => "",
        };
        let reason = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::Refused(format!("{error}{reason}{mend}"))
    }
}

/// Runs one `lab` command; returns what is to be printed.
pub(crate) fn run(command: &Command, json: bool) -> Result<String, Error> {
    match command {
        Command::Up { file } => up(&identity(file), json),
        Command::Down { file } => down(&identity(file)),
        Command::Exec { host, command } => exec(host, command),
        Command::List => Ok(show(&registry::labs()?, json)),
        Command::Hold { file } => holder::run(file).map(|()| String::new()),
    }
}

/// The path that a lab is known by, from wherever it is named.
fn identity(file: &Path) -> PathBuf {
    file.canonicalize().or_else(|_| std::path::absolute(file)).unwrap_or_else(|_| file.to_owned())
}

fn read_topology(file: &Path) -> Result<Topology, Error> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| Error::File(vec![format!("{name}: {error}")]))?;
    vswitch_api::topology::load(&text, &name)
        .map_err(|problems| Error::File(problems.iter().map(ToString::to_string).collect()))
}

fn up(file: &Path, json: bool) -> Result<String, Error> {
    if read_topology(file)?.host.is_empty() {
        return Err(Error::File(vec![format!(
            "{}: there is no [[host]] in it; a lab is made of hosts",
            file.display()
        )]));
    }
    let here = Namespace::current()?.inode()?;
    if registry::labs()?.iter().any(|lab| lab.file == file && lab.switch_netns == here) {
        let file = file.display();
        return Err(Error::Refused(format!("the lab of {file} is up; vswitchctl lab down {file} ends it")));
    }
    start_holder(file)?;
    let made = registry::labs()?.into_iter().filter(|lab| lab.file == file && lab.switch_netns == here);
    Ok(show(&made.collect::<Vec<_>>(), json))
}

/// Starts the holder and waits until it is ready or has failed.
fn start_holder(file: &Path) -> Result<(), Error> {
    let failed = |what: &str, error: std::io::Error| Error::Refused(format!("cannot {what} the lab: {error}"));
    // Pipes of its own: whoever waits for the end of our output must not wait for the holder's.
    let mut holder = Program::new("/proc/self/exe")
        .args(["lab", "hold"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed("start", error))?;
    let mut ready = [0; READY.len()];
    let said = holder.stdout.take().map_or(Ok(()), |mut out| out.read_exact(&mut ready));
    if said.is_ok() && ready == READY.as_bytes() {
        return Ok(());
    }
    let mut text = String::new();
    holder.stderr.take().map_or(Ok(0), |mut err| err.read_to_string(&mut text)).map_err(|e| failed("hear of", e))?;
    let status = holder.wait().map_err(|error| failed("wait for", error))?;
    let reason = text.trim();
    Err(Error::Refused(if reason.is_empty() {
        format!("the lab's process ended with {status}")
    } else {
        reason.trim_start_matches("vswitchctl: ").to_owned()
    }))
}

fn down(file: &Path) -> Result<String, Error> {
    let labs = registry::labs()?.into_iter().filter(|lab| lab.file == file).collect();
    let lab = the_one(labs, &format!("lab of {}", file.display()))?;
    registry::end(lab.pid)?;
    Ok(String::new())
}

fn exec(name: &str, command: &[OsString]) -> Result<String, Error> {
    let has_host = |lab: &Lab| lab.hosts.iter().any(|host| host.name == name);
    let labs = registry::labs()?.into_iter().filter(has_host).collect();
    let lab = the_one(labs, &format!("host {name:?}"))?;
    let [program, args @ ..] = command else {
        return Err(Error::Refused("no command is given".to_owned()));
    };
    let Some(host) = lab.hosts.iter().find(|host| host.name == name) else {
        return Err(Error::Refused(format!("host {name:?} has just gone")));
    };
    let error = Namespace::open(&host.netns)?.command(program).args(args).exec();
    Err(Error::Refused(format!("cannot run {} in host {name}: {error}", program.display())))
}

/// Of several labs that fit, the one of the caller's namespace.
fn the_one(mut labs: Vec<Lab>, what: &str) -> Result<Lab, Error> {
    if labs.len() > 1 {
        let here = Namespace::current()?.inode()?;
        labs.retain(|lab| lab.switch_netns == here);
        if labs.len() != 1 {
            return Err(Error::Refused(format!(
                "there is more than one {what}; run this in the network namespace of the switch that you mean"
            )));
        }
    }
    labs.pop().ok_or_else(|| Error::Refused(format!("there is no {what}; vswitchctl lab list shows what is up")))
}

fn show(labs: &[Lab], json: bool) -> String {
    if json {
        return serde_json::json!({ "labs": labs }).to_string();
    }
    let hosts: Vec<&LabHost> = labs.iter().flat_map(|lab| &lab.hosts).collect();
    let mut rows = vec![["HOST", "PORT", "NETDEV", "ADDRESS", "RUN"].map(str::to_owned)];
    rows.extend(hosts.iter().map(|host| {
        [host.name.clone(), host.port.clone(), host.netdev.clone(), host.address.join(" "), host.run_text()]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
