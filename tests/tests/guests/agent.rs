//! The inside of a guest: this very test program, run by the guest's kernel as its first process. The machine's files
//! are the guest's too (hostfs), to be read; a guest of QEMU has copies of those that it needs (its initramfs).
//!
//! It obeys commands from the serial line, one a line, and answers each by a line.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread::{self, JoinHandle};

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};
use vswitch_tests::transfer::payload;

/// Set inside of a guest, by its kernel's command line: the folder of its kernel's modules.
pub(crate) const INSIDE: &str = "VSWITCH_TEST_GUEST";
/// The serial line.
const LINE: &str = "/dev/ttyS0";
/// The drivers that the kernel may have as modules, each after those that it needs. (That of virtio_uml is built in.)
pub(crate) const MODULES: [&str; 8] = [
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
];
/// Where programs are.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What a guest is told to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Runs a program to its end.
    Run(Vec<String>),
    /// Takes one TCP connection at this address, and so many bytes by it.
    Receive(SocketAddr, usize),
    /// Sends so many bytes there, and waits until the other end has closed.
    Send(SocketAddr, usize),
    /// Says what became of [`Order::Receive`].
    Received,
    /// Boots anew, without an answer.
    Reboot,
}

/// What came of it: an exit code, and what was printed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) output: String,
}

/// This is the inside of a guest.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Obeys until the power is off.
pub(crate) fn run() -> ! {
    match obey_all() {
        Ok(()) => eprintln!("the serial line has ended"),
        Err(error) => eprintln!("the guest cannot go on: {error}"),
    }
    let failed = reboot(RebootMode::RB_POWER_OFF);
    panic!("the power cannot be put off: {failed:?}");
}

fn obey_all() -> io::Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys")] {
        mount(None::<&str>, place, Some(kind), MsFlags::empty(), None::<&str>)?;
    }
    let folder = env::var_os(INSIDE).unwrap_or_default();
    let modules = Path::new(&folder).join(uname()?.release()).join("kernel");
    // What the kernel has built in is no file there; the link, if it is not there, is missed soon.
    for module in MODULES.map(|module| modules.join(module)).iter().filter(|module| module.is_file()) {
        finit_module(File::open(module)?, c"", ModuleInitFlags::empty())
            .map_err(|error| io::Error::other(format!("{}: {error}", module.display())))?;
    }
    program(&["stty", "-F", LINE, "raw", "-echo"])?;
    let mut line = OpenOptions::new().read(true).write(true).open(LINE)?;
    let mut transfers = Transfers::default();
    writeln!(line, "ready")?;
    for order in BufReader::new(line.try_clone()?).lines() {
        let answer = match obey(serde_json::from_str(&order?)?, &mut transfers) {
            Ok(answer) => answer,
            Err(error) => Answer { code: 127, output: error.to_string() },
        };
        writeln!(line, "{}", serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

/// What is sent and received.
#[derive(Default)]
struct Transfers {
    /// Kept, since it takes an emulated processor long to make it.
    payload: Vec<u8>,
    receiver: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl Transfers {
    fn payload(&mut self, len: usize) -> &[u8] {
        if self.payload.len() != len {
            self.payload = payload(len);
        }
        &self.payload
    }
}

fn obey(order: Order, transfers: &mut Transfers) -> io::Result<Answer> {
    let done = || Ok(Answer { code: 0, output: String::new() });
    match order {
        Order::Run(words) => program(&words.iter().map(String::as_str).collect::<Vec<_>>()),
        Order::Receive(at, len) => {
            let listener = TcpListener::bind(at)?;
            transfers.payload(len);
            transfers.receiver = Some(thread::spawn(move || receive(&listener, len)));
            done()
        }
        Order::Send(to, len) => {
            let payload = transfers.payload(len);
            let mut stream = TcpStream::connect(to)?;
            stream.write_all(payload)?;
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())?;
            done()
        }
        Order::Received => {
            let receiver = transfers.receiver.take();
            let receiver = receiver.ok_or_else(|| io::Error::other("nothing was received"))?;
            let received = receiver.join().map_err(|_| io::Error::other("the receiver panicked"))??;
            let is_same = received == transfers.payload;
            let (sent, received) = (transfers.payload.len(), received.len());
            let output = format!("{sent} bytes were sent, {received} received, the same: {is_same}");
            Ok(Answer { code: i32::from(!is_same), output })
        }
        Order::Reboot => Err(reboot(RebootMode::RB_AUTOBOOT).expect_err("it does not return").into()),
    }
}

fn receive(listener: &TcpListener, len: usize) -> io::Result<Vec<u8>> {
    let mut received = Vec::with_capacity(len);
    listener.accept()?.0.read_to_end(&mut received)?;
    Ok(received)
}

fn program(words: &[&str]) -> io::Result<Answer> {
    let [name, args @ ..] = words else { return Err(io::Error::other("no program")) };
    let mut command = Command::new(name);
    command.args(args).env("PATH", PATH);
    let output = command.output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok(Answer {
        code: output.status.code().unwrap_or(-1),
        output: String::from_utf8_lossy(&text).into_owned(),
    })
}
