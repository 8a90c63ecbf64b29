//! One field of a list, compiled: from a value to the set of rules that the value suits.
//!
//! Values that suit the same rules are a class, which has its set once. A value's class is found octet by octet, as in a
//! router's table of prefixes: a node has an entry for each value of an octet, which is a class, or the node for the
//! next octet. So the way is as long as the field at most, however many rules there are.
//!
//! A set is a row of bits, in lines of a cache line each; rows of several fields are joined by AND, line by line.
//!
//! Room for N rules with one prefix or range each: at most 2 N + 1 classes of N bits, and a node of 512 bytes for each
//! octet but the first of each prefix, or for each value of the first octet of ports.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// Rules of one line.
pub(super) const LINE_RULES: usize = 512;

/// 512 bits: a cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(align(64))]
pub(super) struct Line([u64; 8]);

impl Line {
    pub(super) const ALL: Self = Self([u64::MAX; 8]);
    const NONE: Self = Self([0; 8]);

    #[inline]
    pub(super) fn and(&mut self, other: &Self) {
        for word in 0..8 {
            self.0[word] &= other.0[word];
        }
    }

    /// The lowest bit that is set.
    #[inline]
    pub(super) fn first(&self) -> Option<usize> {
        let [a, b, c, d, e, f, g, h] = self.0;
        if (a | b | c | d) | (e | f | g | h) == 0 {
            return None;
        }
        let mut index = 0;
        while self.0[index] == 0 {
            index = (index + 1) % 8;
        }
        Some(64 * index + self.0[index].trailing_zeros() as usize)
    }
}

/// A set of rules while a list is compiled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Set(Vec<Line>);

impl Set {
    pub(super) fn empty(rules: usize) -> Self {
        Self(vec![Line::NONE; rules.div_ceil(LINE_RULES)])
    }

    fn bit(&mut self, rule: usize) -> (&mut u64, u64) {
        (&mut self.0[rule / LINE_RULES].0[rule % LINE_RULES / 64], 1 << (rule % 64))
    }

    pub(super) fn insert(&mut self, rule: usize) {
        let (word, bit) = self.bit(rule);
        *word |= bit;
    }

    fn remove(&mut self, rule: usize) {
        let (word, bit) = self.bit(rule);
        *word &= !bit;
    }
}

/// An entry of a node: with this bit the number of another node, without it that of a class.
const NODE: u16 = 1 << 15;

type Node = [u16; 256];

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Table {
    /// Bits of the value behind its first octet.
    shift: u32,
    /// The first is that of the first octet.
    nodes: Vec<Node>,
    /// Those of class 0, of class 1 and so on. Class 0 is for frames that have no such field.
    rows: Vec<Line>,
    /// Lines of a row.
    lines: u32,
}

impl Table {
    /// The class of frames without such a field, as [`Table::row`] takes it.
    pub(super) const ABSENT: u32 = 0;

    /// A field of one octet. `others` are the rules that do not ask for it, and suit any value.
    pub(super) fn of_octets(others: Set, asks: &[(usize, impl Fn(u8) -> bool)]) -> Self {
        let mut classes = Classes::new(&others);
        let mut node = [0; 256];
        for octet in 0..=u8::MAX {
            let mut row = others.clone();
            asks.iter().filter(|(_, suits)| suits(octet)).for_each(|&(rule, _)| row.insert(rule));
            node[usize::from(octet)] = classes.intern(&row);
        }
        classes.into_table(0, vec![node])
    }

    /// A field of 16 or 32 bits, of which each rule in `asks` wants the values from the first to the last.
    pub(super) fn of_ranges(bits: u32, others: Set, asks: &[(usize, (u32, u32))]) -> Self {
        let mut classes = Classes::new(&others);
        let steps = steps(&mut classes, others, asks);
        let mut nodes = Nodes { steps: &steps, made: Vec::new() };
        nodes.add(0, bits - 8);
        let nodes = nodes.made;
        classes.into_table(bits - 8, nodes)
    }

    /// Where the row of the value's class begins.
    #[inline]
    pub(super) fn class(&self, value: u32) -> u32 {
        let mut shift = self.shift;
        let mut entry = NODE;
        while entry & NODE != 0 {
            let octet = (value >> shift) as u8;
            entry = self.nodes[usize::from(entry & !NODE)][usize::from(octet)];
            shift = shift.wrapping_sub(8);
        }
        u32::from(entry) * self.lines
    }

    /// A line of the row that begins at `class`.
    #[inline]
    pub(super) fn row(&self, class: u32, line: u32) -> &Line {
        &self.rows[(class + line) as usize]
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        size_of_val(&self.nodes[..]) + size_of_val(&self.rows[..])
    }
}

/// The values from which on another class holds, ascending; the first is 0.
fn steps(classes: &mut Classes, others: Set, asks: &[(usize, (u32, u32))]) -> Vec<(u64, u16)> {
    let begin = asks.iter().map(|&(rule, (first, _))| (u64::from(first), true, rule));
    let end = asks.iter().map(|&(rule, (_, last))| (u64::from(last) + 1, false, rule));
    let mut events: Vec<_> = begin.chain(end).collect();
    events.sort_unstable();
    let mut row = others;
    let mut steps = vec![(0, Table::ABSENT as u16)];
    for same in events.chunk_by(|a, b| a.0 == b.0) {
        for &(_, begins, rule) in same {
            if begins { row.insert(rule) } else { row.remove(rule) }
        }
        let class = classes.intern(&row);
        let from = same[0].0;
        steps.pop_if(|last| last.0 == from);
        if steps.last().is_none_or(|last| last.1 != class) {
            steps.push((from, class));
        }
    }
    steps
}

/// The sets of rules so far, each once.
struct Classes {
    known: BTreeMap<Set, u16>,
    rows: Vec<Line>,
    lines: usize,
}

impl Classes {
    fn new(absent: &Set) -> Self {
        let mut classes = Self { known: BTreeMap::new(), rows: Vec::new(), lines: absent.0.len() };
        classes.intern(absent);
        classes
    }

    fn intern(&mut self, set: &Set) -> u16 {
        if let Some(&class) = self.known.get(set) {
            return class;
        }
        let class = self.known.len() as u16;
        self.rows.extend_from_slice(&set.0);
        self.known.insert(set.clone(), class);
        class
    }

    fn into_table(self, shift: u32, nodes: Vec<Node>) -> Table {
        Table { shift, nodes, rows: self.rows, lines: self.lines as u32 }
    }
}

/// Nodes over the values from which on another class holds.
struct Nodes<'a> {
    steps: &'a [(u64, u16)],
    made: Vec<Node>,
}

impl Nodes<'_> {
    /// Adds the node whose values begin at `first`, and all below; an entry of it is for `1 << shift` values.
    fn add(&mut self, first: u64, shift: u32) -> u16 {
        let number = self.made.len();
        self.made.push([0; 256]);
        let mut at = self.steps.partition_point(|&(from, _)| from <= first) - 1;
        for entry in 0..256 {
            let from = first + ((entry as u64) << shift);
            while self.steps.get(at + 1).is_some_and(|next| next.0 <= from) {
                at += 1;
            }
            let is_one_class = self.steps.get(at + 1).is_none_or(|next| next.0 >= from + (1 << shift));
            self.made[number][entry] =
                if is_one_class { self.steps[at].1 } else { NODE | self.add(from, shift - 8) };
        }
        number as u16
    }
}
