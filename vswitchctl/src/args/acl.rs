//! `acl`, and the options of ports and networks for it.

use clap::{Args, Subcommand};
use vswitch_api::topology::{AclAction, EtherType, IpPrefix, MacMask, PortRange, Protocol, TcpFlags};
use vswitch_api::value::Vid;

use super::vid;

/// The filters of a port or a network.
#[derive(Debug, Args)]
pub(crate) struct AclOptions {
    /// The filter of frames that come in; none for no filter
    #[arg(long, value_name = "ACL")]
    pub(crate) acl_ingress: Option<String>,
    /// The filter of frames that leave; none for no filter
    #[arg(long, value_name = "ACL")]
    pub(crate) acl_egress: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Acl {
    /// Add a filter without rules
    Add {
        /// Its name
        name: String,
        /// What becomes of a frame that no rule matches, ARP among them: allow or deny; deny unless told
        #[arg(long)]
        default: Option<AclAction>,
    },
    /// Remove a filter that nobody uses
    Del {
        /// Its name
        name: String,
    },
    /// List all filters
    List,
    /// Show one filter: its rules in their order, what they counted, and where it is used
    Show {
        /// Its name
        name: String,
    },
    /// Rules of a filter
    #[command(subcommand)]
    Rule(AclRule),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AclRule {
    /// Add a rule; the first that matches a frame decides
    Add(Box<AclRuleOptions>),
    /// Remove a rule; those behind it get lower numbers
    Del {
        /// The filter
        name: String,
        /// The rule's number, from 1
        number: u32,
    },
}

/// The keys of `[[acl.rule]]`.
#[derive(Debug, Args)]
pub(crate) struct AclRuleOptions {
    /// The filter
    pub(crate) name: String,
    /// What becomes of frames that have all of the following: allow or deny
    pub(crate) action: AclAction,
    /// The number that it gets, from 1; the last unless told
    #[arg(long, value_name = "N")]
    pub(crate) at: Option<u32>,
    /// The source MAC, as in 02:00:00:00:00:11 or 01:00:00:00:00:00/01:00:00:00:00:00
    #[arg(long, value_name = "MAC[/MASK]")]
    pub(crate) source_mac: Option<MacMask>,
    /// The destination MAC
    #[arg(long, value_name = "MAC[/MASK]")]
    pub(crate) destination_mac: Option<MacMask>,
    /// arp, ipv4, ipv6 or a number
    #[arg(long, value_name = "TYPE")]
    pub(crate) ether_type: Option<EtherType>,
    /// The VLAN ID that the frame came in with
    #[arg(long, value_name = "VID", value_parser = vid)]
    pub(crate) vlan: Option<Vid>,
    /// The IP source, or a prefix of it
    #[arg(long, value_name = "IP[/LEN]")]
    pub(crate) source: Option<IpPrefix>,
    /// The IP destination, or a prefix of it
    #[arg(long, value_name = "IP[/LEN]")]
    pub(crate) destination: Option<IpPrefix>,
    /// tcp, udp, icmp, icmpv6, sctp, another name or a number
    #[arg(long)]
    pub(crate) protocol: Option<Protocol>,
    /// The source port, or a range of ports
    #[arg(long, value_name = "PORT[-PORT]")]
    pub(crate) source_port: Option<PortRange>,
    /// The destination port, or a range of ports
    #[arg(long, value_name = "PORT[-PORT]")]
    pub(crate) destination_port: Option<PortRange>,
    /// TCP's flags: those that are set / those that count, as in syn/syn,ack
    #[arg(long, value_name = "FLAGS[/MASK]")]
    pub(crate) tcp_flags: Option<TcpFlags>,
    /// The type of icmp or icmpv6
    #[arg(long, value_name = "N")]
    pub(crate) icmp_type: Option<u8>,
}
