//! What would become of a frame.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// POST [`crate::paths::TRACE`]: what the switch would do with a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceResult {
    /// Each decision, in its order.
    pub steps: Vec<TraceStep>,
    /// What comes of the frame.
    pub outcome: Outcome,
    /// Its network, where it got one.
    pub network: Option<String>,
    /// The ports that it leaves by.
    pub ports: Vec<String>,
    /// Why it is dropped: the counter's name.
    pub reason: Option<String>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceStep {
    /// The step of the pipeline, as in `vlan`.
    pub stage: String,
    /// What was decided and why, in words.
    pub text: String,
}

/// What comes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Leaves by one port.
    Unicast,
    /// Leaves by every other port of its network that may have it.
    Flood,
    /// Dropped.
    Drop,
}
