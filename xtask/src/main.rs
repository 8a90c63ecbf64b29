//! The project's commands: `cargo xtask demo`, `cargo xtask test`, `cargo xtask bench`, `cargo xtask fuzz`.
//!
//! Each installs what it lacks and says so, shows progress, and prints the commands that it runs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use vswitch_api::value::duration;

mod bench;
mod demo;
mod fuzz;
mod guest_kernel;
mod openvswitch;
mod packages;
mod sandbox;
mod shell;
mod test;

/// Why a command was not done, in words for the user.
type Error = Box<dyn std::error::Error>;
type Result<T> = std::result::Result<T, Error>;

/// Commands for those who work on vswitch or want to see it.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring up a switch with a lab of hosts, prove what it does, and leave it to you until Ctrl-C
    Demo {
        /// End after the proofs; the exit code is 0 only if all of them hold
        #[arg(long)]
        exit: bool,
    },
    /// Run every test, those that need root included
    Test {
        /// Only tests with this in their name
        filter: Option<String>,
    },
    /// Measure the switch beside the Linux bridge and Open vSwitch
    Bench {
        /// Which; all unless told
        #[arg(value_enum)]
        cases: Vec<bench::Case>,
        /// Fewer and shorter samples
        #[arg(long)]
        quick: bool,
        /// Write the results to a file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Look for inputs that break what reads bytes of guests and networks
    Fuzz {
        /// A file of fuzz/targets without its ending; all unless told
        target: Option<String>,
        /// How long each target runs, as in 30s
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
        time: Duration,
    },
    /// What `test` runs inside its sandbox
    #[command(hide = true)]
    TestInSandbox { filter: Option<String> },
}

// One thread: what a command starts is tied to the thread that started it (see vswitch_netns::Process).
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo { exit } => demo::run(exit).await,
        Command::Test { filter } => test::run(filter.as_deref()).await,
        Command::Bench { cases, quick, json } => bench::run(&cases, quick, json.as_deref()).await,
        Command::Fuzz { target, time } => fuzz::run(target.as_deref(), time).await,
        Command::TestInSandbox { filter } => test::run_in_sandbox(filter.as_deref()).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{} {}", shell::red("FAILED:"), with_reasons(&*error));
            ExitCode::FAILURE
        }
    }
}

/// An error and what is behind it.
fn with_reasons(error: &dyn std::error::Error) -> String {
    let reasons = std::iter::successors(error.source(), |error| error.source());
    reasons.fold(error.to_string(), |text, reason| format!("{text}: {reason}"))
}
