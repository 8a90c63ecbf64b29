//! Cases `veth-l2` and `tcp-veth`: the switches side by side between two veth pairs.
//!
//! Every subject has a bed of its own, and all stand ready at the same time (an idle one takes no CPU), so that
//! rounds can be interleaved: A B C, A B C, and what the machine does in the meantime comes to all of them alike.

mod flood;
mod tcp;

use vswitch_api::topology::Kind;
use vswitch_netns::Scratch;

use crate::bed::Bed;
use crate::noise::{self, Sample};
use crate::report::{Row, announce};
use crate::subject::{Subject, Switch};
use crate::{Effort, Result};

pub(crate) use flood::frames;
pub(crate) use tcp::stream;

/// Who competes, and the variant that it runs as. What of our own is not the default is a variant.
const FIELD: [(Subject, &str); 5] = [
    (Subject::Vswitch { kind: Kind::Auto, shortcut: true }, ""),
    (Subject::LinuxBridge, ""),
    (Subject::Ovs, ""),
    (Subject::Vswitch { kind: Kind::Auto, shortcut: false }, " workers"),
    (Subject::Vswitch { kind: Kind::Xdp, shortcut: false }, " kind=xdp"),
];

/// What is measured on a bed.
trait Load {
    /// Case, variant and unit.
    const NAMES: [&'static str; 3];

    /// Starts what it needs on a bed whose switch is up, and warms both up.
    fn prepare(bed: &Bed) -> Result<Self>
    where
        Self: Sized;

    /// One figure.
    fn measure(&mut self, bed: &Bed, effort: Effort) -> Result<f64>;
}

/// A switch that is up on its bed, under its load; dropped in this order.
struct Lane<L> {
    subject: Subject,
    variant: String,
    load: L,
    switch: Box<dyn Switch>,
    detail: String,
    bed: Bed,
    samples: Vec<Sample>,
    _folder: Scratch,
}

impl<L: Load> Lane<L> {
    fn open(subject: Subject, suffix: &str) -> Result<Self> {
        let bed = Bed::new()?;
        let folder = Scratch::new()?;
        let switch = subject.start(&bed, &folder.path())?;
        let variant = format!("{}{suffix}", L::NAMES[1]);
        let detail = switch.describe()?;
        println!("   {variant}: {} ({detail})", subject.name());
        let load =
            L::prepare(&bed).map_err(|error| format!("{} does not switch: {error}", subject.name()))?;
        Ok(Self { subject, variant, load, switch, detail, bed, samples: Vec::new(), _folder: folder })
    }

    fn sample(&mut self, effort: Effort) -> Result<Sample> {
        let sample = noise::sample(effort.attempts(), || self.load.measure(&self.bed, effort))?;
        self.samples.push(sample);
        Ok(sample)
    }
}

/// All subjects under one load; a row for each.
fn compare<L: Load>(effort: Effort) -> Result<Vec<Row>> {
    let [case, _, unit] = L::NAMES;
    println!("\n== {case}");
    let mut lanes: Vec<Lane<L>> =
        FIELD.iter().map(|(subject, suffix)| Lane::open(*subject, suffix)).collect::<Result<_>>()?;
    for round in 1..=effort.rounds() {
        for lane in &mut lanes {
            let sample = lane.sample(effort)?;
            announce((round, effort.rounds()), &lane.variant, lane.subject.name(), unit, sample);
        }
    }
    let mut rows = Vec::new();
    for mut lane in lanes {
        // Before any figure is believed.
        let audited = lane.switch.audit();
        let mut row =
            Row::new([case, unit], &lane.variant, (lane.subject.name(), lane.detail), &lane.samples);
        row.void = audited.err().map(|error| error.to_string());
        rows.push(row);
    }
    Ok(rows)
}
