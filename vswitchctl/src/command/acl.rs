//! `acl`.

use serde_json::{Map, Value, json};
use vswitch_api::client::Client;
use vswitch_api::paths;
use vswitch_api::request::RuleQuery;
use vswitch_api::response::{AclState, AclSummary, AclUser, Changes};
use vswitch_api::topology::{self, AclUse};

use super::{changes, render};
use crate::args::{Acl, AclOptions, AclRule, AclRuleOptions};
use crate::failure::Failure;
use crate::table::{Table, facts};

pub(crate) async fn run(client: &Client, command: Acl, json: bool) -> Result<String, Failure> {
    let changed: Changes = match command {
        Acl::Add { name, default } => {
            let new = topology::Acl::new(name);
            let new = topology::Acl { default: default.unwrap_or(new.default), ..new };
            client.post(paths::ACLS, &(), &new).await?
        }
        Acl::Del { name } => client.delete(&paths::acl(&name), &()).await?,
        Acl::Rule(AclRule::Add(options)) => {
            let query = RuleQuery { at: options.at };
            client.post(&paths::acl_rules(&options.name), &query, &rule(&options)).await?
        }
        Acl::Rule(AclRule::Del { name, number }) => {
            client.delete(&paths::acl_rule(&name, number), &()).await?
        }
        Acl::List => {
            let acls: Vec<AclSummary> = client.get(paths::ACLS, &()).await?;
            return render(&acls, json, |acls| list(acls));
        }
        Acl::Show { name } => {
            let acl: AclState = client.get(&paths::acl(&name), &()).await?;
            return render(&acl, json, show);
        }
    };
    render(&changed, json, changes)
}

fn rule(options: &AclRuleOptions) -> topology::AclRule {
    topology::AclRule {
        action: options.action,
        source_mac: options.source_mac,
        destination_mac: options.destination_mac,
        ether_type: options.ether_type,
        vlan: options.vlan,
        source: options.source,
        destination: options.destination,
        protocol: options.protocol,
        source_port: options.source_port,
        destination_port: options.destination_port,
        tcp_flags: options.tcp_flags,
        icmp_type: options.icmp_type,
    }
}

/// The word for no filter at all.
const NONE: &str = "none";

/// A filter's name, unless it is the word for none.
pub(super) fn named(name: Option<String>) -> Option<String> {
    name.filter(|name| name != NONE)
}

/// The filters as a part of a merge patch: `null` for none.
pub(super) fn patch(options: &AclOptions) -> Option<Value> {
    let mut patch = Map::new();
    for (direction, name) in [("ingress", &options.acl_ingress), ("egress", &options.acl_egress)] {
        if let Some(name) = name {
            patch.insert(direction.to_owned(), if name == NONE { Value::Null } else { json!(name) });
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// As in `ingress web, egress all`.
pub(super) fn used(used: &AclUse) -> String {
    used.each().map(|(direction, name)| format!("{direction} {name}")).collect::<Vec<_>>().join(", ")
}

/// As in `port web1 (ingress), network red (egress)`.
fn users(users: &[AclUser]) -> String {
    let user = |user: &AclUser| format!("{} {} ({})", user.item, user.name, user.direction);
    users.iter().map(user).collect::<Vec<_>>().join(", ")
}

fn list(acls: &[AclSummary]) -> String {
    let mut table = Table::new(["ACL", "RULES", "DEFAULT", "USED BY"]);
    for acl in acls {
        table.row([acl.name.clone(), acl.rules.to_string(), acl.default.to_string(), users(&acl.used_by)]);
    }
    table.to_string()
}

fn show(acl: &AclState) -> String {
    let mut table = Table::new(["RULE", "ACTION", "PACKETS", "FRAMES WITH"]);
    for (number, state) in (1..).zip(&acl.rules) {
        let words: Vec<_> = state.rule.fields().map(|(key, value)| format!("{key} {value}")).collect();
        let words = if words.is_empty() { "anything".to_owned() } else { words.join(" ") };
        table.row([number.to_string(), state.rule.action.to_string(), state.packets.to_string(), words]);
    }
    let rest = "anything that no rule matches".to_owned();
    table.row(["default".to_owned(), acl.default.to_string(), acl.default_packets.to_string(), rest]);
    if acl.unreadable_packets > 0 {
        let what = "headers that a rule asks for and that cannot be read".to_owned();
        table.row(["unreadable".to_owned(), "deny".to_owned(), acl.unreadable_packets.to_string(), what]);
    }
    format!("{}\n{table}", facts(&[("acl", acl.name.clone()), ("used by", users(&acl.used_by))]))
}
