//! The other VTEP is Open vSwitch's, with its userspace datapath.

use vswitch_netns::Scratch;
use vswitch_tests::openvswitch::Database;
use vswitch_tests::{Lab, SOON, scenario, transfer, wait_until};

const TOPOLOGY: &str = r#"
[underlay]
address = "192.0.2.1/24"
port = "uplink"

[[network]]
name = "red"
vni = 10010
peers = ["192.0.2.2"]

[[port]]
name = "uplink"

[[port]]
name = "red1"
access = "red"

[[host]]
name = "ovs"
port = "uplink"

[[host]]
name = "red1"
port = "red1"
address = ["10.0.0.1/24", "fd00::1/64"]
"#;

/// Makes the host `ovs` a switch with a tunnel: `eth0` and its address are a bridge's, and another bridge has the VXLAN port.
fn start(lab: &Lab, folder: &Scratch) -> (Database, vswitch_netns::Process) {
    let host = lab.host("ovs");
    let database = Database::start(&host.namespace, &folder.path()).unwrap();
    let switch = database.start_switch(&["ovs-vswitchd"]).unwrap();
    let bridge = |name: &str| {
        database.vsctl(&["add-br", name, "--", "set", "bridge", name, "datapath_type=netdev"]).unwrap();
    };
    bridge("under");
    database.vsctl(&["add-port", "under", "eth0"]).unwrap();
    bridge("red");
    let tunnel = ["set", "interface", "vx", "type=vxlan", "options:remote_ip=192.0.2.1", "options:key=10010"];
    let add = ["add-port", "red", "vx", "--"];
    database.vsctl(&[&add[..], &tunnel[..]].concat()).unwrap();
    let set_up = [
        // Else the kernel answers for the bridge, with the MAC of its port.
        "ip link set eth0 arp off",
        "ip addr add 192.0.2.2/24 dev under && ip link set under up",
        "ip addr add 10.0.0.2/24 dev red && ip addr add fd00::2/64 dev red nodad",
        "ip link set red mtu 1450 up",
    ];
    for command in set_up {
        host.run("sh", ["-c", command]);
    }
    // Without DPDK it leaves unfinished checksums as they are.
    for device in ["under", "red", "eth0"] {
        host.run("ethtool", ["-K", device, "tx", "off"]);
    }
    (database, switch)
}

#[test]
fn pings_and_tcp_pass_both_ways() {
    scenario(TOPOLOGY, |lab| {
        let folder = Scratch::new().unwrap();
        let (_database, _switch) = start(lab, &folder);
        let (ovs, red1) = (lab.host("ovs"), lab.host("red1"));
        // It learns its own way to the peer by the first questions.
        wait_until("Open vSwitch answers", SOON, || red1.reaches("10.0.0.2"));
        for (there, back) in [("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")] {
            wait_until("pings pass both ways", SOON, || red1.reaches(there) && ovs.reaches(back));
            transfer::tcp(red1, ovs, there, 1 << 20);
            transfer::tcp(ovs, red1, back, 1 << 20);
        }
    });
}
