//! The arguments, as the README gives them.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use vswitch_api::paths;
use vswitch_api::topology::{Kind, Role, TrunkEntry};
use vswitch_api::value::{self, Mac, Pps, Prefix, Vid, Vni};

use crate::lab;

mod acl;
mod network;
mod tenant;
mod vxlan;

pub(crate) use acl::{Acl, AclOptions, AclRule, AclRuleOptions};
pub(crate) use network::Network;
pub(crate) use tenant::Tenant;
pub(crate) use vxlan::{Peer, Vxlan};

/// The heading of options that every command takes.
const GLOBAL: &str = "Options of every command";

/// Speaks with the vswitch daemon.
#[derive(Debug, Parser)]
#[command(name = "vswitchctl", version, about = "Speaks with the vswitch daemon")]
pub(crate) struct Cli {
    /// The daemon's socket
    #[arg(long, help_heading = GLOBAL, env = paths::SOCKET_ENV, default_value = paths::SOCKET, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// Print one JSON document
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The daemon's socket, said behind the command.
const SOCKET_BEHIND: &str = "socket_behind";

impl Cli {
    /// Reads a command line, program name included.
    ///
    /// The daemon's `--socket` may stand behind the command, unless the command has a `--socket` of its own as
    /// `port add` has. (clap's global options cannot be hidden by a command's.)
    pub(crate) fn read(line: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = Self::grammar().try_get_matches_from(line)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        let mut behind = &matches;
        while let Some((_, below)) = behind.subcommand() {
            behind = below;
        }
        if let Ok(Some(socket)) = behind.try_get_one::<PathBuf>(SOCKET_BEHIND) {
            cli.socket.clone_from(socket);
        }
        Ok(cli)
    }

    fn grammar() -> clap::Command {
        let mut grammar = Self::command();
        let names: Vec<String> = grammar.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for name in names {
            grammar = grammar.mut_subcommand(name, with_socket_behind);
        }
        grammar
    }
}

/// Gives every command that has none a `--socket`, which is the daemon's.
fn with_socket_behind(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    if names.is_empty() && command.get_arguments().all(|arg| arg.get_long() != Some("socket")) {
        let socket =
            clap::Arg::new(SOCKET_BEHIND).long("socket").value_name("PATH").help("The daemon's socket");
        return command.arg(socket.value_parser(clap::value_parser!(PathBuf)).help_heading(GLOBAL));
    }
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_socket_behind))
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // there is one, while the program runs
pub(crate) enum Command {
    #[command(flatten)]
    Daemon(DaemonCommand),
    /// Namespaces as hosts, from the `[[host]]` tables of a topology file
    #[command(subcommand)]
    Lab(lab::Command),
}

/// What the daemon is asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Layer-2 broadcast domains
    #[command(subcommand)]
    Network(Network),
    /// Owners of networks, and their limits
    #[command(subcommand)]
    Tenant(Tenant),
    /// Attachment points
    #[command(subcommand)]
    Port(Port),
    /// Filters: ordered lists of rules for ports and networks
    #[command(subcommand)]
    Acl(Acl),
    /// The forwarding database
    #[command(subcommand)]
    Fdb(Fdb),
    /// Tunnels to other switches
    #[command(subcommand)]
    Vxlan(Vxlan),
    /// Make a file the running configuration: all of it, or nothing
    Apply(Apply),
    /// Say what apply would change; exit code 0 nothing, 1 something
    Diff {
        /// A topology file
        file: PathBuf,
    },
    /// Print the running configuration as a topology file
    Dump,
    /// Counters of ports, networks and tenants, and drops by reason
    Stats {
        /// Print them again every second
        #[arg(long)]
        watch: bool,
    },
    /// Version, uptime, workers, health
    Status,
    /// Say what the switch would do with a frame, and why; changes nothing
    Trace(Trace),
}

