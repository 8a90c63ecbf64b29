//! The kernel's type information (BTF, Documentation/bpf/btf.rst): where a program finds the number of a kernel
//! function that it wants to call, and where in a kernel structure a field lies.

use std::fs;
use std::sync::OnceLock;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_FUNC: u32 = 12;

/// The BTF id of `bpf_xdp_metadata_rx_vlan_tag`; `None` where the kernel (before 6.8, or built without BTF) has
/// no such function. Read once: a running kernel does not change.
pub(crate) fn rx_vlan_tag() -> Option<u32> {
    static ID: OnceLock<Option<u32>> = OnceLock::new();
    *ID.get_or_init(|| find_function(&fs::read(VMLINUX).ok()?, b"bpf_xdp_metadata_rx_vlan_tag"))
}

/// Where fields of `struct sk_buff` and `struct skb_shared_info` lie, in bytes from their beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SkbFields {
    /// `head`, the buffer's address.
    pub(crate) head: u16,
    /// `end`, where in the buffer the shared info begins, in bytes.
    pub(crate) end: u16,
    /// `gso_type` of the shared info.
    pub(crate) gso_type: u16,
}

/// The fields in the running kernel; `None` where it was built without BTF. Read once.
pub(crate) fn skb_fields() -> Option<SkbFields> {
    static FIELDS: OnceLock<Option<SkbFields>> = OnceLock::new();
    *FIELDS.get_or_init(|| {
        let btf = fs::read(VMLINUX).ok()?;
        let skb = |field| find_field(&btf, b"sk_buff", field);
        let gso_type = find_field(&btf, b"skb_shared_info", b"gso_type")?;
        Some(SkbFields { head: skb(b"head")?, end: skb(b"end")?, gso_type })
    })
}

/// The id of the function `name`, or `None` too where the bytes are not BTF that we understand.
fn find_function(btf: &[u8], name: &[u8]) -> Option<u32> {
    find(btf, KIND_FUNC, name).map(|(id, _)| id)
}

/// Bytes from the beginning of the structure `name` to its own field `field` (not one of a structure within it).
fn find_field(btf: &[u8], name: &[u8], field: &[u8]) -> Option<u16> {
    let (_, members) = find(btf, KIND_STRUCT, name)?;
    let strings = strings(btf)?;
    // struct btf_member: name, type, offset in bits (in the low 24 bits, where the structure has bit fields).
    let is_field = |member: &&[u8]| word(member, 0).is_some_and(|at| is_string(strings, at as usize, field));
    let member = members.chunks_exact(12).find(is_field)?;
    u16::try_from((word(member, 8)? & 0xff_ffff) / 8).ok()
}

/// One of the sections, whose place the header says from the byte `field` on.
fn section(btf: &[u8], field: usize) -> Option<&[u8]> {
    // struct btf_header: magic u16, version u8, flags u8, then words: header, types' and strings' place.
    if u16::from_ne_bytes(*btf.first_chunk()?) != MAGIC {
        return None;
    }
    let header = |field: usize| word(btf, field).map(|w| w as usize);
    let (start, len) = (header(field)?, header(field + 4)?);
    btf.get(header(4)?..)?.get(start..start.checked_add(len)?)
}

fn strings(btf: &[u8]) -> Option<&[u8]> {
    section(btf, 16)
}

/// The id and the trailer of the first type of this kind and name.
fn find<'a>(btf: &'a [u8], kind: u32, name: &[u8]) -> Option<(u32, &'a [u8])> {
    let (mut types, strings) = (section(btf, 8)?, strings(btf)?);
    // struct btf_type: name, info (kind and vlen), size or type; numbered from 1.
    for id in 1.. {
        let (at, info) = (word(types, 0)? as usize, word(types, 4)?);
        let end = 12 + trailer(info)?;
        if info >> 24 & 0x1f == kind && is_string(strings, at, name) {
            return Some((id, types.get(12..end)?));
        }
        types = types.get(end..)?;
    }
    None
}

