//! Filters: compiled when they change, and counted for as long as a rule stays.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use vswitch_api::Topology;
use vswitch_api::response::{AclRuleState, AclState, AclSummary, AclUser, ErrorBody, ErrorCode};
use vswitch_api::topology::{self, AclAction, AclRule, AclUse, IpPrefix, MacMask};
use vswitch_dataplane::acl::{Acl, Acls, Action, MacMatch, Masked, Prefix, Rule};

use super::Control;

/// The most bytes that all compiled filters may take. The usual filter of 1000 rules takes one or two MiB; only rules
/// that have nothing in common come near this.
const MEMORY_MAX: usize = 256 << 20;

/// Every filter of the running configuration.
#[derive(Default)]
pub(super) struct Filters(BTreeMap<String, Filter>);

struct Filter {
    config: topology::Acl,
    compiled: Arc<Acl>,
    /// What its rules counted before it was compiled last.
    before: Counts,
}

/// Packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// By rule; those that are missing counted nothing.
    rules: Vec<u64>,
    default: u64,
    unreadable: u64,
}

/// Filters that are new, or not as they were.
pub(super) struct Compiled(BTreeMap<String, Arc<Acl>>);

impl Filters {
    /// Compiles what `next` has and the running configuration has not.
    ///
    /// # Errors
    /// It would take too much memory.
    pub(super) fn compile(&self, next: &Topology, workers: usize) -> Result<Compiled, ErrorBody> {
        let mut compiled = BTreeMap::new();
        let mut size = 0;
        for config in &next.acl {
            let known = self.0.get(&config.name).filter(|known| known.config == *config);
            size += match known {
                Some(known) => known.compiled.size(),
                None => {
                    let acl = compile(config, workers)?;
                    let size = acl.size();
                    compiled.insert(config.name.clone(), Arc::new(acl));
                    size
                }
            };
            if size > MEMORY_MAX {
                let message = format!("the filters take more than {} MiB", MEMORY_MAX >> 20);
                let mend = "use fewer rules, or rules with shorter prefixes";
                return Err(ErrorBody::new(ErrorCode::Failed, message, mend));
            }
        }
        Ok(Compiled(compiled))
    }

    /// Takes over what was compiled for `next`. What is replaced goes on counting until no worker has it.
    pub(super) fn replace(&mut self, next: &Topology, Compiled(mut compiled): Compiled) -> Replaced {
        let mut old = std::mem::take(&mut self.0);
        for config in &next.acl {
            let filter = match compiled.remove(&config.name) {
                Some(compiled) => Filter { config: config.clone(), compiled, before: Counts::default() },
                None => match old.remove(&config.name) {
                    Some(filter) => filter,
                    None => continue, // compile() has seen it
                },
            };
            self.0.insert(config.name.clone(), filter);
        }
        Replaced(old)
    }

    /// Once no worker counts for what was replaced: rules that are still there keep their counts.
    pub(super) fn carry_over(&mut self, Replaced(old): Replaced) {
        for (name, old) in old {
            if let Some(filter) = self.0.get_mut(&name) {
                filter.before = carried(&old.config.rule, &old.counts(), &filter.config.rule);
            }
        }
    }

    /// The compiled lists of a port or a network.
    pub(super) fn of(&self, used: &AclUse) -> Acls {
        let get = |name: &Option<String>| Some(Arc::clone(&self.0.get(name.as_ref()?)?.compiled));
        Acls { ingress: get(&used.ingress), egress: get(&used.egress) }
    }
}

/// Filters that are gone, or were compiled anew.
pub(super) struct Replaced(BTreeMap<String, Filter>);

impl Filter {
    fn counts(&self) -> Counts {
        let mut rules = self.compiled.rule_packets();
        rules.iter_mut().zip(&self.before.rules).for_each(|(count, before)| *count += before);
        Counts {
            rules,
            default: self.before.default + self.compiled.default_packets(),
            unreadable: self.before.unreadable + self.compiled.unreadable_packets(),
        }
    }
}

/// The counts of `old` rules for the `new` ones. Of equal rules each has its own.
fn carried(old: &[AclRule], counts: &Counts, new: &[AclRule]) -> Counts {
    let mut known: HashMap<String, Vec<u64>> = HashMap::new();
    for (rule, count) in old.iter().zip(&counts.rules).rev() {
        known.entry(rule.to_string()).or_default().push(*count);
    }
    let count = |rule: &AclRule| known.get_mut(&rule.to_string()).and_then(Vec::pop).unwrap_or(0);
    Counts { rules: new.iter().map(count).collect(), ..counts.clone() }
}

fn compile(config: &topology::Acl, workers: usize) -> Result<Acl, ErrorBody> {
    let rules: Vec<Rule> = config.rule.iter().map(rule).collect();
    Acl::new(&config.name, &rules, action(config.default), workers).map_err(|_| {
        ErrorBody::new(ErrorCode::Invalid, format!("acl {:?} has too many rules", config.name), "use fewer")
    })
}

