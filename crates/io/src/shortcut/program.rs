//! The two programs that a frame meets.
//!
//! `decide` is part of the socket filter of a port, `obey` the host filter of its netdev. The kernel runs them for the
//! same frame one after the other, on the same CPU and with nothing received there in between
//! (`__netif_receive_skb_core`: taps, then tc ingress). So the first leaves word for the second in memory of that CPU.
//! The word names the frame by its address: should a frame come to `obey` that `decide` did not see, it is dropped. And the
//! first begins with wiping out the word: should somebody's program between the two have taken the frame that it
//! was for, no later frame, which may have the same address, is taken for that one.

use std::mem::offset_of;
use std::os::fd::AsFd;

use vswitch_wire::{ethernet, vlan};

use super::board::{
    Board, CPUS, Count, FLOWS, GENERATIONS, KEY_LEN, Key, MarkWords, NETWORKS, PORTS, Place, Port, TAGGED,
    Word,
};
use super::{MIN_SEGMENT, Maps};
use crate::bpf::kernel::{DROP, function, skb};
use crate::bpf::{self, Cond, Insn, Line, Reg};
use Line::{Do, If, Label};
use Reg::{Frame, R0, R1, R2, R3, R4};

/// An EtherType as `__sk_buff` has it.
const fn in_network_order(ether_type: u16) -> i32 {
    ether_type.to_be() as i32
}
const IPV4: i32 = in_network_order(ethernet::TYPE_IPV4);
const IPV6: i32 = in_network_order(ethernet::TYPE_IPV6);
const TPID_8021Q: i32 = in_network_order(vlan::TPID_8021Q);
const TCP: i32 = 6;
const ETHERNET: i32 = ethernet::HEADER_LEN as i32;
const IPV6_HEADER: i32 = 40;

/// The longest GSO frame: what is longer (BIG TCP) no socket takes either.
const LONGEST: i32 = 65535 + ETHERNET;

/// What `decide` begins with: the frame.
pub(crate) const SKB: Reg = Reg::R6;
/// And its GSO size.
pub(crate) const GSO_SIZE: Reg = Reg::R7;
/// Where it goes on when the frame is not to pass.
pub(crate) const STAY: &str = "stay";

const LEN: Reg = Reg::R8;
const FLOW: Reg = Reg::R9;
// On the stack.
const KEY: i16 = -(KEY_LEN as i16);
const TAG: i16 = KEY + offset_of!(Key, tag) as i16;
/// Where headers of the frame are read to.
const HEADER: i16 = KEY - 24;
/// Bytes of the frame before the TCP header.
const BEFORE_TCP: i16 = HEADER - 8;
/// The place's number.
const NUMBER: i16 = BEFORE_TCP - 8;

/// Wipes out what was said of an earlier frame. Comes first.
pub(crate) fn begin(maps: &Maps) -> Vec<Line> {
    let mut lines = word(maps, STAY);
    lines.extend([Do(Insn::set(R2, 0)), Do(Insn::store_long(R1, offset_of!(Word, skb) as i16, R2))]);
    lines
}

/// Lets a frame pass if there is a flow for it: then the program ends, and keeps the frame from the socket.
pub(crate) fn decide(maps: &Maps) -> Vec<Line> {
    let mut lines = find_flow(maps);
    lines.extend(check_epoch(maps));
    let (addresses, ports) = ((GENERATIONS, size_of::<u32>()), (PORTS, size_of::<Port>()));
    let (of_addresses, of_ports) =
        (offset_of!(Board, generations), offset_of!(Board, ports) + offset_of!(Port, generation));
    for (mark, array, shape) in [
        (offset_of!(Place, source), of_addresses, addresses),
        (offset_of!(Place, destination), of_addresses, addresses),
        (offset_of!(Place, ingress), of_ports, ports),
        (offset_of!(Place, egress), of_ports, ports),
    ] {
        lines.extend(check_generation(maps, mark, array, shape));
    }
    lines.extend(check_size());
    lines.extend(keep(maps));
    lines.extend([Do(Insn::set(R0, 0)), Do(Insn::exit())]);
    lines
}

/// `R1` = the address of a field of the board.
fn on_board(maps: &Maps, offset: usize) -> [Insn; 2] {
    Insn::map_value(R1, maps.board.as_fd(), offset)
}

