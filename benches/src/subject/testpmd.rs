//! What vhost-user can do at most: testpmd passes frames from one port to the other without a look at them.

use std::path::Path;

use vswitch_netns::{Namespace, Process};

use crate::clock::wait_until;
use crate::dpdk::{self, Memory};
use crate::subject::{Poller, SOCKETS, Switch};
use crate::{Result, noise};

/// DPDK's back end of vhost-user on the second CPU.
pub(super) struct Testpmd {
    program: dpdk::Testpmd,
}

impl Testpmd {
    pub(super) fn start(namespace: &Namespace, folder: &Path, memory: Memory) -> Result<Self> {
        let [first, second] = noise::CPUS;
        let devices =
            [0, 1].map(|n| format!("net_vhost{n},iface={},queues=1", folder.join(SOCKETS[n]).display()));
        let mut program = dpdk::Testpmd::start(
            namespace,
            folder,
            memory,
            &format!("0@{first},1@{second}"),
            &devices,
            &["--forward-mode=io"],
        )?;
        wait_until("testpmd listens for guests", || {
            Ok(SOCKETS.iter().all(|name| folder.join(name).exists()))
        })?;
        program.tell("start")?;
        Ok(Self { program })
    }
}

impl Switch for Testpmd {
    fn describe(&self) -> Result<String> {
        Ok("net_vhost, io: no switch".to_owned())
    }

    fn audit(&mut self) -> Result<()> {
        Ok(()) // it keeps no such account
    }
}

impl Poller for Testpmd {
    fn process(&self) -> &Process {
        self.program.process()
    }
}
