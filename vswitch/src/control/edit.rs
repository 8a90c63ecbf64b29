//! Commands as edits of the desired state: each takes a topology and gives the one that the user wants.
//!
//! What the edits cannot know (whether the result is sound, whether the machine can have it) is left to
//! the check and to `apply`, which every edit goes through.

pub mod acl;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::net::IpAddr;
use vswitch_api::Topology;

use vswitch_api::request::{FdbKey, NetworkPatch, NewPort, PortPatch, TenantPatch};
use vswitch_api::response::{ErrorBody, ErrorCode};
use vswitch_api::topology::{Network, Port, StaticEntry, Tenant};

/// `network add`.
pub fn add_network(mut t: Topology, network: Network) -> Result<Topology, ErrorBody> {
    if t.network.iter().any(|n| n.name == network.name) {
        let message = format!("network {:?} exists already", network.name);
        return Err(ErrorBody::new(ErrorCode::Conflict, message, "delete it first, or choose another name"));
    }
    t.network.push(network);
    Ok(t)
}

/// `network set`: a JSON merge patch (RFC 7396) over the network.
pub fn set_network(mut t: Topology, name: &str, patch: NetworkPatch) -> Result<Topology, ErrorBody> {
    let Some(at) = t.network.iter().position(|n| n.name == name) else {
        return Err(ErrorBody::no_network(name));
    };
    let changed: Network = patched(&t.network[at], patch.0, &format!("network {name:?}"))?;
    if changed.name != name {
        let mend = "delete the network and add one with the new name";
        return Err(ErrorBody::new(ErrorCode::Invalid, "a network's name cannot be changed", mend));
    }
    t.network[at] = changed;
    Ok(t)
}

/// `network del`: only when no port carries it.
pub fn del_network(mut t: Topology, name: &str) -> Result<Topology, ErrorBody> {
    let Some(at) = t.network.iter().position(|n| n.name == name) else {
        return Err(ErrorBody::no_network(name));
    };
    let users: Vec<&str> = t.port.iter().filter(|p| p.carries(name)).map(|p| p.name.as_str()).collect();
    if !users.is_empty() {
        let message = format!("network {name:?} is used by port {}", users.join(", "));
        return Err(ErrorBody::new(
            ErrorCode::Conflict,
            message,
            "delete these ports, or give them another network",
        ));
    }
    t.network.remove(at);
    t.fdb.retain(|e| e.network != name);
    Ok(t)
}

/// `port add`, with the network that `--vlan` implies.
pub fn add_port(t: Topology, new: NewPort) -> Result<Topology, ErrorBody> {
    if t.port.iter().any(|p| p.name == new.port.name) {
        let message = format!("port {:?} exists already", new.port.name);
        return Err(ErrorBody::new(
            ErrorCode::Conflict,
            message,
            "change it by `port set`, or delete it first",
        ));
    }
    let (mut t, port) = resolve_vlan(t, new)?;
    t.port.push(port);
    Ok(t)
}

/// Makes a port's `vlan` the access network with that VLAN ID, which is added where there is none.
fn resolve_vlan(mut t: Topology, new: NewPort) -> Result<(Topology, Port), ErrorBody> {
    let NewPort { mut port, vlan: Some(vid) } = new else { return Ok((t, new.port)) };
    if port.access.is_some() {
        let mend = "give either the network or its VLAN ID";
        return Err(ErrorBody::new(ErrorCode::Invalid, "the port has both `access` and `vlan`", mend));
    }
    let mut same = t.network.iter().filter(|n| n.vlan == Some(vid));
    let name = match (same.next(), same.next()) {
        (Some(only), None) => only.name.clone(),
        (Some(_), Some(_)) => {
            let message = format!("more than one network has the VLAN ID {vid}");
            return Err(ErrorBody::new(ErrorCode::Conflict, message, "name the network: `--access NET`"));
        }
        (None, _) => {
            let name = format!("vlan{vid}");
            t = add_network(t, Network { vlan: Some(vid), ..Network::new(&name) })?;
            name
        }
    };
    port.access = Some(name);
    Ok((t, port))
}

/// `port set`: a JSON merge patch (RFC 7396) over the port, which may have a `vlan` then, as in `port add`.
pub fn set_port(t: Topology, name: &str, patch: PortPatch) -> Result<Topology, ErrorBody> {
    let Some(at) = t.port.iter().position(|p| p.name == name) else { return Err(ErrorBody::no_port(name)) };
    let changed: NewPort = patched(&t.port[at], patch.0, &format!("port {name:?}"))?;
    if changed.port.name != name {
        let mend = "delete the port and add one with the new name";
        return Err(ErrorBody::new(ErrorCode::Invalid, "a port's name cannot be changed", mend));
    }
    let (mut t, port) = resolve_vlan(t, changed)?;
    t.port[at] = port;
    Ok(t)
}

