//! The comparison with peers, in one run. `cargo xtask bench` builds this program and the switch in release
//! mode, and runs it. What is measured and how: docs/performance.md.
//!
//! It exits with 1 when a case could not be run, or the switch lost count of its frames: the figures of that
//! case are void then.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

mod bed;
mod case;
mod clock;
mod dpdk;
mod hugepages;
mod noise;
mod pipeline;
mod report;
mod subject;
mod veth;
mod vhost_user;

use case::Case;
use report::Row;

/// Why a case could not be run, in words for the user.
type Error = Box<dyn std::error::Error>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Measures this switch beside others.
#[derive(Parser)]
#[command(name = "vswitch-bench", args_conflicts_with_subcommands = true)]
struct Cli {
    /// Which; all unless told
    #[arg(value_enum)]
    cases: Vec<Case>,
    /// Fewer and shorter samples
    #[arg(long)]
    quick: bool,
    /// Writes the results to a file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    counted: Option<Counted>,
}

#[derive(Subcommand)]
enum Counted {
    /// What `pipeline` runs where instructions are counted
    #[command(hide = true)]
    Batches(pipeline::Batches),
}

/// How much time is given to the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    Full,
    Quick,
}

impl Effort {
    /// Samples of each subject.
    const fn rounds(self) -> u32 {
        match self {
            Self::Full => 5,
            Self::Quick => 3,
        }
    }

    /// Times that a sample is taken, at most, until the machine is quiet.
    const fn attempts(self) -> u32 {
        match self {
            Self::Full => 5,
            Self::Quick => 2,
        }
    }

    /// What a sample lasts, without its warm-up.
    const fn sample_time(self) -> Duration {
        match self {
            Self::Full => Duration::from_secs(3),
            Self::Quick => Duration::from_secs(1),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.counted {
        Some(Counted::Batches(batches)) => batches.run().map(|()| true),
        None => compare(&cli),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vswitch-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the cases; false when one is void.
fn compare(cli: &Cli) -> Result<bool> {
    let effort = if cli.quick { Effort::Quick } else { Effort::Full };
    let cases = if cli.cases.is_empty() { Case::value_variants() } else { &cli.cases };
    let mut rows: Vec<Row> = Vec::new();
    for case in cases {
        rows.extend(match case {
            Case::Pipeline => pipeline::measure(effort)?,
            Case::VethL2 => veth::frames(effort)?,
            Case::TcpVeth => veth::stream(effort)?,
            Case::VhostUserL2 => vhost_user::frames(effort)?,
        });
    }
    report::print(&rows);
    if let Some(file) = &cli.json {
        report::write(file, &rows, cli.quick)?;
    }
    Ok(rows.iter().all(|row| row.void.is_none()))
}