/// A whole socket filter with nothing else in it.
pub(super) fn alone(maps: &Maps) -> Vec<Insn> {
    let mut lines = vec![Do(Insn::copy(SKB, R1)), Do(Insn::load(GSO_SIZE, SKB, skb::GSO_SIZE))];
    lines.extend(begin(maps));
    lines.extend(decide(maps));
    lines.extend([Label(STAY), Do(Insn::set(R0, -1)), Do(Insn::exit())]);
    bpf::assemble(&lines)
}

/// Puts the place of the frame's flow into `FLOW`, and its length into `LEN`. Only IP has flows: any other EtherType
/// may be a tag.
fn find_flow(maps: &Maps) -> Vec<Line> {
    let [index, index_high] = Insn::map(R1, maps.index.fd());
    let mut lines = vec![
        Do(Insn::load(R1, SKB, skb::PROTOCOL)),
        If(Cond::Is(R1, IPV4), "ip"),
        If(Cond::NotEqual(R1, IPV6), STAY),
        Label("ip"),
        Do(Insn::load(LEN, SKB, skb::LEN)),
        If(Cond::Greater(LEN, LONGEST), STAY),
        Do(Insn::set(R2, 0)),
        Do(Insn::load(R1, SKB, skb::VLAN_PRESENT)),
        If(Cond::Is(R1, 0), "untagged"),
        Do(Insn::load(R1, SKB, skb::VLAN_PROTO)),
        If(Cond::NotEqual(R1, TPID_8021Q), STAY),
        Do(Insn::load(R2, SKB, skb::VLAN_TCI)),
        Do(Insn::and(R2, 0x0fff)),
        Do(Insn::or(R2, TAGGED as i32)),
        Label("untagged"),
        Do(Insn::store(Frame, TAG, R2)),
        Do(Insn::load(R1, SKB, skb::IFINDEX)),
        Do(Insn::store(Frame, KEY + offset_of!(Key, ifindex) as i16, R1)),
        Do(Insn::set(R1, 0)),
        Do(Insn::store(Frame, KEY + offset_of!(Key, zero) as i16, R1)),
    ];
    lines.extend(load_bytes(At::Offset(0), KEY + offset_of!(Key, addresses) as i16, 12));
    lines.extend([
        Do(index), // (map, key)
        Do(index_high),
        Do(Insn::copy(R2, Frame)),
        Do(Insn::add(R2, KEY.into())),
        Do(Insn::call(function::MAP_LOOKUP_ELEM)),
        If(Cond::Is(R0, 0), STAY),
        Do(Insn::load(R2, R0, 0)),
        Do(Insn::store(Frame, NUMBER, R2)),
    ]);
    lines.extend(element(maps, offset_of!(Board, places), FLOWS, size_of::<Place>()));
    lines.push(Do(Insn::copy(FLOW, R1)));
    // What the map said may be another flow's by now; what is at a place stays.
    for word in (0..KEY_LEN as i16).step_by(8) {
        lines.extend([
            Do(Insn::load_long(R1, Frame, KEY + word)),
            Do(Insn::load_long(R2, FLOW, offset_of!(Place, key) as i16 + word)),
            If(Cond::Differ(R1, R2), STAY),
        ]);
    }
    lines
}

fn check_epoch(maps: &Maps) -> Vec<Line> {
    let [board, board_high] = on_board(maps, offset_of!(Board, epoch));
    vec![
        Do(board),
        Do(board_high),
        Do(Insn::load_long(R2, R1, 0)),
        Do(Insn::load_long(R3, FLOW, offset_of!(Place, epoch) as i16)),
        If(Cond::Differ(R2, R3), STAY),
    ]
}

/// Compares the mark at this place of the flow with the generation of its element in an array on the board.
fn check_generation(maps: &Maps, mark: usize, array: usize, (len, size): (usize, usize)) -> Vec<Line> {
    let mut lines = vec![Do(Insn::load(R2, FLOW, (mark + offset_of!(MarkWords, slot)) as i16))];
    lines.extend(element(maps, array, len, size));
    lines.extend([
        Do(Insn::load(R2, R1, 0)),
        Do(Insn::load(R3, FLOW, (mark + offset_of!(MarkWords, generation)) as i16)),
        If(Cond::Differ(R2, R3), STAY),
    ]);
    lines
}