const fn action(action: AclAction) -> Action {
    match action {
        AclAction::Allow => Action::Allow,
        AclAction::Deny => Action::Deny,
    }
}

fn rule(rule: &AclRule) -> Rule {
    let mac = |MacMask { address, mask }: MacMask| MacMatch { address, mask };
    let prefix = |IpPrefix { address, len }: IpPrefix| Prefix { address, len };
    let range = |range: topology::PortRange| range.first..=range.last;
    Rule {
        action: action(rule.action),
        source_mac: rule.source_mac.map(mac),
        destination_mac: rule.destination_mac.map(mac),
        ether_type: rule.ether_type.map(|ether_type| ether_type.0),
        vlan: rule.vlan,
        source: rule.source.map(prefix),
        destination: rule.destination.map(prefix),
        protocol: rule.protocol.map(|protocol| protocol.0),
        source_port: rule.source_port.map(range),
        destination_port: rule.destination_port.map(range),
        tcp_flags: rule.tcp_flags.map(|flags| Masked { value: flags.value, mask: flags.mask }),
        icmp_type: rule.icmp_type,
    }
}

impl Control {
    /// `acl list`.
    pub fn acl_views(&self) -> Vec<AclSummary> {
        let mut users = users(&self.desired);
        let view = |acl: &topology::Acl| AclSummary {
            name: acl.name.clone(),
            default: acl.default,
            rules: acl.rule.len() as u64,
            used_by: users.remove(acl.name.as_str()).unwrap_or_default(),
        };
        self.desired.acl.iter().map(view).collect()
    }

    /// `acl show`.
    ///
    /// # Errors
    /// There is no such filter.
    pub fn acl_view(&self, name: &str) -> Result<AclState, ErrorBody> {
        let filter = self.acls.0.get(name).ok_or_else(|| ErrorBody::no_acl(name))?;
        let counts = filter.counts();
        let rules = filter.config.rule.iter().zip(counts.rules);
        Ok(AclState {
            name: name.to_owned(),
            default: filter.config.default,
            rules: rules.map(|(rule, packets)| AclRuleState { rule: rule.clone(), packets }).collect(),
            default_packets: counts.default,
            unreadable_packets: counts.unreadable,
            used_by: users(&self.desired).remove(name).unwrap_or_default(),
        })
    }
}

/// Who uses which filter.
pub(super) fn users(topology: &Topology) -> HashMap<&str, Vec<AclUser>> {
    let ports = topology.port.iter().map(|port| ("port", &port.name, &port.acl));
    let networks = topology.network.iter().map(|network| ("network", &network.name, &network.acl));
    let mut users: HashMap<&str, Vec<AclUser>> = HashMap::new();
    for (item, name, used) in ports.chain(networks) {
        for (direction, acl) in used.each() {
            let user = AclUser { item: item.to_owned(), name: name.clone(), direction: direction.to_owned() };
            users.entry(acl).or_default().push(user);
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule_of(port: &str) -> AclRule {
        AclRule { destination_port: port.parse().ok(), ..AclRule::default() }
    }

    #[test]
    fn rules_that_stay_keep_their_counts() {
        let rules = |ports: &[&str]| -> Vec<AclRule> { ports.iter().map(|port| rule_of(port)).collect() };
        let counts = Counts { rules: vec![1, 2, 3], default: 4, unreadable: 5 };
        let kept = |new: &[&str]| carried(&rules(&["80", "81", "80"]), &counts, &rules(new)).rules;
        assert_eq!(kept(&["79", "80", "81", "80"]), [0, 1, 2, 3]);
        assert_eq!(kept(&["81", "80"]), [2, 1]);
        assert_eq!(kept(&["80", "80", "80"]), [1, 3, 0]);
    }

    #[test]
    fn only_what_changed_is_compiled() {
        let list = |name: &str, ports: &[&str]| topology::Acl {
            rule: ports.iter().map(|port| rule_of(port)).collect(),
            ..topology::Acl::new(name)
        };
        let topology = |acl| Topology { acl, ..Topology::default() };
        let mut filters = Filters::default();
        let first = topology(vec![list("a", &["1"]), list("b", &["2"])]);
        let compiled = filters.compile(&first, 1).unwrap();
        assert_eq!(compiled.0.len(), 2);
        drop(filters.replace(&first, compiled));
        let a = Arc::clone(&filters.0["a"].compiled);
        let second = topology(vec![list("a", &["1"]), list("b", &["3"])]);
        let compiled = filters.compile(&second, 1).unwrap();
        assert_eq!(compiled.0.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(filters.replace(&second, compiled).0.keys().collect::<Vec<_>>(), ["b"]);
        assert!(Arc::ptr_eq(&filters.0["a"].compiled, &a));
        let used = AclUse { ingress: Some("a".to_owned()), egress: Some("gone".to_owned()) };
        let of = filters.of(&used);
        assert!(of.ingress.is_some_and(|acl| Arc::ptr_eq(&acl, &a)) && of.egress.is_none());
    }
}
