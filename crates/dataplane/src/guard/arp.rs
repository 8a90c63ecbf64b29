//! ARP: whoever hears a message believes its sender (RFC 826), and gives way to who probes (RFC 5227).

use vswitch_wire::arp::{Packet, REPLY, REQUEST};

use super::{Hidden, Judge, Refusal};

impl Judge<'_> {
    pub(super) fn arp(&self, payload: &[u8]) -> Result<(), Refusal> {
        let packet = Packet::new_checked(payload)?;
        let operation = packet.operation();
        if !matches!(operation, REQUEST | REPLY) {
            return Err(Hidden::ArpOperation(operation).into());
        }
        if !self.security.has_mac(packet.sender_mac()) {
            return Err(Refusal::ArpMac(packet.sender_mac()));
        }
        // RFC 5227 section 2.1.1: a station that takes an address and hears a probe for the same one leaves it to the
        // other, so that a probe is a claim.
        let is_probe = packet.sender_ip().is_unspecified() && operation == REQUEST;
        let claimed = if is_probe { packet.target_ip() } else { packet.sender_ip() };
        if self.may_be_v4(claimed) { Ok(()) } else { Err(Refusal::ArpIp(claimed)) }
    }
}