/// `R1` = the address of element `R2` (modulo `len`) of an array on the board. Both sizes are powers of two.
fn element(maps: &Maps, array: usize, len: usize, size: usize) -> [Line; 5] {
    let [board, board_high] = on_board(maps, array);
    [
        Do(Insn::and(R2, len as i32 - 1)),
        Do(Insn::shift_left(R2, size.trailing_zeros() as i32)),
        Do(board),
        Do(board_high),
        Do(Insn::add_register(R1, R2)),
    ]
}

/// The frame is short enough, or its segments are: TCP's, whose headers it reads.
fn check_size() -> Vec<Line> {
    const NEXT_HEADER: i16 = 6;
    const PROTOCOL: i16 = 9;
    const DATA_OFFSET: i16 = 12;
    let mut lines = vec![
        Do(Insn::copy(R1, LEN)),
        If(Cond::Is(GSO_SIZE, 0), "fits"),
        If(Cond::Less(GSO_SIZE, MIN_SEGMENT as i32), STAY),
        Do(Insn::load(R1, SKB, skb::PROTOCOL)),
        If(Cond::Is(R1, IPV6), "ipv6"),
    ];
    lines.extend(load_bytes(At::Offset(ETHERNET), HEADER, 20));
    lines.extend([
        Do(Insn::load_byte(R1, Frame, HEADER + PROTOCOL)),
        If(Cond::NotEqual(R1, TCP), STAY),
        Do(Insn::load_byte(R1, Frame, HEADER)),
        Do(Insn::and(R1, 0x0f)), // words of the header
        Do(Insn::shift_left(R1, 2)),
        Do(Insn::add(R1, ETHERNET)),
        Line::Go("tcp"),
        Label("ipv6"),
    ]);
    lines.extend(load_bytes(At::Offset(ETHERNET), HEADER, 20));
    lines.extend([
        Do(Insn::load_byte(R1, Frame, HEADER + NEXT_HEADER)),
        If(Cond::NotEqual(R1, TCP), STAY),
        Do(Insn::set(R1, ETHERNET + IPV6_HEADER)),
        Label("tcp"),
        Do(Insn::store_long(Frame, BEFORE_TCP, R1)),
    ]);
    lines.extend(load_bytes(At::Behind(BEFORE_TCP, DATA_OFFSET), HEADER, 1));
    lines.extend([
        Do(Insn::load_byte(R1, Frame, HEADER)),
        Do(Insn::and(R1, 0xf0)), // words, in the upper four bits
        Do(Insn::shift_right(R1, 2)),
        Do(Insn::load_long(R2, Frame, BEFORE_TCP)),
        Do(Insn::add_register(R1, R2)),
        Do(Insn::add_register(R1, GSO_SIZE)),
        Label("fits"),
        Do(Insn::load(R2, FLOW, offset_of!(Place, max_frame) as i16)),
        If(Cond::Exceeds(R1, R2), STAY),
    ]);
    lines
}

/// Where in a frame.
enum At {
    Offset(i32),
    /// So many bytes behind the number that is there on the stack.
    Behind(i16, i16),
}

/// Reads bytes of the frame to the stack.
fn load_bytes(from: At, to: i16, len: i32) -> Vec<Line> {
    let mut lines = vec![Do(Insn::copy(R1, SKB))]; // (skb, offset, to, len)
    match from {
        At::Offset(offset) => lines.push(Do(Insn::set(R2, offset))),
        At::Behind(base, offset) => {
            lines.extend([Do(Insn::load_long(R2, Frame, base)), Do(Insn::add(R2, offset.into()))]);
        }
    }
    lines.extend([
        Do(Insn::copy(R3, Frame)),
        Do(Insn::add(R3, to.into())),
        Do(Insn::set(R4, len)),
        Do(Insn::call(function::SKB_LOAD_BYTES)),
        If(Cond::NotEqual(R0, 0), STAY),
    ]);
    lines
}

/// `R1` = this CPU's word.
fn word(maps: &Maps, where_there_is_none: &'static str) -> Vec<Line> {
    let mut lines = vec![
        Do(Insn::call(function::GET_SMP_PROCESSOR_ID)),
        If(Cond::Greater(R0, CPUS as i32 - 1), where_there_is_none),
        Do(Insn::copy(R2, R0)),
    ];
    lines.extend(element(maps, offset_of!(Board, words), CPUS, size_of::<Word>()));
    lines
}

