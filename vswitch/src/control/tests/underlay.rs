//! The underlay comes, moves and goes, and hosts on it lie.

use vswitch_api::topology::Underlay;
use vswitch_dataplane::tunnel;
use vswitch_wire::Instant;

use super::*;

const PEER: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

/// Adds an underlay at port `u`, and a peer of blue.
async fn add_underlay(control: &mut Control) {
    let edit = |t: &mut Topology| {
        let netdev = Some("not-there-u".to_owned());
        t.port.push(Port { kind: Kind::Packet, netdev, ..Port::new("u") });
        t.underlay = Some(Underlay {
            address: "192.0.2.1/24".parse().unwrap(),
            port: "u".to_owned(),
            vlan: Some(vswitch_wire::Vid::new(5).unwrap()),
            gateway: None,
            udp_port: 4789,
            udp_checksum: true,
            ttl: 64,
            dscp: 0,
        });
        t.network[1].vni = Some(vswitch_wire::Vni::new(7).unwrap());
        t.network[1].peers = vec![PEER];
    };
    control.change(edit).await.unwrap();
}

fn id_of_peer(control: &Control) -> PortId {
    PortId(control.port_ids.get(&crate::control::overlay::port_name(PEER)).unwrap())
}

/// Finds the next hop, as the station on the underlay does.
async fn resolve(control: &mut Control) {
    assert!(control.overlay.set_next_hop(PEER, Some(LEARNT)));
    control.publish().await;
    let outer = &tunnel::of(&control.snapshot, id_of_peer(control)).unwrap().outer;
    assert!(outer.is_some());
}

async fn holds_after(edit: impl FnOnce(&mut Topology)) {
    with_control_async(async |control| {
        add_underlay(control).await;
        resolve(control).await;
        control.change(edit).await.unwrap();
        let known = control.overlay.next_hop_mac(PEER);
        let outer = &tunnel::of(&control.snapshot, id_of_peer(control)).unwrap().outer;
        assert_eq!((known, outer.is_some()), (None, false), "the next hop of the old place is used still");
    })
    .await;
}

async fn with_control_async(body: impl AsyncFnOnce(&mut Control)) {
    let pool = Pool::new(PoolConfig { wire: 64, large: 8 }).unwrap();
    let mut control = Control::start(&Switch::default(), pool, None).await.unwrap();
    control.apply(lab(), Options::default()).await.unwrap();
    body(&mut control).await;
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

#[test]
fn next_hops_go_with_the_vteps_mac() {
    run(holds_after(|t| t.switch.name = "other".to_owned()));
}

#[test]
fn next_hops_go_with_the_vteps_address() {
    run(holds_after(|t| t.underlay.as_mut().unwrap().address = "192.0.2.7/24".parse().unwrap()));
}

#[test]
fn next_hops_go_with_the_underlays_vlan() {
    run(holds_after(|t| t.underlay.as_mut().unwrap().vlan = Some(vswitch_wire::Vid::new(6).unwrap())));
}

#[test]
fn next_hops_go_with_the_underlays_port() {
    run(holds_after(|t| t.underlay.as_mut().unwrap().port = "a".to_owned()));
}

#[test]
fn what_was_learnt_of_the_underlay_goes_with_it() {
    with_control(async |control| {
        add_underlay(control).await;
        control.learn(crate::control::overlay::NETWORK, "u");
        let number = control.net_ids.get(crate::control::overlay::NETWORK);
        control.change(|t| t.underlay = None).await.unwrap();
        control.change(|t| t.network.push(Network::new("green"))).await.unwrap();
        assert_eq!(control.net_ids.get("green"), number, "the number is used again");
        assert_eq!(control.known(), [entry("red", "a", FIXED)], "green knows a MAC of the underlay");
    });
}

#[test]
fn what_was_learnt_of_the_underlay_goes_with_its_port() {
    with_control(async |control| {
        add_underlay(control).await;
        control.learn(crate::control::overlay::NETWORK, "u");
        let id = NetId(control.net_ids.get(crate::control::overlay::NETWORK).unwrap());
        control.change(|t| t.underlay.as_mut().unwrap().port = "a".to_owned()).await.unwrap();
        let at = control.fdb.lookup(id, LEARNT);
        assert_eq!(at, None, "a MAC of the underlay is at the port that left it");
    });
}

/// Who sends a VXLAN packet chooses its source.
#[test]
fn no_stranger_becomes_a_peer_that_could_not_be_configured() {
    with_control(async |control| {
        add_underlay(control).await;
        let edit = |t: &mut Topology| {
            t.network[1].peers_any = true;
            t.underlay.as_mut().unwrap().gateway = Some("192.0.2.254".parse().unwrap());
        };
        control.change(edit).await.unwrap();
        let network = NetId(control.net_ids.get("blue").unwrap());
        for address in ["255.255.255.255", "224.0.0.1", "127.0.0.1", "0.0.0.0", "192.0.2.255"] {
            let address = address.parse().unwrap();
            control.on_stranger(vswitch_dataplane::Stranger { address, network }).await;
        }
        let peers: Vec<_> = control.overlay.peers().map(|(peer, _)| peer).collect();
        assert_eq!(peers, [PEER]);
    });
}

/// An underlay whose stations answer and vanish, one each millisecond.
#[test]
fn next_hops_that_come_one_by_one_are_no_storm_of_snapshots() {
    use std::rc::Rc;

    use crate::host::{Member, Vtep};

    with_control(async |control| {
        add_underlay(control).await;
        let peers: Vec<std::net::IpAddr> = (2..=200).map(|n| [192, 0, 2, n].into()).collect();
        control.change(|t| t.network[1].peers = peers.clone()).await.unwrap();
        let own = ("192.0.2.1".parse().unwrap(), 24);
        let mut vtep = Vtep::new(FIXED, own, 1500, 7, Rc::clone(&control.overlay.shared));
        let (mut now, mut questions) = (Instant::from_secs(10), Vec::new());
        while questions.len() < peers.len() {
            vtep.poll(now, &mut |frame| questions.push(frame.to_vec()));
            now = now + Duration::from_millis(10);
        }
        let (start, mut snapshots) = (control.clock.now(), 0);
        for question in questions {
            let mut answer = question.clone();
            answer[..6].copy_from_slice(&FIXED.0);
            answer[6..12].copy_from_slice(&LEARNT.0);
            answer[21] = 2;
            answer[22..28].copy_from_slice(&LEARNT.0);
            answer[28..32].copy_from_slice(&question[38..42]);
            answer[32..38].copy_from_slice(&FIXED.0);
            answer[38..42].copy_from_slice(&question[28..32]);
            vtep.input(now, &answer, &mut |_| ());
            let before = Arc::as_ptr(&control.snapshot);
            control.follow_next_hops().await;
            snapshots += usize::from(Arc::as_ptr(&control.snapshot) != before);
        }
        let millis = control.clock.now().since(start).as_millis() as usize;
        assert!(snapshots <= 2 + millis / 10, "{snapshots} snapshots in {millis} ms");
    });
}
