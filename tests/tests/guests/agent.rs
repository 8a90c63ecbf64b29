//! The inside of a guest: this very test program, run by the guest's kernel as its first process. The machine's files
//! are the guest's too (hostfs), to be read.
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

/// Set inside of a guest, by its kernel's command line.
pub(crate) const INSIDE: &str = "VSWITCH_TEST_GUEST";
/// The serial line.
const LINE: &str = "/dev/ttyS0";
/// The drivers that the kernel has as modules, each after those that it needs.
const MODULES: [&str; 3] =
    ["kernel/net/core/failover.ko", "kernel/drivers/net/net_failover.ko", "kernel/drivers/net/virtio_net.ko"];

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
    let modules = Path::new("/usr/lib/uml/modules").join(uname()?.release());
    for module in MODULES {
        finit_module(File::open(modules.join(module))?, c"", ModuleInitFlags::empty())?;
    }
    program(&["stty", "-F", LINE, "raw", "-echo"])?;
    let mut line = OpenOptions::new().read(true).write(true).open(LINE)?;
    let mut receiver = None;
    writeln!(line, "ready")?;
    for order in BufReader::new(line.try_clone()?).lines() {
        let answer = match obey(serde_json::from_str(&order?)?, &mut receiver) {
            Ok(answer) => answer,
            Err(error) => Answer { code: 127, output: error.to_string() },
        };
        writeln!(line, "{}", serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

type Receiver = JoinHandle<io::Result<Vec<u8>>>;

fn obey(order: Order, receiver: &mut Option<(Receiver, usize)>) -> io::Result<Answer> {
    let done = || Ok(Answer { code: 0, output: String::new() });
    match order {
        Order::Run(words) => program(&words.iter().map(String::as_str).collect::<Vec<_>>()),
        Order::Receive(at, len) => {
            let listener = TcpListener::bind(at)?;
            *receiver = Some((thread::spawn(move || receive(&listener, len)), len));
            done()
        }
        Order::Send(to, len) => {
            let mut stream = TcpStream::connect(to)?;
            stream.write_all(&payload(len))?;
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())?;
            done()
        }
        Order::Received => {
            let (receiver, len) = receiver.take().ok_or_else(|| io::Error::other("nothing was received"))?;
            let received = receiver.join().map_err(|_| io::Error::other("the receiver panicked"))??;
            let is_same = received == payload(len);
            let output = format!("{len} bytes were sent, {} received, the same: {is_same}", received.len());
            Ok(Answer { code: i32::from(!is_same), output })
        }
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
    command.args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command.output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok(Answer {
        code: output.status.code().unwrap_or(-1),
        output: String::from_utf8_lossy(&text).into_owned(),
    })
}
