//! Lists of rules as a tenant's firewall has them, and headers for them: random ones, half of which a rule matches,
//! each rule as often as any other.

use std::net::Ipv4Addr;

use vswitch_dataplane::acl::{Acl, Action, Prefix, Rule};

use crate::Result;

/// TCP and UDP.
const PROTOCOLS: [u8; 2] = [6, 17];

/// A list, and what it was made of.
pub(super) struct Filter {
    rules: Vec<Rule>,
}

/// Knuth's MMIX generator; its upper half is good.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn draw(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn below(&mut self, end: u32) -> u32 {
        ((u64::from(self.draw()) * u64::from(end)) >> 32) as u32
    }
}

impl Filter {
    /// A list of `rules` rules: services by their prefix, protocol and port or range of ports, pairs of networks, hosts
    /// and networks of any protocol. All allow, and so does the default, so that every frame goes the whole way.
    pub(super) fn new(rules: usize) -> Self {
        let mut random = Random(7);
        Self { rules: (0..rules).map(|number| rule(number, &mut random)).collect() }
    }

    pub(super) fn compile(&self) -> Result<Acl> {
        Acl::new("bench", &self.rules, Action::Allow, 1).map_err(|_| "too many rules".into())
    }

    /// Writes source, destination, protocol and ports into an IPv4 packet without options.
    pub(super) fn address(&self, random: &mut Random, packet: &mut [u8]) {
        let (mut source, mut destination) = (random.draw(), random.draw());
        let mut protocol = PROTOCOLS[random.below(2) as usize];
        let mut ports = [random.draw() as u16, random.draw() as u16];
        if random.draw().is_multiple_of(2) {
            let rule = &self.rules[random.below(self.rules.len() as u32) as usize];
            source = within(rule.source, source);
            destination = within(rule.destination, destination);
            protocol = rule.protocol.unwrap_or(protocol);
            if let Some(range) = &rule.destination_port {
                let span = u32::from(range.end() - range.start()) + 1;
                ports[1] = range.start() + random.below(span) as u16;
            }
        }
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&source.to_be_bytes());
        packet[16..20].copy_from_slice(&destination.to_be_bytes());
        packet[20..22].copy_from_slice(&ports[0].to_be_bytes());
        packet[22..24].copy_from_slice(&ports[1].to_be_bytes());
    }
}

/// An address in the prefix, with the other bits of `address`.
fn within(prefix: Option<Prefix>, address: u32) -> u32 {
    let Some(Prefix { address: std::net::IpAddr::V4(net), len }) = prefix else { return address };
    let mask = u32::MAX.checked_shr(len.into()).unwrap_or(0);
    (net.to_bits() & !mask) | (address & mask)
}

fn rule(number: usize, random: &mut Random) -> Rule {
    let mut net = |lens: &[u8]| {
        let len = lens[random.below(lens.len() as u32) as usize];
        let address = Ipv4Addr::from_bits(0x0a00_0000 | random.below(1 << 24));
        Some(Prefix { address: address.into(), len })
    };
    let any = Rule::any(Action::Allow);
    let rule = match number % 10 {
        0..=3 => Rule { destination: net(&[24, 28, 32]), protocol: Some(6), ..any },
        4 | 5 => Rule { source: net(&[16, 20, 24]), destination: net(&[24, 32]), protocol: Some(6), ..any },
        6 => Rule { destination: net(&[24, 32]), protocol: Some(17), ..any },
        7 => Rule { source: net(&[16, 24, 32]), destination: net(&[16, 24, 32]), ..any },
        8 => Rule { source: net(&[24, 30, 32]), ..any },
        _ => Rule { destination: net(&[24, 30, 32]), ..any },
    };
    let port = random.below(60_000) as u16;
    match number % 10 {
        0..=4 => Rule { destination_port: Some(port..=port), ..rule },
        5 | 6 => Rule { destination_port: Some(port..=port + 1000), ..rule },
        _ => rule,
    }
}