/// Bytes after a `struct btf_type`, by its kind; `None` for a kind unknown.
fn trailer(info: u32) -> Option<usize> {
    let vlen = (info & 0xffff) as usize;
    Some(match info >> 24 & 0x1f {
        1 | 14 | 17 => 4,                            // INT, VAR, DECL_TAG
        3 => 12,                                     // ARRAY
        4 | 5 | 15 | 19 => 12 * vlen,                // STRUCT, UNION, DATASEC, ENUM64
        6 | 13 => 8 * vlen,                          // ENUM, FUNC_PROTO
        2 | 7 | 8 | 9 | 10 | 11 | 12 | 16 | 18 => 0, // PTR, FWD, TYPEDEF, qualifiers, FUNC, FLOAT, TYPE_TAG
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn is_string(strings: &[u8], at: usize, text: &[u8]) -> bool {
    strings.get(at..).and_then(|s| s.strip_prefix(text)).is_some_and(|rest| rest.first() == Some(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, types (`info`, trailer bytes; all named "f") and the strings "\0f\0fg\0".
    fn btf(types: &[(u32, usize)]) -> Vec<u8> {
        let mut body = Vec::new();
        for &(info, trailer) in types {
            body.extend([1, info, 0].iter().flat_map(|w: &u32| w.to_ne_bytes()));
            body.resize(body.len() + trailer, 0xff);
        }
        let types_len = body.len() as u32;
        body.extend(b"\0f\0fg\0");
        let mut out = MAGIC.to_ne_bytes().to_vec();
        out.extend([1, 0]);
        out.extend([24, 0, types_len, types_len, 6].iter().flat_map(|w: &u32| w.to_ne_bytes()));
        out.extend(body);
        out
    }

    const ALL_KINDS: [(u32, usize); 19] = [
        (1 << 24, 4),
        (2 << 24, 0),
        (3 << 24, 12),
        (4 << 24 | 2, 24),
        (5 << 24 | 1, 12),
        (6 << 24 | 3, 24),
        (7 << 24, 0),
        (8 << 24, 0),
        (9 << 24, 0),
        (10 << 24, 0),
        (11 << 24, 0),
        (13 << 24 | 2, 16),
        (14 << 24, 4),
        (15 << 24 | 2, 24),
        (16 << 24, 0),
        (17 << 24, 4),
        (18 << 24, 0),
        (19 << 24 | 1, 12),
        (12 << 24, 0),
    ];

    #[test]
    fn finds_a_function_past_every_kind() {
        assert_eq!(find_function(&btf(&ALL_KINDS), b"f"), Some(19));
        assert_eq!(find_function(&btf(&ALL_KINDS), b"fg"), None);
        assert_eq!(find_function(&btf(&ALL_KINDS), b""), None);
    }

    #[test]
    fn finds_a_field_where_it_lies() {
        let mut bytes = btf(&[(4 << 24 | 2, 24), (12 << 24, 0)]);
        // Two members, the second with the size of a bit field above its offset.
        let members = [0, 7, 8, 3, 7, 4 << 24 | 1504].map(u32::to_ne_bytes).concat();
        bytes[24 + 12..24 + 36].copy_from_slice(&members);
        assert_eq!(find_field(&bytes, b"f", b"fg"), Some(188));
        assert_eq!(find_field(&bytes, b"f", b"f"), None);
        assert_eq!(find_field(&bytes, b"fg", b"fg"), None);
        for len in 0..bytes.len() {
            find_field(&bytes[..len], b"f", b"fg"); // any answer but a panic
        }
    }

    #[test]
    fn gives_up_on_what_is_not_btf() {
        let whole = btf(&ALL_KINDS);
        for len in 0..whole.len() {
            find_function(&whole[..len], b"f"); // any answer but a panic
        }
        assert_eq!(find_function(&btf(&[(31 << 24, 0), (12 << 24, 0)]), b"f"), None);
        assert_eq!(find_function(&[0xff; 64], b"f"), None);
    }
}
