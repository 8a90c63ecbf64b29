//! Runs programs in front of the user: each command is printed as it could be typed, and ends with us, however
//! we end.

use std::env;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time;
use vswitch_netns::tie_to_owner;

use crate::{Error, Result};

/// What a command that was watched to its end has said.
pub(crate) struct Output {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Its stdout.
    pub(crate) stdout: String,
    /// Its stderr.
    pub(crate) stderr: String,
}

/// Says what comes next.
pub(crate) fn title(text: &str) {
    println!("\n{}", paint("1", &format!("== {text}")));
}

/// Says something in red, on a terminal.
pub(crate) fn red(text: &str) -> String {
    paint("1;31", text)
}

/// Says something in green, on a terminal.
pub(crate) fn green(text: &str) -> String {
    paint("1;32", text)
}

fn paint(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Prints a command and runs it, with its output passed on as it comes; an error unless it ends with 0.
pub(crate) async fn run(mut command: Command) -> Result<()> {
    tie_to_owner(&mut command);
    run_as(&text(&command), command).await
}

/// Like [`run`], for what must not be killed half-way: if we are, it goes on to its own end.
pub(crate) async fn run_uninterrupted(command: Command) -> Result<()> {
    run_as(&text(&command), command).await
}

/// Like [`run`], for a cargo that builds: it is process 1 of a process namespace, so its compilers end with it.
pub(crate) async fn build(cargo: Command) -> Result<()> {
    let mut contained = Command::new("unshare");
    contained.args(["--pid", "--fork", "--kill-child", "--"]).arg(cargo.get_program()).args(cargo.get_args());
    contained.envs(cargo.get_envs().filter_map(|(name, value)| Some((name, value?))));
    contained.current_dir(cargo.get_current_dir().unwrap_or(root()));
    tie_to_owner(&mut contained);
    run_as(&text(&cargo), contained).await
}

async fn run_as(text: &str, command: Command) -> Result<()> {
    println!("{}", paint("36", &format!("$ {text}")));
    let mut child = tokio::process::Command::from(command).spawn().map_err(cannot_run(text))?;
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { Err(format!("{text}: {status}").into()) }
}

/// Prints a command, runs it, prints what it said and returns it; whether its exit code is good is the
/// caller's question.
pub(crate) async fn show(command: Command) -> Result<Output> {
    println!("{}", paint("36", &format!("$ {}", text(&command))));
    let output = quiet(command).await?;
    for line in output.stdout.lines().chain(output.stderr.lines()).filter(|line| !line.is_empty()) {
        println!("    {line}");
    }
    Ok(output)
}

/// Like [`show`], for a command that must succeed; its stdout.
pub(crate) async fn show_success(command: Command) -> Result<String> {
    let text = text(&command);
    let output = show(command).await?;
    if output.status.success() { Ok(output.stdout) } else { Err(format!("{text}: {}", output.status).into()) }
}

/// Like [`quiet`], for a command that must succeed; its stdout.
pub(crate) async fn quiet_success(command: Command) -> Result<String> {
    let text = text(&command);
    let Output { status, stdout, stderr } = quiet(command).await?;
    if status.success() { Ok(stdout) } else { Err(format!("{text}: {status}: {}", stderr.trim()).into()) }
}

/// Runs a command that the user need not see.
pub(crate) async fn quiet(mut command: Command) -> Result<Output> {
    let text = text(&command);
    tie_to_owner(&mut command);
    command.stdin(Stdio::null());
    let output = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(cannot_run(&text))?;
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Asks again and again until the answer is yes; an error after `limit`.
pub(crate) async fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let mut tick = time::interval(Duration::from_millis(50));
    let asked = async {
        while !condition().await? {
            tick.tick().await;
        }
        Ok(())
    };
    time::timeout(limit, asked).await.unwrap_or_else(|_| Err(format!("not within {limit:?}: {what}").into()))
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.current_dir(root());
    cargo
}

/// The folder of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo puts the programs that it builds for us: beside this one.
pub(crate) fn bin_dir() -> Result<PathBuf> {
    let own = env::current_exe()?;
    Ok(own.parent().ok_or("this program is in no folder")?.to_owned())
}

/// An error unless the user is root.
pub(crate) fn need_root(why: &str) -> Result<()> {
    if is_root()? {
        Ok(())
    } else {
        Err(format!("root is needed: {why}; run it with sudo or as root").into())
    }
}

pub(crate) fn is_root() -> Result<bool> {
    // A process's folder in /proc belongs to its effective user.
    Ok(std::fs::metadata("/proc/self")?.uid() == 0)
}

fn cannot_run(text: &str) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let text = text.to_owned();
    move |error| format!("cannot run {text}: {error}").into()
}

/// The command as it could be typed; programs of this project by their name alone.
fn text(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let args = command.get_args().map(|arg| quote(&arg.to_string_lossy()));
    std::iter::once(program.into_owned()).chain(args).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_read_as_they_could_be_typed() {
        let mut command = Command::new("/some/where/vswitchctl");
        command.args(["lab", "exec", "a b", "--", "sh", "-c", "echo 'x'", ""]);
        assert_eq!(text(&command), r"vswitchctl lab exec 'a b' -- sh -c 'echo '\''x'\''' ''");
    }
}
