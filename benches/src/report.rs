//! Results: the table on the terminal and the JSON file, whose form is a contract.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::noise::{self, Sample};
use crate::{Result, clock};

/// All figures of one subject in one variant of a case.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) variant: String,
    pub(crate) subject: &'static str,
    pub(crate) unit: &'static str,
    /// What the subject is, in words.
    pub(crate) detail: String,
    /// In the order they were taken.
    pub(crate) runs: Vec<f64>,
    /// Of the runs that passed the noise gate; of all where none did.
    pub(crate) median: f64,
    /// Runs that did not pass the noise gate, from 0.
    pub(crate) noisy: Vec<usize>,
    /// Why the figures count for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) void: Option<String>,
}

/// What it was measured on.
#[derive(Debug, Serialize)]
struct Machine {
    cpu: String,
    cpus: usize,
    kernel: String,
    memory_mib: u64,
    core_to_core_ns: Option<f64>,
    seconds_since_1970: u64,
    quick: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    results: &'a [Row],
}

impl Row {
    /// The row of a subject, which is described in words, with these samples in the case's unit.
    pub(crate) fn new(
        [case, unit]: [&'static str; 2],
        variant: &str,
        (subject, detail): (&'static str, String),
        samples: &[Sample],
    ) -> Self {
        let runs: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        let accepted: Vec<f64> = samples.iter().filter(|s| !s.noisy).map(|s| s.value).collect();
        let noisy = (0..).zip(samples).filter(|(_, sample)| sample.noisy).map(|(n, _)| n).collect();
        Self {
            case,
            variant: variant.to_owned(),
            subject,
            unit,
            detail,
            median: median(if accepted.is_empty() { &runs } else { &accepted }),
            runs,
            noisy,
            void: None,
        }
    }

    fn bounds(&self) -> (f64, f64) {
        self.runs
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), run| (low.min(*run), high.max(*run)))
    }

    /// Every run, with a mark where it did not pass the gate.
    fn runs_in_words(&self) -> String {
        let mark = |n| if self.noisy.contains(&n) { "!" } else { "" };
        let runs = self.runs.iter().enumerate().map(|(n, run)| format!("{run:.3}{}", mark(n)));
        runs.collect::<Vec<_>>().join(" ")
    }
}

/// The middle value, or the mean of the two in the middle; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len().checked_sub(1), sorted.len() / 2) {
        (None, _) => 0.0,
        (Some(last), middle) => f64::midpoint(sorted[last / 2], sorted[middle]),
    }
}

/// Prints a sample as soon as it is taken.
pub(crate) fn announce((round, of): (u32, u32), variant: &str, subject: &str, unit: &str, sample: Sample) {
    let Sample { value, noisy, core_to_core_ns, others } = sample;
    let mark = if noisy { '!' } else { ' ' };
    println!(
        "   round {round}/{of}  {variant:<21} {subject:<16} {value:8.3} {unit} {mark}  (core to core \
         {core_to_core_ns:.0} ns, others {:.0} %)",
        others * 100.0
    );
}

/// Whom others of a case are compared with: the first of these that takes part.
const PEERS: [&str; 2] = ["linux-bridge", "ovs-dpdk-static"];

/// The row that a row is compared with: of a bridge there is one for all variants.
fn peer<'a>(row: &Row, rows: &'a [Row]) -> Option<&'a Row> {
    let of_case = || rows.iter().filter(|other| other.case == row.case);
    let same = |name: &str| {
        let named = || of_case().filter(|other| other.subject == name);
        named().find(|other| other.variant == row.variant).or_else(|| named().next())
    };
    PEERS.iter().find_map(|name| same(name))
}