/// A number, or the word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    To(u32),
    None,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            _ => text.parse().map(Self::To).map_err(|_| "use a whole number, or none".to_owned()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Port {
    /// Add a port
    Add(PortOptions),
    /// Change a port: what is not named stays
    Set(PortOptions),
    /// Remove a port
    Del {
        /// Its name
        name: String,
    },
    /// List all ports
    List,
    /// Show one port: kind, mode, queues, offloads, MTU, and why
    Show {
        /// Its name
        name: String,
    },
}

/// `port add` and `port set`: the keys of `[[port]]`. Numbers and rates may be `default`.
#[derive(Debug, Args)]
pub(crate) struct PortOptions {
    /// The port's name
    pub(crate) name: String,
    /// auto, xdp, tap, packet or vhost-user
    #[arg(long)]
    pub(crate) kind: Option<Kind>,
    /// The network device; the port's name by default
    #[arg(long, value_name = "DEV")]
    pub(crate) netdev: Option<String>,
    /// The Unix socket of a port of kind vhost-user, an absolute path
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<String>,
    /// Who listens on that socket: server is the switch, client the guest's front end
    #[arg(long)]
    pub(crate) role: Option<Role>,
    /// Queue pairs that the guest of a port of kind vhost-user may use: 1 to 64; 1 by default
    #[arg(long, value_name = "N")]
    pub(crate) queues: Option<Setting<u16>>,
    /// The one network of an access port; "" for none
    #[arg(long, value_name = "NET", conflicts_with_all = ["vlan", "trunk", "native"])]
    pub(crate) access: Option<String>,
    /// The access network by its VLAN ID; network vlanVID is made where there is none
    #[arg(long, value_name = "VID", value_parser = vid, conflicts_with_all = ["trunk", "native"])]
    pub(crate) vlan: Option<Vid>,
    /// The networks of a trunk, each with its own VLAN ID or another
    #[arg(long, value_name = "NET[:VID]", value_delimiter = ',')]
    pub(crate) trunk: Option<Vec<TrunkEntry>>,
    /// The network of untagged frames on a trunk; "" for none
    #[arg(long, value_name = "NET")]
    pub(crate) native: Option<String>,
    /// Let no frame pass to another isolated port
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) isolated: Option<bool>,
    /// Most MACs learnt at the port
    #[arg(long, value_name = "N")]
    pub(crate) max_macs: Option<Setting<u32>>,
    #[command(flatten)]
    pub(crate) acl: AclOptions,
    /// Limits of flooded traffic, as in broadcast=1000pps,unknown=default
    #[arg(long, value_name = "CLASS=RATE", value_delimiter = ',')]
    pub(crate) storm: Option<Vec<StormLimit>>,
    /// The source MACs that frames may come in with; "" for any
    #[arg(long, value_name = "MAC[,MAC]...")]
    pub(crate) mac: Option<List<Mac>>,
    /// The source addresses that frames may come in with, single ones or prefixes; "" for any
    #[arg(long, value_name = "IP[,IP]...")]
    pub(crate) ip: Option<List<Prefix>>,
    /// Hold ARP, neighbour discovery and DHCP to these MACs and addresses too, and let no server or router be here
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) guard: Option<bool>,
    /// DHCP servers and routers may be here
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) trusted: Option<bool>,
    /// The largest packet in bytes
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<Setting<u32>>,
    /// Attach even the netdev that carries the default route or your SSH connection; in a file: force = true
    #[arg(long)]
    pub(crate) force: bool,
}

/// A value, or the word `default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting<T> {
    To(T),
    Default,
}

impl<T: FromStr> FromStr for Setting<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "default" { Ok(Self::Default) } else { text.parse().map(Self::To) }
    }
}

/// Values parted by commas; none in an empty text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T: FromStr> FromStr for List<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        let values = text.split(',').filter(|_| !text.is_empty()).map(str::parse);
        values.collect::<Result<_, _>>().map(Self)
    }
}

/// One class of flooded traffic with its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StormLimit {
    pub(crate) class: &'static str,
    pub(crate) rate: Setting<Pps>,
}

impl FromStr for StormLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (class, rate) = text.split_once('=').unwrap_or((text, ""));
        let class =
            ["broadcast", "multicast", "unknown"].into_iter().find(|c| *c == class).ok_or_else(|| {
                format!("{class:?} is not a class of traffic; use broadcast, multicast or unknown")
            })?;
        let rate = rate.parse().map_err(|e: value::InvalidValue| e.to_string())?;
        Ok(Self { class, rate })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Fdb {
    /// List entries
    List {
        /// Of this network only
        #[arg(long, value_name = "NET")]
        network: Option<String>,
        /// At this port only
        #[arg(long)]
        port: Option<String>,
    },
    /// Add a static entry: never ages, never moves
    Add {
        /// The network
        network: String,
        /// The address
        mac: Mac,
        #[command(flatten)]
        place: Place,
    },
    /// Remove an entry, static or learnt
    Del {
        /// The network
        network: String,
        /// The address
        mac: Mac,
    },
    /// Forget learnt entries
    Flush {
        /// Of this network only
        #[arg(long, value_name = "NET")]
        network: Option<String>,
        /// At this port only
        #[arg(long)]
        port: Option<String>,
    },
}

