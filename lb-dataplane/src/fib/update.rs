//! What the FIB and its changes have to do with interfaces.

use super::{Action, Fib, FibUpdate, Member};

impl FibUpdate {
    /// The interfaces that it leads through.
    pub fn interfaces(&self) -> impl Iterator<Item = u32> + '_ {
        let members: &[Member] = match self {
            Self::Group { action: Action::Forward(members), .. }
            | Self::GroupLike { action: Action::Forward(members), .. } => members,
            Self::Group { action: Action::Kernel | Action::Blackhole, .. }
            | Self::GroupLike { action: Action::Kernel | Action::Blackhole, .. }
            | Self::GroupRemoved { .. }
            | Self::Route { .. }
            | Self::RouteRemoved { .. } => &[],
        };
        members.iter().map(|member| member.ifindex)
    }
}

impl Fib {
    /// Notes whether XDP can send through an interface; as long as nothing else is said, it can.
    pub fn set_xdp(&mut self, ifindex: u32, takes_frames: bool) {
        self.groups.set_xdp(ifindex, takes_frames);
    }

    /// The interfaces that routes lead through, some more than once.
    pub fn interfaces(&self) -> impl Iterator<Item = u32> + '_ {
        self.groups.interfaces()
    }
}