/// Leaves word where the frame goes, and counts it as kept.
fn keep(maps: &Maps) -> Vec<Line> {
    let mut lines = word(maps, STAY);
    lines.extend([
        Do(Insn::store_long(R1, offset_of!(Word, skb) as i16, SKB)),
        Do(Insn::load(R2, Frame, NUMBER)),
        Do(Insn::store(R1, offset_of!(Word, place) as i16, R2)),
    ]);
    lines.extend(port(maps, offset_of!(Place, ingress)));
    lines.extend([Do(Insn::set(R2, 1)), Do(Insn::add_atomic(R1, offset_of!(Port, kept) as i16, R2))]);
    lines
}

/// `R1` = the port that this mark of the flow names.
fn port(maps: &Maps, mark: usize) -> Vec<Line> {
    let mut lines = vec![Do(Insn::load(R2, FLOW, (mark + offset_of!(MarkWords, slot)) as i16))];
    lines.extend(element(maps, offset_of!(Board, ports), PORTS, size_of::<Port>()));
    lines
}

/// Sends the frame where its word says, and counts it at both ports and in its network; drops it where there is none.
pub(super) fn obey(maps: &Maps) -> Vec<Insn> {
    const DROPPED: &str = "drop";
    let mut lines = vec![Do(Insn::copy(SKB, R1))];
    lines.extend(word(maps, DROPPED));
    lines.extend([
        Do(Insn::load_long(R2, R1, offset_of!(Word, skb) as i16)),
        If(Cond::Differ(R2, SKB), DROPPED),
        Do(Insn::set(R2, 0)),
        Do(Insn::store_long(R1, offset_of!(Word, skb) as i16, R2)),
        Do(Insn::load(R2, R1, offset_of!(Word, place) as i16)),
    ]);
    lines.extend(element(maps, offset_of!(Board, places), FLOWS, size_of::<Place>()));
    lines.extend([
        Do(Insn::copy(FLOW, R1)),
        Do(Insn::load(R1, FLOW, (offset_of!(Place, key) + offset_of!(Key, ifindex)) as i16)),
        Do(Insn::load(R2, SKB, skb::IFINDEX)),
        If(Cond::Differ(R1, R2), DROPPED),
    ]);
    lines.extend(count(maps));
    lines.extend([
        Do(Insn::load(R1, FLOW, offset_of!(Place, ifindex) as i16)), // (ifindex, flags)
        Do(Insn::set(R2, 0)),
        Do(Insn::call(function::REDIRECT)),
        Do(Insn::exit()),
        Label(DROPPED),
        Do(Insn::set(R0, DROP)),
        Do(Insn::exit()),
    ]);
    bpf::assemble(&lines)
}

/// Counts the frame, and notes that its flow is in use.
fn count(maps: &Maps) -> Vec<Line> {
    const ONE: Reg = R3;
    let mut lines = vec![
        Do(Insn::load(LEN, SKB, skb::LEN)),
        Do(Insn::load(R1, SKB, skb::VLAN_PRESENT)),
        If(Cond::Is(R1, 0), "count"),
        Do(Insn::add(LEN, vlan::TAG_LEN as i32)),
        Label("count"),
        Do(Insn::set(ONE, 1)),
    ];
    let add = |field: usize| {
        [
            Do(Insn::add_atomic(R1, (field + offset_of!(Count, packets)) as i16, ONE)),
            Do(Insn::add_atomic(R1, (field + offset_of!(Count, bytes)) as i16, LEN)),
        ]
    };
    lines.extend(port(maps, offset_of!(Place, ingress)));
    lines.extend(add(offset_of!(Port, received)));
    lines.extend(port(maps, offset_of!(Place, egress)));
    lines.extend(add(offset_of!(Port, transmitted)));
    lines.push(Do(Insn::load(R2, FLOW, offset_of!(Place, network) as i16)));
    lines.extend(element(maps, offset_of!(Board, networks), NETWORKS, size_of::<Count>()));
    lines.extend(add(0));
    let [tick, tick_high] = on_board(maps, offset_of!(Board, tick));
    lines.extend([
        Do(tick),
        Do(tick_high),
        Do(Insn::load_long(R2, R1, 0)),
        Do(Insn::load_long(R3, FLOW, offset_of!(Place, seen) as i16)),
        If(Cond::Equal(R2, R3), "noted"), // other CPUs read the line, too
        Do(Insn::store_long(FLOW, offset_of!(Place, seen) as i16, R2)),
        Label("noted"),
    ]);
    lines
}
