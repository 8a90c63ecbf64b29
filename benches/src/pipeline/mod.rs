//! Case `pipeline`: what a packet costs in `Pipeline::process` alone, known unicast of 64 bytes.
//!
//! A loop gives frames new random addresses and runs them through the pipeline; the same loop without the
//! pipeline is subtracted. Time is the median of many short samples. Instructions do not depend on the machine's
//! mood: callgrind counts those of this program's `batches`, once with the pipeline and once without, so that
//! start-up and the loop itself cancel exactly.

mod filter;
mod rig;
mod tunnel;

use std::hint::black_box;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use vswitch_netns::{Process, Scratch};

use crate::noise::{self, Sample};
use crate::report::{Row, median};
use crate::{Effort, Result, clock};
use rig::Rig;
use tunnel::Way;

/// What frames of one batch meet.
#[derive(Clone, Copy)]
struct Variant {
    /// Frames of a batch.
    batch: usize,
    /// Stations in the FDB.
    macs: u32,
    /// Rules that judge them on the way in.
    rules: Option<usize>,
    /// They go through a tunnel.
    tunnel: Option<Way>,
}

const fn variant(batch: usize, macs: u32) -> Variant {
    Variant { batch, macs, rules: None, tunnel: None }
}

const fn filtered(rules: usize) -> Variant {
    Variant { rules: Some(rules), ..variant(32, 1_000) }
}

const fn tunnelled(way: Way) -> Variant {
    Variant { tunnel: Some(way), ..variant(32, 1_000) }
}

const VARIANTS: [Variant; 10] = [
    variant(32, 1),
    variant(32, 1_000),
    variant(32, 1_000_000),
    variant(8, 1_000),
    variant(1, 1_000),
    filtered(10),
    filtered(1_000),
    filtered(4_096),
    tunnelled(Way::Encap),
    tunnelled(Way::Decap),
];
/// Frames whose instructions are counted.
const COUNTED_FRAMES: u64 = 320_000;
/// Frames that one measurement times: a few milliseconds.
const TIMED_FRAMES: u64 = 64_000;
/// Measurements of one sample.
const SHORT_SAMPLES: usize = 25;

/// One run of the loop, as `batches` on the command line.
#[derive(Args)]
pub(crate) struct Batches {
    /// Batches to run
    #[arg(long)]
    count: u64,
    /// Frames of a batch
    #[arg(long)]
    batch: usize,
    /// Stations in the FDB
    #[arg(long)]
    macs: u32,
    /// Rules that judge what comes in
    #[arg(long)]
    rules: Option<usize>,
    /// Which way they go through a tunnel
    #[arg(long)]
    tunnel: Option<Way>,
    /// Only the loop around the pipeline
    #[arg(long)]
    without_pipeline: bool,
}

impl Batches {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<()> {
        let &Self { batch, macs, rules, tunnel, .. } = self;
        let mut rig = Rig::new(Variant { batch, macs, rules, tunnel })?;
        run(&mut rig, self.count, !self.without_pipeline);
        if !self.without_pipeline { rig.expect_unicast() } else { Ok(()) }
    }
}

/// A row of time and one of instructions for every variant.
pub(crate) fn measure(effort: Effort) -> Result<Vec<Row>> {
    println!("\n== pipeline");
    let mut rows = Vec::new();
    for which @ Variant { batch, macs, rules, tunnel } in VARIANTS {
        let filter = rules.map_or(String::new(), |rules| format!(" acl={rules}"));
        let way = tunnel.map_or(String::new(), |way| format!(" vxlan-{}", way.name()));
        let variant = format!("64B batch={batch} macs={macs}{filter}{way}");
        let row = |unit, samples: &[Sample]| {
            let subject = ("vswitch", "Pipeline::process".to_owned());
            Row::new(["pipeline", unit], &variant, subject, samples)
        };
        let times = times(which, effort)?;
        let time = row("ns/packet", &times);
        let instructions = Sample::exact(instructions(which)?);
        let count = row("instructions/packet", &[instructions]);
        println!("   {variant}: {:.1} ns, {:.1} instructions a packet", time.median, count.median);
        rows.extend([time, count]);
    }
    Ok(rows)
}

fn run(rig: &mut Rig, batches: u64, with_pipeline: bool) {
    for _ in 0..batches {
        rig.address();
        if with_pipeline {
            rig.process();
        }
        black_box(&mut *rig);
    }
}

/// Nanoseconds a packet, each the median of some short measurements.
fn times(which: Variant, effort: Effort) -> Result<Vec<Sample>> {
    let mut rig = Rig::new(which)?;
    let batch = which.batch;
    let batches = TIMED_FRAMES / batch as u64;
    let mut time = |with_pipeline| {
        let begin = clock::now();
        run(&mut rig, batches, with_pipeline);
        begin.elapsed()
    };
    time(true); // warms caches and branch predictors
    let mut measure = || {
        let (whole, without) = (time(true), time(false));
        per_frame(whole.saturating_sub(without), batches * batch as u64)
    };
    (0..effort.rounds())
        .map(|_| {
            noise::sample(effort.attempts(), || {
                let short: Vec<f64> = (0..SHORT_SAMPLES).map(|_| measure()).collect();
                Ok(median(&short))
            })
        })
        .collect()
}

fn per_frame(time: Duration, frames: u64) -> f64 {
    time.as_nanos() as f64 / frames as f64
}

/// Instructions a packet.
fn instructions(Variant { batch, macs, rules, tunnel }: Variant) -> Result<f64> {
    let count = COUNTED_FRAMES / batch as u64;
    let run = |more: &[&str]| -> Result<u64> {
        let folder = Scratch::new()?;
        let out = folder.path().join("callgrind.out");
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--tool=callgrind"]);
        command.arg(format!("--callgrind-out-file={}", out.display()));
        command.arg(std::env::current_exe()?).arg("batches");
        command.args(["--count", &count.to_string(), "--batch", &batch.to_string()]);
        command.args(["--macs", &macs.to_string()]).args(more);
        command.args(rules.map(|rules| format!("--rules={rules}")));
        command.args(tunnel.map(|way| format!("--tunnel={}", way.name())));
        Process::run(command)?;
        total(&std::fs::read_to_string(out)?).ok_or_else(|| "callgrind reports no total".into())
    };
    let (whole, without) = (run(&[])?, run(&["--without-pipeline"])?);
    Ok(whole.saturating_sub(without) as f64 / (count * batch as u64) as f64)
}

/// The instructions in a file of callgrind.
fn total(out: &str) -> Option<u64> {
    let line =
        out.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_of_the_rig_is_known_unicast() {
        let filtered = Variant { rules: Some(100), ..variant(32, 10) };
        for which in [
            variant(1, 1),
            variant(32, 1),
            variant(64, 1000),
            filtered,
            tunnelled(Way::Encap),
            tunnelled(Way::Decap),
        ] {
            let mut rig = Rig::new(which).unwrap();
            run(&mut rig, 100, true);
            rig.expect_unicast().unwrap();
        }
    }

    #[test]
    fn totals_of_callgrind_are_found() {
        assert_eq!(total("events: Ir\nfn=(1)\n1 2\n\ntotals: 123\n"), Some(123));
        assert_eq!(total("summary: 7\n"), Some(7));
        assert_eq!(total("events: Ir\n"), None);
    }
}
