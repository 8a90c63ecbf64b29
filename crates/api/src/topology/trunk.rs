//! An entry of a trunk: a network's name, or a network with a VLAN ID of its own (VLAN translation).

use std::fmt;
use std::str::FromStr;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{Object, OneOf, Schema, Type};
use utoipa::openapi::{ObjectBuilder, OneOfBuilder, RefOr};
use vswitch_wire::Vid;

use crate::value;

/// One network that a trunk carries: `"red"`, or `{ network = "blue", vlan = 200 }`; `blue:200` on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkEntry {
    /// The network.
    pub network: String,
    /// The VLAN ID on this trunk; absent: the network's own.
    pub vlan: Option<Vid>,
}

impl fmt::Display for TrunkEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vlan {
            Some(vid) => write!(f, "{}:{vid}", self.network),
            None => f.write_str(&self.network),
        }
    }
}

impl FromStr for TrunkEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((network, vid)) = text.split_once(':') else {
            return Ok(Self { network: text.to_owned(), vlan: None });
        };
        match vid.parse().ok().and_then(|n| Vid::new(n).ok()) {
            Some(vlan) => Ok(Self { network: network.to_owned(), vlan: Some(vlan) }),
            None => Err(format!("{vid:?} is not a VLAN ID: write NET:VID with VID 1 to 4094")),
        }
    }
}

/// The long form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Translated {
    network: String,
    #[serde(default, with = "value::vid", skip_serializing_if = "Option::is_none")]
    vlan: Option<Vid>,
}

impl Serialize for TrunkEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.vlan {
            Some(_) => Translated { network: self.network.clone(), vlan: self.vlan }.serialize(serializer),
            None => serializer.serialize_str(&self.network),
        }
    }
}

impl<'de> Deserialize<'de> for TrunkEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = TrunkEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a network's name or { network = \"blue\", vlan = 200 }")
            }

            fn visit_str<E: de::Error>(self, network: &str) -> Result<TrunkEntry, E> {
                Ok(TrunkEntry { network: network.to_owned(), vlan: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TrunkEntry, A::Error> {
                let entry = Translated::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(TrunkEntry { network: entry.network, vlan: entry.vlan })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl utoipa::PartialSchema for TrunkEntry {
    fn schema() -> RefOr<Schema> {
        let name = || Object::with_type(Type::String);
        let vlan = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(4094));
        let long =
            ObjectBuilder::new().property("network", name()).property("vlan", vlan).required("network");
        let either: OneOf = OneOfBuilder::new().item(name()).item(long).build();
        RefOr::T(Schema::OneOf(either))
    }
}

impl utoipa::ToSchema for TrunkEntry {}
