//! `lab`: the `[[host]]` tables of a topology as network namespaces with a veth into the switch.
//!
//! A lab is one process, the [`holder`]: it holds the namespaces open, owns the `run` commands, and answers
//! on a socket under `/run/vswitch-lab` (see [`registry`]). When it ends, in whatever way, the kernel takes
//! the hosts, their veths and their commands away. It ends by `lab down`, and by itself when the namespace
//! that the lab was made in, the switch's, has gone.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};
use std::time::Duration;

use clap::Subcommand;
use vswitch_api::client::{self, Client};
use vswitch_api::response::{LinkState, PortState};
use vswitch_api::{paths, topology};
use vswitch_netns::Namespace;

use crate::command::render;
use crate::failure::Failure;
use crate::table::Table;

mod holder;
mod registry;

use registry::Lab;

/// What the holder writes to its stdout when all hosts are up; anything else is a failure.
const READY: &str = "ready";
/// How long the switch may take to attach the ports of the hosts.
const ATTACH_MAX: Duration = Duration::from_secs(10);

/// The `lab` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a network namespace of each `[[host]]`, with a veth into this namespace
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

impl From<vswitch_netns::Error> for Failure {
    fn from(error: vswitch_netns::Error) -> Self {
        const EPERM: i32 = 1;
        const EEXIST: i32 = 17;
        let mend = match error.raw_os_error() {
            Some(EPERM) => "; run it as root",
            Some(EEXIST) => {
                "; delete that link (ip link del), or end the lab that it belongs to (vswitchctl lab list)"
            }
            _ => "",
        };
        let reason =
            std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::Refused(format!("{error}{reason}{mend}"))
    }
}

/// Runs one `lab` command; returns what is to be printed. Needs no event loop, and must not be given one:
/// the holder has to leave its namespace before it opens a socket.
pub(crate) fn run(client: &Client, command: Command, json: bool) -> Result<String, Failure> {
    match command {
        Command::Up { file } => {
            let lab = up(&identity(&file))?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            if let Err(why) = runtime.block_on(wait_until_attached(client, &lab)) {
                // The hosts are up, as was asked for; that nobody switches for them yet is worth a word.
                let _ = writeln!(io::stderr(), "vswitchctl: the lab is up, but {why}");
            }
            show(&vec![lab], json)
        }
        Command::Down { file } => down(&identity(&file)).map(|()| String::new()),
        Command::Exec { host, command } => Err(exec(&host, &command)),
        Command::List => show(&registry::labs()?, json),
        Command::Hold { file } => holder::run(&file).map(|()| String::new()),
    }
}

/// The path that a lab is known by, from wherever it is named.
fn identity(file: &Path) -> PathBuf {
    file.canonicalize().or_else(|_| std::path::absolute(file)).unwrap_or_else(|_| file.to_owned())
}

fn up(file: &Path) -> Result<Lab, Failure> {
    if topology::read(file)?.host.is_empty() {
        return Err(Failure::invalid(format!("{}: there is no [[host]] to make", file.display())));
    }
    let here = Namespace::current()?.inode()?;
    let find = || -> Result<Option<Lab>, Failure> {
        Ok(registry::labs()?.into_iter().find(|lab| lab.file == file && lab.switch_netns == here))
    };
    if find()?.is_some() {
        let file = file.display();
        return Err(Failure::Refused(format!("the lab of {file} is up; vswitchctl lab down {file} ends it")));
    }
    start_holder(file)?;
    find()?.ok_or_else(|| Failure::Refused("the lab has gone as soon as it was up".to_owned()))
}

