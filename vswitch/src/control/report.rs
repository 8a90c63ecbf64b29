//! What the switch tells of itself: status, ports, networks, FDB and counters.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering::Relaxed;

use vswitch_api::request::FdbQuery;
use vswitch_api::response::{
    Conservation, Drops, ErrorBody, FdbEntry, FdbTotals, Flushed, Health, LinkState, NetworkState,
    NetworkStats, Offloads, PortCounters as CountersView, PortState, PortStats, PortTotals, Stats, Status,
    Traffic as NetworkTraffic, Worker,
};
use vswitch_api::topology::{Kind, Network, Port, StaticEntry};
use vswitch_dataplane::counters::NetworkCounters;
use vswitch_dataplane::fdb::{Entry, Filter};
use vswitch_dataplane::{NetId, PortCounters, PortId, Reason};
use vswitch_io::shortcut::Traffic;
use vswitch_wire::{Caps, Mac};

use crate::worker::Pulse;

use super::Control;
use super::compile::{self, DeviceInput};
use super::device::Device;
use super::front_end::FrontEnd;
use super::health;
use super::overlay;
use super::record::{DeviceState, PortRecord};

/// Sums of port counters over workers, or over ports.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    rx_packets: u64,
    rx_bytes: u64,
    rx_missed: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_stalls: u64,
    replicated: u64,
    originated: u64,
    consumed: u64,
    flooded: u64,
    learn_refused: u64,
    shortcut: u64,
    drops: [u64; Reason::COUNT],
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            rx_packets: 0,
            rx_bytes: 0,
            rx_missed: 0,
            tx_packets: 0,
            tx_bytes: 0,
            tx_stalls: 0,
            replicated: 0,
            originated: 0,
            consumed: 0,
            flooded: 0,
            learn_refused: 0,
            shortcut: 0,
            drops: [0; Reason::COUNT],
        }
    }
}

impl Totals {
    pub(super) fn of(counters: &[PortCounters], passed: (Traffic, Traffic)) -> Self {
        let mut totals = Self::default();
        totals.add_port(counters, passed);
        totals
    }

    /// Adds what each worker counted at one port, and what passed in there, and out.
    pub(super) fn add_port(
        &mut self,
        counters: &[PortCounters],
        (passed_in, passed_out): (Traffic, Traffic),
    ) {
        self.shortcut += passed_in.packets;
        self.rx_packets += passed_in.packets;
        self.rx_bytes += passed_in.bytes;
        self.tx_packets += passed_out.packets;
        self.tx_bytes += passed_out.bytes;
        for c in counters {
            self.rx_packets += c.rx_packets.get();
            self.rx_bytes += c.rx_bytes.get();
            self.rx_missed += c.rx_missed.get();
            self.tx_packets += c.tx_packets.get();
            self.tx_bytes += c.tx_bytes.get();
            self.tx_stalls += c.tx_stalls.get();
            self.replicated += c.replicated.get();
            self.originated += c.originated.get();
            self.consumed += c.consumed.get();
            self.flooded += c.flooded.get();
            self.learn_refused += c.learn_refused.get();
            for (sum, drop) in self.drops.iter_mut().zip(c.drops.iter()) {
                *sum += drop.get();
            }
        }
    }

    /// Adds what each worker counted at a peer. Its frames come and go by the underlay's port, which counts them.
    pub(super) fn add_peer(&mut self, counters: &[PortCounters]) {
        for c in counters {
            self.replicated += c.replicated.get();
            self.learn_refused += c.learn_refused.get();
            for (sum, drop) in self.drops.iter_mut().zip(c.drops.iter()) {
                *sum += drop.get();
            }
        }
    }

    /// Adds what was counted at the switch's own port: what came in there the switch has made, what left it has taken.
    fn add_own(&mut self, own: &Self) {
        self.originated += own.rx_packets + own.originated;
        self.consumed += own.tx_packets + own.consumed;
        self.replicated += own.replicated;
        for (sum, drops) in self.drops.iter_mut().zip(own.drops) {
            *sum += drops;
        }
    }

    /// What was not learnt at a port, or at several.
    pub(super) fn learn_refused(&self) -> u64 {
        self.learn_refused
    }

