//! The kernel's type information (BTF, Documentation/bpf/btf.rst): where a program finds the number of a kernel
//! function that it wants to call.

use std::fs;
use std::sync::OnceLock;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const KIND_FUNC: u32 = 12;

/// The BTF id of `bpf_xdp_metadata_rx_vlan_tag`; `None` where the kernel (before 6.8, or built without BTF) has
/// no such function. Read once: a running kernel does not change.
pub(super) fn rx_vlan_tag() -> Option<u32> {
    static ID: OnceLock<Option<u32>> = OnceLock::new();
    *ID.get_or_init(|| find_function(&fs::read(VMLINUX).ok()?, b"bpf_xdp_metadata_rx_vlan_tag"))
}

/// The id of the function `name`, or `None` too where the bytes are not BTF that we understand.
fn find_function(btf: &[u8], name: &[u8]) -> Option<u32> {
    // struct btf_header: magic u16, version u8, flags u8, then words: header, types' and strings' place.
    if u16::from_ne_bytes(*btf.first_chunk()?) != MAGIC {
        return None;
    }
    let header = |field: usize| word(btf, field).map(|w| w as usize);
    let body = btf.get(header(4)?..)?;
    let section = |at: usize, len: usize| body.get(at..at.checked_add(len)?);
    let mut types = section(header(8)?, header(12)?)?;
    let strings = section(header(16)?, header(20)?)?;

    // struct btf_type: name, info (kind and vlen), size or type; numbered from 1.
    for id in 1.. {
        let (at, info) = (word(types, 0)? as usize, word(types, 4)?);
        if info >> 24 & 0x1f == KIND_FUNC && is_string(strings, at, name) {
            return Some(id);
        }
        types = types.get(12 + trailer(info)?..)?;
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
    fn gives_up_on_what_is_not_btf() {
        let whole = btf(&ALL_KINDS);
        for len in 0..whole.len() {
            find_function(&whole[..len], b"f"); // any answer but a panic
        }
        assert_eq!(find_function(&btf(&[(31 << 24, 0), (12 << 24, 0)]), b"f"), None);
        assert_eq!(find_function(&[0xff; 64], b"f"), None);
    }
}
