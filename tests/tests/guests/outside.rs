//! The outside of a guest, whatever runs it: orders and answers by its serial line.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use vswitch_netns::{Process, Scratch};
use vswitch_tests::transfer::payload;
use vswitch_tests::{Host, SOON};

use crate::agent::{Answer, Order};

/// Time to boot, or to answer, on a busy machine; a quiet one boots in 3 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A running guest.
pub(crate) struct Guest {
    name: &'static str,
    pub(crate) link: &'static str,
    pub(crate) address: &'static str,
    /// Bytes that one transfer has, of which it makes and compares some megabytes a second.
    len: usize,
    orders: ChildStdin,
    answers: Receiver<String>,
    folder: Scratch,
    process: Process,
}

/// Where in its folder a guest's console is written to.
pub(crate) const CONSOLE: &str = "console";

impl Guest {
    /// Runs what a guest is: its serial line is stdin and stdout, its console goes to a file of the folder. It boots
    /// meanwhile.
    pub(crate) fn start(
        name: &'static str,
        link: &'static str,
        address: &'static str,
        len: usize,
        mut command: Command,
        folder: Scratch,
    ) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command).expect("the guest starts");
        let orders = process.child().stdin.take().expect("stdin is a pipe");
        let lines = BufReader::new(process.child().stdout.take().expect("stdout is a pipe")).lines();
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { name, link, address, len, orders, answers, folder, process }
    }

    /// Waits until it has booted, and gives its link the address.
    pub(crate) fn boot(&mut self) {
        let ready = self.answers.recv_timeout(PATIENCE);
        assert!(ready.is_ok_and(|line| line.ends_with("ready")), "{self:?} did not boot");
        let prefix = format!("{}/24", self.address);
        self.run(&["ip", "address", "add", &prefix, "dev", self.link]);
        self.run(&["ip", "link", "set", "dev", self.link, "up"]);
    }

    /// Has it boot anew: [`Guest::boot`] waits for that.
    pub(crate) fn reboot(&mut self) {
        let line = serde_json::to_string(&Order::Reboot).expect("it is JSON");
        writeln!(self.orders, "{line}").expect("the guest is there");
    }

    /// Ends what runs it, at once.
    pub(crate) fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL).expect("it runs");
        let status = self.process.wait_timeout(SOON).expect("it can be waited for");
        assert!(status.is_some(), "{self:?} does not end");
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
        other.must(&Order::Receive(at, self.len));
        self.must(&Order::Send(at, self.len));
        other.must(&Order::Received);
    }

    /// A host begins to send bytes by TCP.
    #[track_caller]
    pub(crate) fn begin_to_receive(&mut self, host: &Host) -> Upload {
        let len = self.len;
        let at = SocketAddr::new(self.address.parse().expect("an address"), 5001);
        self.must(&Order::Receive(at, len));
        let connect = || {
            let stream = TcpStream::connect_timeout(&at, SOON)?;
            stream.set_write_timeout(Some(SOON))?;
            Ok::<_, io::Error>(stream)
        };
        let stream = host.namespace.enter(connect).expect("the host's namespace");
        let stream = stream.unwrap_or_else(|error| panic!("to {self:?}: {error}"));
        let mut upload = Upload { stream, rest: payload(len) };
        upload.send(len / 2).unwrap_or_else(|error| panic!("to {self:?}: {error}"));
        upload
    }

    /// The host sends the rest, and all has come as it was sent.
    #[track_caller]
    pub(crate) fn receive_the_rest(&mut self, mut upload: Upload) {
        upload.send(usize::MAX).unwrap_or_else(|error| panic!("to {self:?}: {error}"));
        drop(upload);
        self.must(&Order::Received);
    }

    /// Bytes by TCP from a host and back to it, each of which has to come as it was sent.
    #[track_caller]
    pub(crate) fn exchanges_tcp_with(&mut self, host: &Host, address: &str) {
        let upload = self.begin_to_receive(host);
        self.receive_the_rest(upload);

        let len = self.len;
        let at = SocketAddr::new(address.parse().expect("an address"), 0);
        let listener = host.namespace.enter(|| TcpListener::bind(at)).expect("the host's namespace");
        let listener = listener.expect("the host listens");
        let at = listener.local_addr().expect("the host listens");
        let receiver = thread::spawn(move || {
            let mut received = Vec::with_capacity(len);
            listener.accept()?.0.read_to_end(&mut received).map(|_| received)
        });
        self.must(&Order::Send(at, len));
        let received = receiver.join().expect("the host receives").expect("the host receives");
        assert!(received == payload(len), "from {self:?}: {len} bytes sent, {} received", received.len());
    }

    /// The link is up, as the guest sees it.
    #[track_caller]
    pub(crate) fn has_carrier(&mut self) -> bool {
        self.run(&["cat", &format!("/sys/class/net/{}/carrier", self.link)]).trim() == "1"
    }

    /// Frames that have come.
    #[track_caller]
    pub(crate) fn received(&mut self) -> u64 {
        let count = self.run(&["cat", &format!("/sys/class/net/{}/statistics/rx_packets", self.link)]);
        count.trim().parse().expect("a number")
    }

    /// Frames that have come, by each queue of a virtio network device.
    #[track_caller]
    pub(crate) fn received_by_queue(&mut self) -> Vec<u64> {
        let shown = self.run(&["ethtool", "-S", self.link]);
        let of_queue = |line: &str| {
            let (name, count) = line.trim().strip_prefix("rx_queue_")?.split_once(": ")?;
            name.ends_with("_packets").then(|| count.parse().expect("a number"))
        };
        shown.lines().filter_map(of_queue).collect()
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

/// Bytes that a host sends to a guest.
pub(crate) struct Upload {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Upload {
    /// Sends the next `len`, or all that is left.
    pub(crate) fn send(&mut self, len: usize) -> io::Result<()> {
        let rest = self.rest.split_off(len.min(self.rest.len()));
        self.stream.write_all(&std::mem::replace(&mut self.rest, rest))
    }
}

impl fmt::Debug for Guest {
    /// With its console: all that may tell why it does not answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let console = fs::read(self.folder.path().join(CONSOLE)).unwrap_or_default();
        write!(f, "the guest {}, whose console shows\n{}\n", self.name, String::from_utf8_lossy(&console))
    }
}
