//! What has to change for one topology to become another.

use std::collections::BTreeMap;

use super::{Acl, AclRule, Host, Network, Port, StaticEntry, Switch, Tenant, Topology, Underlay, file};
use crate::response::{Change, FieldChange, Item, Op};

/// One part of a topology that is added, removed or changed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `[switch]`: changed only.
    Switch(Switch),
    /// A `[[tenant]]`.
    Tenant(Tenant),
    /// A `[[network]]`.
    Network(Network),
    /// A `[[port]]`.
    Port(Port),
    /// `[underlay]`.
    Underlay(Underlay),
    /// A `[[acl]]`.
    Acl(Acl),
    /// A `[[fdb]]`.
    Fdb(StaticEntry),
    /// A `[[host]]`.
    Host(Host),
}

/// One step from a topology to another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // a few, for as long as a change takes
pub enum Action {
    /// A new entry.
    Add(Entry),
    /// An entry that goes.
    Remove(Entry),
    /// An entry of the same name with other fields.
    Change {
        /// As it was.
        from: Entry,
        /// As it will be.
        to: Entry,
    },
}

/// What changes from `a` to `b`, for users: [`actions`] in words.
#[must_use]
pub fn diff(a: &Topology, b: &Topology) -> Vec<Change> {
    actions(a, b).iter().map(Change::from).collect()
}

/// The steps from `a` to `b`: first what goes, users before the used; then what comes or changes, the used
/// first. The order of entries in a file, of networks in a trunk and of a port's addresses means nothing.
#[must_use]
pub fn actions(a: &Topology, b: &Topology) -> Vec<Action> {
    let mut actions = Vec::new();
    if a.switch != b.switch {
        let (from, to) = (Entry::Switch(a.switch.clone()), Entry::Switch(b.switch.clone()));
        actions.push(Action::Change { from, to });
    }
    compare(&mut actions, &a.acl, &b.acl, |l| l.name.clone(), |l| Entry::Acl(l.clone()));
    compare(&mut actions, &a.tenant, &b.tenant, |t| t.name.clone(), |t| Entry::Tenant(t.clone()));
    compare(&mut actions, &a.network, &b.network, |n| n.name.clone(), |n| Entry::Network(n.clone()));
    compare(&mut actions, &a.port, &b.port, |p| p.name.clone(), |p| Entry::Port(canonical(p)));
    let underlay = |t: &Topology| t.underlay.clone().into_iter().collect::<Vec<_>>();
    compare(&mut actions, &underlay(a), &underlay(b), |_| (), |u| Entry::Underlay(u.clone()));
    compare(&mut actions, &a.fdb, &b.fdb, |e| (e.network.clone(), e.mac), |e| Entry::Fdb(e.clone()));
    compare(&mut actions, &a.host, &b.host, |h| h.name.clone(), |h| Entry::Host(h.clone()));
    let (mut gone, come): (Vec<_>, Vec<_>) =
        actions.into_iter().partition(|a| matches!(a, Action::Remove(_)));
    gone.reverse();
    gone.extend(come);
    gone
}

/// The port with its lists in one order.
fn canonical(port: &Port) -> Port {
    let mut port = port.clone();
    port.trunk.sort_by(|a, b| (&a.network, a.vlan).cmp(&(&b.network, b.vlan)));
    port.security.mac.sort_unstable();
    port.security.ip.sort_unstable();
    port
}

fn compare<T, K: Ord>(
    actions: &mut Vec<Action>,
    a: &[T],
    b: &[T],
    key: impl Fn(&T) -> K,
    entry: impl Fn(&T) -> Entry,
) {
    let index = |items: &[T]| -> BTreeMap<K, Entry> { items.iter().map(|i| (key(i), entry(i))).collect() };
    let (mut before, after) = (index(a), index(b));
    for (key, to) in after {
        match before.remove(&key) {
            None => actions.push(Action::Add(to)),
            Some(from) if from != to => actions.push(Action::Change { from, to }),
            Some(_) => {}
        }
    }
    actions.extend(before.into_values().map(Action::Remove));
}

