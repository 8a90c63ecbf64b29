//! Why a frame was dropped. One list gives the variant, the counter's name and the sentence.

macro_rules! drop_reasons {
    ($($variant:ident, $name:literal, $text:literal;)*) => {
        /// Why a frame was dropped. Each drop has exactly one reason and is counted under it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The counter's name: snake case, stable.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The reason in words, for `trace` and `stats`.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

drop_reasons! {
    // Admission.
    Runt, "runt", "the frame is shorter than an Ethernet header";
    BadSource, "bad_source", "the source MAC is a group address or zero";
    ZeroDestination, "zero_destination", "the destination MAC is zero";
    ReservedMac, "reserved_mac", "the destination is a link-local address (01-80-C2-00-00-0X), which a bridge does not relay";
    BadOffload, "bad_offload", "the offload metadata does not fit the frame, names a checksum where the frame has none, or asks for more or smaller segments than any sender makes";
    TooBigIngress, "too_big_ingress", "the frame is longer than the MTU of the port that it came in by";
    // VLAN.
    NoNetwork, "no_network", "the port belongs to no network";
    TaggedOnAccess, "tagged_on_access", "an 802.1Q tagged frame came in by an access port";
    UntaggedNoNative, "untagged_no_native", "an untagged frame came in by a trunk without a native network";
    VlanNotAllowed, "vlan_not_allowed", "the trunk does not carry this VLAN";
    ReservedVid, "reserved_vid", "the VLAN ID is 4095, which is reserved";
    // Tunnels.
    VxlanBadHeader, "vxlan_bad_header", "the IP, UDP or VXLAN header of a packet to the VTEP is malformed";
    VxlanFragment, "vxlan_fragment", "a packet to the VTEP came in fragments, which a VTEP does not put together (RFC 7348 section 4.3)";
    VxlanUdpPort, "vxlan_udp_port", "a UDP packet to the VTEP is not for its VXLAN port";
    VxlanUnknownVni, "vxlan_unknown_vni", "no network has the VNI of the frame";
    VxlanUnknownPeer, "vxlan_unknown_peer", "the frame comes from a VTEP that is no peer of its network";
    VxlanInnerTag, "vxlan_inner_tag", "the frame in the tunnel has an 802.1Q tag (RFC 7348 section 6.1)";
    VxlanCongested, "vxlan_congested", "the path marked congestion, and the frame's sender does not understand it (RFC 6040)";
    // Guard.
    SpoofedMac, "spoofed_mac", "the source MAC is none of those that the port may use";
    SpoofedIp, "spoofed_ip", "the source IP address is none of those that the port may use";
    SpoofedArp, "spoofed_arp", "the ARP message claims an address or a MAC that is not the port's";
    SpoofedNd, "spoofed_nd", "the neighbour discovery message claims an address or a MAC that is not the port's";
    SpoofedDhcp, "spoofed_dhcp", "the DHCP message asks in the name of a MAC that is not the port's";
    RogueDhcp, "rogue_dhcp", "a message of a DHCP server came in by a guarded port that is not trusted";
    RogueRa, "rogue_ra", "a router advertisement or a redirect came in by a guarded port that is not trusted";
    Unjudged, "unjudged", "the port is guarded, and the frame hides whose it is or what it claims";
    // Filters.
    AclIngress, "acl_ingress", "a filter of the port or the network that the frame came in by denies it";
    AclEgress, "acl_egress", "a filter of the port that the frame should leave by, or of its network, denies it";
    AclUnreadable, "acl_unreadable", "a filter asks for what cannot be read: the headers are cut short, contradict themselves or are hidden in fragments, LLC or old tags";
    // Flood and rate.
    StormBroadcast, "storm_broadcast", "the port's limit for broadcast is reached";
    StormMulticast, "storm_multicast", "the port's limit for multicast is reached";
    StormUnknown, "storm_unknown", "the port's limit for unknown unicast is reached";
    // Forwarding.
    MacFlap, "mac_flap", "the source MAC moves between ports too often and is held at another port";
    SamePort, "same_port", "the destination is behind the port that the frame came in by";
    Isolated, "isolated", "both ports are isolated";
    SplitHorizon, "split_horizon", "the frame came by a tunnel and would leave by one";
    NoDestination, "no_destination", "no other port of the network can take the frame";
    // Egress.
    NotMember, "not_member", "the port that the frame should leave by does not belong to its network";
    PortDown, "port_down", "the destination port is down or waits for its netdev";
    InnerTag, "inner_tag", "an 802.1Q tag would be outermost in a frame that leaves untagged (VLAN hopping)";
    TooBigEgress, "too_big_egress", "the frame is longer than the MTU of the port that it should leave by";
    NoHeadroom, "no_headroom", "no room is left before the frame for another header";
    BadSegmentation, "bad_segmentation", "the frame could not be cut into segments";
    PoolEmpty, "pool_empty", "no free frame was left for a copy or a segment";
    NoNeighbour, "no_neighbour", "the next hop to the VTEP does not answer";
    TxFull, "tx_full", "the port's transmit queue stayed full";
    TxError, "tx_error", "the kernel refused the frame";
    PortGone, "port_gone", "the port was being attached or removed while the frame was on its way";
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The position of its counter.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}
