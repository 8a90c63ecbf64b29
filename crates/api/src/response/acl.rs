//! Filters and what they counted.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::topology::{AclAction, AclRule};

/// A filter in a list. GET [`crate::paths::ACLS`] answers a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AclSummary {
    /// Its name.
    pub name: String,
    /// What becomes of a frame that no rule matches.
    pub default: AclAction,
    /// How many rules it has.
    pub rules: u64,
    /// Where it is used.
    pub used_by: Vec<AclUser>,
}

/// A filter with its rules. GET [`crate::paths::ACL`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AclState {
    /// Its name.
    pub name: String,
    /// What becomes of a frame that no rule matches.
    pub default: AclAction,
    /// Its rules, in their order.
    pub rules: Vec<AclRuleState>,
    /// Frames that no rule matched.
    pub default_packets: u64,
    /// Frames that were dropped because a rule asked for what could not be read.
    pub unreadable_packets: u64,
    /// Where it is used.
    pub used_by: Vec<AclUser>,
}

/// A rule and what it counted. A rule keeps its count while others of its filter change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AclRuleState {
    /// The rule.
    #[serde(flatten)]
    pub rule: AclRule,
    /// Frames that it decided; a GSO frame is one.
    pub packets: u64,
}

/// Where a filter is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AclUser {
    /// `port` or `network`.
    pub item: String,
    /// Its name.
    pub name: String,
    /// `ingress` or `egress`.
    pub direction: String,
}