impl Entry {
    fn item(&self) -> Item {
        match self {
            Self::Switch(_) => Item::Switch,
            Self::Tenant(_) => Item::Tenant,
            Self::Network(_) => Item::Network,
            Self::Port(_) => Item::Port,
            Self::Underlay(_) => Item::Underlay,
            Self::Acl(_) => Item::Acl,
            Self::Fdb(_) => Item::Fdb,
            Self::Host(_) => Item::Host,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Switch(switch) => switch.name.clone(),
            Self::Tenant(tenant) => tenant.name.clone(),
            Self::Network(network) => network.name.clone(),
            Self::Port(port) => port.name.clone(),
            Self::Underlay(underlay) => underlay.address.to_string(),
            Self::Acl(acl) => acl.name.clone(),
            Self::Fdb(entry) => format!("{} {}", entry.network, entry.mac),
            Self::Host(host) => host.name.clone(),
        }
    }

    /// Keys and values as text, without those that make the name.
    fn fields(&self) -> Vec<(String, String)> {
        let (fields, in_name): (_, &[&str]) = match self {
            Self::Switch(switch) => (file::fields(switch), &[]),
            Self::Tenant(tenant) => (file::fields(tenant), &["name"]),
            Self::Network(network) => (file::fields(network), &["name"]),
            Self::Port(port) => (file::fields(port), &["name"]),
            Self::Underlay(underlay) => (file::fields(underlay), &[]),
            // Rules are told one by one.
            Self::Acl(acl) => (file::fields(&Acl { rule: Vec::new(), ..acl.clone() }), &["name"]),
            Self::Fdb(entry) => (file::fields(entry), &["network", "mac"]),
            Self::Host(host) => (file::fields(host), &["name"]),
        };
        let named = fields.into_iter().filter(|(key, _)| !in_name.contains(&key.as_str()));
        named
            .map(|(key, value)| (key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect()
    }
}

impl From<&Action> for Change {
    fn from(action: &Action) -> Self {
        let (op, entry, from, to) = match action {
            Action::Add(entry) => (Op::Add, entry, Vec::new(), entry.fields()),
            Action::Remove(entry) => (Op::Remove, entry, Vec::new(), Vec::new()),
            Action::Change { from, to } => (Op::Change, to, from.fields(), to.fields()),
        };
        let mut fields = changed(from, to);
        fields.extend(match action {
            Action::Add(Entry::Acl(to)) => changed_rules(&[], &to.rule),
            Action::Change { from: Entry::Acl(from), to: Entry::Acl(to) } => {
                changed_rules(&from.rule, &to.rule)
            }
            _ => Vec::new(),
        });
        Self { op, item: entry.item(), name: entry.name(), fields }
    }
}

/// The rules that go and those that come, without those that both lists begin and end with. Each has its number in its
/// own list.
fn changed_rules(from: &[AclRule], to: &[AclRule]) -> Vec<FieldChange> {
    let same = |(a, b): &(&AclRule, &AclRule)| a == b;
    let begin = from.iter().zip(to).take_while(same).count();
    let (from, to) = (&from[begin..], &to[begin..]);
    let end = from.iter().rev().zip(to.iter().rev()).take_while(same).count();
    let key = |n: usize| format!("rule {}", begin + n + 1);
    let (from, to) = (&from[..from.len() - end], &to[..to.len() - end]);
    let (gone, come) = (from.iter().map(ToString::to_string), to.iter().map(ToString::to_string));
    if from.len() == to.len() {
        let pairs = gone.zip(come).enumerate().filter(|(_, (from, to))| from != to);
        return pairs
            .map(|(n, (from, to))| FieldChange { key: key(n), from: Some(from), to: Some(to) })
            .collect();
    }
    let gone = gone.enumerate().map(|(n, from)| FieldChange { key: key(n), from: Some(from), to: None });
    gone.chain(come.enumerate().map(|(n, to)| FieldChange { key: key(n), from: None, to: Some(to) }))
        .collect()
}

/// The fields that differ: first those that are there after, in their order, then those that are not.
fn changed(from: Vec<(String, String)>, to: Vec<(String, String)>) -> Vec<FieldChange> {
    let mut before: BTreeMap<_, _> = from.into_iter().collect();
    let mut fields: Vec<_> = to
        .into_iter()
        .map(|(key, to)| FieldChange { from: before.remove(&key), to: Some(to), key })
        .filter(|f| f.from != f.to)
        .collect();
    fields.extend(before.into_iter().map(|(key, from)| FieldChange { key, from: Some(from), to: None }));
    fields
}
