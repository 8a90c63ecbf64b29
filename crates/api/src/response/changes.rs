//! What differs between two topologies.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// PUT [`crate::paths::CONFIG`], POST [`crate::paths::CONFIG_DIFF`], and every command that changes the topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changes {
    /// What changed, or would change; empty when nothing does.
    pub changes: Vec<Change>,
}

/// One difference between two topologies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// What happens to the item.
    pub op: Op,
    /// What it is.
    pub item: Item,
    /// Its name; for a static FDB entry, network and MAC.
    pub name: String,
    /// The fields in question, for `add` those that are not the default's.
    pub fields: Vec<FieldChange>,
}

/// What happens to an item of the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// It is new.
    Add,
    /// It goes.
    Remove,
    /// It stays, with other fields.
    Change,
}

/// An item of the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Item {
    /// `[switch]`.
    Switch,
    /// `[[tenant]]`.
    Tenant,
    /// `[[network]]`.
    Network,
    /// `[[port]]`.
    Port,
    /// `[underlay]`.
    Underlay,
    /// `[[acl]]`.
    Acl,
    /// `[[fdb]]`.
    Fdb,
    /// `[[host]]`.
    Host,
}

impl fmt::Display for Change {
    /// As in `~ port web1: access red -> blue, mtu 9000 -> default`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, item) = (self.op.sign(), self.item.name());
        write!(f, "{sign} {item} {}", self.name)?;
        for (i, field) in self.fields.iter().enumerate() {
            f.write_str(if i == 0 { ": " } else { ", " })?;
            // A rule that is not there is not at its default.
            let absent = if field.key.starts_with("rule ") { "none" } else { "default" };
            let to = field.to.as_deref().unwrap_or(absent);
            match (self.op, &field.from) {
                (Op::Add, _) => write!(f, "{} {to}", field.key)?,
                (_, from) => write!(f, "{} {} -> {to}", field.key, from.as_deref().unwrap_or(absent))?,
            }
        }
        Ok(())
    }
}

impl Op {
    const fn sign(self) -> char {
        match self {
            Self::Add => '+',
            Self::Remove => '-',
            Self::Change => '~',
        }
    }
}

impl Item {
    const fn name(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Tenant => "tenant",
            Self::Network => "network",
            Self::Port => "port",
            Self::Underlay => "underlay",
            Self::Acl => "acl",
            Self::Fdb => "fdb",
            Self::Host => "host",
        }
    }
}

/// A field of an item that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// The key, as in a topology file.
    pub key: String,
    /// Its value before, as text; absent where it had none.
    pub from: Option<String>,
    /// Its value after, as text; absent where it has none.
    pub to: Option<String>,
}
