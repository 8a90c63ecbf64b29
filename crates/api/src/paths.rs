//! Where the API lives. Daemon, client and `docs/openapi.json` take the paths from here.

/// The socket unless told otherwise.
pub const SOCKET: &str = "/run/vswitch/vswitch.sock";
/// The environment variable that tells otherwise.
pub const SOCKET_ENV: &str = "VSWITCH_SOCKET";

/// The most bytes of a request's or an answer's body: room for 4096 ports with all their counters.
pub const BODY_MAX: usize = 32 << 20;

/// Media type of a topology in TOML.
pub const TOML: &str = "application/toml";
/// Media type of everything else.
pub const JSON: &str = "application/json";

/// GET: [`crate::response::Status`].
pub const STATUS: &str = "/v1/status";
/// GET: [`crate::Topology`]. PUT with [`crate::request::ApplyQuery`], TOML or JSON: [`crate::response::Changes`].
pub const CONFIG: &str = "/v1/config";
/// POST, TOML or JSON: [`crate::response::Changes`], what a PUT of the same body would change.
pub const CONFIG_DIFF: &str = "/v1/config/diff";
/// GET: a list of [`crate::response::NetworkState`]. POST [`crate::topology::Network`].
pub const NETWORKS: &str = "/v1/networks";
/// PATCH [`crate::request::NetworkPatch`]. DELETE.
pub const NETWORK: &str = "/v1/networks/{name}";
/// POST [`crate::request::NewPeer`]: one more VTEP of a network.
pub const PEERS: &str = "/v1/networks/{name}/peers";
/// DELETE.
pub const PEER: &str = "/v1/networks/{name}/peers/{address}";
/// GET: [`crate::response::VxlanState`].
pub const VXLAN: &str = "/v1/vxlan";
/// GET: a list of [`crate::response::TenantState`].
pub const TENANTS: &str = "/v1/tenants";
/// GET: [`crate::response::TenantState`]. PATCH [`crate::request::TenantPatch`]. DELETE.
pub const TENANT: &str = "/v1/tenants/{name}";
/// GET: a list of [`crate::response::PortState`]. POST [`crate::request::NewPort`] with [`crate::request::ForceQuery`].
pub const PORTS: &str = "/v1/ports";
/// GET: [`crate::response::PortState`]. PATCH [`crate::request::PortPatch`] with [`crate::request::ForceQuery`]. DELETE.
pub const PORT: &str = "/v1/ports/{name}";
/// GET: a list of [`crate::response::AclSummary`]. POST [`crate::topology::Acl`].
pub const ACLS: &str = "/v1/acls";
/// GET: [`crate::response::AclState`]. DELETE.
pub const ACL: &str = "/v1/acls/{name}";
/// POST [`crate::topology::AclRule`] with [`crate::request::RuleQuery`].
pub const ACL_RULES: &str = "/v1/acls/{name}/rules";
/// DELETE; the number is the rule's place in the list, from 1.
pub const ACL_RULE: &str = "/v1/acls/{name}/rules/{number}";
/// GET with [`crate::request::FdbQuery`]: a list of [`crate::response::FdbEntry`]. POST
/// [`crate::topology::StaticEntry`]. DELETE with [`crate::request::FdbKey`] as query: one entry, static or learnt.
pub const FDB: &str = "/v1/fdb";
/// POST [`crate::request::FdbQuery`]: [`crate::response::Flushed`]. Learnt entries only.
pub const FDB_FLUSH: &str = "/v1/fdb/flush";
/// GET: [`crate::response::Stats`].
pub const STATS: &str = "/v1/stats";
/// POST [`crate::request::Trace`]: [`crate::response::TraceResult`].
pub const TRACE: &str = "/v1/trace";

/// [`NETWORK`] for this name.
#[must_use]
pub fn network(name: &str) -> String {
    format!("{NETWORKS}/{}", segment(name))
}

/// [`PEERS`] of the network of this name.
#[must_use]
pub fn peers(network: &str) -> String {
    format!("{NETWORKS}/{}/peers", segment(network))
}

/// [`PEER`] of the network of this name.
#[must_use]
pub fn peer(network: &str, address: std::net::IpAddr) -> String {
    format!("{}/{}", peers(network), segment(&address.to_string()))
}

/// [`TENANT`] for this name.
#[must_use]
pub fn tenant(name: &str) -> String {
    format!("{TENANTS}/{}", segment(name))
}

/// [`PORT`] for this name.
#[must_use]
pub fn port(name: &str) -> String {
    format!("{PORTS}/{}", segment(name))
}

/// [`ACL`] for this name.
#[must_use]
pub fn acl(name: &str) -> String {
    format!("{ACLS}/{}", segment(name))
}

/// [`ACL_RULES`] for this name.
#[must_use]
pub fn acl_rules(name: &str) -> String {
    format!("{}/rules", acl(name))
}

/// [`ACL_RULE`] for this name and number.
#[must_use]
pub fn acl_rule(name: &str, number: u32) -> String {
    format!("{}/{number}", acl_rules(name))
}

/// One segment of a path, or one value of a query (RFC 3986 section 2.1): what is not unreserved is percent-encoded.
#[must_use]
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_port_may_have_cannot_leave_their_segment() {
        assert_eq!(port("web1"), "/v1/ports/web1");
        assert_eq!(port("../status?x"), "/v1/ports/..%2Fstatus%3Fx");
        assert_eq!(network("é"), "/v1/networks/%C3%A9");
    }
}
