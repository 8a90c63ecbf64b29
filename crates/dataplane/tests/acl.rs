//! Filters in the pipeline: who is asked, in which order, what is counted, and what is told.

#![allow(clippy::unwrap_used)] // set-up of tests

mod testbed;

use std::sync::Arc;

use testbed::*;
use vswitch_dataplane::acl::{Acl, Acls, Action, Prefix, Rule};
use vswitch_dataplane::{NetId, Port, PortId, Reason, Verdict, explain};
use vswitch_wire::FrameBuf;
use vswitch_wire::testing::{VecFrame, frame};

fn list(name: &str, rules: &[Rule], default: Action) -> Arc<Acl> {
    Arc::new(Acl::new(name, rules, default, 1).unwrap())
}

fn port_is(port: u16, action: Action) -> Rule {
    Rule { protocol: Some(6), destination_port: Some(port..=port), ..Rule::any(action) }
}

fn to_port(port: u16) -> VecFrame {
    frame(B, A).ip([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1000, port, 2).build()
}

/// Two ports of a network: the lists of the first's ingress, of the second's egress, and both of the network.
fn switch(ingress: &Arc<Acl>, egress: &Arc<Acl>, network: [&Arc<Acl>; 2]) -> Switch {
    let on = |acl: &Arc<Acl>| Some(Arc::clone(acl));
    let from = Port { acl: Acls { ingress: on(ingress), ..Acls::default() }, ..port(access(0)) };
    let to = Port { acl: Acls { egress: on(egress), ..Acls::default() }, ..port(access(0)) };
    let mut switch = Switch::new(&[from.clone(), to.clone()], 1);
    switch.networks[0].acl = Acls { ingress: on(network[0]), egress: on(network[1]) };
    switch.configure(&[from, to]);
    switch
}

#[test]
fn port_and_network_must_both_allow() {
    let ingress = list("in", &[port_is(1, Action::Deny)], Action::Allow);
    let of_network = list("net-in", &[port_is(2, Action::Deny)], Action::Allow);
    let egress = list("out", &[port_is(3, Action::Deny)], Action::Allow);
    let out_of_network = list("net-out", &[port_is(4, Action::Deny)], Action::Allow);
    let mut switch = switch(&ingress, &egress, [&of_network, &out_of_network]);
    let frames = &mut [1, 2, 3, 4, 5].map(to_port);
    let outcomes = switch.receive(0, frames);
    let reasons: Vec<_> = outcomes.iter().map(|o| (o.verdict, o.lost.first().map(|lost| lost.1))).collect();
    let (flood, denied) = (Verdict::Flood { network: NetId(0) }, Verdict::Drop(Reason::AclIngress));
    let lost = Some(Reason::AclEgress);
    assert_eq!(reasons, [(denied, None), (denied, None), (flood, lost), (flood, lost), (flood, None)]);
    // The second list is not asked where the first denies.
    let counts = |acl: &Acl| (acl.rule_packets(), acl.default_packets(), acl.unreadable_packets());
    assert_eq!(counts(&ingress), (vec![1], 4, 0));
    assert_eq!(counts(&of_network), (vec![1], 3, 0));
    assert_eq!(counts(&egress), (vec![1], 2, 0));
    assert_eq!(counts(&out_of_network), (vec![1], 1, 0));
    switch.assert_conserved();
}

/// Who is denied is not learnt, so nobody is sent to where a forged source came from.
#[test]
fn a_frame_that_is_denied_teaches_nothing() {
    let deny = list("in", &[], Action::Deny);
    let allow = list("all", &[], Action::Allow);
    let mut switch = switch(&deny, &allow, [&allow, &allow]);
    switch.receive(0, &mut [to_port(80)]);
    assert_eq!(switch.fdb.lookup(NetId(0), A), None);
}

/// IP in disguises that some stations see through.
#[test]
fn a_filter_is_not_passed_by_llc_or_old_tags() {
    let no_telnet = list("in", &[port_is(23, Action::Deny)], Action::Allow);
    let allow = list("all", &[], Action::Allow);
    let packet = to_port(23).bytes()[14..].to_vec();
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &packet].concat();
    let old_tag = [&[0, 5, 8, 0][..], &packet].concat();
    let many_tags = [&[[0x88, 0xa8, 0, 5]; 9].concat()[2..], &[8, 0][..], &packet].concat();
    for (ether_type, payload) in [(snap.len() as u16, snap), (0x9100, old_tag), (0x88a8, many_tags)] {
        let bytes = frame(B, A).ether_type(ether_type).payload(&payload).bytes();
        let judged =
            |acl| switch(acl, &allow, [&allow, &allow]).receive(0, &mut [VecFrame::new(&bytes)]).remove(0);
        assert_eq!(judged(&no_telnet).verdict, Verdict::Drop(Reason::AclUnreadable), "{ether_type:#x}");
        assert_eq!(judged(&allow).verdict, Verdict::Flood { network: NetId(0) }, "{ether_type:#x}");
    }
}

#[test]
fn trace_names_the_rule_and_counts_nothing() {
    let web = list("web", &[port_is(80, Action::Allow), Rule::any(Action::Deny)], Action::Deny);
    let tenant = list("tenant", &[], Action::Allow);
    let out = list("out", &[port_is(80, Action::Deny)], Action::Allow);
    let switch = switch(&web, &out, [&tenant, &tenant]);
    let told = |mut frame: VecFrame| -> Vec<String> {
        let steps = explain(&switch.snapshot, switch.now, PortId(0), &mut frame).steps;
        let of_filters = steps.into_iter().filter(|step| matches!(step.stage, "acl" | "egress"));
        of_filters.map(|step| format!("{}: {}", step.stage, step.text)).collect()
    };
    assert_eq!(
        told(to_port(80)),
        [
            "acl: allowed by rule 1 of acl web, ingress of {port 0}",
            "acl: allowed by the default of acl tenant, ingress of {network 0}",
            "acl: denied by rule 1 of acl out, egress of {port 1}",
            "egress: dropped at {port 1}: a filter of the port that the frame should leave by, or of its network, denies it",
        ]
    );
    assert_eq!(
        told(to_port(81)),
        [
            "acl: denied by rule 2 of acl web, ingress of {port 0}",
            "acl: dropped: a filter of the port or the network that the frame came in by denies it",
        ]
    );
    let cut = VecFrame::new(&vswitch_wire::FrameBuf::bytes(&to_port(80))[..30]);
    assert!(told(cut)[0].starts_with("acl: acl web, ingress of {port 0}, asks for what cannot be read"));
    assert_eq!((web.rule_packets(), out.rule_packets()), (vec![0, 0], vec![0]));
}

/// As the network has it on every port, whatever the tag was; a trunk's frames are judged by the list of their network.
#[test]
fn a_trunk_is_judged_network_by_network() {
    let net = Prefix { address: [10, 0, 0, 0].into(), len: 8 };
    let deny = list("deny", &[Rule { source: Some(net), ..Rule::any(Action::Deny) }], Action::Allow);
    let ports = [port(trunk(&[(10, 0), (20, 1)], None)), port(access(0)), port(access(1))];
    let mut switch = Switch::new(&ports, 2);
    switch.networks[0].acl.ingress = Some(deny);
    switch.configure(&ports);
    let tagged = |vid| to_port(80).with_tag(vswitch_wire::Tag::dot1q(vid));
    let outcomes = switch.receive(0, &mut [tagged(10), tagged(20)]);
    assert_eq!(outcomes[0].verdict, Verdict::Drop(Reason::AclIngress));
    assert_eq!(outcomes[1].verdict, Verdict::Flood { network: NetId(1) });
}