/// Prints all rows, each beside the peer of its case.
pub(crate) fn print(rows: &[Row]) {
    println!("\n== Result: medians of quiet runs; `!` marks runs of a machine that was not quiet");
    println!("   x peer: the ratio to {}", PEERS.join(", or "));
    println!(
        "{:<13} {:<23} {:<15} {:>10} {:<19} {:>9} {:>9} {:>8}  runs",
        "case", "variant", "subject", "median", "unit", "low", "high", "x peer"
    );
    for row in rows {
        let ratio =
            peer(row, rows).map_or_else(String::new, |peer| format!("{:.2}", row.median / peer.median));
        let (low, high) = row.bounds();
        println!(
            "{:<13} {:<23} {:<15} {:>10.3} {:<19} {low:>9.3} {high:>9.3} {ratio:>8}  {}",
            row.case,
            row.variant,
            row.subject,
            row.median,
            row.unit,
            row.runs_in_words()
        );
    }
    for row in rows {
        if let Some(why) = &row.void {
            println!("VOID: {} {} {}: {why}", row.case, row.variant, row.subject);
        }
    }
}

/// Writes the JSON file.
pub(crate) fn write(file: &Path, rows: &[Row], quick: bool) -> Result<()> {
    let machine = Machine::look(quick)?;
    let mut text = serde_json::to_string_pretty(&Report { machine: &machine, results: rows })?;
    text.push('\n');
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()).into())
}

impl Machine {
    fn look(quick: bool) -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let memory = fs::read_to_string("/proc/meminfo")?;
        let core_to_core_ns = Some(noise::core_to_core_ns()).filter(|ns| ns.is_finite());
        Ok(Self {
            cpu: field(&cpus, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            memory_mib: field(&memory, "MemTotal")
                .and_then(|kib| kib.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            core_to_core_ns,
            seconds_since_1970: clock::seconds_since_1970(),
            quick,
        })
    }
}

/// The first value of a `key : value` file.
fn field(text: &str, key: &str) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.trim() == key).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(
            [median(&[]), median(&[3.0]), median(&[4.0, 1.0]), median(&[9.0, 1.0, 2.0])],
            [0.0, 3.0, 2.5, 2.0]
        );
    }

    #[test]
    fn a_row_says_which_runs_were_noisy() {
        let sample = |value, noisy| Sample { value, noisy, core_to_core_ns: 100.0, others: 0.0 };
        let row = Row::new(
            ["veth-l2", "Mpps"],
            "64B",
            ("ovs", String::new()),
            &[sample(1.0, false), sample(3.0, true)],
        );
        assert_eq!(
            (row.median, row.bounds(), row.runs_in_words()),
            (1.0, (1.0, 3.0), "1.000 3.000!".to_owned())
        );
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json["runs"], serde_json::json!([1.0, 3.0]));
        assert_eq!((&json["noisy"], json.get("void")), (&serde_json::json!([1]), None));
    }

    #[test]
    fn a_row_is_compared_with_the_peer_of_its_case_and_variant() {
        let row = |case, variant, subject, value| {
            Row::new([case, "Mpps"], variant, (subject, String::new()), &[Sample::exact(value)])
        };
        let rows = [
            row("veth-l2", "64B", "vswitch", 1.0),
            row("veth-l2", "64B", "linux-bridge", 2.0),
            row("veth-l2", "64B workers", "vswitch", 3.0),
            row("vhost-user-l2", "a", "ovs-dpdk-static", 4.0),
            row("vhost-user-l2", "b", "vswitch", 5.0),
            row("vhost-user-l2", "b", "ovs-dpdk-static", 6.0),
            row("pipeline", "", "vswitch", 7.0),
        ];
        let peers: Vec<Option<f64>> =
            rows.iter().map(|row| peer(row, &rows).map(|peer| peer.median)).collect();
        assert_eq!(peers, [Some(2.0), Some(2.0), Some(2.0), Some(4.0), Some(6.0), Some(6.0), None]);
    }

    #[test]
    fn fields_of_proc_files_are_found_by_name() {
        assert_eq!(field("a\t: x\nmodel name\t: A B: C\n", "model name").as_deref(), Some("A B: C"));
        assert_eq!(field("a : x", "b"), None);
    }
}
