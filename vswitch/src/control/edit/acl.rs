//! `acl`.

use vswitch_api::Topology;
use vswitch_api::response::{ErrorBody, ErrorCode};
use vswitch_api::topology::{Acl, AclRule};

use crate::control::acl::users;

/// `acl add`.
pub fn add(mut t: Topology, acl: Acl) -> Result<Topology, ErrorBody> {
    if t.acl.iter().any(|a| a.name == acl.name) {
        let message = format!("acl {:?} exists already", acl.name);
        let mend = "change it by `acl rule`, or delete it first";
        return Err(ErrorBody::new(ErrorCode::Conflict, message, mend));
    }
    t.acl.push(acl);
    Ok(t)
}

/// `acl del`: only when nobody uses it.
pub fn del(mut t: Topology, name: &str) -> Result<Topology, ErrorBody> {
    let at = t.acl.iter().position(|acl| acl.name == name).ok_or_else(|| ErrorBody::no_acl(name))?;
    if let Some(users) = users(&t).remove(name) {
        let first = users.first().map(|u| format!("{} set {} --acl-{} none", u.item, u.name, u.direction));
        let users: Vec<_> =
            users.iter().map(|u| format!("{} {} ({})", u.item, u.name, u.direction)).collect();
        let message = format!("acl {name:?} is used by {}", users.join(", "));
        let mend = format!("take it away there first: `vswitchctl {}`", first.unwrap_or_default());
        return Err(ErrorBody::new(ErrorCode::Conflict, message, mend));
    }
    t.acl.remove(at);
    Ok(t)
}

/// `acl rule add`: before the rule that has this number now, from 1; at the end unless told.
pub fn add_rule(mut t: Topology, name: &str, at: Option<u32>, rule: AclRule) -> Result<Topology, ErrorBody> {
    let rules = rules_of(&mut t, name)?;
    let end = rules.len() + 1;
    let number = at.map_or(end, |at| at as usize);
    if !(1..=end).contains(&number) {
        let message = format!("acl {name:?} can have no new rule {number}");
        return Err(ErrorBody::new(ErrorCode::Invalid, message, format!("use 1 to {end}")));
    }
    rules.insert(number - 1, rule);
    Ok(t)
}

/// `acl rule del`.
pub fn del_rule(mut t: Topology, name: &str, number: &str) -> Result<Topology, ErrorBody> {
    let rules = rules_of(&mut t, name)?;
    let index = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).filter(|n| *n < rules.len());
    let Some(index) = index else {
        let message = format!("acl {name:?} has no rule {number}");
        return Err(ErrorBody::new(
            ErrorCode::NotFound,
            message,
            format!("`vswitchctl acl show {name}` shows all"),
        ));
    };
    rules.remove(index);
    Ok(t)
}

fn rules_of<'t>(t: &'t mut Topology, name: &str) -> Result<&'t mut Vec<AclRule>, ErrorBody> {
    let acl = t.acl.iter_mut().find(|acl| acl.name == name);
    acl.map(|acl| &mut acl.rule).ok_or_else(|| ErrorBody::no_acl(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch_api::topology::{AclUse, Port};

    fn rule(port: &str) -> AclRule {
        AclRule { destination_port: port.parse().ok(), ..AclRule::default() }
    }

    fn ports(t: &Topology) -> Vec<String> {
        t.acl[0].rule.iter().filter_map(|rule| Some(rule.destination_port?.to_string())).collect()
    }

    #[test]
    fn rules_have_numbers_from_one() {
        let mut t = add(Topology::default(), Acl::new("web")).unwrap();
        for (at, port) in [(None, "1"), (None, "2"), (Some(1), "3"), (Some(4), "4")] {
            t = add_rule(t, "web", at, rule(port)).unwrap();
        }
        assert_eq!(ports(&t), ["3", "1", "2", "4"]);
        for at in [0, 6, u32::MAX] {
            assert_eq!(add_rule(t.clone(), "web", Some(at), rule("5")).unwrap_err().code, ErrorCode::Invalid);
        }
        for number in ["0", "5", "-1", "x", ""] {
            assert_eq!(del_rule(t.clone(), "web", number).unwrap_err().code, ErrorCode::NotFound, "{number}");
        }
        let t = del_rule(t, "web", "2").unwrap();
        assert_eq!(ports(&t), ["3", "2", "4"]);
        assert_eq!(add_rule(t, "x", None, rule("5")).unwrap_err().code, ErrorCode::NotFound);
    }

    #[test]
    fn a_filter_in_use_stays() {
        let mut t = add(Topology::default(), Acl::new("web")).unwrap();
        assert_eq!(add(t.clone(), Acl::new("web")).unwrap_err().code, ErrorCode::Conflict);
        assert_eq!(del(t.clone(), "x").unwrap_err().code, ErrorCode::NotFound);
        assert!(del(t.clone(), "web").unwrap().acl.is_empty());
        let acl = AclUse { egress: Some("web".to_owned()), ..AclUse::default() };
        t.port.push(Port { acl, ..Port::new("web1") });
        let error = del(t, "web").unwrap_err();
        assert_eq!(error.message, "acl \"web\" is used by port web1 (egress)");
    }
}
