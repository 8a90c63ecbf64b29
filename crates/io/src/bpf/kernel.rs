//! Numbers of the kernel's interface to programs (linux/bpf.h, linux/pkt_cls.h).

/// Fields of `struct __sk_buff`, by their offset.
pub(crate) mod skb {
    pub(crate) const LEN: i16 = 0;
    pub(crate) const PROTOCOL: i16 = 16;
    pub(crate) const VLAN_PRESENT: i16 = 20;
    pub(crate) const VLAN_TCI: i16 = 24;
    pub(crate) const VLAN_PROTO: i16 = 28;
    pub(crate) const IFINDEX: i16 = 40;
    pub(crate) const GSO_SIZE: i16 = 176;
}

/// Functions that a program may call.
pub(crate) mod function {
    pub(crate) const MAP_LOOKUP_ELEM: i32 = 1;
    pub(crate) const GET_SMP_PROCESSOR_ID: i32 = 8;
    pub(crate) const SKB_STORE_BYTES: i32 = 9;
    pub(crate) const CLONE_REDIRECT: i32 = 13;
    pub(crate) const REDIRECT: i32 = 23;
    pub(crate) const SKB_LOAD_BYTES: i32 = 26;
    pub(crate) const SKB_CHANGE_TAIL: i32 = 38;
    pub(crate) const PROBE_READ_KERNEL: i32 = 113;
}

/// `TC_ACT_SHOT`: what a tc program returns to have the frame dropped.
pub(crate) const DROP: i32 = 2;