/// Where a static entry is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Place {
    /// Where it is
    #[arg(long)]
    pub(crate) port: Option<String>,
    /// Or the VTEP behind which it is, a peer of the network
    #[arg(long, value_name = "IP")]
    pub(crate) vtep: Option<IpAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// A topology file
    pub(crate) file: PathBuf,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Attach even the netdev that carries the default route or your SSH connection; in a file: force = true
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub(crate) struct Trace {
    /// The port that the frame comes in by
    #[arg(long)]
    pub(crate) port: String,
    /// The frame from the destination MAC on, in hexadecimal; spaces and colons may part the octets
    #[arg(long, value_name = "HEX", group = "what")]
    pub(crate) frame: Option<String>,
    /// Every frame of a pcap or pcapng file
    #[arg(long, value_name = "FILE", group = "what")]
    pub(crate) pcap: Option<PathBuf>,
}

fn vid(text: &str) -> Result<Vid, String> {
    text.parse()
        .ok()
        .and_then(|n| Vid::new(n).ok())
        .ok_or_else(|| format!("{text:?} is not a VLAN ID; use 1 to 4094"))
}

fn vni(text: &str) -> Result<Vni, String> {
    text.parse()
        .ok()
        .and_then(|n| Vni::new(n).ok())
        .ok_or_else(|| format!("{text:?} is not a VNI; use 0 to 16777215"))
}

/// Where the caller's SSH connection comes from, as sshd tells: its netdev must not be taken away by mistake. sudo
/// takes the variable out of the environment, so the ancestors are asked too.
pub(crate) fn session() -> Option<IpAddr> {
    let own = std::env::var("SSH_CONNECTION").ok();
    let parents = std::iter::successors(parent_of("self"), |pid| parent_of(pid));
    let told = own.or_else(|| parents.take(32).find_map(|pid| ssh_connection_of(&pid)))?;
    told.split(' ').next()?.parse().ok()
}

/// The fourth field of proc_pid_stat(5); the second, in parentheses, may hold anything.
fn parent_of(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.to_owned();
    (parent != "0").then_some(parent)
}

fn ssh_connection_of(pid: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let found = environment.split(|b| *b == 0).find_map(|entry| entry.strip_prefix(b"SSH_CONNECTION="))?;
    String::from_utf8(found.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Cli {
        Cli::read(line.split(' ').map(Into::into)).unwrap()
    }

    #[test]
    fn the_daemons_socket_stands_anywhere_but_behind_a_port_with_its_own() {
        let socket = |line| read(line).socket.display().to_string();
        assert_eq!(socket("vswitchctl --socket /a status"), "/a");
        assert_eq!(socket("vswitchctl status --socket /a"), "/a");
        assert_eq!(socket("vswitchctl port list --socket /a"), "/a");
        assert_eq!(socket("vswitchctl --socket /b port list --socket /a"), "/a");
        for word in ["add", "set"] {
            let cli = read(&format!("vswitchctl --socket /a port {word} vm1 --socket /run/vm1.sock"));
            assert_eq!(cli.socket.display().to_string(), "/a");
            let Command::Daemon(DaemonCommand::Port(Port::Add(port) | Port::Set(port))) = cli.command else {
                panic!("another command");
            };
            assert_eq!(port.socket.as_deref(), Some("/run/vm1.sock"));
        }
    }

    #[test]
    fn clap_finds_no_fault() {
        Cli::grammar().debug_assert();
    }

    #[test]
    fn settings_and_limits() {
        assert_eq!("default".parse(), Ok(Setting::<u32>::Default));
        assert_eq!("7".parse(), Ok(Setting::To(7)));
        assert_eq!(("".parse(), "1,2".parse()), (Ok(List::<u32>(vec![])), Ok(List(vec![1, 2]))));
        assert!("1,".parse::<List<u32>>().is_err());
        assert_eq!("unknown=5pps".parse(), Ok(StormLimit { class: "unknown", rate: Setting::To(Pps(5)) }));
        for bad in ["unknown", "unknown=", "unknown=5", "all=5pps", ""] {
            assert!(bad.parse::<StormLimit>().is_err(), "{bad}");
        }
    }
}