    pub(super) fn drops(&self) -> Drops {
        let named = Reason::ALL.iter().map(|r| (r.name().to_owned(), self.drops[r.index()]));
        named.filter(|(_, n)| *n > 0).collect()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    pub(super) fn view(&self) -> CountersView {
        CountersView {
            rx_packets: self.rx_packets,
            rx_bytes: self.rx_bytes,
            tx_packets: self.tx_packets,
            tx_bytes: self.tx_bytes,
            tx_stalls: self.tx_stalls,
            flooded: self.flooded,
            learn_refused: self.learn_refused,
            shortcut: self.shortcut,
            missed: self.rx_missed,
            dropped: self.dropped(),
            drops: self.drops(),
        }
    }

    fn conservation(&self) -> Conservation {
        Conservation {
            received: self.rx_packets,
            originated: self.originated,
            replicated: self.replicated,
            transmitted: self.tx_packets,
            consumed: self.consumed,
            dropped: self.dropped(),
        }
    }
}

/// What each worker counted in a network, and what passed there.
fn network_traffic(counters: &[NetworkCounters], passed: Traffic) -> NetworkTraffic {
    let start = NetworkTraffic { packets: passed.packets, bytes: passed.bytes, flooded: 0 };
    counters.iter().fold(start, |t, c| NetworkTraffic {
        packets: t.packets + c.packets.get(),
        bytes: t.bytes + c.bytes.get(),
        flooded: t.flooded + c.flooded.get(),
    })
}

pub(super) fn offload_words(caps: Caps) -> Vec<String> {
    let all = [(caps.csum, "csum"), (caps.tso4, "tso4"), (caps.tso6, "tso6"), (caps.uso, "uso")];
    all.iter().filter(|(has, _)| *has).map(|(_, word)| (*word).to_owned()).collect()
}

impl Control {
    /// `status`.
    pub fn status(&self) -> Status {
        let mut ports = PortTotals { total: self.desired.port.len() as u64, ..PortTotals::default() };
        let mut health = self.health_of_parts();
        for name in self.desired.port.iter().map(|p| &p.name) {
            let (state, reason) = self.link_state(name);
            match state {
                LinkState::Up => ports.up += 1,
                LinkState::Down => ports.down += 1,
                LinkState::Waiting => ports.waiting += 1,
            }
            if let Some(text) = reason {
                health.push(Health { part: format!("port {name}"), ok: false, text });
            }
        }
        health.extend(self.statics.health());
        let worker = |(index, (cpu, pulse)): (usize, (&Option<usize>, &Pulse))| Worker {
            index: index as u32,
            cpu: cpu.map(|c| c as u32),
            queues: pulse.queues.load(Relaxed),
            asleep: pulse.asleep.load(Relaxed),
        };
        Status {
            name: self.desired.switch.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.clock.now().as_secs(),
            workers: self.cpus.iter().zip(self.workers.pulses()).enumerate().map(worker).collect(),
            ports,
            networks: self.desired.network.len() as u64,
            fdb: FdbTotals { entries: self.fdb.len() as u64, capacity: self.fdb.capacity() as u64 },
            health,
        }
    }

    /// A loss of netlink ends the daemon: where there is an answer, it is well.
    fn health_of_parts(&self) -> Vec<Health> {
        let now = self.clock.now();
        let worker = |(index, pulse): (usize, &Pulse)| health::worker(index, pulse, now);
        let netlink = Health { part: "netlink".to_owned(), ok: true, text: "follows the links".to_owned() };
        self.workers
            .pulses()
            .enumerate()
            .map(worker)
            .chain([netlink, health::frames(self.opener.pool), self.shortcut_health()])
            .collect()
    }

    pub(super) fn link_state(&self, port: &str) -> (LinkState, Option<String>) {
        match self.ports.get(port).map(|r| &r.device) {
            Some(DeviceState::Attached(d)) if d.up => (LinkState::Up, None),
            Some(DeviceState::Attached(d)) => {
                let place = &d.backing;
                let netdev_is_down =
                    || format!("{place} is down or has no carrier; try: ip link set {place} up");
                let reason = d.front_end.as_ref().map_or_else(netdev_is_down, |f| f.reason(place));
                (LinkState::Down, Some(reason))
            }
            Some(DeviceState::Waiting(why)) => (LinkState::Waiting, Some(why.clone())),
            None => (LinkState::Waiting, None),
        }
    }

