//! One file for each command: a request or two, then text or JSON.

pub(crate) mod acl;
pub(crate) mod fdb;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod tenant;
pub(crate) mod topology;
pub(crate) mod trace;
pub(crate) mod vxlan;

use serde::Serialize;
use vswitch_api::response::Changes;

use crate::failure::Failure;

/// What is printed: the answer as JSON, or in words.
pub(crate) fn render<A: Serialize>(
    answer: &A,
    json: bool,
    words: impl FnOnce(&A) -> String,
) -> Result<String, Failure> {
    if !json {
        return Ok(words(answer));
    }
    let text = serde_json::to_string_pretty(answer).map_err(|e| Failure::Refused(e.to_string()))?;
    Ok(text + "\n")
}

/// The lines of a change; nothing where nothing changed.
fn changes(changes: &Changes) -> String {
    changes.changes.iter().map(|change| format!("{change}\n")).collect()
}
