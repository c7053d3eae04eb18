//! Services, and the connections of their clients.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use lb_dataplane::maglev;
use lb_dataplane::table::{Backend, BackendState, Protocol, Service, ServiceKey, Source, Table};
use lb_dataplane_common::flow::{FlowKey, TCP};
use lb_dataplane_common::hash::FlowHash;

use crate::frames::Connection;

/// Backends with their Maglev ring, for all services that have the same ones.
pub(crate) struct Backends {
    addresses: Vec<SocketAddrV4>,
    ring: Vec<u32>,
}

impl Backends {
    /// So many, at 10.2.0.0/16.
    pub(crate) fn new(count: u16) -> Self {
        let address = |n: u16| {
            let [high, low] = (n + 1).to_be_bytes();
            SocketAddrV4::new(Ipv4Addr::new(10, 2, high, low), 8080)
        };
        let addresses: Vec<SocketAddrV4> = (0..count).map(address).collect();
        let names: Vec<(IpAddr, u16, u8)> =
            addresses.iter().map(|a| (IpAddr::V4(*a.ip()), a.port(), 1)).collect();
        Self { ring: maglev::ring(maglev::size_for(names.len()), &names), addresses }
    }

    /// A service of all of them, or of all but one.
    pub(crate) fn service(&self, without: Option<usize>, sources: &[Source]) -> Service {
        let sources: Arc<[Source]> = sources.into();
        let kept = self.addresses.iter().enumerate().filter(|(n, _)| Some(*n) != without);
        let backends = kept.map(|(_, address)| Backend {
            address: IpAddr::V4(*address.ip()),
            port: address.port(),
            weight: 1,
            state: BackendState::Active,
            max_flows: None,
            sources: sources.clone(),
        });
        Service { backends: backends.collect(), ..Service::default() }
    }

    /// A client's connection; the backend is the one that the ring says.
    pub(crate) fn connection(&self, vip: SocketAddrV4, number: u32) -> Connection {
        let client = client(number);
        let key = FlowKey {
            source: u32::from_ne_bytes(client.ip().octets()),
            destination: u32::from_ne_bytes(vip.ip().octets()),
            source_port: client.port().to_be(),
            destination_port: vip.port().to_be(),
            protocol: u16::from(TCP),
            pad: 0,
        };
        let slot = FlowHash::of(&key).for_backend() as usize % self.ring.len();
        let backend = self.addresses[self.ring[slot] as usize];
        Connection { client, vip, backend, towards: client }
    }
}

/// Numbered clients: 65,536 addresses, then the next port of each.
fn client(number: u32) -> SocketAddrV4 {
    let [high, low, ..] = number.to_le_bytes();
    SocketAddrV4::new(Ipv4Addr::new(10, 1, high, low), 1024 + (number >> 16) as u16)
}

/// Numbered services: 250 ports of each address.
pub(crate) fn vip(number: u16) -> SocketAddrV4 {
    let [high, low] = (number / 250).to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(172, 16, high, low), 1000 + number % 250)
}

/// What clients connect to.
pub(crate) fn key(vip: SocketAddrV4, protocol: Protocol) -> ServiceKey {
    ServiceKey { address: IpAddr::V4(*vip.ip()), port: vip.port(), protocol }
}

pub(crate) fn table(services: impl IntoIterator<Item = (ServiceKey, Service)>) -> Table {
    Table { services: services.into_iter().collect() }
}

/// xorshift64*: the same order in every run.
pub(crate) fn shuffle<T>(items: &mut [T]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for end in (1..items.len()).rev() {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let random = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        items.swap(end, (random % (end as u64 + 1)) as usize);
    }
}
