//! Case `vhost-user-l2`: frames of 64 bytes between two guests, by one thread of the switch.
//!
//! Each subject has guests of its own. All stand ready at the same time, and rounds are interleaved; but their threads poll,
//! so all of a switch but the one that is measured are stopped (SIGSTOP).

mod generator;

use std::time::Duration;

use nix::sys::signal::Signal;
use vswitch_netns::{Namespace, Scratch};

use crate::dpdk::{self, Memory};
use crate::hugepages::HugePages;
use crate::noise::{self, Sample};
use crate::report::{Row, announce};
use crate::subject::{GuestSwitch, Poller};
use crate::{Effort, Result, clock};
use generator::{Generator, Traffic};

const CASE: &str = "vhost-user-l2";
const UNIT: &str = "Mpps";

const VARIANTS: [(&str, Traffic); 4] = [
    ("64B split 1-flow", Traffic { packed: false, many_flows: false }),
    ("64B split 1024-flows", Traffic { packed: false, many_flows: true }),
    ("64B packed 1-flow", Traffic { packed: true, many_flows: false }),
    ("64B packed 1024-flows", Traffic { packed: true, many_flows: true }),
];

/// Time for addresses to be learnt, and for the loop to find its pace.
const WARM_UP: Duration = Duration::from_millis(300);
/// Where the CPUs are changes within seconds, and millions of frames are enough.
const SAMPLE_MAX: Duration = Duration::from_secs(1);

/// Frames per second of every subject, in every variant.
pub(crate) fn frames(effort: Effort) -> Result<Vec<Row>> {
    println!("\n== {CASE}");
    let all: u32 = GuestSwitch::ALL.iter().map(|switch| switch.memory_mib() + dpdk::MEMORY_MIB).sum();
    let needed = all + all / 4; // DPDK takes more than it is told
    let pages = HugePages::add(needed)?;
    let memory = if pages.is_some() { Memory::Huge } else { Memory::Small };
    if memory == Memory::Huge {
        println!("   {needed} MiB of huge pages are added until the end");
    }
    if memory == Memory::Small {
        println!(
            "   this machine gives no {needed} MiB of huge pages: guests run without, at half the speed"
        );
    }
    let mut rows = Vec::new();
    for (variant, traffic) in VARIANTS {
        rows.extend(compare(variant, traffic, memory, effort)?);
    }
    Ok(rows)
}

/// All subjects in one variant; a row for each.
fn compare(variant: &str, traffic: Traffic, memory: Memory, effort: Effort) -> Result<Vec<Row>> {
    let mut lanes = Vec::new();
    for subject in GuestSwitch::ALL {
        match subject.hindrance(memory) {
            Some(why) => println!("   {variant}: {} is left out: {why}", subject.name()),
            None => lanes.push(Lane::open(subject, variant, traffic, memory)?),
        }
    }
    for round in 1..=effort.rounds() {
        for lane in &mut lanes {
            let sample = noise::sample(effort.attempts(), || lane.measure(effort))?;
            lane.samples.push(sample);
            announce((round, effort.rounds()), variant, lane.subject.name(), UNIT, sample);
        }
    }
    lanes.into_iter().map(|lane| lane.close(variant)).collect()
}

/// A switch with its guests, at rest; dropped in this order.
struct Lane {
    subject: GuestSwitch,
    generator: Generator,
    switch: Box<dyn Poller>,
    detail: String,
    samples: Vec<Sample>,
    _folders: [Scratch; 2],
}

impl Lane {
    fn open(subject: GuestSwitch, variant: &str, traffic: Traffic, memory: Memory) -> Result<Self> {
        let folders = [Scratch::new()?, Scratch::new()?];
        let [of_switch, of_guests] = [folders[0].path(), folders[1].path()];
        let namespace = Namespace::new()?;
        let with_name = |error| format!("{} does not run: {error}", subject.name());
        let switch = subject.start(&namespace, &of_switch, memory).map_err(with_name)?;
        let detail = switch.describe()?;
        println!("   {variant}: {} ({detail})", subject.name());
        let generator = Generator::start(&namespace, &of_switch, &of_guests, memory, traffic);
        let generator = generator.map_err(with_name)?;
        switch.process().signal(Signal::SIGSTOP)?;
        Ok(Self { subject, generator, switch, detail, samples: Vec::new(), _folders: folders })
    }

    /// Millions of frames per second that come to the guests.
    fn measure(&mut self, effort: Effort) -> Result<f64> {
        self.switch.process().signal(Signal::SIGCONT)?;
        self.generator.go()?;
        clock::pass(WARM_UP);
        let (before, begin) = (self.generator.received()?, clock::now());
        clock::pass(effort.sample_time().min(SAMPLE_MAX));
        let (after, end) = (self.generator.received()?, clock::now());
        self.generator.stop()?;
        self.switch.process().signal(Signal::SIGSTOP)?;
        let micros = end.duration_since(begin).as_secs_f64() * 1e6;
        Ok((after - before) as f64 / micros)
    }

    /// The figures, and whether they are to be believed.
    fn close(mut self, variant: &str) -> Result<Row> {
        self.switch.process().signal(Signal::SIGCONT)?;
        let audited = self.switch.audit();
        let mut row = Row::new([CASE, UNIT], variant, (self.subject.name(), self.detail), &self.samples);
        row.void = audited.err().map(|error| error.to_string());
        Ok(row)
    }
}
