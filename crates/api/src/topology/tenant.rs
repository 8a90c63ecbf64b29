//! Limits of a tenant.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Limits of a tenant over all its networks; one without limits needs no entry, it is named by its networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Unique among tenants, as networks name it; 1 to 32 letters, digits, `.`, `_`, `-`, the first a letter or a digit.
    pub name: String,
    /// Most MACs learnt in its networks together. Beyond it the largest network's largest port's oldest entries make
    /// room. Absent: only the networks' and ports' limits apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_macs: Option<u32>,
    /// Most ports that carry any of its networks; a port that several tenants share counts for each of them. Absent:
    /// no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_ports: Option<u32>,
}

impl Tenant {
    /// A tenant of this name without limits.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}
