//! How a packet's way through the pipeline can end: every end has a name, a kind, a counter and a contract.

use crate::flow::{DIRECTION_TO_BACKEND, DIRECTION_TO_CLIENT};

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It leaves through an interface.
    Forward,
    /// The kernel's own stack gets it.
    Pass,
    /// It goes back where it came from, as an answer.
    Reply,
    /// It ends here.
    Drop,
}

impl Kind {
    /// The kind's name, as counters show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Pass => "pass",
            Self::Reply => "reply",
            Self::Drop => "drop",
        }
    }
}

/// What the packet looks like where it goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// Addresses, ports and payload are those it came with.
    Original,
    /// Addresses and ports are those of the other side of the service; nothing else may see it as it came.
    Rewritten,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $value:literal, $name:literal, $kind:ident, $contract:ident;)+) => {
        /// Why the pipeline ended, and so what became of the packet. The number is its place in `REASONS`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant = $value,)+
        }

        impl Reason {
            /// Every reason, in the order of the numbers, without gaps.
            pub const ALL: [Self; [$($value),+].len()] = [$(Self::$variant),+];

            /// The name, as counters show it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What happens to the packet.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)+ }
            }

            /// What the packet looks like where it goes next.
            #[must_use]
            pub const fn contract(self) -> Contract {
                match self { $(Self::$variant => Contract::$contract,)+ }
            }
        }
    };
}

