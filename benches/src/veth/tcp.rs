//! Case `tcp-veth`: one TCP stream of iperf3, with the kernel's default settings, MTU 1500.
//!
//! Both of its ends run wherever the kernel puts them, and share the CPUs with the switch.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use vswitch_netns::Process;

use super::{Load, compare};
use crate::bed::{Bed, RECEIVER};
use crate::report::Row;
use crate::{Effort, Result};

/// Gbit/s of every subject.
pub(crate) fn stream(effort: Effort) -> Result<Vec<Row>> {
    compare::<Stream>(effort)
}

/// The receiving end.
struct Stream {
    _server: Process,
}

impl Load for Stream {
    const NAMES: [&'static str; 3] = ["tcp-veth", "1 stream", "Gbit/s"];

    fn prepare(bed: &Bed) -> Result<Self> {
        let mut command = bed.receiver.command("iperf3");
        command.args(["--server", "--forceflush"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut server = Process::spawn(command)?;
        let output = server.child().stdout.take().ok_or("iperf3 has no output")?;
        let mut lines = BufReader::new(output).lines();
        if !lines.by_ref().any(|line| line.is_ok_and(|line| line.contains("listening"))) {
            return Err("the server of iperf3 has ended".into());
        }
        // Nobody reads on, and what it writes to a closed pipe would end it.
        std::thread::spawn(move || lines.for_each(drop));
        run(bed, "1", "0")?;
        Ok(Self { _server: server })
    }

    fn measure(&mut self, bed: &Bed, effort: Effort) -> Result<f64> {
        let seconds = effort.sample_time().as_secs().max(1).to_string();
        // The first second is left out: TCP's window grows in it.
        run(bed, &seconds, "1")
    }
}

/// Gbit/s that arrived.
fn run(bed: &Bed, seconds: &str, omit: &str) -> Result<f64> {
    let args =
        ["--client", RECEIVER, "--json", "--time", seconds, "--omit", omit, "--connect-timeout", "5000"];
    let output = bed.sender.run("iperf3", args)?;
    let report: serde_json::Value = serde_json::from_str(&output)?;
    let bits = report.pointer("/end/sum_received/bits_per_second").and_then(serde_json::Value::as_f64);
    Ok(bits.ok_or("iperf3 reports no figure")? / 1e9)
}
