//! The keys of a topology file: which there are, which are for later, and how TOML's become those of the types.
//!
//! The types are the one list of keys: serde hands it over when a type is deserialised. Keys of the
//! public contract that this version does not deliver are known by name, so that the message can say so.

use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::trunk::Translated;
use super::{
    Acl, AclRule, AclUse, Host, Network, Port, Security, StaticEntry, Storm, Switch, Tenant, Topology,
    Underlay,
};

/// The tables of a topology file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Top,
    Switch,
    Tenant,
    Network,
    Port,
    Storm,
    Security,
    TrunkEntry,
    Underlay,
    Acl,
    AclRule,
    AclUse,
    Fdb,
    Host,
}

/// What stands behind a key that is a table, or a list with tables in it.
enum Below {
    One(Table),
    /// `[[key]]`.
    List(Table),
    /// A list whose entries are tables or something else.
    Mixed(Table),
}

/// A key that must not be there, or not so.
pub(super) struct BadKey {
    pub(super) path: String,
    /// Byte offset in the file.
    pub(super) offset: usize,
    pub(super) what: String,
    pub(super) mend: String,
}

impl Table {
    /// Its keys, in snake_case.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Top => keys_of::<Topology>(),
            Self::Switch => keys_of::<Switch>(),
            Self::Tenant => keys_of::<Tenant>(),
            Self::Network => keys_of::<Network>(),
            Self::Port => keys_of::<Port>(),
            Self::Storm => keys_of::<Storm>(),
            Self::Security => keys_of::<Security>(),
            Self::TrunkEntry => keys_of::<Translated>(),
            Self::Underlay => keys_of::<Underlay>(),
            Self::Acl => keys_of::<Acl>(),
            Self::AclRule => keys_of::<AclRule>(),
            Self::AclUse => keys_of::<AclUse>(),
            Self::Fdb => keys_of::<StaticEntry>(),
            Self::Host => keys_of::<Host>(),
        }
    }

    /// Keys of the public contract that this version does not deliver.
    fn later(self) -> &'static [&'static str] {
        match self {
            Self::Top => &["bond", "service", "mirror"],
            Self::Switch => &["metrics"],
            Self::Port => &["rate"],
            Self::Network
            | Self::Tenant
            | Self::Security
            | Self::Storm
            | Self::TrunkEntry
            | Self::Underlay
            | Self::Fdb
            | Self::Host => &[],
            Self::Acl | Self::AclRule | Self::AclUse => &[],
        }
    }

    fn below(self, key: &str) -> Option<Below> {
        Some(match (self, key) {
            (Self::Top, "switch") => Below::One(Self::Switch),
            (Self::Top, "tenant") => Below::List(Self::Tenant),
            (Self::Top, "network") => Below::List(Self::Network),
            (Self::Top, "port") => Below::List(Self::Port),
            (Self::Top, "underlay") => Below::One(Self::Underlay),
            (Self::Top, "acl") => Below::List(Self::Acl),
            (Self::Acl, "rule") => Below::List(Self::AclRule),
            (Self::Port | Self::Network, "acl") => Below::One(Self::AclUse),
            (Self::Top, "fdb") => Below::List(Self::Fdb),
            (Self::Top, "host") => Below::List(Self::Host),
            (Self::Port, "storm") => Below::One(Self::Storm),
            (Self::Port, "security") => Below::One(Self::Security),
            (Self::Port, "trunk") => Below::Mixed(Self::TrunkEntry),
            _ => return None,
        })
    }

    fn bad_key(self, path: String, key: &Spanned<impl AsRef<str>>) -> Option<BadKey> {
        let (name, offset) = (key.get_ref().as_ref(), key.span().start);
        let bad = |what: &str, mend: String| {
            Some(BadKey { path: path.clone(), offset, what: what.to_owned(), mend })
        };
        if self.later().contains(&name) {
            return bad("not supported by this version yet", "leave it out".to_owned());
        }
        let known = || self.keys().iter().map(|k| kebab(k));
        if known().any(|k| k == name) {
            return None;
        }
        let meant =
            known().map(|k| (strsim::jaro_winkler(&k, &kebab(name)), k)).max_by(|a, b| a.0.total_cmp(&b.0));
        let mend = match meant {
            Some((likeness, key)) if likeness > 0.8 => format!("write {key}"),
            _ => format!("the keys here are {}", known().collect::<Vec<_>>().join(", ")),
        };
        bad("unknown key", mend)
    }
}

/// `table` with the keys of the types. Keys that must not be there are taken out and reported in `bad`.
pub(super) fn to_snake<'i>(table: DeTable<'i>, is: Table, path: &str, bad: &mut Vec<BadKey>) -> DeTable<'i> {
    let mut out = DeTable::new();
    for (key, mut value) in table {
        let at =
            if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        if let Some(problem) = is.bad_key(at.clone(), &key) {
            bad.push(problem);
            continue;
        }
        match is.below(key.get_ref()) {
            Some(Below::List(_)) if value.get_ref().is_table() => {
                let (what, mend) =
                    (format!("{key} is a list", key = key.get_ref()), format!("write [[{}]]", key.get_ref()));
                bad.push(BadKey { path: at, offset: key.span().start, what, mend });
                continue;
            }
            Some(Below::One(below) | Below::List(below) | Below::Mixed(below)) => {
                value_to_snake(&mut value, below, &at, bad);
            }
            None => {}
        }
        let snake = key.get_ref().replace('-', "_").into();
        out.insert(Spanned::new(key.span(), snake), value);
    }
    out
}

/// The same for the tables in a value.
fn value_to_snake(value: &mut Spanned<DeValue<'_>>, is: Table, path: &str, bad: &mut Vec<BadKey>) {
    match value.get_mut() {
        DeValue::Table(table) => *table = to_snake(std::mem::take(table), is, path, bad),
        DeValue::Array(entries) => {
            for (i, entry) in entries.iter_mut().enumerate() {
                if let DeValue::Table(table) = entry.get_mut() {
                    *table = to_snake(std::mem::take(table), is, &format!("{path}[{i}]"), bad);
                }
            }
        }
        _ => {}
    }
}

/// A key as files write it.
pub(super) fn kebab(key: &str) -> String {
    key.replace('_', "-")
}

/// The fields of a struct, as its `Deserialize` names them.
fn keys_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // Always an error: nothing is deserialised.
    let _ = T::deserialize(FieldsOf(&mut fields));
    fields
}

struct FieldsOf<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldsOf<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(Self::Error::custom("only the names are asked for"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_the_types() {
        assert_eq!(Table::Storm.keys(), ["broadcast", "multicast", "unknown"]);
        assert!(Table::Port.keys().contains(&"max_macs"));
        let all = [Table::Top, Table::Switch, Table::Tenant, Table::Network, Table::TrunkEntry, Table::Fdb];
        for table in all.into_iter().chain([Table::Host]) {
            assert!(!table.keys().is_empty(), "{table:?}");
            assert!(table.later().iter().all(|k| !table.keys().contains(k)), "{table:?}");
        }
    }
}
