//! A running daemon, and the CLI that speaks with it.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use vswitch_api::response::{Changes, FdbEntry, PortState, Stats, Status, TraceResult};
use vswitch_netns::{Namespace, Process, Scratch};
use vswitch_wire::Mac;

use crate::Frame;
use crate::programs::program;
use crate::wait::{SOON, wait_until};

/// A daemon in a network namespace of its own.
#[derive(Debug)]
pub struct Switch {
    /// Where its netdevs are.
    pub namespace: Namespace,
    /// Socket, configuration and log.
    folder: Scratch,
    daemon: Option<Process>,
}

/// What a program ended with.
#[derive(Debug)]
pub struct Answer {
    /// Exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained of, without the line's end.
    pub stderr: String,
}

impl Answer {
    #[track_caller]
    fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or_else(|| panic!("{command:?} ended by {}", output.status)),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr).trim_end().to_owned(),
        }
    }
}

impl Switch {
    /// A namespace with a configuration, and no daemon yet.
    #[must_use]
    pub fn new(topology: &str) -> Self {
        let namespace = Namespace::new().expect("a network namespace for the switch (this needs root)");
        let folder = Scratch::new().expect("a folder for socket and log");
        let switch = Self { namespace, folder, daemon: None };
        switch.write_config(topology);
        switch
    }

    /// Starts the daemon, again if it was stopped or killed, and waits until it answers.
    pub fn start(&mut self) {
        let config = self.config();
        self.start_with(&["--config".as_ref(), config.as_os_str()]);
    }

    /// The same, without a configuration file.
    pub fn start_without_config(&mut self) {
        self.start_with(&[]);
    }

    fn start_with(&mut self, args: &[&OsStr]) {
        let mut command = self.namespace.command(program("vswitch"));
        command.args(args).arg("--socket").arg(self.socket());
        command.stderr(self.open_log());
        self.daemon = Some(Process::spawn(command).expect("the daemon starts"));
        wait_until("the daemon answers", SOON, || {
            let ended = self.daemon.as_mut().and_then(|d| d.wait_timeout(Duration::ZERO).ok().flatten());
            assert!(ended.is_none(), "vswitch ended at its start with {ended:?}:\n{}", self.log());
            self.ctl(["status"]).code == 0
        });
    }

    /// Replaces the configuration file; SIGHUP, or the next start, applies it.
    pub fn write_config(&self, topology: &str) {
        fs::write(self.config(), topology).expect("the configuration is written");
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.file("config.toml")
    }

