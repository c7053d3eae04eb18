//! What of this host bears on the fast path, for people who look for what is wrong.

use std::ffi::CString;
use std::io;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::sys;

/// `ETH_FLAG_LRO` of `linux/ethtool.h`.
const LRO: u32 = 1 << 15;
/// `ETH_FLAG_RXVLAN` of `linux/ethtool.h`.
const RX_VLAN: u32 = 1 << 8;

/// What an interface does to frames before a program sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// It takes VLAN tags off, and an XDP program does not see that there was one.
    pub rx_vlan: bool,
    /// It merges segments into packets that cannot be forwarded.
    pub lro: bool,
}

/// What an interface has switched on.
///
/// # Errors
///
/// No such interface, or a driver that does not say.
pub fn offloads(interface: &str) -> io::Result<Offloads> {
    let name = CString::new(interface).map_err(io::Error::other)?;
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let flags = sys::flags(fd, &name)?;
    Ok(Offloads { rx_vlan: flags & RX_VLAN != 0, lro: flags & LRO != 0 })
}

/// Has an interface leave VLAN tags in their place, if it can: no XDP program sees those that it takes off.
pub(crate) fn leave_tags(interface: &str) -> io::Result<()> {
    let name = CString::new(interface).map_err(io::Error::other)?;
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    match sys::flags(&fd, &name)? {
        flags if flags & RX_VLAN == 0 => Ok(()),
        flags => sys::set_flags(fd, &name, flags & !RX_VLAN),
    }
}

/// Waits for a grace period, as replacing rings and routes does.
///
/// # Errors
///
/// The kernel refuses: without one, what is freed is never used again.
pub fn grace_period() -> io::Result<()> {
    sys::grace_period()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_says_what_it_does_and_one_that_is_not_there_nothing() {
        assert!(!offloads("lo").unwrap().lro, "the loopback interface merges nothing");
        assert!(offloads("no-such-if").is_err());
    }
}
