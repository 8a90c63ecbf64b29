//! Guests of QEMU, on a processor that it emulates: KVM may be missing, or there and of no use to these kernels (where
//! the machine is a guest itself).

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use vswitch_netns::{Namespace, Scratch};

use crate::agent::INSIDE;
use crate::initramfs::{Boot, DRIVERS};
use crate::outside::{CONSOLE, Guest};

/// What a guest's link is joined to.
pub(crate) enum Nic {
    /// A tap of the namespace; QEMU makes it unless it is there.
    Tap(&'static str),
    /// The socket of a vhost-user port, on which QEMU listens.
    Listens(PathBuf),
    /// The socket of a vhost-user port, which QEMU connects to, again when it is lost; and so many pairs of queues.
    Connects(PathBuf, u32),
}

impl Nic {
    /// As docs/guests.md has it.
    fn add_to(&self, command: &mut Command, address: &str) {
        let number: u8 = address.rsplit('.').next().and_then(|last| last.parse().ok()).expect("an address");
        let card = format!("virtio-net-pci,netdev=n0,mac=52:54:00:00:00:{number:02x},romfile=");
        let (socket, queues) = match self {
            Self::Tap(tap) => {
                let netdev = format!("tap,id=n0,ifname={tap},script=no,downscript=no");
                command.args(["-machine", "q35", "-netdev", &netdev, "-device", &card]);
                return;
            }
            Self::Listens(socket) => (format!("{},server=on,wait=off", socket.display()), 1),
            Self::Connects(socket, queues) => (format!("{},reconnect=1", socket.display()), *queues),
        };
        command.args(["-object", &format!("memory-backend-memfd,id=ram0,size={MEMORY},share=on")]);
        command.args(["-machine", "q35,memory-backend=ram0"]);
        command.args(["-chardev", &format!("socket,id=vu0,path={socket}")]);
        let netdev = format!("type=vhost-user,id=n0,chardev=vu0,vhostforce=on,queues={queues}");
        // Both kinds of ring.
        let packed = if matches!(self, Self::Connects(..)) { ",packed=on" } else { "" };
        let several = if queues > 1 { ",mq=on" } else { "" };
        command.args(["-netdev", &netdev, "-device", &format!("{card},vectors=0{packed}{several}")]);
    }
}

/// Bytes of a transfer: about 0.2 s.
const LEN: usize = 2 << 20;
/// Of a guest.
const MEMORY: &str = "160M";

/// QEMU with nothing but a processor and memory.
pub(crate) fn command(namespace: &Namespace) -> Command {
    let mut command = namespace.command("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-cpu", "qemu64", "-smp", "1", "-m", MEMORY]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command
}

/// Starts a guest that runs the test `test` of this program as its first process.
pub(crate) fn start(
    name: &'static str,
    test: &str,
    namespace: &Namespace,
    nic: &Nic,
    address: &'static str,
    boot: &Boot,
) -> Guest {
    let folder = Scratch::new().expect("a folder for the guest");
    let mut command = command(namespace);
    command.args(["-name", name]).arg("-kernel").arg(&boot.kernel).arg("-initrd").arg(&boot.initramfs);
    // The serial line is stdin and stdout, the console another one.
    let kernel = "console=ttyS1 quiet panic=-1 mitigations=off";
    command.args(["-append", &format!("{kernel} {INSIDE}={DRIVERS} -- --exact {test} --nocapture")]);
    let console = folder.path().join(CONSOLE);
    fs::write(&console, "").expect("a file for the console");
    command.args(["-serial", "stdio", "-serial", &format!("file:{}", console.display())]);
    nic.add_to(&mut command, address);
    // QEMU's own complaints are as good to know.
    command.stderr(File::options().append(true).open(&console).expect("the file is there"));
    Guest::start(name, "eth0", address, LEN, command, folder)
}
