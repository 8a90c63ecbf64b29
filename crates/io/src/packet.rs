//! AF_PACKET with virtio-net headers, on an existing netdev: keeps GSO, needs no XDP.
//!
//! Receive is one TPACKET_V2 ring of slots a little larger than a frame of MTU 1500. What does not fit (jumbo
//! and GSO frames) is marked `TP_STATUS_COPY` and waits, in the same order, on the socket's queue, from where
//! it is read straight into a pool frame. Transmit sends small frames in batches through a BPF program (see
//! `batch`), GSO and jumbo frames by sendmmsg; both are done with a frame when they return, and runs of one kind
//! take turns, so the order is kept.
//!
//! Offloads are the kernel's affair: the vnet header says what is unfinished, and a device that cannot do
//! it gets the work done in the queueing layer (so PACKET_QDISC_BYPASS must stay off); only the checksums of
//! batched frames are finished here. VLAN tags come beside the bytes, go out within them.
//!
//! Order across CPUs: veth hands frames to the peer through a queue of the sending CPU. A worker that is not pinned
//! and moves between two batches may see them overtake each other, as frames that the Linux bridge forwards may.
//!
//! One receive queue, owned by one worker: the kernel steers all of the device's queues into it.

use std::io;

use vswitch_wire::Caps;

use crate::netdev;
use crate::port::{Facts, Kind, OpenError, Opened, TxQueue};
use crate::shortcut::Shortcut;

mod batch;
mod filter;
mod ring;
mod rx;
mod socket;
mod tx;

use batch::{BatchError, Netns};
use filter::FilterError;
use rx::Rx;
use tx::Tx;

/// The largest MTU of a netdev; what no slot holds takes the way of GSO frames.
const MTU_LIMIT: u32 = 65535;

/// Opens an existing netdev of the calling thread's network namespace for `workers` workers. Threads that send by
/// it are fastest when they are in the same one; none may change its own after it has sent once. By a `shortcut` frames
/// pass where [`crate::hoststack::HostFilter`] has it too.
///
/// # Errors
/// [`OpenError`]; nothing is left behind then.
pub fn open(name: &str, workers: usize, shortcut: Option<&Shortcut>) -> Result<Opened, OpenError> {
    let ifindex = netdev::index(name)?;
    let mtu = netdev::mtu(name).map_err(OpenError::at("read the MTU"))?;
    let rx = Rx::open(ifindex, shortcut).map_err(|e| lost(name, e, "open the receive ring"))?;
    if !rx.is_ethernet().map_err(OpenError::at("read the device's type"))? {
        return Err(OpenError::Refused(format!("`{name}` is no Ethernet device")));
    }
    let batches = batch::probe();
    let netns = batches.as_ref().ok().copied();
    let tx: io::Result<Vec<_>> = (0..workers).map(|_| Tx::open(ifindex, netns)).collect();
    let tx = tx.map_err(|e| lost(name, e, "open a transmit socket"))?;
    let shortcut_ifindex = rx.has_shortcut().then_some(ifindex);
    let mut mode = mode(&batches, rx.unfiltered());
    if shortcut.is_some() && shortcut_ifindex.is_none() {
        mode += "; the kernel refuses its frames the shortcut";
    }
    Ok(Opened {
        rx: vec![Box::new(rx)],
        tx: tx.into_iter().map(|q| Box::new(q) as Box<dyn TxQueue>).collect(),
        facts: Facts {
            kind: Kind::Packet,
            mode,
            rx_queues: 1,
            caps: Caps::ALL,
            rx_caps: Caps::ALL,
            mtu_limit: MTU_LIMIT,
            mtu,
            vlan: Ok(()),
            shortcut_ifindex,
            why: "AF_PACKET keeps GSO frames whole and needs no XDP".to_owned(),
        },
        guard: Box::new(()),
    })
}

fn mode(batches: &Result<Netns, BatchError>, unfiltered: Option<&FilterError>) -> String {
    let mut mode = match batches {
        Ok(_) => "vnet headers, batched transmit".to_owned(),
        Err(e) => format!("vnet headers; small frames leave one by one, batches were refused: {e}"),
    };
    if let Some(e) = unfiltered {
        mode += &format!("; after a frame of unknown GSO the port is opened anew, there is no filter: {e}");
    }
    mode
}

/// A device that was deleted while it was opened is one to wait for.
fn lost(name: &str, error: io::Error, step: &'static str) -> OpenError {
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => OpenError::NoDevice(name.to_owned()),
        _ => OpenError::System { step, source: error },
    }
}
