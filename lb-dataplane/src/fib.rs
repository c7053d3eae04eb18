//! The eBPF FIB's writer: DIR-24-8 for IPv4 in memory-mapped arrays (Gupta, Lin, McKeown, INFOCOM 1998).

use std::net::Ipv4Addr;

/// A change to the FIB. Groups are named by the caller; a route names a group that is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FibUpdate {
    /// Creates the group or replaces what it does; routes that name it follow at once.
    Group {
        /// The caller's name for it.
        id: u32,
        /// What packets to it meet.
        action: Action,
    },
    /// Removes a group that no route names any more.
    GroupRemoved {
        /// The caller's name for it.
        id: u32,
    },
    /// Adds the route or points it to another group.
    Route {
        /// Network address, host bits zero.
        prefix: Ipv4Addr,
        /// 0 to 32.
        len: u8,
        /// The group.
        group: u32,
    },
    /// Removes the route; addresses below it fall back to the next shorter prefix.
    RouteRemoved {
        /// Network address, host bits zero.
        prefix: Ipv4Addr,
        /// 0 to 32.
        len: u8,
    },
}

/// What packets to a group meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forwarded to one of these, chosen by the flow's hash; never empty.
    Forward(Vec<Member>),
    /// Handed to the kernel (a local address, an unresolved neighbour of a connected network, a type that eBPF can't express).
    Kernel,
    /// Dropped.
    Blackhole,
}

/// A way out: everything that the frame needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Interface to send from.
    pub ifindex: u32,
    /// Its MAC.
    pub source_mac: [u8; 6],
    /// The next hop's MAC; `None` while it is unresolved: packets take the kernel's neighbour path out of this interface.
    pub destination_mac: Option<[u8; 6]>,
    /// The next hop's address, for the kernel's neighbour path; `None` where the destination itself is the neighbour.
    pub gateway: Option<Ipv4Addr>,
    /// MTU of the interface, bytes of IP packet.
    pub mtu: u16,
    /// Share relative to the other members, 1 to 256.
    pub weight: u16,
}
