//! The same hosts in both families, so that a row is one of both.

use std::net::IpAddr;

use lb_dataplane::Hook;

use crate::scene::BOTH;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Both families at both hooks.
pub(crate) fn each() -> impl Iterator<Item = (Hook, Family)> {
    BOTH.into_iter().flat_map(|hook| FAMILIES.map(|family| (hook, family)))
}

impl Family {
    /// A VIP, a client and a backend.
    pub(crate) fn ends(self) -> [String; 3] {
        [self.vip(1), self.at(1, 5, 40_000), self.at(2, 9, 8080)]
    }

    /// A host of a network of the scene's routes: clients are in the first one, backends in the second.
    pub(crate) fn host(self, network: u16, host: u16) -> IpAddr {
        let [high, low] = host.to_be_bytes();
        match self {
            Self::V4 => [10, network as u8, high, low].into(),
            Self::V6 => [0x2001, 0xdb8, network, 0, 0, 0, 0, host].into(),
        }
    }

    pub(crate) fn at(self, network: u16, host: u16, port: u16) -> String {
        std::net::SocketAddr::new(self.host(network, host), port).to_string()
    }

    /// Service addresses, port 80.
    pub(crate) fn vip(self, number: u16) -> String {
        match self {
            Self::V4 => format!("192.0.2.{number}:80"),
            Self::V6 => format!("[2001:db8:f::{number:x}]:80"),
        }
    }

    /// How many bits an address of such a network has before those of its hosts' last numbers.
    pub(crate) fn bits(self, network: u8) -> u8 {
        if self == Self::V4 { network } else { network + 96 }
    }
}

/// A host's last number.
pub(crate) fn last(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}
