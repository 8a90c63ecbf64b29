//! What a machine needs to boot from the network, and what it boots.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use vswitch_netns::{Process, Scratch};
use vswitch_tests::{Host, SOON, wait_until};

use crate::outside::PATIENCE;

/// What the booted program says.
const TEXT: &str = "booted from the network";
/// Where it is loaded (PXE 2.1 section 4.4.5).
const PLACE: u16 = 0x7c00;
/// Its length: some twenty blocks of TFTP.
const LEN: u16 = 30_000;

/// A program that writes the end of itself to the serial line: if the text is there, all of it has come.
fn program() -> Vec<u8> {
    let text = format!("{TEXT}\n\0").into_bytes();
    let start = usize::from(LEN) - text.len();
    let [low, high] = (PLACE + start as u16).to_le_bytes();
    #[rustfmt::skip]
    let code = [
        0x31, 0xc0,       // xor ax, ax
        0x8e, 0xd8,       // mov ds, ax
        0xfc,             // cld
        0xbe, low, high,  // mov si, text
        0xba, 0xf8, 0x03, // mov dx, COM1
        0xac,             // next: lodsb
        0x84, 0xc0,       // test al, al
        0x74, 0x03,       // jz end
        0xee,             // out dx, al
        0xeb, 0xf8,       // jmp next
        0xf4,             // end: hlt
        0xeb, 0xfd,       // jmp end
    ];
    let mut program = code.to_vec();
    program.resize(start, 0x90);
    program.extend(text);
    program
}

/// DHCP and TFTP (dnsmasq) in a host.
pub(crate) struct BootServer {
    folder: Scratch,
    _process: Process,
}

impl BootServer {
    pub(crate) fn start(host: &Host) -> Self {
        let folder = Scratch::new().expect("a folder for the server");
        let here = folder.path();
        fs::write(here.join("program"), program()).expect("the program is written");
        let mut command = host.namespace.command("dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-"]);
        // As another user or group it would no longer end with us (prctl(2), `PR_SET_PDEATHSIG`).
        command.args(["--user=root", "--group=root"]);
        command.args(["--port=0", "--no-ping", "--interface=eth0", "--bind-interfaces", "--pid-file="]);
        // A machine that boots asks for a router of IPv6 too, and waits long where there is none.
        command.args(["--enable-ra", "--dhcp-range=fd00::,ra-only"]);
        command.args(["--dhcp-range=10.0.0.100,10.0.0.110", "--dhcp-boot=program", "--enable-tftp"]);
        command.arg(format!("--tftp-root={}", here.display()));
        command.arg(format!("--dhcp-leasefile={}", here.join("leases").display()));
        let log = File::create(here.join("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = Process::spawn(command).expect("dnsmasq starts");
        let server = Self { folder, _process: process };
        wait_until("dnsmasq serves", SOON, || server.log().contains("started"));
        server
    }

    /// What it has told of its work.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// Boots a machine that has nothing but a network card, until it says that it did.
///
/// # Panics
/// When it does not.
#[track_caller]
pub(crate) fn boot(mut machine: Command, server: &BootServer) {
    machine.args(["-serial", "stdio"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::spawn(machine).expect("QEMU starts");
    let lines = BufReader::new(process.child().stdout.take().expect("stdout is a pipe")).lines();
    let (sender, said) = mpsc::channel();
    thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let said = said.recv_timeout(PATIENCE);
    assert!(said.is_ok_and(|line| line == TEXT), "it did not boot; the server's log:\n{}", server.log());
}