/// `tenant set`: a JSON merge patch over the tenant's entry. One that has none, as it had no limits or has no network
/// yet, is given one.
pub fn set_tenant(mut t: Topology, name: &str, patch: TenantPatch) -> Result<Topology, ErrorBody> {
    let at = t.tenant.iter().position(|tenant| tenant.name == name).unwrap_or_else(|| {
        t.tenant.push(Tenant::new(name));
        t.tenant.len() - 1
    });
    let changed: Tenant = patched(&t.tenant[at], patch.0, &format!("tenant {name:?}"))?;
    if changed.name != name {
        let mend = "give its networks the other tenant";
        return Err(ErrorBody::new(ErrorCode::Invalid, "a tenant's name cannot be changed", mend));
    }
    t.tenant[at] = changed;
    Ok(t)
}

/// `tenant del`: only when it has no network.
pub fn del_tenant(mut t: Topology, name: &str) -> Result<Topology, ErrorBody> {
    let is_its = |n: &&Network| n.tenant.as_deref() == Some(name);
    let networks: Vec<&str> = t.network.iter().filter(is_its).map(|n| n.name.as_str()).collect();
    if !networks.is_empty() {
        let message = format!("tenant {name:?} has network {}", networks.join(", "));
        let mend = "delete these networks first, or only lift its limits: `tenant set NAME --max-macs none`";
        return Err(ErrorBody::new(ErrorCode::Conflict, message, mend));
    }
    let Some(at) = t.tenant.iter().position(|tenant| tenant.name == name) else {
        return Err(ErrorBody::no_tenant(name));
    };
    t.tenant.remove(at);
    Ok(t)
}

/// `item` with a merge patch over it; `what` it is in messages.
fn patched<I: Serialize, P: DeserializeOwned>(
    item: &I,
    patch: Map<String, Value>,
    what: &str,
) -> Result<P, ErrorBody> {
    let invalid = |e: serde_json::Error| ErrorBody::new(ErrorCode::Invalid, format!("{what}: {e}"), "");
    let mut fields = match serde_json::to_value(item).map_err(invalid)? {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    merge(&mut fields, patch);
    serde_json::from_value(Value::Object(fields)).map_err(invalid)
}

/// RFC 7396 section 2.
fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(&key);
            }
            Value::Object(inner) => {
                let slot = target.entry(key).or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(fields) = slot {
                    merge(fields, inner);
                }
            }
            value => {
                target.insert(key, value);
            }
        }
    }
}

/// `port del`, with the static entries that point to it.
pub fn del_port(mut t: Topology, name: &str) -> Result<Topology, ErrorBody> {
    let Some(at) = t.port.iter().position(|p| p.name == name) else { return Err(ErrorBody::no_port(name)) };
    t.port.remove(at);
    t.fdb.retain(|e| e.port.as_deref() != Some(name));
    // A lab's host has no place without its port.
    t.host.retain(|h| h.port != name);
    Ok(t)
}

/// `vxlan peer add`.
pub fn add_peer(mut t: Topology, network: &str, peer: IpAddr) -> Result<Topology, ErrorBody> {
    let found = t.network.iter_mut().find(|n| n.name == network);
    let peers = &mut found.ok_or_else(|| ErrorBody::no_network(network))?.peers;
    if peers.contains(&peer) {
        let message = format!("{peer} is a peer of network {network:?} already");
        return Err(ErrorBody::new(ErrorCode::Conflict, message, "`vswitchctl vxlan show` lists all"));
    }
    peers.push(peer);
    Ok(t)
}

/// `vxlan peer del`, with the static entries that point to it.
pub fn del_peer(mut t: Topology, network: &str, peer: IpAddr) -> Result<Topology, ErrorBody> {
    let found = t.network.iter_mut().find(|n| n.name == network);
    let peers = &mut found.ok_or_else(|| ErrorBody::no_network(network))?.peers;
    let Some(at) = peers.iter().position(|p| *p == peer) else {
        let message = format!("{peer} is no peer of network {network:?}");
        return Err(ErrorBody::new(ErrorCode::NotFound, message, "`vswitchctl vxlan show` lists all"));
    };
    peers.remove(at);
    t.fdb.retain(|e| !(e.network == network && e.vtep == Some(peer)));
    Ok(t)
}

