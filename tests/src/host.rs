//! A host: a namespace with a veth into the switch.

use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use vswitch_netns::{Namespace, PacketSocket, Process, Veth, veth};
use vswitch_wire::Mac;

use crate::Frame;
use crate::wait::{SOON, wait_until};

/// The host's end of its veth.
const LINK: &str = "eth0";
/// Where iperf3 listens.
const IPERF_PORT: u16 = 5201;

/// A host. One without an IPv6 address sends no frame that it is not told to.
#[derive(Debug)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// The hardware address of its link.
    pub mac: Mac,
    /// The near end of its veth.
    pub netdev: String,
    /// Where its processes run.
    pub namespace: Namespace,
    switch: Namespace,
    addresses: Vec<String>,
    options: Veth,
}

impl Host {
    /// A host that is not plugged in yet; its MAC is made of `number`.
    #[must_use]
    pub fn new(switch: &Namespace, name: &str, number: u16, netdev: &str, options: Veth) -> Self {
        let [high, low] = number.to_be_bytes();
        Self {
            name: name.to_owned(),
            mac: Mac([2, 0, 0, 0, high, low]),
            netdev: netdev.to_owned(),
            namespace: Namespace::new().expect("a network namespace for a host"),
            switch: switch.clone(),
            addresses: Vec::new(),
            options,
        }
    }

    /// With this MAC, if there is one.
    #[must_use]
    pub fn with_mac(self, mac: Option<Mac>) -> Self {
        Self { mac: mac.unwrap_or(self.mac), ..self }
    }

    /// With these addresses, as in `10.0.0.1/24`.
    #[must_use]
    pub fn with_addresses(mut self, addresses: impl IntoIterator<Item = String>) -> Self {
        self.addresses.extend(addresses);
        self
    }

    /// Makes the veth, with the host's addresses on its far end, both ends up.
    pub fn plug(&self) {
        let what = |what: &str| format!("host {}: {what}", self.name);
        veth((&self.switch, &self.netdev), (&self.namespace, LINK), self.options)
            .unwrap_or_else(|e| panic!("{}: {e}", what("its veth")));
        self.switch
            .disable_ipv6(&self.netdev)
            .unwrap_or_else(|e| panic!("{}: {e}", what("no IPv6 on the near end")));
        self.switch.set_up(&self.netdev).unwrap_or_else(|e| panic!("{}: {e}", what("its near end up")));
        self.configure_link();
    }

    /// Moves the tap that the switch has made into the host, in place of a veth.
    pub fn take_tap(&self) {
        let to = self.namespace.path();
        let moved = self.switch.run("ip", ["link", "set", "dev", &self.netdev, "netns", &to, "name", LINK]);
        moved.unwrap_or_else(|error| panic!("host {}: {error}", self.name));
        self.configure_link();
    }

    /// Gives the host's end its addresses, and sets it up.
    fn configure_link(&self) {
        let what = |what: &str| format!("host {}: {what}", self.name);
        self.namespace.set_mac(LINK, self.mac.0).unwrap_or_else(|e| panic!("{}: {e}", what("its MAC")));
        if self.addresses.iter().all(|address| !address.contains(':')) {
            self.namespace.disable_ipv6(LINK).unwrap_or_else(|e| panic!("{}: {e}", what("no IPv6")));
        }
        for address in &self.addresses {
            self.namespace.add_address(LINK, address).unwrap_or_else(|e| panic!("{}: {e}", what(address)));
        }
        self.namespace.set_up(LINK).unwrap_or_else(|e| panic!("{}: {e}", what("its link up")));
    }

    /// Removes the veth, both ends.
    pub fn unplug(&self) {
        self.switch.delete_link(&self.netdev).expect("the near end is there");
    }

    /// Sets the host's own end up or down.
    pub fn set_up(&self, up: bool) {
        let done = if up { self.namespace.set_up(LINK) } else { self.namespace.set_down(LINK) };
        done.expect("the host's link changes");
    }

    /// The host's link as an attacker and a witness have it: from here on no frame is missed.
    #[must_use]
    pub fn raw(&self) -> Raw {
        let socket = PacketSocket::open(&self.namespace, LINK).expect("a packet socket");
        Raw { socket, host: self.name.clone() }
    }

