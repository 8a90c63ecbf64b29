//! Network namespaces, the veths between them, the processes in them and their files, for the lab and the tests.
//!
//! **Nothing here has a name that outlives its owner.** A [`Namespace`] is an open descriptor, not a mount under
//! `/run/netns`; a [`Process`] asks the kernel to be killed with the thread that started it; a [`Scratch`] folder is
//! mounted nowhere. So when the owner goes, in whatever way (`SIGKILL` included), the kernel takes the namespaces,
//! the veths in them, the processes and the files with it: there is no clean-up to forget, no name to collide with a
//! parallel test, and nothing stale to reap at the next start.
//!
//! Links are made over rtnetlink rather than by running `ip`: the lab is a part of `vswitchctl` and must
//! work where iproute2 is not installed, and the kernel's error number arrives unparsed.
//!
//! Limits: a namespace goes when its *last* user goes, and the kernel tears it down a few milliseconds
//! later. All calls need root (`CAP_SYS_ADMIN`, `CAP_NET_ADMIN`) and may block; each netlink call is one
//! short-lived thread inside the namespace.

mod dialogue;
mod error;
mod link;
mod mounts;
mod namespace;
mod packet;
mod process;
mod scratch;
mod vlan;

pub use dialogue::Dialogue;
pub use error::{Error, Result};
pub use link::{Link, LinkCounters, Veth, veth};
pub use mounts::isolate_mounts;
pub use namespace::Namespace;
pub use packet::PacketSocket;
pub use process::{Process, adopt_orphans, leave_terminal, reap_orphans, tie_to_owner};
pub use scratch::Scratch;
pub use vlan::TaggedLink;