reasons! {
    /// A client's packet, on its way to the flow's backend.
    ForwardedToBackend = 0, "forwarded-to-backend", Forward, Rewritten;
    /// A backend's packet, on its way to the flow's client.
    ForwardedToClient = 1, "forwarded-to-client", Forward, Rewritten;
    /// A packet of no service, routed by the FIB.
    Forwarded = 2, "forwarded", Forward, Original;
    /// A flow's packet whose next hop has no MAC yet: the kernel's neighbour code sends it.
    FlowThroughNeighbour = 3, "flow-through-neighbour", Forward, Rewritten;
    /// A routed packet whose next hop has no MAC yet: the kernel's neighbour code sends it.
    ThroughNeighbour = 4, "through-neighbour", Forward, Original;
    /// An echo request to a VIP, answered.
    EchoAnswered = 5, "echo-answered", Reply, Rewritten;
    /// The frame's destination is not this interface's MAC: broadcast, multicast, or somebody else's.
    NotForUs = 6, "not-for-us", Pass, Original;
    /// A frame with VLAN tags that belong to no interface whose packets are handled here, or with more than two.
    VlanTagged = 7, "vlan-tagged", Pass, Original;
    /// Not IPv4: ARP, IPv6 and the like.
    NotIp = 8, "not-ip", Pass, Original;
    /// Segments that the kernel merged, of another protocol than TCP and UDP, or of SCTP and of no flow: it alone knows how long each of them is.
    MergedSegments = 9, "merged-segments", Pass, Original;
    /// Neighbour discovery, which is a link's own.
    ProtocolNotHandled = 10, "protocol-not-handled", Pass, Original;
    /// To a multicast, broadcast, link-local, loopback or this-network address.
    SpecialDestination = 11, "special-destination", Pass, Original;
    /// From a link-local address: never routed (RFC 3927 §7).
    LinkLocalSource = 12, "link-local-source", Pass, Original;
    /// To a VIP's address, where no service is: the kernel's `unreachable` route answers.
    VipWithoutService = 13, "vip-without-service", Pass, Original;
    /// A routed packet whose time to live ends here: the kernel says so to its sender.
    TtlExpired = 14, "ttl-expired", Pass, Original;
    /// The FIB leaves this destination to the kernel: a local address, or a route that it cannot express.
    RoutedByKernel = 15, "routed-by-kernel", Pass, Original;
    /// The FIB knows no route.
    NoRoute = 16, "no-route", Pass, Original;
    /// A routed packet whose next hop has no MAC yet, at XDP: the kernel resolves it.
    NextHopUnresolved = 17, "next-hop-unresolved", Pass, Original;
    /// A routed packet, longer than the next hop's MTU: the kernel fragments it or says so to its sender.
    TooBig = 18, "too-big", Pass, Original;
    /// A flow's packet whose new destination the FIB leaves to the kernel.
    FlowRoutedByKernel = 19, "flow-routed-by-kernel", Pass, Rewritten;
    /// A flow's packet to whose new destination the FIB knows no route.
    FlowNoRoute = 20, "flow-no-route", Pass, Rewritten;
    /// A flow's packet whose next hop has no MAC yet, at XDP: the kernel resolves it.
    FlowNextHopUnresolved = 21, "flow-next-hop-unresolved", Pass, Rewritten;
    /// A flow's packet, longer than the next hop's MTU: the kernel fragments it.
    FlowToBeFragmented = 22, "flow-to-be-fragmented", Pass, Rewritten;
    /// Headers that contradict themselves or the frame's length, fragments that would write over a TCP header or go beyond the
    /// longest packet, and between the families a header's or an ICMP error's wrong checksum.
    Malformed = 23, "malformed", Drop, Original;
    /// From a loopback, this-network, multicast or broadcast address (RFC 1812 §5.3.7), or to itself.
    MartianSource = 24, "martian-source", Drop, Original;
    /// A fragment to a VIP's address whose first fragment belongs to no flow, or did not come before it and cannot be waited
    /// for.
    FragmentToVip = 25, "fragment-to-vip", Drop, Original;
    /// A flow's packet whose time to live ends here. Its sender is told by user space: the kernel could only quote
    /// addresses that it does not know.
    FlowTtlExpired = 26, "flow-ttl-expired", Drop, Original;
    /// A new flow to a service none of whose backends takes new flows.
    NoBackend = 27, "no-backend", Drop, Original;
    /// A new flow that finds no room in the flow table.
    FlowTableFull = 28, "flow-table-full", Drop, Original;
    /// A new flow whose backend has a live flow of this client's address and port through another service; or that another CPU has
    /// been about to begin for so long that it must have been interrupted.
    FlowCollision = 29, "flow-collision", Drop, Original;
    /// A TCP segment to a service, of no flow, that begins none.
    UnknownFlow = 30, "unknown-flow", Drop, Original;
    /// A packet of a flow that is being removed for having been idle.
    FlowExpiring = 31, "flow-expiring", Drop, Original;
    /// The FIB drops packets to this destination.
    Blackhole = 32, "blackhole", Drop, Original;
    /// The FIB drops packets to a flow's new destination.
    FlowBlackhole = 33, "flow-blackhole", Drop, Original;
    /// A service's ring names a backend that is not there, or lies outside the rings: a fault of ours.
    TableFault = 34, "table-fault", Drop, Original;
    /// The kernel refused a write to the packet: a fault of ours.
    WriteFault = 35, "write-fault", Drop, Original;
    /// A flow's packet, longer than the next hop's MTU, that must not be fragmented. Its sender is told by user space.
    FlowTooBig = 36, "flow-too-big", Drop, Original;
    /// An ICMP error about packets to a client, on its way to the flow's backend.
    ErrorToBackend = 37, "error-to-backend", Forward, Rewritten;
    /// An ICMP error about packets to a backend, on its way to the flow's client.
    ErrorToClient = 38, "error-to-client", Forward, Rewritten;
    /// A new flow for which no port of the source addresses was free towards its backend.
    NoSourcePort = 39, "no-source-port", Drop, Original;
    /// Extension headers of IPv6 that lead elsewhere, or too many of them.
    ExtensionHeaders = 40, "extension-headers", Pass, Original;
    /// A new flow from an address that the service's access list does not admit.
    SourceRefused = 41, "source-refused", Drop, Original;
    /// A new flow to a service that has as many as it may.
    ServiceFull = 42, "service-full", Drop, Original;
    /// A new flow of a client that has as many to this service as it may.
    ClientFull = 43, "client-full", Drop, Original;
    /// A new flow to a service whose backends, as many as were looked at, have as many as they may.
    BackendsFull = 44, "backends-full", Drop, Original;
    /// A client's packet, on its way to the flow's backend as it came, in a frame to the backend's MAC.
    ForwardedDirectly = 45, "forwarded-directly", Forward, Original;
    /// A client's packet, on its way to the flow's backend within another one.
    ForwardedByTunnel = 46, "forwarded-by-tunnel", Forward, Rewritten;
    /// A client's packet whose backend is to have it as it came, but is behind a gateway, has no route, or at XDP no MAC yet.
    DirectUnreachable = 47, "direct-unreachable", Drop, Original;
    /// A client's packet that found no room for a flow, on its way to the backend that its hash names; or an answer to such.
    ForwardedWithoutFlow = 48, "forwarded-without-flow", Forward, Rewritten;
    /// A packet of a flow between IPv4 and IPv6, or an ICMP error about one, that the other family has no form for: an error
    /// without a counterpart, extension headers behind a fragment's, a datagram without a checksum that is of IPv6 or in
    /// fragments, merged segments of SCTP. And of SCTP in any mode that translates: fragments whose ports would change, and an
    /// INIT or INIT ACK in fragments, of more than 2,044 bytes or of more than 24 parameters. And an ICMP error about a flow
    /// that comes in fragments.
    Untranslatable = 49, "untranslatable", Drop, Original;
    /// A routed packet, at XDP, whose way out takes no frames from there: a bridge, a VLAN, a veth whose peer has no GRO.
    WayOutWithoutXdp = 50, "way-out-without-xdp", Pass, Original;
    /// A flow's packet whose way out is such.
    FlowWayOutWithoutXdp = 51, "flow-way-out-without-xdp", Pass, Rewritten;
    /// A packet to a VIP or of a flow with stops of a source route still before it. Its sender is told by user space.
    SourceRouted = 52, "source-routed", Drop, Original;
    /// A routed packet with options of IPv4 or hop-by-hop options of IPv6, which the kernel minds.
    IpOptions = 53, "ip-options", Pass, Original;
    /// A packet that would begin a flow at the very moment at which its service is replaced; its sender's next one does.
    ServiceChanging = 54, "service-changing", Drop, Original;
    /// A new flow of a client that is itself the backend that was chosen, where flows keep their clients' addresses, and the
    /// backend of the ring's next places, as many as are looked at: it would get packets from its own.
    OwnBackend = 55, "own-backend", Drop, Original;
    /// Who asked a link for the MAC of a VIP that this node answers for there, answered.
    NeighbourAnswered = 56, "neighbour-answered", Reply, Rewritten;
    /// The FIB has no room for the route to this destination, or to a flow's new one, and the kernel does not have it.
    FibFull = 57, "fib-full", Drop, Original;
    /// A fragment to a VIP's address, or from a backend, whose first fragment did not come before it: user space keeps it for a
    /// while, and sends it on when the first one has come; one from a backend to no VIP also when none has.
    FragmentKept = 58, "fragment-kept", Drop, Original;
    /// A routed packet whose way out puts something around it that these programs do not know.
    UnknownEncapsulation = 59, "unknown-encapsulation", Pass, Original;
    /// A new flow to a service that bounds each client's, of a client that has none yet, while as many clients as there may be are
    /// counted.
    ClientsFull = 60, "clients-full", Drop, Original;
}

