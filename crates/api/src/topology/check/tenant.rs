//! What each `[[tenant]]` must hold, and that no tenant has more ports than it may have.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, FirstSeen, listed};
use crate::topology::{PORTS_MAX, Port, TENANTS_MAX, TRUNK_ENTRIES_MAX, Tenant};

impl Checker<'_> {
    pub(super) fn check_tenants(&mut self, tenants: &[Tenant], ports: &[Port]) {
        let tenants = self.within("tenant", "tenants", tenants, TENANTS_MAX);
        let mut names = FirstSeen::new();
        for (i, tenant) in tenants.iter().enumerate() {
            let path = format!("tenant[{i}]");
            self.check_own_name(&mut names, "tenant", &path, &tenant.name);
            if let Some(max_macs) = tenant.max_macs {
                self.check_max_macs(&path, max_macs);
            }
            if tenant.max_ports == Some(0) {
                let what = "0 would let its networks have no port";
                self.report(format!("{path}.max-ports"), what, "use 1 or more, or leave the key out");
            }
        }
        self.check_ports_of(tenants, ports);
    }

    fn check_ports_of(&mut self, tenants: &[Tenant], ports: &[Port]) {
        let has_limit = |t: &&Tenant| t.max_ports.is_some_and(|max| max > 0);
        let mut carriers: BTreeMap<&str, Vec<&str>> =
            tenants.iter().filter(has_limit).map(|t| (t.name.as_str(), Vec::new())).collect();
        let entries: usize = ports.iter().map(|port| port.trunk.len()).sum();
        // More than the limits of the lists are a mistake that is told elsewhere.
        if carriers.is_empty() || ports.len() > PORTS_MAX || entries > TRUNK_ENTRIES_MAX {
            return;
        }
        for port in ports {
            let owner = |network| self.networks.get(network)?.tenant.as_deref();
            let owners: BTreeSet<&str> = port.networks().filter_map(owner).collect();
            for owner in owners {
                if let Some(carriers) = carriers.get_mut(owner) {
                    carriers.push(&port.name);
                }
            }
        }
        for (i, tenant) in tenants.iter().enumerate() {
            let (Some(max), Some(carriers)) = (tenant.max_ports, carriers.remove(tenant.name.as_str()))
            else {
                continue;
            };
            let beyond = carriers.get(max as usize..).unwrap_or_default();
            if !beyond.is_empty() {
                let what = format!(
                    "{} ports carry networks of tenant {:?}, which may have {max} (beyond the limit: {})",
                    carriers.len(),
                    tenant.name,
                    listed(beyond.iter())
                );
                let mend = "raise max-ports, or take the tenant's networks from a port";
                self.report(format!("tenant[{i}].max-ports"), what, mend);
            }
        }
    }
}
