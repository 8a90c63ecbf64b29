//! What is in tunnels, as Wireshark reads it.

use vswitch_netns::PacketSocket;
use vswitch_tests::{Frame, SOON, scenario, wait_until};
use vswitch_wire::Mac;

const FILE: &str = "tunnel.pcap";

/// Frames as a capture file (libpcap's format, with Ethernet's link type).
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
    let mut file: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
    for (second, frame) in (0_u32..).zip(frames) {
        for word in [second, 0, frame.len() as u32, frame.len() as u32] {
            file.extend_from_slice(&word.to_ne_bytes());
        }
        file.extend_from_slice(frame);
    }
    file
}

#[test]
fn wireshark_has_nothing_to_say_against_tunnels() {
    for family in [super::linux::V4, super::linux::V6] {
        // On a port that leaves nothing to the device: else captures show checksums that nobody has finished yet.
        let uplink = "dscp = 46\n[[port]]\nname = \"uplink\"\nkind = \"xdp\"\n";
        let topology = super::linux::topology(1, &family, "");
        let topology = topology.replacen("[[port]]\nname = \"uplink\"\n", uplink, 1);
        scenario(&topology, |lab| {
            let linux = lab.host("linux");
            let socket = PacketSocket::open(&linux.namespace, "eth0").unwrap();
            super::linux::add_vtep(linux, 0, &family, &["10.0.0.2/24".to_owned(), "fd00:0::2/64".to_owned()]);
            assert!(lab.host("h0").reaches("10.0.0.2") && lab.host("h0").reaches("fd00:0::2"));
            let last = Frame::new(Mac::BROADCAST, lab.host("h0").mac, "the last");
            lab.raw(["h0"])[0].send(&last);
            let mut frames = Vec::new();
            wait_until("the last frame", SOON, || {
                frames.extend(socket.drain().unwrap());
                frames.iter().any(|frame| frame.ends_with(&last.bytes()))
            });
            let file = lab.switch.file(FILE);
            std::fs::write(&file, pcap(&frames)).unwrap();
            let file = file.display().to_string();
            let read = |args: &[&str]| {
                let mut all = vec!["-n", "-r", &file];
                all.extend(["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
                all.extend(args);
                linux.run("tshark", all)
            };
            // What the kernel leaves to devices (its own packets' checksums) is not ours: from the switch alone.
            // Warnings and errors (epan/expert.h).
            let from_us = format!("eth.src == {}", super::linux::vxlan(lab).underlay.unwrap().mac);
            let serious = format!("{from_us} && (_ws.expert.severity >= 0x600000 || _ws.malformed)");
            let complaints = read(&["-Y", &serious, "-T", "fields", "-e", "_ws.expert.message"]);
            assert_eq!(complaints, "");
            let fields = read(&["-Y", &format!("{from_us} && vxlan"), "-T", "fields", "-e", "vxlan.vni"]);
            assert!(fields.lines().count() >= 4 && fields.lines().all(|vni| vni == "10000"), "{fields}");
        });
    }
}
