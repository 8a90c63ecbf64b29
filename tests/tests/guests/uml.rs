//! The outside of a guest: user-mode Linux, a whole kernel as a process of this machine.

use std::env;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use vswitch_netns::{Namespace, Process, Scratch};

use crate::agent::{Answer, INSIDE, Order};

/// Time to boot on a busy machine; a quiet one needs 2 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that one transfer has.
const LEN: usize = 8 << 20;

/// What a guest's link is joined to.
pub(crate) enum Nic {
    /// The socket of a vhost-user port.
    VhostUser(PathBuf),
    /// A tap of the namespace.
    Tap(&'static str),
}

impl Nic {
    /// As the kernel's command line has it.
    fn argument(&self) -> String {
        const NETWORK_DEVICE: u32 = 1; // VIRTIO 1.2 section 5
        match self {
            Self::VhostUser(socket) => format!("virtio_uml.device={}:{NETWORK_DEVICE}", socket.display()),
            Self::Tap(tap) => format!("vec0:transport=tap,ifname={tap},depth=128,gro=1"),
        }
    }

    fn link(&self) -> &'static str {
        match self {
            Self::VhostUser(_) => "eth0",
            Self::Tap(_) => "vec0",
        }
    }
}

/// A running guest.
pub(crate) struct Uml {
    name: &'static str,
    pub(crate) link: &'static str,
    address: &'static str,
    orders: ChildStdin,
    answers: Receiver<String>,
    folder: Scratch,
    _process: Process,
}

impl Uml {
    /// Starts a guest that runs the test `test` of this program as its first process. It boots meanwhile.
    pub(crate) fn start(
        name: &'static str,
        test: &str,
        namespace: &Namespace,
        nic: &Nic,
        address: &'static str,
    ) -> Self {
        let folder = Scratch::new().expect("a folder for the guest");
        // Its kernel has a process of this machine for each of its own: they end with their namespace.
        let mut command = namespace.command("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--", "linux.uml"]);
        let here = folder.path();
        command.arg("mem=96M").arg(format!("umid={name}")).arg(format!("uml_dir={}/", here.display()));
        // The serial line is stdin and stdout, the console the log.
        command.args(["con=null", "con0=null,fd:2", "ssl=null", "ssl0=fd:0,fd:1", "quiet", "panic=-1"]);
        command.args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"]).arg(nic.argument());
        let this = env::current_exe().expect("the path of the test program");
        command.arg(format!("{INSIDE}=yes")).arg(format!("init={}", this.display()));
        command.args(["--", "--exact", test, "--nocapture"]);
        let log = fs::File::create(here.join("console")).expect("a log");
        command.env("TMPDIR", &here).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = Process::spawn(command).expect("the guest starts");
        let orders = process.child().stdin.take().expect("stdin is a pipe");
        let lines = BufReader::new(process.child().stdout.take().expect("stdout is a pipe")).lines();
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { name, link: nic.link(), address, orders, answers, folder, _process: process }
    }

    /// Waits until it has booted, and gives its link the address.
    pub(crate) fn boot(&mut self) {
        let ready = self.answers.recv_timeout(PATIENCE);
        assert!(ready.is_ok_and(|line| line.ends_with("ready")), "{self:?} did not boot");
        let prefix = format!("{}/24", self.address);
        self.run(&["ip", "address", "add", &prefix, "dev", self.link]);
        self.run(&["ip", "link", "set", "dev", self.link, "up"]);
    }

    #[track_caller]
    fn ask(&mut self, order: &Order) -> Answer {
        let line = serde_json::to_string(order).expect("it is JSON");
        writeln!(self.orders, "{line}").expect("the guest is there");
        let answer = self.answers.recv_timeout(PATIENCE);
        let answer = answer.unwrap_or_else(|_| panic!("{self:?} does not answer to {order:?}"));
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{self:?} said {answer:?}: {error}"))
    }

    #[track_caller]
    fn must(&mut self, order: &Order) -> String {
        let Answer { code, output } = self.ask(order);
        assert_eq!(code, 0, "in the guest {}: {order:?}: {output}", self.name);
        output
    }

    /// Runs a program in the guest; what it printed.
    #[track_caller]
    pub(crate) fn run(&mut self, words: &[&str]) -> String {
        self.must(&Order::Run(words.iter().map(|word| (*word).to_owned()).collect()))
    }

    /// Whether a ping is answered.
    #[track_caller]
    pub(crate) fn reaches(&mut self, address: &str) -> bool {
        let ping = ["ping", "-c", "1", "-W", "5", address].map(str::to_owned).to_vec();
        self.ask(&Order::Run(ping)).code == 0
    }

    /// Sends bytes by TCP to another guest, where they have to come as they were sent.
    #[track_caller]
    pub(crate) fn sends_tcp_to(&mut self, other: &mut Self) {
        let at = SocketAddr::new(other.address.parse().expect("an address"), 5000);
        other.must(&Order::Receive(at, LEN));
        self.must(&Order::Send(at, LEN));
        other.must(&Order::Received);
    }

    /// Checksums of IP, TCP, UDP and ICMP that were found wrong in the guest (proc(5), `/proc/net/snmp`).
    #[track_caller]
    pub(crate) fn checksum_errors(&mut self) -> u64 {
        let shown = self.run(&["cat", "/proc/net/snmp"]);
        let lines: Vec<&str> = shown.lines().collect();
        let pairs = lines.chunks_exact(2).flat_map(|pair| pair[0].split(' ').zip(pair[1].split(' ')));
        let errors: Vec<_> = pairs.filter(|(name, _)| name.ends_with("InCsumErrors")).collect();
        assert!(errors.len() >= 3, "{shown}");
        errors.iter().map(|(_, count)| count.parse::<u64>().expect("a number")).sum()
    }
}

impl fmt::Debug for Uml {
    /// With its console: all that may tell why it does not answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let console = |path: &Path| fs::read(path).unwrap_or_default();
        let console = console(&self.folder.path().join("console"));
        write!(f, "the guest {}, whose console shows\n{}\n", self.name, String::from_utf8_lossy(&console))
    }
}
