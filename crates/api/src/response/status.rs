//! How the switch is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// GET [`crate::paths::STATUS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The switch's name.
    pub name: String,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process ID.
    pub pid: u32,
    /// Whole seconds since it started.
    pub uptime_seconds: u64,
    /// The threads that move frames.
    pub workers: Vec<Worker>,
    /// How many ports there are, by state.
    pub ports: PortTotals,
    /// Networks.
    pub networks: u64,
    /// The forwarding database.
    pub fdb: FdbTotals,
    /// Health of every part.
    pub health: Vec<Health>,
}

/// A worker thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Its number.
    pub index: u32,
    /// The CPU it is pinned to.
    pub cpu: Option<u32>,
    /// Receive queues it serves.
    pub queues: u32,
    /// Asleep, until a frame comes.
    pub asleep: bool,
}

/// Ports by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortTotals {
    /// All.
    pub total: u64,
    /// Attached, with a carrier.
    pub up: u64,
    /// Attached, without one.
    pub down: u64,
    /// Not attached.
    pub waiting: u64,
}

/// How full the forwarding database is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FdbTotals {
    /// Entries now.
    pub entries: u64,
    /// Entries it has room for.
    pub capacity: u64,
}

/// Health of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The part, as in `worker 0`, `frames`, `netlink`, `port web1`.
    pub part: String,
    /// It does what it should.
    pub ok: bool,
    /// In words: what it does, or what is wrong and how to mend it.
    pub text: String,
}