    /// A path in the scenario's own folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The API's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.file("socket")
    }

    /// What the daemon has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// The log goes on when the daemon is started again.
    fn open_log(&self) -> File {
        let log = OpenOptions::new().create(true).append(true).open(self.file("log"));
        log.expect("the log is opened")
    }

    /// The daemon's process ID.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process().id()
    }

    /// What the daemon has open, as proc_pid_fd(5) names it; nothing if it has ended.
    #[must_use]
    pub fn descriptors(&self) -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).into_iter().flatten();
        // One that is closed meanwhile is not open.
        let open = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        open.map(|target| target.display().to_string()).collect()
    }

    /// Whether the daemon was started, and not yet stopped or killed.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.daemon.is_some()
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal).expect("the daemon is there");
    }

    fn process(&self) -> &Process {
        self.daemon.as_ref().expect("the daemon runs")
    }

    /// Ends the daemon by `signal` and waits for its end.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let status = daemon.wait_timeout(SOON).expect("the daemon can be waited for");
        status.unwrap_or_else(|| panic!("the daemon did not end within {SOON:?} of {signal}"))
    }

    /// Another daemon for the same netdevs, with a folder of its own, not yet started.
    #[must_use]
    pub fn beside(&self, topology: &str) -> Self {
        let namespace = self.namespace.clone();
        Self { namespace, ..Self::new(topology) }
    }

    /// Runs `vswitch` to its end, in the switch's namespace.
    #[track_caller]
    pub fn daemon<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Answer {
        let mut command = self.namespace.command(program("vswitch"));
        Answer::of(command.args(args))
    }

    /// Runs `vswitchctl` to its end.
    pub fn ctl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Answer {
        Answer::of(self.ctl_command().args(args))
    }

    /// Runs `vswitchctl` to its end, as a user would whose session comes from `address`.
    pub fn ctl_in_session<'a>(&self, address: &str, args: impl IntoIterator<Item = &'a str>) -> Answer {
        // sshd(8): the client's address and port, then the server's.
        let session = format!("{address} 40000 192.0.2.1 22");
        Answer::of(self.ctl_command().env("SSH_CONNECTION", session).args(args))
    }

    fn ctl_command(&self) -> Command {
        let mut command = Command::new(program("vswitchctl"));
        // The session of whoever runs the tests has nothing to do with the switch's namespace.
        command.env_remove("SSH_CONNECTION").arg("--socket").arg(self.socket());
        command
    }

    /// The answer to a command that must succeed, read from its JSON.
    #[track_caller]
    pub fn ask<T: DeserializeOwned>(&self, args: &[&str]) -> T {
        let answer = self.ctl(["--json"].iter().chain(args).copied());
        assert_eq!(answer.code, 0, "vswitchctl {}: {}", args.join(" "), answer.stderr);
        serde_json::from_str(&answer.stdout)
            .unwrap_or_else(|error| panic!("vswitchctl {}: {error}: {}", args.join(" "), answer.stdout))
    }

    /// Runs a command that changes the configuration, and must succeed; what it changed, a line each.
    #[track_caller]
    pub fn change(&self, args: &[&str]) -> Vec<String> {
        self.ask::<Changes>(args).changes.iter().map(ToString::to_string).collect()
    }

    /// The one line with which the switch refuses a command.
    #[track_caller]
    pub fn refusal(&self, args: &[&str]) -> String {
        let answer = self.ctl(args.iter().copied());
        assert_eq!(answer.code, 1, "vswitchctl {}: {}{}", args.join(" "), answer.stdout, answer.stderr);
        assert_eq!(answer.stderr.lines().count(), 1, "{}", answer.stderr);
        answer.stderr
    }

    /// `apply` of a topology.
    #[track_caller]
    pub fn apply(&self, topology: &str) -> Vec<String> {
        self.change(&["apply", &text(&self.write("applied.toml", topology))])
    }

    /// Writes a file into the scenario's folder.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, content).expect("the file is written");
        path
    }

    /// `status`.
    #[track_caller]
    pub fn status(&self) -> Status {
        self.ask(&["status"])
    }

    /// `stats`.
    #[track_caller]
    pub fn stats(&self) -> Stats {
        self.ask(&["stats"])
    }

    /// `port list`.
    #[track_caller]
    pub fn ports(&self) -> Vec<PortState> {
        self.ask(&["port", "list"])
    }

    /// `port show`.
    #[track_caller]
    pub fn port(&self, name: &str) -> PortState {
        self.ask(&["port", "show", name])
    }

    /// `fdb list`.
    #[track_caller]
    pub fn fdb(&self) -> Vec<FdbEntry> {
        self.ask(&["fdb", "list"])
    }

    /// Where `network` has `mac`.
    #[track_caller]
    pub fn place_of(&self, network: &str, mac: Mac) -> Option<String> {
        self.fdb()
            .into_iter()
            .find(|entry| entry.network == network && entry.mac == mac)
            .and_then(|entry| entry.port.or(entry.vtep.map(|vtep| vtep.to_string())))
    }

    /// Frames that `port` has dropped for this reason.
    #[track_caller]
    pub fn drops(&self, port: &str, reason: &str) -> u64 {
        self.port(port).counters.drops.get(reason).copied().unwrap_or(0)
    }

    /// `trace` of a frame that comes in by `port`.
    #[track_caller]
    pub fn trace(&self, port: &str, frame: &Frame) -> TraceResult {
        self.ask(&["trace", "--port", port, "--frame", &frame.hex()])
    }

    /// Waits until every frame that came in is accounted for, and no more come in.
    ///
    /// # Panics
    /// When the balance is not exact at the deadline.
    #[track_caller]
    pub fn wait_quiet(&self) {
        let mut before = self.stats().conservation;
        wait_until("the balance of frames is exact and stays so", SOON, || {
            let after = self.stats().conservation;
            let is_quiet = after == before && after.is_balanced();
            before = after;
            is_quiet
        });
    }
}

/// A path as an argument.
fn text(path: &Path) -> String {
    path.to_str().expect("a path of ASCII").to_owned()
}
