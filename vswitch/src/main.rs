//! The daemon: threads, the one clock, control and wiring. No forwarding logic.

mod clock;
mod control;
mod host;
mod http;
mod netlink;
mod parallel;
mod worker;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use vswitch_api::{Topology, paths, topology};
use vswitch_io::{Pool, PoolConfig};

use control::{Control, OnRefusal, Options, Remote, RingRecords};
use http::socket::{Peer, Socket};

/// 64 MiB of wire frames: an AF_XDP queue keeps 512 of them in its ring, the other kinds only what is in flight. Each
/// AF_XDP socket costs the kernel 128 bytes for each of them.
const FRAMES: PoolConfig = PoolConfig { wire: 16_384, large: 512 };

/// A userspace virtual switch.
#[derive(Parser, Debug)]
#[command(name = "vswitch", version)]
struct Args {
    /// The topology to start with; SIGHUP applies it again. A port whose netdev cannot be had waits, the others run.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the API listens.
    #[arg(long, value_name = "PATH", env = paths::SOCKET_ENV, default_value = paths::SOCKET)]
    socket: PathBuf,
    /// What is logged: error, warn, info, debug or trace, or a filter as in `info,vswitch::control=debug`.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
    /// Checks a topology file and touches nothing.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    check: Option<PathBuf>,
    /// Prints the description of the API (OpenAPI) and ends.
    #[arg(long, exclusive = true)]
    openapi: bool,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        // Help and version are answers, not mistakes.
        Err(answer) if !answer.use_stderr() => answer.exit(),
        Err(error) => {
            let text = error.to_string();
            let what = text.lines().next().unwrap_or_default();
            return fail(2, &format!("{}; try: vswitch --help", what.trim_start_matches("error: ")));
        }
    };
    if args.openapi {
        return print_openapi();
    }
    if let Some(file) = &args.check {
        return match load(file) {
            Ok(_) => {
                println!("{}: ok", file.display());
                ExitCode::SUCCESS
            }
            Err(failed) => failed,
        };
    }
    let topology = match args.config.as_deref().map(load).transpose() {
        Ok(topology) => topology.unwrap_or_default(),
        Err(failed) => return failed,
    };
    let filter = match log_filter(&args.log) {
        Ok(filter) => filter,
        Err(error) => return fail(2, &format!("--log {}: {error}", args.log)),
    };
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    match run(&args, topology) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(1, &message),
    }
}

/// Reads `--log`. To tracing a bare word that is no level names a part of the program, and all others are silent.
fn log_filter(text: &str) -> Result<EnvFilter, String> {
    let is_level = |word: &str| word.trim().parse::<LevelFilter>().is_ok();
    match text.split(',').find(|word| !word.contains('=') && !is_level(word)) {
        Some(word) => Err(format!("{word:?} is no level; use error, warn, info, debug or trace")),
        None => EnvFilter::builder().parse(text).map_err(|error| error.to_string()),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("vswitch: {message}");
    ExitCode::from(code)
}

fn print_openapi() -> ExitCode {
    use utoipa::OpenApi;
    match http::Description::openapi().to_pretty_json() {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(1, &error.to_string()),
    }
}

/// Reads and checks a topology file; on a mistake says where, what, and how to mend it.
fn load(file: &Path) -> Result<Topology, ExitCode> {
    topology::read(file).map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

/// Raises the soft limit of open files to the hard one. A `packet` port takes two and one for each worker; the usual
/// soft limit of 1024 is for programs that call select(2).
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| (soft, hard)));
    match raised {
        Ok((before, limit)) => tracing::info!(limit, before, "descriptors"),
        Err(error) => tracing::warn!(%error, "the limit of descriptors cannot be raised"),
    }
}

fn run(args: &Args, topology: Topology) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("the control thread could not be set up: {e}"))?;
    runtime.block_on(serve(args, topology))
}

/// How a file is applied that nobody waits for: a port whose netdev is refused waits, and all others run. SIGHUP does
/// as the start does, so that the daemon is the same after either.
fn as_configured() -> Options {
    Options { on_refusal: OnRefusal::Wait, ..Options::default() }
}

async fn serve(args: &Args, topology: Topology) -> Result<(), String> {
    // Before anything else: a signal that nobody waits for would end the daemon.
    let hangup = signal(SignalKind::hangup()).map_err(|e| format!("signals: {e}"))?;
    let end = until_told_to_end().map_err(|e| format!("signals: {e}"))?;
    let socket = Socket::bind(&args.socket).map_err(|e| format!("{}: {e}", args.socket.display()))?;
    raise_descriptor_limit();
    let pool = Pool::new(FRAMES).map_err(|e| format!("no memory for frames: {e}"))?;
    let switch = topology.switch.clone();
    let records = Some(RingRecords::beside(&args.socket));
    let mut control =
        Control::start(&switch, pool, records).await.map_err(|e| format!("cannot start: {e}"))?;
    control.apply(topology, as_configured()).await.map_err(|refusal| refusal.message)?;
    let (remote, jobs) = Control::remote();
    let server =
        axum::serve(socket, http::router(remote.clone()).into_make_service_with_connect_info::<Peer>());
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the API has ended");
        }
    });
    tokio::spawn(reload_on_hangup(hangup, args.config.clone(), remote));
    tracing::info!(socket = %args.socket.display(), "ready");
    control.run(jobs, end).await.map_err(|e| format!("the links cannot be followed any more: {e}"))
}

/// SIGTERM or SIGINT.
fn until_told_to_end() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to end");
    })
}

/// SIGHUP applies the file again; a file with mistakes changes nothing.
async fn reload_on_hangup(mut hangup: Signal, file: Option<PathBuf>, control: Remote) {
    while hangup.recv().await.is_some() {
        let Some(file) = &file else {
            tracing::info!("SIGHUP: there is no file to apply, the daemon was started without --config");
            continue;
        };
        let Ok(topology) = load(file) else { continue };
        let applied = control
            .ask(move |c| Box::pin(async move { c.apply(topology, as_configured()).await }))
            .await
            .and_then(|result| result);
        match applied {
            Ok(changes) => {
                tracing::info!(file = %file.display(), changes = changes.changes.len(), "applied again");
            }
            Err(refusal) => tracing::error!(file = %file.display(), reason = refusal.message, "not applied"),
        }
    }
}

#[cfg(test)]
mod tests {
    use utoipa::OpenApi;

    #[test]
    fn a_word_that_is_no_level_is_told() {
        for good in ["info", "WARN", "off", "info,vswitch::control=debug"] {
            assert!(super::log_filter(good).is_ok(), "{good}");
        }
        for bad in ["verbose", "info,verbose", "vswitch=loud"] {
            assert!(super::log_filter(bad).is_err(), "{bad}");
        }
        let told = super::log_filter("verbose").unwrap_err();
        assert_eq!(told, "\"verbose\" is no level; use error, warn, info, debug or trace");
    }

    /// `vswitch --openapi > docs/openapi.json` writes it anew.
    #[test]
    fn the_described_api_is_the_one_that_is_served() {
        let described = include_str!("../../docs/openapi.json");
        let served = super::http::Description::openapi().to_pretty_json().unwrap();
        assert!(described.trim_end() == served.trim_end(), "docs/openapi.json is out of date");
    }
}
