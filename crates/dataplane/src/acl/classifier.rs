//! A list of rules, compiled: which rule is the first that matches a frame.
//!
//! Rules are sorted by the kinds of frames that they can match: IPv4, IPv6, anything else. Each kind has a table for every
//! field that one of its rules asks for, and each table gives the set of rules that the frame's value suits. The first
//! rule of what all sets have in common is the answer. So a frame costs a look into each table, and an AND for each
//! table and 512 rules, whatever other frames there were; there is no cache to be thrashed.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::RangeInclusive;

use vswitch_wire::{Vid, ethernet};

use super::headers::{Depth, Headers, Key, Kind, Slot};
use super::rule::{MacMatch, Prefix, Rule};
use super::table::{LINE_RULES, Line, Set, Table};

/// The most fields that a kind of frame has: of IPv6.
const FIELDS_MAX: usize = 26;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Classifier {
    v4: Part,
    v6: Part,
    other: Part,
    /// How much of a frame must be readable for any rule to be judged where not even its kind can be told.
    depth: Depth,
}

/// What is said of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This rule is the first that matches.
    Rule(u16),
    /// None matches.
    Nothing,
    /// A rule asks for what cannot be read.
    Unreadable,
}

impl Classifier {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let part = |kind| Part::new(kind, rules);
        let (v4, v6, other) = (part(Kind::V4), part(Kind::V6), part(Kind::Other));
        // A rule for one EtherType alone is told apart by the parts, and asks for no field.
        let is_of_type = |rule: &Rule| rule.ether_type.is_some() || rule.is_of_ip();
        let depth = if rules.iter().any(is_of_type) { Depth::EtherType } else { Depth::Addresses };
        Self { v4, v6, other, depth }
    }

    #[inline]
    pub(super) fn find(&self, headers: &Headers<'_>) -> Found {
        let part = match headers.kind {
            Kind::V4 => &self.v4,
            Kind::V6 => &self.v6,
            Kind::Other => &self.other,
        };
        let needed = if headers.kind == Kind::Other { self.depth } else { part.depth };
        if headers.depth < needed {
            return Found::Unreadable;
        }
        part.find(headers).map_or(Found::Nothing, Found::Rule)
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        let fields = [&self.v4, &self.v6, &self.other].into_iter().flat_map(|part| &part.fields);
        fields.map(|field| field.table.size()).sum()
    }
}

/// The rules that can match one kind of frame.
#[derive(Debug)]
struct Part {
    /// Their numbers in the list, ascending.
    rules: Box<[u16]>,
    fields: Vec<Field>,
    /// Lines of a row.
    lines: u32,
    /// How much of a frame must be readable for all of them to be judged.
    depth: Depth,
}

#[derive(Debug)]
struct Field {
    slot: Slot,
    table: Table,
}

impl Part {
    fn new(kind: Kind, all: &[Rule]) -> Self {
        let (numbers, rules): (Vec<u16>, Vec<&Rule>) =
            (0..).zip(all).filter(|(_, rule)| is_for(kind, rule)).unzip();
        let used: Vec<(Key, Table)> =
            keys_of(kind).filter_map(|key| Some((key, compile(key, &rules)?))).collect();
        debug_assert!(used.len() <= FIELDS_MAX);
        let depth = used.iter().map(|(key, _)| key.depth()).max().unwrap_or(Depth::Addresses);
        let fields = used.into_iter().map(|(key, table)| Field { slot: key.slot(), table }).collect();
        Self { lines: numbers.len().div_ceil(LINE_RULES) as u32, rules: numbers.into(), fields, depth }
    }

    #[inline]
    fn find(&self, headers: &Headers<'_>) -> Option<u16> {
        let mut classes = [Table::ABSENT; FIELDS_MAX];
        for (class, field) in classes.iter_mut().zip(&self.fields) {
            if let Some(value) = headers.get(field.slot) {
                *class = field.table.class(value);
            }
        }
        for line in 0..self.lines {
            let mut suited = Line::ALL;
            for (class, field) in classes.iter().zip(&self.fields) {
                suited.and(field.table.row(*class, line));
            }
            if let Some(bit) = suited.first() {
                return self.rules.get(LINE_RULES * line as usize + bit).copied();
            }
        }
        None
    }
}