    /// `port list`.
    pub fn port_views(&self) -> Vec<PortState> {
        let statics = self.statics_by(|e| e.port.as_deref());
        self.desired.port.iter().map(|p| self.port_view(p, &statics)).collect()
    }

    /// Static entries that are in the FDB, by what `key` says.
    pub(super) fn statics_by(&self, key: impl Fn(&StaticEntry) -> Option<&str>) -> HashMap<&str, u64> {
        let mut counts = HashMap::new();
        for key in self.desired.fdb.iter().filter(|e| self.statics.has(e)).filter_map(key) {
            *counts.entry(key).or_default() += 1;
        }
        counts
    }

    fn port_view(&self, config: &Port, statics: &HashMap<&str, u64>) -> PortState {
        let (state, reason) = self.link_state(&config.name);
        let record = self.ports.get(&config.name);
        let device = record.and_then(PortRecord::device);
        let input = |d: &Device| {
            compile::effective_mtu(config, &DeviceInput { facts: &d.facts, up: d.up, mtu: d.mtu })
        };
        let learnt = self.port_ids.get(&config.name).map_or(0, |id| self.fdb.learnt_at(PortId(id)));
        let front_end = device.and_then(|d| d.front_end.as_deref());
        let offloads =
            |d: &Device| Offloads { tx: offload_words(d.facts.caps), rx: offload_words(d.facts.rx_caps) };
        PortState {
            name: config.name.clone(),
            kind: device.map_or(config.kind, |d| kind_in_use(d.facts.kind)),
            configured_kind: config.kind,
            netdev: config.netdev().map(str::to_owned),
            socket: config.socket.clone(),
            role: config.socket.as_ref().map(|_| config.role),
            state,
            reason,
            mode: device.map(|d| d.facts.mode.clone()),
            why: device.map(|d| d.facts.why.clone()),
            queues: device.map_or(0, |d| d.facts.rx_queues),
            offloads: front_end.map(FrontEnd::offloads).or(device.map(offloads)).unwrap_or_default(),
            front_end: front_end.map(FrontEnd::view),
            mtu: device.map(input),
            configured_mtu: config.mtu,
            mtu_limit: device.map(|d| d.facts.mtu_limit),
            access: config.access.clone(),
            trunk: config.trunk.clone(),
            native: config.native.clone(),
            isolated: config.isolated,
            acl: config.acl.clone(),
            macs: u64::from(learnt) + statics.get(config.name.as_str()).copied().unwrap_or(0),
            max_macs: config.max_macs,
            storm: config.storm,
            security: config.security.clone(),
            trusted: config.trusted,
            leases: self.leases_of(&config.name),
            counters: record.map_or_else(CountersView::default, |r| {
                Totals::of(&r.counters, self.passed_by_port(&config.name)).view()
            }),
        }
    }

    /// `network list`.
    pub fn network_views(&self) -> Vec<NetworkState> {
        let statics = self.statics_by(|e| Some(e.network.as_str()));
        let mut ports: HashMap<&str, Vec<String>> = HashMap::new();
        for port in &self.desired.port {
            for network in port.networks() {
                let members = ports.entry(network).or_default();
                // A native network may be one of the trunk too.
                if members.last() != Some(&port.name) {
                    members.push(port.name.clone());
                }
            }
        }
        let own: HashMap<String, Mac> = self.desired.own_entries().map(|e| (e.network, e.mac)).collect();
        let view = |n: &Network| {
            let learnt = self.net_ids.get(&n.name).map_or(0, |id| self.fdb.learnt_in(NetId(id)));
            NetworkState {
                name: n.name.clone(),
                tenant: n.tenant.clone(),
                vlan: n.vlan,
                vni: n.vni,
                peers: n.peers.clone(),
                address: n.address.clone(),
                own_mac: own.get(n.name.as_str()).map(ToString::to_string),
                ageing: vswitch_api::value::duration::format(n.ageing),
                macs: u64::from(learnt)
                    + statics.get(n.name.as_str()).copied().unwrap_or(0)
                    + u64::from(own.contains_key(&n.name)),
                max_macs: n.max_macs,
                ports: ports.remove(n.name.as_str()).unwrap_or_default(),
                acl: n.acl.clone(),
            }
        };
        self.desired.network.iter().map(view).collect()
    }

