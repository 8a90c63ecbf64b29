//! Any topology.

use std::net::IpAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use vswitch_api::topology::{
    Acl, AclAction, AclRule, AclUse, Host, Kind, Network, Polling, Port, Role, Security, StaticEntry, Storm,
    Switch, Tenant, Topology, TrunkEntry, Underlay,
};
use vswitch_api::value::{Cidr, Pps, Prefix};
use vswitch_wire::{Mac, Vid};

use super::unique;

/// Few names, so that two topologies have some in common.
fn name(prefix: &'static str) -> impl Strategy<Value = String> {
    (0..5u8).prop_map(move |n| format!("{prefix}{n}"))
}

fn vid() -> impl Strategy<Value = Vid> {
    (1..=4094u16).prop_map(|n| Vid::new(n).unwrap())
}

fn network() -> impl Strategy<Value = Network> {
    let tunnels = (
        of((0..1u32 << 24).prop_map(|n| vswitch_wire::Vni::new(n).unwrap())),
        vec(any::<IpAddr>(), 0..3),
        any::<bool>(),
        any::<bool>(),
    );
    let address = vec((any::<IpAddr>(), 1..=32u8), 0..3)
        .prop_map(|all| all.into_iter().map(|(address, prefix)| Cidr { address, prefix }).collect());
    let times = (1..10_000u32, 1_000..100_000_000u64);
    (name("net"), of(name("tenant")), of(vid()), tunnels, address, times, acl_use()).prop_map(
        |(
            name,
            tenant,
            vlan,
            (vni, peers, peers_any, remote_learning),
            address,
            (max_macs, ageing_ms),
            acl,
        )| Network {
            name,
            tenant,
            vlan,
            vni,
            peers,
            peers_any,
            remote_learning,
            address,
            max_macs,
            ageing: Duration::from_millis(ageing_ms),
            acl,
        },
    )
}

fn tenant() -> impl Strategy<Value = Tenant> {
    (name("tenant"), of(1..9_999u32), of(1..9u32)).prop_map(|(name, max_macs, max_ports)| Tenant {
        name,
        max_macs,
        max_ports,
    })
}

fn trunk_entry() -> impl Strategy<Value = TrunkEntry> {
    (name("net"), of(vid())).prop_map(|(network, vlan)| TrunkEntry { network, vlan })
}

fn storm() -> impl Strategy<Value = Storm> {
    let rate = || weighted(0.3, any::<u32>().prop_map(Pps));
    (rate(), rate(), rate()).prop_map(|(broadcast, multicast, unknown)| Storm {
        broadcast,
        multicast,
        unknown,
    })
}

fn acl_use() -> impl Strategy<Value = AclUse> {
    (weighted(0.2, name("acl")), weighted(0.2, name("acl")))
        .prop_map(|(ingress, egress)| AclUse { ingress, egress })
}

