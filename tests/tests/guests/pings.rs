//! Pings without an end, and how long their way was cut.

#![allow(clippy::disallowed_methods)] // an outage is measured in real time

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use vswitch_netns::Process;
use vswitch_tests::{Host, SOON};

/// A host pings an address 20 times a second.
pub(crate) struct Pings {
    /// When an answer came, and how long after its question.
    answers: Receiver<(Instant, Duration)>,
    to: &'static str,
    _process: Process,
}

impl Pings {
    pub(crate) fn start(from: &Host, to: &'static str) -> Self {
        let mut command = from.namespace.command("ping");
        command.args(["-n", "-i", "0.05", to]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::spawn(command).expect("ping starts");
        let lines = BufReader::new(process.child().stdout.take().expect("stdout is a pipe")).lines();
        let (sender, answers) = mpsc::channel();
        let seen = lines.map_while(Result::ok).filter_map(|line| Some((Instant::now(), round_trip(&line)?)));
        thread::spawn(move || seen.into_iter().try_for_each(|answer| sender.send(answer)));
        Self { answers, to, _process: process }
    }

    /// How long after `since` the first answer came to a question that was asked after it.
    #[track_caller]
    pub(crate) fn answered_after(&self, since: Instant) -> Duration {
        loop {
            let answer = self.answers.recv_timeout(SOON);
            let (came, round_trip) = answer.unwrap_or_else(|error| panic!("pings to {}: {error}", self.to));
            if came.checked_sub(round_trip).is_some_and(|asked| asked >= since) {
                return came - since;
            }
        }
    }
}

/// Of an answer, as in `64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.35 ms`.
fn round_trip(line: &str) -> Option<Duration> {
    let (_, time) = line.split_once(" time=")?;
    let (milliseconds, _) = time.split_once(' ')?;
    Some(Duration::from_secs_f64(milliseconds.parse::<f64>().ok()? / 1000.0))
}