/// Waits until the switch has attached the port of every host; why it has not, if so.
async fn wait_until_attached(client: &Client, lab: &Lab) -> Result<(), String> {
    let mut missing = String::new();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let attached = async {
        loop {
            let ports: Vec<PortState> =
                client.get(paths::PORTS, &()).await.map_err(|error: client::Error| error.to_string())?;
            let mut all_up = true;
            for host in &lab.hosts {
                let Some(port) = ports.iter().find(|port| port.name == host.port) else {
                    return Err(format!(
                        "the switch has no port {}; vswitchctl apply the lab's file",
                        host.port
                    ));
                };
                if port.state != LinkState::Up {
                    all_up = false;
                    missing = obstacle(port);
                }
            }
            if all_up {
                return Ok(());
            }
            tick.tick().await;
        }
    };
    let result = tokio::time::timeout(ATTACH_MAX, attached).await;
    result.unwrap_or(Err(missing))
}

/// Why a port carries nothing.
fn obstacle(port: &PortState) -> String {
    let reason = port.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("port {} is {}{reason}", port.name, port.state)
}

/// Starts the holder and waits until it is ready or has failed.
fn start_holder(file: &Path) -> Result<(), Failure> {
    let failed = |what: &str, error: io::Error| Failure::Refused(format!("cannot {what} the lab: {error}"));
    // Pipes of its own: whoever waits for the end of our output must not wait for the holder's.
    let mut holder = Program::new("/proc/self/exe")
        .arg0("vswitchctl")
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
    holder
        .stderr
        .take()
        .map_or(Ok(0), |mut err| err.read_to_string(&mut text))
        .map_err(|e| failed("hear of", e))?;
    let status = holder.wait().map_err(|error| failed("wait for", error))?;
    let reason = text.trim();
    Err(Failure::Refused(if reason.is_empty() {
        format!("the lab's process ended with {status}")
    } else {
        reason.trim_start_matches("vswitchctl: ").to_owned()
    }))
}

fn down(file: &Path) -> Result<(), Failure> {
    let labs = registry::labs()?.into_iter().filter(|lab| lab.file == file).collect();
    let lab = the_one(labs, &format!("lab of {}", file.display()))?;
    registry::end(lab.pid)
}

/// Replaces this process by a command in a host; returns only if that fails.
fn exec(name: &str, command: &[OsString]) -> Failure {
    let namespace = || {
        let has_host = |lab: &Lab| lab.hosts.iter().any(|host| host.name == name);
        let labs = registry::labs()?.into_iter().filter(has_host).collect();
        let lab = the_one(labs, &format!("host {name:?}"))?;
        let path = lab.hosts.into_iter().find(|host| host.name == name).map(|host| host.netns);
        Ok::<_, Failure>(Namespace::open(path.unwrap_or_default())?)
    };
    let [program, args @ ..] = command else { return Failure::invalid("vswitchctl: no command is given") };
    match namespace() {
        Err(failure) => failure,
        Ok(namespace) => {
            let error = namespace.command(program).args(args).exec();
            Failure::Refused(format!("cannot run {} in host {name}: {error}", program.display()))
        }
    }
}

/// Of several labs that fit, the one of the caller's namespace.
fn the_one(mut labs: Vec<Lab>, what: &str) -> Result<Lab, Failure> {
    if labs.len() > 1 {
        let here = Namespace::current()?.inode()?;
        labs.retain(|lab| lab.switch_netns == here);
        if labs.len() != 1 {
            return Err(Failure::Refused(format!(
                "there is more than one {what}; run this in the network namespace of the switch that you mean"
            )));
        }
    }
    labs.pop()
        .ok_or_else(|| Failure::Refused(format!("there is no {what}; vswitchctl lab list shows what is up")))
}

fn show(labs: &Vec<Lab>, json: bool) -> Result<String, Failure> {
    render(labs, json, |labs| {
        let mut table = Table::new(["HOST", "PORT", "NETDEV", "ADDRESS", "RUN"]);
        for host in labs.iter().flat_map(|lab| &lab.hosts) {
            let [name, port, netdev] = [&host.name, &host.port, &host.netdev].map(Clone::clone);
            table.row([name, port, netdev, host.address.join(" "), host.run_text()]);
        }
        table.to_string()
    })
}