    /// `fdb list`, in the order of network and MAC.
    ///
    /// # Errors
    /// The query names what does not exist.
    pub fn fdb_views(&self, query: &FdbQuery) -> Result<Vec<FdbEntry>, ErrorBody> {
        let filter = self.filter(query)?;
        let underlay = self.net_ids.get(overlay::NETWORK).map(NetId);
        let wanted = |e: &&Entry| {
            Some(e.network) != underlay
                && filter.network.is_none_or(|n| n == e.network)
                && filter.port.is_none_or(|p| p == e.port)
        };
        let view = |e: &Entry| {
            let place = self.port_ids.name(e.port.0)?;
            let vtep = overlay::peer_of(place);
            Some(FdbEntry {
                network: self.net_ids.name(e.network.0)?.to_owned(),
                mac: e.mac,
                port: vtep.is_none().then(|| place.to_owned()),
                vtep,
                is_static: e.is_static,
                held: e.is_held,
                idle_seconds: if e.is_static { 0 } else { e.idle.as_secs() },
            })
        };
        let mut all: Vec<_> =
            self.fdb.entries(self.clock.now()).iter().filter(wanted).filter_map(view).collect();
        all.sort_by(|a, b| (&a.network, a.mac).cmp(&(&b.network, b.mac)));
        Ok(all)
    }

    /// `stats`.
    pub fn stats(&self) -> Stats {
        let mut whole = self.retired.clone();
        let mut ports = Vec::new();
        for name in self.desired.port.iter().map(|p| &p.name) {
            let Some(record) = self.ports.get(name) else { continue };
            // Once for both: it may be counted on meanwhile.
            let passed = self.passed_by_port(name);
            whole.add_port(&record.counters, passed);
            ports.push(PortStats {
                name: name.clone(),
                counters: Totals::of(&record.counters, passed).view(),
            });
        }
        self.overlay.peers().for_each(|(_, counters)| whole.add_peer(counters));
        let own = self.own.counters().map(|c| Totals::of(c, (Traffic::default(), Traffic::default())));
        own.iter().for_each(|own| whole.add_own(own));
        let networks = self.network_stats();
        let drops = whole.drops();
        let known: BTreeSet<&str> = drops.keys().map(String::as_str).collect();
        let meaning = |r: &&Reason| known.contains(r.name());
        Stats {
            ports,
            switch: own.map(|own| own.view()),
            tenants: self.tenant_stats(&networks),
            networks,
            reasons: Reason::ALL
                .iter()
                .filter(meaning)
                .map(|r| (r.name().to_owned(), r.text().to_owned()))
                .collect(),
            conservation: whole.conservation(),
            drops,
        }
    }

    /// What every network counted.
    pub(super) fn network_stats(&self) -> Vec<NetworkStats> {
        let of = |network: &Network| {
            let counters = self.networks.get(&network.name).map_or(&[][..], |c| c);
            NetworkStats {
                name: network.name.clone(),
                tenant: network.tenant.clone(),
                traffic: network_traffic(counters, self.passed_in_network(&network.name)),
            }
        };
        self.desired.network.iter().map(of).collect()
    }

    /// `fdb flush`: learnt entries only.
    ///
    /// # Errors
    /// The query names what does not exist.
    pub fn flush(&self, query: &FdbQuery) -> Result<Flushed, ErrorBody> {
        Ok(Flushed { flushed: self.fdb.flush(self.filter(query)?) as u64 })
    }

    fn filter(&self, query: &FdbQuery) -> Result<Filter, ErrorBody> {
        let network =
            query.network.as_deref().map(|n| self.net_ids.get(n).ok_or_else(|| ErrorBody::no_network(n)));
        let port = query.port.as_deref().map(|p| self.port_ids.get(p).ok_or_else(|| ErrorBody::no_port(p)));
        Ok(Filter {
            network: network.transpose()?.map(NetId),
            port: port.transpose()?.map(PortId),
            statics: false,
        })
    }
}

fn kind_in_use(kind: vswitch_io::Kind) -> Kind {
    match kind {
        vswitch_io::Kind::Xdp => Kind::Xdp,
        vswitch_io::Kind::Tap => Kind::Tap,
        vswitch_io::Kind::VhostUser => Kind::VhostUser,
        vswitch_io::Kind::Packet | vswitch_io::Kind::Internal | vswitch_io::Kind::Loopback => Kind::Packet,
    }
}
