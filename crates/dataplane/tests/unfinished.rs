//! An unfinished checksum whose field is one that guard or filters judge: finishing it when the frame leaves would rewrite
//! what they have let pass.

#![allow(clippy::unwrap_used)] // these are tests, although not all functions are marked so

mod testbed;

use testbed::claim::*;
use testbed::*;
use vswitch_dataplane::acl::{Action, Rule};
use vswitch_dataplane::{Port, Reason, Verdict};
use vswitch_wire::checksum::Sum;
use vswitch_wire::testing::{VecFrame, frame};
use vswitch_wire::{Csum, FrameBuf};

/// A frame that has `wanted` at `field` once its "checksum" is finished, and something else before.
fn disguised(mut bytes: Vec<u8>, field: usize, wanted: u16) -> VecFrame {
    bytes[field..field + 2].fill(0);
    // The sum of the rest and of this value is the complement of what is wanted.
    let rest = Sum::of(&bytes[field..]).folded();
    let value = Sum::of_word(u64::from(!wanted)).plus(Sum::of_word(u64::from(!rest))).folded();
    bytes[field..field + 2].copy_from_slice(&value.to_be_bytes());
    let mut frame = VecFrame::new(&bytes);
    frame.meta_mut().offload.csum = Some(Csum { start: field as u16, offset: 0 });
    frame
}

#[track_caller]
fn assert_refused(ports: &[Port], frame: VecFrame) {
    let mut switch = Switch::new(ports, 2);
    let outcome = switch.receive(0, &mut [frame]).remove(0);
    assert_eq!(outcome.out, [], "it left");
    assert_eq!(outcome.verdict, Verdict::Drop(Reason::BadOffload));
}

#[test]
fn a_guarded_port_is_no_dhcp_server_by_metadata() {
    assert_refused(&guarded(), disguised(udp4(OWN4, (1000, 0), &[7; 300]), 36, 68));
}

#[test]
fn a_guarded_port_is_no_router_by_metadata() {
    let bytes = v6(own_link_local(), ICMPV6, &nd(ROUTER_ADVERTISEMENT, OWN6, None));
    assert_refused(&guarded(), disguised(bytes, 54, 0x8600));
}

#[test]
fn a_guarded_port_has_no_other_address_in_arp_by_metadata() {
    let tell = arp(2, (A, OTHER4), OWN4);
    let field = 14 + 14 + 2; // the last half of the sender's address
    // Bytes behind the message with which what the guard sees is A's own.
    let frame = (0..=0xffff_u16)
        .map(|pad| disguised([&tell[..], &pad.to_be_bytes()].concat(), field, 2))
        .find(|frame| frame.bytes()[28..32] == OWN4.octets())
        .unwrap();
    assert_refused(&guarded(), frame);
}

#[test]
fn a_filter_is_not_passed_by_metadata() {
    let mut ports = vec![port(access(0)), port(access(0))];
    let telnet = Rule { protocol: Some(6), destination_port: Some(23..=23), ..Rule::any(Action::Deny) };
    ports[0].acl.ingress = acl(&[telnet], Action::Allow);
    ports[1].acl.egress = ports[0].acl.ingress.clone();
    let bytes = frame(B, A).ip(OWN4, OTHER4).tcp(1000, 0, 2).payload(&[7; 9]).bytes();
    assert_refused(&ports, disguised(bytes, 36, 23));
}