/// Any rule, whether it passes [`check`] or not. Values are given as texts, which have tests of their own.
pub(crate) fn acl_rule() -> impl Strategy<Value = AclRule> {
    fn one<T: std::str::FromStr<Err: std::fmt::Debug> + Clone + std::fmt::Debug>(
        texts: &[&'static str],
    ) -> impl Strategy<Value = Option<T>> {
        of(prop::sample::select(texts.to_vec()).prop_map(|text| text.parse().unwrap()))
    }
    let action = prop::sample::select(vec![AclAction::Allow, AclAction::Deny]);
    let mac = || one(&["02:00:00:00:00:01", "01:00:00:00:00:00/01:00:00:00:00:00"]);
    let prefix = || one(&["10.0.0.1", "0.0.0.0/0", "10.0.0.0/8", "fd00::/64", "::1"]);
    let range = || one(&["80", "0-65535", "8000-8080"]);
    let l2 = (mac(), mac(), one(&["arp", "ipv6", "0x88cc"]), of(vid()));
    let l4 = (range(), range(), one(&["syn/syn,ack", "none/fin,psh", "rst"]), of(any::<u8>()));
    (action, l2, prefix(), prefix(), one(&["tcp", "89", "icmpv6"]), l4).prop_map(
        |(action, l2, source, destination, protocol, l4)| AclRule {
            action,
            source_mac: l2.0,
            destination_mac: l2.1,
            ether_type: l2.2,
            vlan: l2.3,
            source,
            destination,
            protocol,
            source_port: l4.0,
            destination_port: l4.1,
            tcp_flags: l4.2,
            icmp_type: l4.3,
        },
    )
}

pub(crate) fn acl() -> impl Strategy<Value = Acl> {
    let default = prop::sample::select(vec![AclAction::Allow, AclAction::Deny]);
    (name("acl"), default, vec(acl_rule(), 0..4)).prop_map(|(name, default, rule)| Acl {
        name,
        default,
        rule,
    })
}

fn security() -> impl Strategy<Value = (Security, bool)> {
    let mac = prop::collection::btree_set((0..9_u8).prop_map(|n| Mac([2, 0, 0, 0, 0, n])), 0..3);
    let single =
        any::<std::net::IpAddr>().prop_map(|ip| Prefix::new(ip, if ip.is_ipv4() { 32 } else { 128 }));
    let prefix = (0..=64_u8).prop_map(|len| Prefix::new("2001:db8::".parse().unwrap(), 64 + len));
    let ip = prop::collection::btree_set(prop_oneof![single, prefix].prop_map(Option::unwrap), 0..3);
    (mac, ip, any::<bool>(), any::<bool>()).prop_map(|(mac, ip, guard, trusted)| {
        (Security { mac: mac.into_iter().collect(), ip: ip.into_iter().collect(), guard }, trusted)
    })
}

fn port() -> impl Strategy<Value = Port> {
    let kind = prop::sample::select(vec![Kind::Auto, Kind::Xdp, Kind::Tap, Kind::Packet, Kind::VhostUser]);
    let attachment = prop_oneof![
        of(name("net")).prop_map(|access| (access, Vec::new(), None)),
        (vec(trunk_entry(), 1..4), of(name("net"))).prop_map(|(trunk, native)| (None, trunk, native)),
    ];
    let limits = (any::<bool>(), of(1..999u32), acl_use(), storm(), of(68..=65535u32), any::<bool>());
    let role = prop::sample::select(vec![Role::Server, Role::Client]);
    let device = (kind, of("[!-.0-9;-~]{1,15}"), of("/[!-.0-9;-~]{1,15}"), role, of(1..=64u16));
    (name("port"), device, attachment, limits, security()).prop_map(
        |(
            name,
            (kind, netdev, socket, role, queues),
            (access, trunk, native),
            (isolated, max_macs, acl, storm, mtu, force),
            (security, trusted),
        )| Port {
            name,
            kind,
            netdev,
            socket,
            role,
            queues,
            access,
            trunk,
            native,
            isolated,
            max_macs,
            acl,
            storm,
            security,
            trusted,
            mtu,
            force,
        },
    )
}

fn static_entry() -> impl Strategy<Value = StaticEntry> {
    (name("net"), 0..3u8, of(name("port")), of(any::<IpAddr>())).prop_map(|(network, mac, port, vtep)| {
        StaticEntry { network, mac: Mac([2, 0, 0, 0, 0, mac]), port, vtep }
    })
}

fn underlay() -> impl Strategy<Value = Underlay> {
    let address = (any::<IpAddr>(), 0..=32u8).prop_map(|(address, prefix)| Cidr { address, prefix });
    let packets = (any::<u16>(), any::<bool>(), any::<u8>(), any::<u8>());
    (address, name("port"), of(vid()), of(any::<IpAddr>()), packets).prop_map(
        |(address, port, vlan, gateway, (udp_port, udp_checksum, ttl, dscp))| Underlay {
            address,
            port,
            vlan,
            gateway,
            udp_port,
            udp_checksum,
            ttl,
            dscp,
        },
    )
}

fn host() -> impl Strategy<Value = Host> {
    let address = (any::<IpAddr>(), 0..=32u8).prop_map(|(address, prefix)| Cidr { address, prefix });
    (name("host"), name("port"), vec(address, 0..3), of(".{0,20}"))
        .prop_map(|(name, port, address, run)| Host { name, port, address, run })
}

/// Any topology whose names are unique, whether it passes [`check`] or not.
pub(crate) fn topology() -> impl Strategy<Value = Topology> {
    let switch = (
        name("switch"),
        prop::collection::btree_set(0..64u32, 0..3).prop_map(|cpus| cpus.into_iter().collect()),
        prop::sample::select(vec![Polling::Adaptive, Polling::Busy]),
        any::<bool>(),
    )
        .prop_map(|(name, cpus, polling, shortcut)| Switch { name, cpus, polling, shortcut });
    let lists = (
        vec(tenant(), 0..3),
        vec(network(), 0..5),
        vec(port(), 0..5),
        vec(acl(), 0..4),
        vec(static_entry(), 0..4),
        vec(host(), 0..4),
    );
    (switch, of(underlay()), lists).prop_map(|(switch, underlay, (tenant, network, port, acl, fdb, host))| {
        unique(Topology { switch, tenant, network, port, underlay, acl, fdb, host })
    })
}