/// How many reasons there are.
pub const REASONS: usize = Reason::ALL.len();
/// Entries of `REASONS` for an interface: there is room for more reasons.
pub const REASON_PLACES: u32 = 64;
/// Interfaces that are counted for each by itself, and one more: what the first counts came in through any other.
pub const INTERFACE_PLACES: u32 = 64;
/// Interfaces whose index is not below share the first place.
pub const MAX_PLACED_IFINDEX: u32 = 4096;
/// Beside an interface's place: its MAC stands before it.
pub const INTERFACE_KNOWN: u16 = 1 << 15;

/// The index into `REASONS` of a reason at the place of an interface.
#[must_use]
#[inline(always)]
pub fn reason_index(place: u32, reason: Reason) -> u32 {
    (place & (INTERFACE_PLACES - 1)) * REASON_PLACES + reason as u32
}

/// The index of how packets of flows end that are sent on in one of the two directions, without a branch.
#[must_use]
#[inline(always)]
pub fn flow_index(place: u32, direction: u8) -> u32 {
    reason_index(place, Reason::ForwardedToBackend) | u32::from(direction & 1)
}

const _: () = assert!(Reason::ForwardedToBackend as u8 == DIRECTION_TO_BACKEND);
const _: () = assert!(Reason::ForwardedToClient as u8 == DIRECTION_TO_CLIENT);

const _: () = assert!(REASONS <= REASON_PLACES as usize);

/// A bit for each reason of a kind.
const fn of_kind(kind: Kind) -> u64 {
    let (mut bits, mut index) = (0, 0);
    while index < REASONS {
        if Reason::ALL[index].kind() as u8 == kind as u8 {
            bits |= 1 << index;
        }
        index += 1;
    }
    bits
}

impl Reason {
    /// What [`Reason::kind`] says, for the programs: a shift of constants, since a subprogram's return costs them more.
    #[must_use]
    #[inline(always)]
    pub const fn kind_at_once(self) -> Kind {
        const FORWARD: u64 = of_kind(Kind::Forward);
        const PASS: u64 = of_kind(Kind::Pass);
        const REPLY: u64 = of_kind(Kind::Reply);
        let bit = 1 << self as u32;
        if FORWARD & bit != 0 {
            Kind::Forward
        } else if PASS & bit != 0 {
            Kind::Pass
        } else if REPLY & bit != 0 {
            Kind::Reply
        } else {
            Kind::Drop
        }
    }

    /// The reason of a number.
    #[must_use]
    pub fn from_index(index: u32) -> Option<Self> {
        Self::ALL.get(index as usize).copied()
    }
}

/// Value of the per-CPU array `REASONS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ReasonCounts {
    /// Packets; one where the kernel merged segments.
    pub packets: u64,
    /// Bytes of the frames.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_are_indices_without_gaps() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(Reason::from_index(index as u32), Some(reason));
            assert_eq!(reason.kind_at_once(), reason.kind());
        }
        assert_eq!(Reason::from_index(REASONS as u32), None);
    }

    #[test]
    fn names_are_distinct_and_kebab_case() {
        let names: BTreeSet<_> = Reason::ALL.into_iter().map(Reason::name).collect();
        assert_eq!(names.len(), REASONS);
        assert!(
            names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b"-4".contains(&b)))
        );
    }

    #[test]
    fn a_flow_is_passed_to_the_kernel_only_rewritten() {
        for reason in Reason::ALL.into_iter().filter(|r| r.name().starts_with("flow-")) {
            assert!(
                reason.kind() == Kind::Drop || reason.contract() == Contract::Rewritten,
                "{reason:?}"
            );
        }
    }
}
