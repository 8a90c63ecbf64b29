//! A batch in steady state allocates nothing, whatever becomes of its frames.

mod testbed;

use testbed::*;
use vswitch_dataplane::acl::{Acls, Action, Rule};
use vswitch_dataplane::{BATCH_MAX, Batch, NetId, Port, PortId, Reason, Storm, Verdict, egress};
use vswitch_wire::testing::VecFrame;
use vswitch_wire::{FrameBuf, Mac};

/// A frame of each fate, and of each way that the tag and the checksum are handled, as often as they fit.
fn batch() -> Vec<VecFrame> {
    let kinds = [
        VecFrame::new(&eth(B, A, &[(DOT1Q, 10)], b"known")),
        out_of_band(&eth(B, A, &[(DOT1Q, 10)], b"known")),
        VecFrame::new(&eth(Mac([2; 6]), A, &[(DOT1Q, 10)], b"unknown")),
        VecFrame::new(&eth(Mac::BROADCAST, A, &[(DOT1Q, 20)], b"all")),
        VecFrame::new(&eth(GROUP, A, &[], b"some")),
        VecFrame::new(&eth(B, A, &[(DOT1Q, 30)], b"not carried")),
        VecFrame::new(&eth(B, A, &[(DOT1Q, 10), (DOT1Q, 20)], b"hopping")),
        VecFrame::new(&[0; 13]),
        tcp(100).unfinished(),
        tcp(3000).gso(1000),
    ];
    kinds.into_iter().cycle().take(BATCH_MAX).collect()
}

#[test]
fn a_batch_allocates_nothing() {
    let storm = Storm { broadcast: Some(100), multicast: Some(100), unknown: Some(100) };
    let ports = Rule { destination_port: Some(80..=80), ..Rule::any(Action::Deny) };
    let tagged = Rule { vlan: Some(vswitch_wire::Vid::new(30).unwrap()), ..Rule::any(Action::Deny) };
    let [ingress, egress] = [tagged, ports].map(|rule| acl(&[rule], Action::Allow));
    let acl = Acls { ingress, egress };
    let ingress = Port { storm, acl: acl.clone(), ..port(trunk(&[(10, 0), (20, 1)], Some(0))) };
    let ports = [
        ingress,
        Port { acl: acl.clone(), ..port(access(0)) },
        port(access(1)),
        port(trunk(&[(110, 0), (120, 1)], None)),
    ];
    let mut switch = Switch::new(&ports, 2);
    switch.fdb.add_static(NetId(0), B, PortId(1), switch.now).unwrap();
    let mut run = |frames: &mut [VecFrame], verdicts: &mut [Verdict]| {
        let mut batch = Batch { ingress: PortId(0), network: None, frames, verdicts };
        switch.pipeline.process(&switch.snapshot, switch.now, &mut batch);
        for (frame, verdict) in batch.frames.iter_mut().zip(batch.verdicts.iter()) {
            let mut leave = |network, port| {
                let tag = frame.meta().tag;
                let left = egress::prepare(&switch.snapshot, network, PortId(0), port, frame, Some(0));
                frame.meta_mut().tag = tag;
                left
            };
            match *verdict {
                Verdict::Unicast { network, port } => leave(network, port).map(drop).unwrap_or_default(),
                Verdict::Flood { network } => switch.snapshot.flood(network, PortId(0)).for_each(|port| {
                    let _: Result<_, Reason> = leave(network, port);
                }),
                Verdict::Decapsulated { .. } | Verdict::Drop(_) | Verdict::Pending => {}
            }
        }
    };
    let mut verdicts = [Verdict::Pending; BATCH_MAX];
    // The first batch makes room for what the pipeline keeps of each port.
    run(&mut batch(), &mut verdicts);
    let mut frames = batch();
    let counted = allocation_counter::measure(|| run(&mut frames, &mut verdicts));
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0));
    for fate in [
        |v: &Verdict| matches!(v, Verdict::Unicast { .. }),
        |v: &Verdict| matches!(v, Verdict::Flood { .. }),
        |v: &Verdict| matches!(v, Verdict::Drop(Reason::VlanNotAllowed)),
        |v: &Verdict| matches!(v, Verdict::Drop(Reason::StormBroadcast)),
    ] {
        assert!(verdicts.iter().any(fate), "the batch shows every fate: {verdicts:?}");
    }
}
