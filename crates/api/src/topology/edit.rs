//! What the commands on ports do to a topology. Nothing is checked here but what [`super::check`] cannot see any more.

use serde_json::{Map, Value};
use vswitch_wire::Vid;

use super::{Network, Port, Topology};
use crate::request::{NewPort, PortPatch};
use crate::response::{ErrorBody, ErrorCode};

impl NewPort {
    /// Adds the port to `topology`, and with `vlan` its network where there is none.
    ///
    /// # Errors
    /// When the port exists, or `vlan` names no one network.
    pub fn add_to(self, topology: &mut Topology) -> Result<(), ErrorBody> {
        let name = &self.port.name;
        if topology.port.iter().any(|p| p.name == *name) {
            let mend = format!("change it with port set {name}, or take another name");
            return Err(ErrorBody::new(ErrorCode::Conflict, format!("port {name:?} exists already"), mend));
        }
        let port = self.resolve(topology)?;
        topology.port.push(port);
        Ok(())
    }

    /// The port with the network of `vlan` as its access network.
    fn resolve(mut self, topology: &mut Topology) -> Result<Port, ErrorBody> {
        let Some(vlan) = self.vlan else { return Ok(self.port) };
        if self.port.access.is_some() || !self.port.trunk.is_empty() || self.port.native.is_some() {
            let what = "vlan cannot be given together with access, trunk or native".to_owned();
            return Err(ErrorBody::new(ErrorCode::Invalid, what, "keep one of them".to_owned()));
        }
        self.port.access = Some(network_of_vlan(topology, vlan)?);
        Ok(self.port)
    }
}

/// The name of the network with this VLAN ID, made where there is none.
fn network_of_vlan(topology: &mut Topology, vlan: Vid) -> Result<String, ErrorBody> {
    let of_vlan: Vec<_> =
        topology.network.iter().filter(|n| n.vlan == Some(vlan)).map(|n| n.name.clone()).collect();
    let name = format!("vlan{vlan}");
    match of_vlan.as_slice() {
        [one] => Ok(one.clone()),
        [] if topology.network.iter().any(|n| n.name == name) => Err(ErrorBody::new(
            ErrorCode::Conflict,
            format!("no network has VLAN {vlan}, and {name:?} is the name of another"),
            format!("name a network with access, or add one with network add NAME --vlan {vlan}"),
        )),
        [] => {
            topology.network.push(Network { vlan: Some(vlan), ..Network::new(name.clone()) });
            Ok(name)
        }
        several => Err(ErrorBody::new(
            ErrorCode::Conflict,
            format!("{} networks have VLAN {vlan}", several.len()),
            format!("name one of them with access: {}", several.join(", ")),
        )),
    }
}

impl PortPatch {
    /// Changes the port `name` of `topology`. `vlan` is taken as in [`NewPort`].
    ///
    /// # Errors
    /// When there is no such port, a field is unknown or its value of a wrong type, or `vlan` names no one network.
    pub fn apply_to(&self, topology: &mut Topology, name: &str) -> Result<(), ErrorBody> {
        let Some(index) = topology.port.iter().position(|p| p.name == name) else {
            let what = format!("port {name:?} does not exist");
            return Err(ErrorBody::new(
                ErrorCode::NotFound,
                what,
                "see port list for those there are".to_owned(),
            ));
        };
        let invalid = |error: serde_json::Error| {
            let mend = "send fields of a port, as in GET /v1/config".to_owned();
            ErrorBody::new(ErrorCode::Invalid, format!("port {name:?} cannot be changed so: {error}"), mend)
        };
        let mut fields = serde_json::to_value(&topology.port[index]).map_err(invalid)?;
        merge(&mut fields, &self.0);
        let patched: NewPort = serde_json::from_value(fields).map_err(invalid)?;
        if patched.port.name != name {
            let mend = "remove it, and add it under the other name".to_owned();
            return Err(ErrorBody::new(ErrorCode::Invalid, format!("port {name:?} cannot be renamed"), mend));
        }
        topology.port[index] = patched.resolve(topology)?;
        Ok(())
    }
}

/// RFC 7396 section 2.
fn merge(target: &mut Value, patch: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (key, value) in patch {
        match value {
            Value::Null => {
                fields.remove(key);
            }
            Value::Object(below) => merge(fields.entry(key).or_insert(Value::Null), below),
            other => {
                fields.insert(key.clone(), other.clone());
            }
        }
    }
}
