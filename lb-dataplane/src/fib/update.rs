//! Changes to the FIB, and what they have to do with interfaces.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use lb_dataplane_common::encapsulation::Encapsulation;

use super::Fib;

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
    /// The same, with more to be said of it.
    GroupWith {
        /// The caller's name for it.
        id: u32,
        /// What packets to it meet.
        action: Action,
        /// The group whose place it takes: where it is new, flows stay with the members that both have.
        like: Option<u32>,
        /// The kernel has none of its routes: where there is no room for one, packets are dropped instead of handed over. A
        /// group that is there already stays what it is.
        is_apart: bool,
    },
    /// Removes a group that no route names any more.
    GroupRemoved {
        /// The caller's name for it.
        id: u32,
    },
    /// Adds the route or points it to another group.
    Route {
        /// Network address, host bits zero.
        prefix: IpAddr,
        /// 0 to 32 or 128.
        len: u8,
        /// The group.
        group: u32,
    },
    /// Removes the route; addresses below it fall back to the next shorter prefix.
    RouteRemoved {
        /// Network address, host bits zero.
        prefix: IpAddr,
        /// 0 to 32 or 128.
        len: u8,
    },
}

/// What packets to a group meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forwarded to one of these, chosen by the flow's hash; never empty.
    Forward(Vec<Member>),
    /// Handed to the kernel (a local address, an unreachable route, a type that eBPF can't express).
    Kernel,
    /// Dropped.
    Blackhole,
    /// Dropped, since there is no room for where packets go, and the kernel has no route there either.
    NoRoom,
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
    pub gateway: Option<IpAddr>,
    /// MTU of the interface, bytes of IP packet.
    pub mtu: u16,
    /// Share relative to the other members, from 1 on.
    pub weight: u16,
}

impl FibUpdate {
    /// The interfaces that it leads through.
    pub fn interfaces(&self) -> impl Iterator<Item = u32> + '_ {
        let members: &[Member] = match self {
            Self::Group { action: Action::Forward(members), .. }
            | Self::GroupWith { action: Action::Forward(members), .. } => members,
            Self::Group { action: Action::Kernel | Action::Blackhole | Action::NoRoom, .. }
            | Self::GroupWith {
                action: Action::Kernel | Action::Blackhole | Action::NoRoom, ..
            }
            | Self::GroupRemoved { .. }
            | Self::Route { .. }
            | Self::RouteRemoved { .. } => &[],
        };
        members.iter().map(|member| member.ifindex)
    }
}

impl Fib {
    /// Notes what is known of interfaces that packets leave through: bits of `MEMBER_*`, 0 as long as nothing else is said.
    pub fn set_ways_out(&mut self, found: &[(u32, u16)]) {
        self.groups.set_ways_out(found);
    }

    /// Notes what is put around packets by the interface that they leave through; around others, nothing. `cramped`: interfaces
    /// whose longest packets are too long with it for XDP.
    pub fn set_encapsulations(
        &mut self,
        by_interface: HashMap<u32, Encapsulation>,
        cramped: HashSet<u32>,
    ) {
        self.groups.set_encapsulations(by_interface, cramped);
    }

    /// The interfaces that packets are to leave through by these changes.
    #[must_use]
    pub fn led_through(&self, updates: &[FibUpdate]) -> Vec<u32> {
        let named = updates.iter().flat_map(FibUpdate::interfaces);
        named.map(|ifindex| self.leaves_through(ifindex)).collect()
    }

    /// The interface that frames leave through that go out by this one: a VLAN's link, or itself.
    #[must_use]
    pub fn leaves_through(&self, ifindex: u32) -> u32 {
        self.groups.leaves_through(ifindex)
    }

    /// The interfaces that packets leave through, some more than once.
    pub fn interfaces(&self) -> impl Iterator<Item = u32> + '_ {
        self.groups.interfaces()
    }
}
