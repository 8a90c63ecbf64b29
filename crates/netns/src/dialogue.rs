//! Programs that are spoken with.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{Error, Process, Result};

/// A program with a prompt: it is told a line, and answers until it prompts again. It ends as a [`Process`] does.
#[derive(Debug)]
pub struct Dialogue {
    process: Process,
    input: ChildStdin,
    output: PipeReader,
    prompt: String,
    /// How long it may be silent before it prompts.
    patience: Duration,
}

impl Dialogue {
    /// Starts `command` and waits for its first prompt. What it complains of is part of what it says.
    pub fn start(mut command: Command, prompt: &str, patience: Duration) -> Result<Self> {
        let pipe = || -> io::Result<_> {
            let (output, end) = io::pipe()?;
            Ok((output, end.try_clone()?, end))
        };
        let (output, stdout, stderr) = pipe().map_err(Error::system("make a pipe"))?;
        command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
        let mut process = Process::spawn(command)?;
        let gone = || Error::system("speak with a program")(io::ErrorKind::BrokenPipe.into());
        let input = process.child().stdin.take().ok_or_else(gone)?;
        let mut dialogue = Self { process, input, output, prompt: prompt.to_owned(), patience };
        dialogue.listen("its start")?;
        Ok(dialogue)
    }

    /// Says a line; what the program answers.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        let said = self.input.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.input.flush());
        said.map_err(Error::system(format!("say {line:?}")))?;
        self.listen(line)
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// All that is said up to the next prompt.
    fn listen(&mut self, after: &str) -> Result<String> {
        let mut heard = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&heard);
            if let Some((answer, _)) = text.split_once(&self.prompt) {
                return Ok(answer.to_owned());
            }
            if !self.has_spoken()? {
                return Err(Error::Timeout(format!("the prompt after {after:?} (heard: {text})")));
            }
            let mut buffer = [0; 4096];
            let count = self.output.read(&mut buffer).map_err(Error::system("hear a program"))?;
            if count == 0 {
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, text.trim().to_owned());
                return Err(Error::system(format!("hear a program after {after:?}: it has ended"))(source));
            }
            heard.extend_from_slice(&buffer[..count]);
        }
    }

    /// Waits for a word, or the end; false when there is none.
    fn has_spoken(&self) -> Result<bool> {
        let timeout = PollTimeout::try_from(self.patience).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, timeout) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::errno("wait for a program")(errno)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_answers_until_it_prompts() {
        let script =
            "printf 'hello\n> '; while read -r line; do echo \"<$line>\" >&2; printf 'done\n> '; done";
        let mut dialogue = Dialogue::start(shell(script), "> ", PATIENCE).unwrap();
        assert_eq!(dialogue.ask("one").unwrap(), "<one>\ndone\n");
        assert_eq!(dialogue.ask("two").unwrap(), "<two>\ndone\n");
    }

    #[test]
    fn the_end_and_the_silence_of_a_program_are_errors() {
        let ended = Dialogue::start(shell("echo no such option; exit 1"), "> ", PATIENCE).unwrap_err();
        assert!(ended.to_string().contains("it has ended"), "{ended}");
        let reason = std::error::Error::source(&ended).unwrap().to_string();
        assert_eq!(reason, "no such option");
        let silent = Dialogue::start(shell("echo well; read -r line"), "> ", Duration::from_millis(50));
        assert!(matches!(silent.unwrap_err(), Error::Timeout(_)));
    }
}
