//! One testpmd that is two guests.

use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use vswitch_netns::Dialogue;
use vswitch_tests::Lab;

/// The ports of the guests.
pub(crate) const PORTS: [&str; 2] = ["vm1", "vm2"];
const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
/// Entries of each ring.
const RING: u32 = 1024;
/// How long testpmd may be silent: on a machine with much else to do, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the guests are joined to the switch.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// The switch's, `server` or `client`.
    pub(crate) role: &'static str,
    /// Pairs of queues.
    pub(crate) queues: u32,
    /// The second guest has packed rings.
    pub(crate) packed: bool,
}

/// What testpmd counted at one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Of whatever kind; there are none.
    pub(crate) errors: u64,
}

/// Both guests, with all of their memory in small pages, so that nothing of the machine is changed for them.
pub(crate) struct Guests(Dialogue);

impl Guests {
    pub(crate) fn start(lab: &Lab, setup: Setup) -> Self {
        let mut command = lab.switch.namespace.command("stdbuf"); // whole lines, in time before the prompt
        command.env("RUNTIME_DIRECTORY", lab.switch.file(""));
        command.args(["-oL", "dpdk-testpmd", "--no-pci", "--no-telemetry", "--no-huge", "--no-shconf"]);
        let cpus = cpus();
        command.args(["-m", "128", "--lcores", &format!("0@({cpus}),1@({cpus})")]);
        for n in 0..2 {
            let socket = lab.switch.file(&format!("{}.sock", PORTS[n]));
            let server = if setup.role == "client" { ",server=1" } else { "" };
            let packed = u8::from(setup.packed && n == 1);
            let queues = setup.queues;
            command.arg(format!(
                "--vdev=net_virtio_user{n},path={},mac={},queues={queues},queue_size={RING},packed_vq={packed}{server}",
                socket.display(),
                MACS[n]
            ));
        }
        command.args([
            "--",
            "--interactive",
            "--nb-cores=1",
            "--total-num-mbufs=16384",
            "--txonly-multi-flow",
        ]);
        command.args([format!("--rxd={RING}"), format!("--txd={RING}")]);
        command.args([format!("--rxq={}", setup.queues), format!("--txq={}", setup.queues)]);
        command.args([
            "--txpkts=60",
            &format!("--eth-peer=0,{}", MACS[1]),
            &format!("--eth-peer=1,{}", MACS[0]),
        ]);
        Self(
            Dialogue::start(command, "testpmd> ", PATIENCE)
                .unwrap_or_else(|e| panic!("{e}: {:?}", reason(&e))),
        )
    }

    /// Has them do something.
    pub(crate) fn tell(&mut self, command: &str) -> String {
        self.0.ask(command).unwrap_or_else(|error| panic!("{error}: {:?}", reason(&error)))
    }

    /// What each has counted.
    pub(crate) fn counters(&mut self) -> [Counters; 2] {
        let answer = self.tell("show port stats all");
        let values = |name: &str| -> Vec<u64> {
            let behind = answer.split(name).skip(1).map(|tail| tail.split_whitespace().next());
            behind.map(|word| word.and_then(|word| word.parse().ok()).expect("a number")).collect()
        };
        let [received, sent] = ["RX-packets:", "TX-packets:"].map(values);
        let errors = ["RX-missed:", "RX-errors:", "TX-errors:"].map(values);
        assert_eq!((received.len(), sent.len()), (2, 2), "{answer}");
        [0, 1].map(|n| Counters {
            received: received[n],
            sent: sent[n],
            errors: errors.iter().map(|errors| errors[n]).sum(),
        })
    }

    /// Frames that both have received.
    pub(crate) fn received(&mut self) -> u64 {
        self.counters().iter().map(|counters| counters.received).sum()
    }
}

fn reason(error: &vswitch_netns::Error) -> Option<String> {
    std::error::Error::source(error).map(ToString::to_string)
}

/// The CPUs that this process may use.
fn cpus() -> String {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("the affinity of the test");
    let cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    cpus.map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(",")
}