/// `fdb add`: in place of an entry of the same MAC.
pub fn add_fdb(mut t: Topology, entry: StaticEntry) -> Topology {
    t.fdb.retain(|e| !(e.network == entry.network && e.mac == entry.mac));
    t.fdb.push(entry);
    t
}

/// `fdb del` of a static entry; `None` when there is none.
pub fn del_fdb(mut t: Topology, key: &FdbKey) -> Option<Topology> {
    let before = t.fdb.len();
    t.fdb.retain(|e| !(e.network == key.network && e.mac == key.mac));
    (t.fdb.len() < before).then_some(t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vswitch_wire::Vid;

    fn new_port(name: &str, vlan: u16) -> NewPort {
        NewPort { port: Port::new(name), vlan: Vid::new(vlan).ok() }
    }

    #[test]
    fn port_add_with_a_vlan_makes_its_network_once() {
        let t = add_port(Topology::default(), new_port("web1", 10)).unwrap();
        let t = add_port(t, new_port("web2", 10)).unwrap();
        assert_eq!(t.network.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["vlan10"]);
        assert!(t.port.iter().all(|p| p.access.as_deref() == Some("vlan10")));
        assert_eq!(add_port(t, new_port("web1", 10)).unwrap_err().code, ErrorCode::Conflict);
    }

    #[test]
    fn port_set_merges_and_null_restores_the_default() {
        let t = add_port(Topology::default(), new_port("web1", 10)).unwrap();
        let patch = |v: Value| PortPatch(v.as_object().unwrap().clone());
        let t = set_port(t, "web1", patch(json!({"isolated": true, "max_macs": 5}))).unwrap();
        assert_eq!((t.port[0].isolated, t.port[0].max_macs), (true, Some(5)));
        let t = set_port(t, "web1", patch(json!({"max_macs": null}))).unwrap();
        assert_eq!((t.port[0].isolated, t.port[0].max_macs), (true, None));
        assert_eq!(
            set_port(t.clone(), "web1", patch(json!({"nam": 1}))).unwrap_err().code,
            ErrorCode::Invalid
        );
        assert_eq!(set_port(t, "x", patch(json!({}))).unwrap_err().code, ErrorCode::NotFound);
    }

    #[test]
    fn port_set_with_a_vlan_finds_or_makes_its_network() {
        let t = add_port(Topology::default(), new_port("web1", 10)).unwrap();
        let patch = |v: Value| PortPatch(v.as_object().unwrap().clone());
        let t = set_port(t, "web1", patch(json!({"access": null, "vlan": 20}))).unwrap();
        assert_eq!(t.port[0].access.as_deref(), Some("vlan20"));
        let t = set_port(t, "web1", patch(json!({"access": null, "vlan": 10}))).unwrap();
        assert_eq!(t.port[0].access.as_deref(), Some("vlan10"));
        assert_eq!(t.network.len(), 2);
        assert_eq!(set_port(t, "web1", patch(json!({"vlan": 20}))).unwrap_err().code, ErrorCode::Invalid);
    }

    #[test]
    fn a_network_in_use_is_not_deleted() {
        let t = add_port(Topology::default(), new_port("web1", 10)).unwrap();
        assert_eq!(del_network(t.clone(), "vlan10").unwrap_err().code, ErrorCode::Conflict);
        let t = del_port(t, "web1").unwrap();
        assert!(del_network(t, "vlan10").unwrap().network.is_empty());
    }

    #[test]
    fn a_tenant_is_known_by_its_limits_or_its_networks() {
        let patch = |v: Value| TenantPatch(v.as_object().unwrap().clone());
        let acme = Network { tenant: Some("acme".to_owned()), ..Network::new("red") };
        let t = add_network(Topology::default(), acme).unwrap();
        assert_eq!(del_tenant(t.clone(), "acme").unwrap_err().code, ErrorCode::Conflict);
        assert_eq!(del_tenant(t.clone(), "beta").unwrap_err().code, ErrorCode::NotFound);
        let t = set_tenant(t, "acme", patch(json!({"max_macs": 500, "max_ports": 2}))).unwrap();
        let t = set_tenant(t, "acme", patch(json!({"max_macs": null}))).unwrap();
        assert_eq!(t.tenant, [Tenant { max_ports: Some(2), ..Tenant::new("acme") }]);
        for bad in [json!({"max_mac": 1}), json!({"name": "beta"}), json!({"max_macs": -1})] {
            assert_eq!(set_tenant(t.clone(), "acme", patch(bad)).unwrap_err().code, ErrorCode::Invalid);
        }
        let t = del_network(t, "red").unwrap();
        assert_eq!(del_tenant(t, "acme").unwrap(), Topology::default());
    }
}
