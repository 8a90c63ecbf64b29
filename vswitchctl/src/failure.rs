//! What may go wrong, in lines for stderr, and the exit code of each.

use std::{fmt, io};

use vswitch_api::client;
use vswitch_api::topology::ReadError;

/// A command that was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong usage, or a file with mistakes: one line for each.
    Invalid(Vec<String>),
    /// The switch or the kernel refused: what, why, how to mend it.
    Refused(String),
    /// The daemon cannot be reached, or does not speak this API.
    Unreachable(String),
}

impl Failure {
    /// One mistake of usage or of a file.
    pub(crate) fn invalid(line: impl Into<String>) -> Self {
        Self::Invalid(vec![line.into()])
    }

    /// Clap's paragraphs as one line: what is wrong, its tip, the usage.
    pub(crate) fn usage(error: &clap::Error) -> Self {
        use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
        if matches!(error.kind(), DisplayHelpOnMissingArgumentOrSubcommand | MissingSubcommand) {
            return Self::invalid(
                "vswitchctl: a command is missing; see vswitchctl help, or --help after a command",
            );
        }
        let text = error.to_string();
        let lines =
            text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("For more information"));
        let mut line = String::from("vswitchctl:");
        for part in lines {
            let part = part.strip_prefix("error: ").unwrap_or(part);
            line.push_str(if part.starts_with("tip: ") || part.starts_with("Usage: ") { "; " } else { " " });
            line.push_str(&part.replace("Usage: ", "usage: ").replace("tip: ", ""));
        }
        Self::invalid(line)
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 1,
            Self::Invalid(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The place of a mistake comes first, as editors expect it.
            Self::Invalid(lines) => lines.iter().try_for_each(|line| writeln!(f, "{line}")),
            Self::Refused(line) | Self::Unreachable(line) => writeln!(f, "vswitchctl: {line}"),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::Refused(_) => Self::Refused(error.to_string()),
            client::Error::Unreachable { .. } | client::Error::Protocol { .. } => {
                Self::Unreachable(error.to_string())
            }
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::Invalid(error.to_string().lines().map(str::to_owned).collect())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Refused(error.to_string())
    }
}