/// Whether a rule can match a frame of this kind.
fn is_for(kind: Kind, rule: &Rule) -> bool {
    let is_v4 = |prefix: &Option<Prefix>| prefix.map(|prefix| matches!(prefix.address, IpAddr::V4(_)));
    let versions = [is_v4(&rule.source), is_v4(&rule.destination)];
    let is_of_type = |ether_type| rule.ether_type.is_none_or(|own| own == ether_type);
    match kind {
        Kind::V4 => is_of_type(ethernet::TYPE_IPV4) && !versions.contains(&Some(false)),
        Kind::V6 => is_of_type(ethernet::TYPE_IPV6) && !versions.contains(&Some(true)),
        Kind::Other => {
            let is_ip = matches!(rule.ether_type, Some(ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6));
            !is_ip && !rule.is_of_ip()
        }
    }
}

/// The fields of a kind of frame.
fn keys_of(kind: Kind) -> impl Iterator<Item = Key> {
    use Key::{
        Destination, DestinationPort, EtherType, IcmpType, Octet, Protocol, Source, SourcePort, TcpFlags,
        Vlan,
    };
    const IP: &[Key] = &[Protocol, SourcePort, DestinationPort, TcpFlags, IcmpType];
    let (words, own) = match kind {
        Kind::V4 => (1, IP),
        Kind::V6 => (4, IP),
        Kind::Other => (0, &[EtherType][..]),
    };
    let addresses = (0..words).flat_map(|word| [Source(word), Destination(word)]);
    (0..12).map(Octet).chain([Vlan]).chain(addresses).chain(own.iter().copied())
}

/// The table of a field; `None` where no rule asks for it.
fn compile(key: Key, rules: &[&Rule]) -> Option<Table> {
    let octets = |ask: &dyn Fn(&Rule) -> Option<Ask>| of_octets(rules, ask);
    match key {
        Key::Octet(index @ 0..6) => octets(&|rule| masked(rule.destination_mac, index)),
        Key::Octet(index) => octets(&|rule| masked(rule.source_mac, index - 6)),
        Key::Protocol => octets(&|rule| rule.protocol.map(Ask::Equal)),
        Key::IcmpType => octets(&|rule| rule.icmp_type.map(Ask::Equal)),
        Key::TcpFlags => octets(&|rule| rule.tcp_flags.map(Ask::Masked)),
        Key::EtherType => of_ranges(16, rules, &|rule| rule.ether_type.map(one)),
        Key::Vlan => of_ranges(16, rules, &|rule| rule.vlan.map(Vid::get).map(one)),
        Key::Source(word) => of_ranges(32, rules, &|rule| rule.source?.word(word.into())),
        Key::Destination(word) => of_ranges(32, rules, &|rule| rule.destination?.word(word.into())),
        Key::SourcePort => of_ranges(16, rules, &|rule| rule.source_port.as_ref().map(ends)),
        Key::DestinationPort => of_ranges(16, rules, &|rule| rule.destination_port.as_ref().map(ends)),
    }
}

/// What a rule asks of an octet.
#[derive(Clone, Copy)]
enum Ask {
    Equal(u8),
    Masked(super::rule::Masked),
}

/// An octet of which no bit counts is not asked for.
fn masked(mac: Option<MacMatch>, index: u8) -> Option<Ask> {
    mac.map(|mac| mac.octet(index.into())).filter(|octet| octet.mask != 0).map(Ask::Masked)
}

fn one(value: u16) -> (u32, u32) {
    (value.into(), value.into())
}

fn ends(range: &RangeInclusive<u16>) -> (u32, u32) {
    ((*range.start()).into(), (*range.end()).into())
}

fn of_octets(rules: &[&Rule], ask: &dyn Fn(&Rule) -> Option<Ask>) -> Option<Table> {
    let (others, asks) = split(rules, ask)?;
    let suits = |ask: Ask| {
        move |octet| match ask {
            Ask::Equal(value) => octet == value,
            Ask::Masked(masked) => masked.matches(octet),
        }
    };
    let asks: Vec<_> = asks.into_iter().map(|(rule, ask)| (rule, suits(ask))).collect();
    Some(Table::of_octets(others, &asks))
}

fn of_ranges(bits: u32, rules: &[&Rule], ask: &dyn Fn(&Rule) -> Option<(u32, u32)>) -> Option<Table> {
    let (others, mut asks) = split(rules, ask)?;
    // A range from a higher to a lower value holds nothing, and its rule matches nothing.
    asks.retain(|(_, (first, last))| first <= last);
    Some(Table::of_ranges(bits, others, &asks))
}

/// The rules that ask for nothing, and what the others ask for; `None` if there are no others.
fn split<T>(rules: &[&Rule], ask: &dyn Fn(&Rule) -> Option<T>) -> Option<(Set, Vec<(usize, T)>)> {
    let mut others = Set::empty(rules.len());
    let mut asks = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        match ask(rule) {
            Some(wanted) => asks.push((number, wanted)),
            None => others.insert(number),
        }
    }
    (!asks.is_empty()).then_some((others, asks))
}