    /// Runs a command in the host; its stdout.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> String {
        self.namespace.run(program, args).unwrap_or_else(|error| panic!("in host {}: {error}", self.name))
    }

    /// Starts a command in the host; it ends with the returned value.
    #[must_use]
    pub fn start<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Process {
        let mut command = self.namespace.command(program);
        command.args(args).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        Process::spawn(command).expect("the command starts")
    }

    /// Checksums of IP, TCP, UDP and ICMP that were found wrong here (proc(5), `/proc/net/snmp` and `snmp6`).
    #[track_caller]
    pub fn checksum_errors(&self) -> u64 {
        let read =
            || ["snmp", "snmp6"].map(|file| fs::read_to_string(format!("/proc/thread-self/net/{file}")));
        let [v4, v6] =
            self.namespace.enter(read).expect("the host's namespace").map(|text| text.expect("counters"));
        let lines: Vec<&str> = v4.lines().collect();
        let pairs = lines.chunks_exact(2).flat_map(|pair| pair[0].split(' ').zip(pair[1].split(' ')));
        let v6 = v6.lines().filter_map(|line| line.split_once(char::is_whitespace));
        let errors = pairs.chain(v6).filter(|(name, _)| name.ends_with("InCsumErrors"));
        errors.map(|(_, count)| count.trim().parse::<u64>().expect("a number")).sum()
    }

    /// Whether a ping is answered.
    #[track_caller]
    pub fn reaches(&self, to: &str) -> bool {
        self.ping(to, &["-c", "1", "-W", "5"])
    }

    /// Whether none of some pings is answered.
    #[track_caller]
    pub fn is_cut_off_from(&self, to: &str) -> bool {
        !self.ping(to, &["-c", "3", "-i", "0.2", "-W", "1"])
    }

    #[track_caller]
    fn ping(&self, to: &str, options: &[&str]) -> bool {
        match self.namespace.run("ping", options.iter().copied().chain([to])) {
            Ok(_) => true,
            // ping(8): 1 when nothing was answered, 2 on other errors.
            Err(vswitch_netns::Error::Failed { status, .. }) if status.code() == Some(1) => false,
            Err(error) => panic!("in host {}: {error}", self.name),
        }
    }

    /// Starts an iperf3 server and waits until it listens.
    #[must_use]
    pub fn serve_iperf(&self) -> Process {
        let server = self.start("iperf3", ["--server"]);
        let listening = format!(":{IPERF_PORT:04X} ");
        wait_until("iperf3 listens", SOON, || {
            // proc(5): state 0A is LISTEN.
            let sockets = self.run("cat", ["/proc/net/tcp", "/proc/net/tcp6"]);
            sockets.lines().any(|line| line.contains(&listening) && line.contains(" 0A "))
        });
        server
    }

    /// Runs an iperf3 client to the server at `to`; its report.
    #[track_caller]
    pub fn iperf(&self, to: &str, options: &[&str]) -> serde_json::Value {
        let report = self.run("iperf3", ["--json", "--client", to].iter().chain(options));
        serde_json::from_str(&report).expect("iperf3 reports in JSON")
    }
}

/// Raw frames in and out of a host's link, tags included.
#[derive(Debug)]
pub struct Raw {
    socket: PacketSocket,
    host: String,
}

impl Raw {
    /// Sends a frame as it is.
    #[track_caller]
    pub fn send(&self, frame: &Frame) {
        self.send_bytes(&frame.bytes());
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send_bytes(&self, bytes: &[u8]) {
        self.socket.send(bytes).unwrap_or_else(|error| panic!("host {}: {error}", self.host));
    }

    /// The next frame that comes out of the link; `None` if there is none within `timeout`.
    #[track_caller]
    pub fn next(&self, timeout: Duration) -> Option<Frame> {
        let bytes =
            self.socket.receive(timeout).unwrap_or_else(|error| panic!("host {}: {error}", self.host));
        bytes.map(|bytes| Frame::read(&bytes))
    }

    /// Every frame that came before `last`, which has to come. A port's frames keep their order, so what is not
    /// among them will never come.
    #[track_caller]
    pub fn until(&self, last: &Frame) -> Vec<Frame> {
        let mut seen = Vec::new();
        loop {
            match self.next(SOON) {
                Some(frame) if frame == *last => return seen,
                Some(frame) => seen.push(frame),
                None => panic!("host {} never saw {last:?}, but {seen:#?}", self.host),
            }
        }
    }

    /// Holds that exactly these frames come, in this order, and none before or between them.
    #[track_caller]
    pub fn sees(&self, expected: impl IntoIterator<Item = Frame>) {
        let expected: Vec<Frame> = expected.into_iter().collect();
        let last = expected.last().expect("what comes last tells that nothing else came before");
        let mut seen = self.until(last);
        seen.push(last.clone());
        assert!(seen == expected, "host {} saw {seen:#?}, and not {expected:#?}", self.host);
    }

    /// Every frame that has come.
    #[track_caller]
    pub fn drain(&self) -> Vec<Frame> {
        std::iter::from_fn(|| self.next(Duration::ZERO)).collect()
    }
}
