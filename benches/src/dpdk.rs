//! DPDK's testpmd, spoken with by its prompt.

use std::path::Path;
use std::time::Duration;

use vswitch_netns::{Dialogue, Namespace, Process};

use crate::Result;

const PROGRAM: &str = "dpdk-testpmd";
const PROMPT: &str = "testpmd> ";
/// How long it may be silent: it starts within two seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// MiB of one testpmd: the frames below, and what they hang on.
pub(crate) const MEMORY_MIB: u32 = 128;
/// Frames of one testpmd: four full rings and what is at hand.
const FRAMES: u32 = 8192;
/// Entries of a ring.
pub(crate) const RING: u32 = 1024;

/// What DPDK's memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Huge pages.
    Huge,
    /// Pages as everybody's.
    Small,
}

/// A running testpmd with two ports.
pub(crate) struct Testpmd {
    dialogue: Dialogue,
}

impl Testpmd {
    /// Starts it, and leaves it at its prompt. All of its files are in `folder`. Its threads run where `lcores` says,
    /// the first of them waits for commands.
    pub(crate) fn start(
        namespace: &Namespace,
        folder: &Path,
        memory: Memory,
        lcores: &str,
        devices: &[String],
        args: &[&str],
    ) -> Result<Self> {
        // Whole lines into the pipe, in time before the prompt.
        let mut command = namespace.command("stdbuf");
        command.env("RUNTIME_DIRECTORY", folder).args(["-oL", PROGRAM, "--no-pci", "--no-telemetry"]);
        command.args(["--lcores", lcores, "-m", &MEMORY_MIB.to_string()]);
        // A guest's memory is told to the switch a file each, of which it takes eight.
        command.args(match memory {
            Memory::Huge => &["--in-memory", "--single-file-segments"][..],
            Memory::Small => &["--no-huge", "--no-shconf"],
        });
        command.args(devices.iter().map(|device| format!("--vdev={device}")));
        command.args(["--", "--interactive", "--nb-cores=1", &format!("--total-num-mbufs={FRAMES}")]);
        command.args([format!("--rxd={RING}"), format!("--txd={RING}")]).args(args);
        let dialogue = Dialogue::start(command, PROMPT, PATIENCE).map_err(|error| with_reason(&error))?;
        Ok(Self { dialogue })
    }

    /// Has it do something; what it says to that.
    pub(crate) fn tell(&mut self, command: &str) -> Result<String> {
        self.dialogue.ask(command).map_err(|error| with_reason(&error).into())
    }

    /// Frames that it has received from both ports since it was started.
    pub(crate) fn received(&mut self) -> Result<u64> {
        let answer = self.tell("show port stats all")?;
        let counts: Vec<u64> = values_of(&answer, "RX-packets:").collect();
        if counts.len() == 2 { Ok(counts.iter().sum()) } else { Err(format!("no counters: {answer}").into()) }
    }

    pub(crate) fn process(&self) -> &Process {
        self.dialogue.process()
    }
}

/// An error whose reason is what the program said last.
fn with_reason(error: &vswitch_netns::Error) -> String {
    let reason = std::error::Error::source(error).map(|reason| format!(": {reason}"));
    format!("{PROGRAM}: {error}{}", reason.unwrap_or_default())
}

/// The numbers behind each mention of a name.
fn values_of<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = u64> + 'a {
    text.split(name).skip(1).filter_map(|tail| tail.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_ports_are_found() {
        let text = "# NIC statistics for port 0 #\n  RX-packets: 2054240    RX-missed: 0\n  TX-packets: 5\n\
                    # NIC statistics for port 1 #\n  RX-packets: 7  RX-missed: 0\n";
        assert_eq!(values_of(text, "RX-packets:").collect::<Vec<_>>(), [2_054_240, 7]);
    }
}
