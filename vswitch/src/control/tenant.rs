//! Tenants: their numbers and limits for the snapshot, and what is told of them.
//!
//! A tenant is whoever a network names, or a `[[tenant]]` with limits. What a port drops is counted for a tenant where
//! the port carries that tenant's networks alone; at a shared port a frame may be of anybody, or of no network.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vswitch_api::Topology;
use vswitch_api::response::{NetworkStats, TenantCounters, TenantPort, TenantState, TenantStats};
use vswitch_api::topology::{Network, Port};
use vswitch_dataplane::{NetId, Tenant, TenantId};

use super::Control;
use super::ids::Ids;
use super::report::Totals;

/// The numbers of tenants.
#[derive(Debug, Default)]
pub(super) struct Tenants(Ids);

/// Tenants that `topology`'s networks name.
fn owners(topology: &Topology) -> BTreeSet<&str> {
    topology.network.iter().filter_map(|n| n.tenant.as_deref()).collect()
}

impl Tenants {
    /// Gives a number to every tenant that has a network.
    pub(super) fn acquire(&mut self, next: &Topology) {
        for name in owners(next) {
            self.0.acquire(name);
        }
    }

    /// Frees the numbers of those that have none any more. Only when no worker uses a snapshot that has them.
    pub(super) fn release(&mut self, old: &Topology, now: &Topology) {
        owners(old).difference(&owners(now)).for_each(|name| self.0.release(name));
    }

    /// Every tenant that has a network, with its limit.
    pub(super) fn compile<'a>(&self, desired: &'a Topology) -> HashMap<&'a str, Tenant> {
        let limits: HashMap<&str, u32> =
            desired.tenant.iter().filter_map(|t| Some((t.name.as_str(), t.max_macs?))).collect();
        let compile = |name: &'a str| {
            let id = self.0.get(name)?;
            let max_macs = limits.get(name).copied().unwrap_or(u32::MAX);
            // The first number is that of all networks without a tenant. There are fewer tenants than numbers.
            Some((name, Tenant { id: TenantId(id + 1), max_macs }))
        };
        owners(desired).into_iter().filter_map(compile).collect()
    }
}

fn owner_of_each(networks: &[Network]) -> HashMap<&str, Option<&str>> {
    networks.iter().map(|n| (n.name.as_str(), n.tenant.as_deref())).collect()
}

/// The tenants whose networks a port carries.
struct Carried<'a> {
    tenants: BTreeSet<&'a str>,
    /// One of its networks is nobody's.
    has_other: bool,
}

impl<'a> Carried<'a> {
    fn by(port: &Port, owners: &HashMap<&str, Option<&'a str>>) -> Self {
        let mut carried = Self { tenants: BTreeSet::new(), has_other: false };
        for network in port.networks() {
            match owners.get(network).copied().flatten() {
                Some(tenant) => drop(carried.tenants.insert(tenant)),
                None => carried.has_other = true,
            }
        }
        carried
    }

    fn is_shared(&self) -> bool {
        self.has_other || self.tenants.len() > 1
    }

    /// The tenant whose networks alone the port carries.
    fn only(&self) -> Option<&'a str> {
        self.tenants.first().copied().filter(|_| !self.is_shared())
    }
}

impl Control {
    /// Every port with whose networks it carries.
    fn ports_by_tenant(&self) -> impl Iterator<Item = (&Port, Carried<'_>)> {
        let owners = owner_of_each(&self.desired.network);
        self.desired.port.iter().map(move |port| (port, Carried::by(port, &owners)))
    }

    /// The sums over networks and ports, by tenant; `networks` are all.
    pub(super) fn tenant_stats(&self, networks: &[NetworkStats]) -> Vec<TenantStats> {
        let limited = self.desired.tenant.iter().map(|t| (t.name.as_str(), TenantCounters::default()));
        let mut tenants: BTreeMap<&str, TenantCounters> = limited.collect();
        for network in networks {
            let Some(tenant) = network.tenant.as_deref() else { continue };
            let sum = &mut tenants.entry(tenant).or_default().traffic;
            sum.packets += network.traffic.packets;
            sum.bytes += network.traffic.bytes;
            sum.flooded += network.traffic.flooded;
        }
        let mut at_ports: BTreeMap<&str, Totals> = BTreeMap::new();
        for (port, carried) in self.ports_by_tenant() {
            let Some((tenant, record)) = carried.only().zip(self.ports.get(&port.name)) else { continue };
            at_ports.entry(tenant).or_default().add_port(&record.counters, self.passed_by_port(&port.name));
        }
        for (tenant, totals) in at_ports {
            if let Some(sum) = tenants.get_mut(tenant) {
                (sum.learn_refused, sum.dropped) = (totals.learn_refused(), totals.dropped());
                sum.drops = totals.drops();
            }
        }
        tenants.into_iter().map(|(name, counters)| TenantStats { name: name.to_owned(), counters }).collect()
    }

    /// `tenant list`.
    pub fn tenant_views(&self) -> Vec<TenantState> {
        let state = |stats: TenantStats| TenantState {
            name: stats.name,
            networks: Vec::new(),
            ports: Vec::new(),
            max_ports: None,
            macs: 0,
            learnt: 0,
            max_macs: None,
            counters: stats.counters,
        };
        let all = self.tenant_stats(&self.network_stats()).into_iter();
        let mut tenants: BTreeMap<String, TenantState> = all.map(|t| (t.name.clone(), state(t))).collect();
        for limits in &self.desired.tenant {
            if let Some(tenant) = tenants.get_mut(&limits.name) {
                (tenant.max_macs, tenant.max_ports) = (limits.max_macs, limits.max_ports);
            }
        }
        let statics = self.statics_by(|e| Some(e.network.as_str()));
        for network in &self.desired.network {
            let Some(tenant) = network.tenant.as_ref().and_then(|name| tenants.get_mut(name)) else {
                continue;
            };
            let learnt = self.net_ids.get(&network.name).map_or(0, |id| self.fdb.learnt_in(NetId(id)));
            tenant.networks.push(network.name.clone());
            tenant.learnt += u64::from(learnt);
            tenant.macs += u64::from(learnt) + statics.get(network.name.as_str()).copied().unwrap_or(0);
        }
        for (port, carried) in self.ports_by_tenant() {
            let (state, _) = self.link_state(&port.name);
            for name in &carried.tenants {
                let view = TenantPort { name: port.name.clone(), state, shared: carried.is_shared() };
                tenants.entry((*name).to_owned()).and_modify(|tenant| tenant.ports.push(view));
            }
        }
        tenants.into_values().collect()
    }
}
