//! The command line: arguments -> API -> text or JSON. It knows the API's types and none of the switch's.
//!
//! Exit codes: 0 done; 1 refused by the switch (for `diff`: something differs); 2 wrong usage or an invalid
//! file; 3 the daemon cannot be reached. Whatever is wrong is one line on stderr, for a file one line for
//! each mistake: what, why, how to mend it.

mod args;
mod command;
mod failure;
mod lab;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;

use vswitch_api::client::Client;

use args::{Cli, Command, DaemonCommand};
use failure::Failure;

fn main() -> ExitCode {
    let result = match Cli::read(std::env::args_os()) {
        Ok(cli) => run(cli),
        // Help and version are answers, not mistakes.
        Err(error) if !error.use_stderr() => {
            print(&format!("{}\n", error.to_string().trim_end())).map(|_| ExitCode::SUCCESS)
        }
        Err(error) => Err(Failure::usage(&error)),
    };
    result.unwrap_or_else(|failure| {
        // Nothing more can be done when stderr has gone too.
        let _ = io::stderr().write_all(failure.to_string().as_bytes());
        ExitCode::from(failure.exit_code())
    })
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let client = Client::new(cli.socket);
    match cli.command {
        Command::Lab(command) => print(&lab::run(&client, command, cli.json)?).map(|_| ExitCode::SUCCESS),
        Command::Daemon(command) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(ask(&client, command, cli.json))
        }
    }
}

/// Runs a command that the daemon answers.
async fn ask(client: &Client, command: DaemonCommand, json: bool) -> Result<ExitCode, Failure> {
    let text = match command {
        DaemonCommand::Network(network) => command::network::run(client, network, json).await?,
        DaemonCommand::Tenant(tenant) => command::tenant::run(client, tenant, json).await?,
        DaemonCommand::Port(port) => command::port::run(client, port, json).await?,
        DaemonCommand::Acl(acl) => command::acl::run(client, acl, json).await?,
        DaemonCommand::Fdb(fdb) => command::fdb::run(client, fdb, json).await?,
        DaemonCommand::Vxlan(vxlan) => command::vxlan::run(client, vxlan, json).await?,
        DaemonCommand::Apply(apply) => command::topology::apply(client, &apply, json).await?,
        DaemonCommand::Diff { file } => return command::topology::diff(client, &file, json).await,
        DaemonCommand::Dump => command::topology::dump(client, json).await?,
        DaemonCommand::Stats { watch: true } => return command::stats::watch(client, json).await,
        DaemonCommand::Stats { watch: false } => command::stats::run(client, json).await?,
        DaemonCommand::Status => command::status::run(client, json).await?,
        DaemonCommand::Trace(trace) => command::trace::run(client, &trace, json).await?,
    };
    print(&text).map(|_| ExitCode::SUCCESS)
}

/// Writes to stdout; false when nobody reads any more (`| head`).
fn print(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}
