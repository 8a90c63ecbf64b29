//! Which frames must keep their order: those of one flow.

use crate::classify::{IpVersion, Layers, classify, protocol};

/// A number that all frames of one flow share, and that spreads flows evenly over its range. It is of the outermost
/// headers: tunnels say in their UDP source port which of their flows a frame is of (RFC 7348 section 5).
///
/// A flow is addresses, protocol and ports; for fragments, of which only the first has ports, it is addresses and
/// protocol; for what is no IP packet it is the two MACs. No secret is in it: who picks addresses and ports picks the
/// number too.
#[inline]
#[must_use]
pub fn hash(bytes: &[u8]) -> u32 {
    let state = classify(bytes).ok().and_then(|layers| of_packet(bytes, &layers));
    let state = state.unwrap_or_else(|| mix(SEED, bytes.get(..12).unwrap_or(bytes)));
    (state >> 32) as u32
}

fn of_packet(bytes: &[u8], layers: &Layers) -> Option<u64> {
    let (l3, l4) = (layers.l3, layers.l4);
    let addresses = match layers.version {
        IpVersion::V4 => bytes.get(l3 + 12..l3 + 20),
        IpVersion::V6 => bytes.get(l3 + 8..l3 + 40),
    };
    let has_ports = matches!(layers.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
    let ports = bytes.get(l4..l4 + 4).filter(|_| has_ports && !layers.fragment && l4 + 4 <= layers.end);
    let state = mix(SEED ^ u64::from(layers.protocol), addresses?);
    Some(mix(state, ports.unwrap_or_default()))
}

/// The golden ratio, as a fraction of 2^64: its bits have no pattern.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Takes bytes in, four at a time: both halves of a 128-bit product depend on all that went in.
#[inline]
fn mix(state: u64, bytes: &[u8]) -> u64 {
    let word = |part: &[u8]| part.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    bytes.chunks(4).fold(state, |state, part| {
        let product = u128::from(state ^ word(part)) * u128::from(SEED);
        (product >> 64) as u64 ^ product as u64
    })
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::testing::frame;
    use crate::{Mac, Tag};

    fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let frame = frame(Mac([2; 6]), Mac([4; 6])).ip([10, 0, 0, 1], [10, 0, 0, 2]);
        frame.udp(ports.0, ports.1).payload(payload).bytes()
    }

    #[test]
    fn a_flow_is_addresses_protocol_and_ports() {
        let one = hash(&udp((1, 2), b"one"));
        assert_eq!(one, hash(&udp((1, 2), b"another payload")));
        assert_ne!(one, hash(&udp((2, 1), b"one")));
        let mut other = udp((1, 2), b"one");
        other[29] ^= 1;
        assert_ne!(one, hash(&other), "another address");
    }

    #[test]
    fn tags_make_no_other_flow_and_all_of_ipv6_counts() {
        let plain = || frame(Mac([2; 6]), Mac([4; 6]));
        let tags = [plain(), plain().tag(Tag::dot1q(5)), plain().tag(Tag::dot1q(5)).tag(Tag::dot1q(6))];
        let [none, one, two] = tags.map(|base| hash(&base.ip([1; 16], [2; 16]).tcp(1, 2, 0).bytes()));
        assert_eq!((none, none), (one, two));
        let mut last = [2; 16];
        last[15] = 3;
        let others = [
            plain().ip([1; 16], last).tcp(1, 2, 0).bytes(),
            plain().ip([1; 16], [2; 16]).tcp(1, 3, 0).bytes(),
            plain().ip([1; 16], [2; 16]).udp(1, 2).bytes(),
        ];
        assert!(others.iter().all(|other| hash(other) != none));
    }

    #[test]
    fn fragments_of_one_packet_are_of_one_flow() {
        let fragment = |offset: u8, ports| {
            let mut bytes = udp(ports, b"payload");
            bytes[20] = if offset == 0 { 0x20 } else { 0 };
            bytes[21] = offset;
            hash(&bytes)
        };
        assert_eq!(fragment(0, (1, 2)), fragment(1, (77, 78)), "no ports in the second, but payload");
    }

    #[test]
    fn any_bytes_have_a_flow() {
        let whole = udp((1, 2), b"one");
        for len in 0..whole.len() {
            let _ = hash(&whole[..len]);
        }
        let arp = [&[0xff; 6][..], &[2; 6], &[8, 6], &[0; 46]].concat();
        let mut other = arp.clone();
        other[11] = 3;
        assert_ne!(hash(&arp), hash(&other));
    }

    /// The worst of 4 queues has at most a tenth more than its share, of flows that differ little.
    #[test]
    fn flows_are_spread_evenly() {
        let mut counts = [0_u32; 4];
        for port in 1024..5120 {
            counts[(hash(&udp((port, 80), b"")) >> 30) as usize] += 1;
        }
        assert!(counts.iter().all(|n| (922..=1126).contains(n)), "{counts:?}");
    }
}
