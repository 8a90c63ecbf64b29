//! Refusals: what, why, and how to mend it.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::topology::PROBLEMS_MAX;

/// The body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The kind of failure.
    pub code: ErrorCode,
    /// What was refused and why, in one line.
    pub message: String,
    /// How to mend it, in one line; empty where nothing can be said.
    pub mend: String,
    /// Each mistake in the topology that was sent.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

impl ErrorBody {
    /// A refusal with a way to mend it.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { code, message: message.into(), mend: mend.into(), problems: Vec::new() }
    }

    /// The mistakes of a topology, as one refusal.
    #[must_use]
    pub fn mistakes(problems: Vec<Problem>) -> Self {
        let first = problems.first().map_or_else(String::new, ToString::to_string);
        let message = match problems.len() {
            0 | 1 => first,
            n if n > PROBLEMS_MAX => format!("{first} (and at least {PROBLEMS_MAX} more mistakes)"),
            n => format!("{first} (and {} more mistakes)", n - 1),
        };
        Self { problems, ..Self::new(ErrorCode::Invalid, message, "") }
    }

    /// There is no such port.
    #[must_use]
    pub fn no_port(name: &str) -> Self {
        let message = format!("there is no port {name:?}");
        Self::new(ErrorCode::NotFound, message, "`vswitchctl port list` shows all")
    }

    /// There is no such filter.
    #[must_use]
    pub fn no_acl(name: &str) -> Self {
        let message = format!("there is no acl {name:?}");
        Self::new(ErrorCode::NotFound, message, "`vswitchctl acl list` shows all")
    }

    /// There is no such tenant.
    #[must_use]
    pub fn no_tenant(name: &str) -> Self {
        let message = format!("there is no tenant {name:?}");
        Self::new(ErrorCode::NotFound, message, "`vswitchctl tenant list` shows all")
    }

    /// There is no such network.
    #[must_use]
    pub fn no_network(name: &str) -> Self {
        let message = format!("there is no network {name:?}");
        Self::new(ErrorCode::NotFound, message, "`vswitchctl network list` shows all")
    }
}

/// The kind of a failure; each has one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be read, or the topology has mistakes.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// There is such a thing already, or it is in use.
    Conflict,
    /// It would cut off the operator; `force` is needed.
    NeedsForce,
    /// The kernel or the machine refused it.
    Failed,
    /// A mistake of the switch.
    Internal,
}

impl ErrorCode {
    /// The HTTP status (RFC 9110 section 15).
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::NeedsForce => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Failed => 422,
            Self::Internal => 500,
        }
    }
}

/// One mistake in a topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where, as keys of a topology file: `port[2].access`.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

impl Problem {
    /// Stands at the end of a list that would be too long.
    pub(crate) fn that_counts(more: usize) -> Option<Self> {
        (more > 0).then(|| Self {
            path: String::new(),
            what: format!("{more} more mistakes are not listed"),
            mend: "mend these first".to_owned(),
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, "; {}", self.mend) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(count: usize) -> Vec<Problem> {
        let problem =
            |n| Problem { path: format!("port[{n}]"), what: "wrong".to_owned(), mend: String::new() };
        (0..count).map(problem).collect()
    }

    #[test]
    fn a_refusal_names_the_first_mistake_and_counts_the_others() {
        let message = |count| ErrorBody::mistakes(problems(count)).message;
        assert_eq!(message(1), "port[0]: wrong");
        assert_eq!(message(3), "port[0]: wrong (and 2 more mistakes)");
        assert_eq!(message(100), "port[0]: wrong (and 99 more mistakes)");
        // The last of them counts those that are not listed.
        assert_eq!(message(101), "port[0]: wrong (and at least 100 more mistakes)");
    }
}
