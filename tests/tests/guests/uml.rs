//! Guests of user-mode Linux: a whole kernel as a process of this machine.

use std::env;
use std::fs;
use std::path::PathBuf;

use vswitch_netns::{Namespace, Scratch};

use crate::agent::INSIDE;
use crate::outside::{CONSOLE, Guest};

/// Bytes of a transfer: about 0.1 s.
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

/// Starts a guest that runs the test `test` of this program as its first process.
pub(crate) fn start(
    name: &'static str,
    test: &str,
    namespace: &Namespace,
    nic: &Nic,
    address: &'static str,
) -> Guest {
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
    command.arg(format!("{INSIDE}=/usr/lib/uml/modules")).arg(format!("init={}", this.display()));
    command.args(["--", "--exact", test, "--nocapture"]);
    let console = fs::File::create(here.join(CONSOLE)).expect("a file for the console");
    command.env("TMPDIR", &here).stderr(console);
    Guest::start(name, nic.link(), address, LEN, command, folder)
}
