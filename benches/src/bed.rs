//! The test bed: a sender, a switch and a receiver, each a network namespace, joined by two veth pairs. It has
//! no name and touches nothing outside: when this process ends, in whatever way, the kernel takes it all.

use vswitch_netns::{Namespace, PacketSocket, Veth, veth};
use vswitch_wire::Mac;
use vswitch_wire::testing::frame;

use crate::Result;

/// The hosts' ends of the pairs.
pub(crate) const HOST: &str = "eth0";
/// The switch's ends: towards the sender, and towards the receiver.
pub(crate) const PORTS: [&str; 2] = ["left", "right"];
/// The receiver's address.
pub(crate) const RECEIVER: &str = "10.0.0.2";

/// Three namespaces.
pub(crate) struct Bed {
    pub(crate) sender: Namespace,
    pub(crate) switch: Namespace,
    pub(crate) receiver: Namespace,
    pub(crate) sender_mac: Mac,
    pub(crate) receiver_mac: Mac,
}

impl Bed {
    /// Hosts and links with the kernel's defaults, all up; nothing switches yet.
    pub(crate) fn new() -> Result<Self> {
        let [sender, switch, receiver] = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
        for ((host, port), address) in [&sender, &receiver].into_iter().zip(PORTS).zip(["10.0.0.1", RECEIVER])
        {
            veth((host, HOST), (&switch, port), Veth::default())?;
            // Nobody but the measurement sends anything.
            host.disable_ipv6(HOST)?;
            switch.disable_ipv6(port)?;
            host.add_address(HOST, &format!("{address}/24"))?;
            host.set_up(HOST)?;
            switch.set_up(port)?;
        }
        let mac = |host: &Namespace| -> Result<Mac> {
            Ok(Mac(host.link(HOST)?.ok_or("a link is gone that was made just now")?.mac))
        };
        let (sender_mac, receiver_mac) = (mac(&sender)?, mac(&receiver)?);
        Ok(Self { sender, switch, receiver, sender_mac, receiver_mac })
    }

    /// Lets the switch learn where the receiver is.
    pub(crate) fn announce_receiver(&self) -> Result<()> {
        let announcement = frame(self.sender_mac, self.receiver_mac).payload(&[0; 46]).bytes();
        Ok(PacketSocket::open(&self.receiver, HOST)?.send(&announcement)?)
    }
}
