//! Services, and the connections of their clients.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use lb_dataplane::maglev;
use lb_dataplane::table::{Backend, BackendState, Protocol, Service, ServiceKey, Source, Table};
use lb_dataplane_common::flow::{FlowKey, TCP};
use lb_dataplane_common::hash::FlowHash;

use crate::frames::Connection;

/// Backends of IPv4 with their Maglev ring, for all services that have the same ones.
pub(crate) struct Backends {
    addresses: Vec<SocketAddr>,
    ring: Vec<u32>,
}

impl Backends {
    /// So many, at 10.2.0.0/16.
    pub(crate) fn new(count: u16) -> Self {
        let addresses: Vec<SocketAddr> = (1..=count.into()).map(|n| v4(2, n, 8080)).collect();
        let ring = ring(&addresses, addresses.len());
        Self { addresses, ring }
    }

    /// Whom flows are given while one of them has failed.
    pub(crate) fn without(&self, failed: usize) -> Self {
        let others = self.addresses.iter().enumerate().filter(|(n, _)| *n != failed);
        let addresses: Vec<SocketAddr> = others.map(|(_, address)| *address).collect();
        let ring = ring(&addresses, self.addresses.len());
        Self { addresses, ring }
    }

    pub(crate) fn address(&self, n: usize) -> SocketAddr {
        self.addresses[n]
    }

    /// A service of all of them, of which one may have failed.
    pub(crate) fn service(&self, failed: Option<usize>, sources: &[Source]) -> Service {
        let mut service = service(self.addresses.iter().copied(), sources);
        if let Some(failed) = failed {
            service.backends[failed].state = BackendState::Failed;
        }
        service
    }

    /// A client's connection of TCP; the backend is the one that the ring says.
    pub(crate) fn connection(&self, vip: SocketAddr, number: u32) -> Connection {
        self.connection_of(client(number), vip)
    }

    pub(crate) fn connection_of(&self, client: SocketAddr, vip: SocketAddr) -> Connection {
        let slot = flow_hash(client, vip).map_or(0, |hash| hash as usize % self.ring.len());
        let backend = self.addresses[self.ring[slot] as usize];
        Connection { client, vip, backend, towards: client }
    }
}

/// Of a size that goes by what is configured.
fn ring(backends: &[SocketAddr], configured: usize) -> Vec<u32> {
    let names: Vec<_> = backends.iter().map(|a| (a.ip(), a.port(), 1)).collect();
    maglev::ring(maglev::size_for(configured), &names)
}

fn flow_hash(client: SocketAddr, vip: SocketAddr) -> Option<u32> {
    let (SocketAddr::V4(client), SocketAddr::V4(vip)) = (client, vip) else { return None };
    let key = FlowKey {
        source: u32::from_ne_bytes(client.ip().octets()),
        destination: u32::from_ne_bytes(vip.ip().octets()),
        source_port: client.port().to_be(),
        destination_port: vip.port().to_be(),
        protocol: u16::from(TCP),
        pad: 0,
    };
    Some(FlowHash::of(&key).for_backend())
}

/// A service of these backends.
pub(crate) fn service(
    backends: impl IntoIterator<Item = SocketAddr>,
    sources: &[Source],
) -> Service {
    let sources: Arc<[Source]> = sources.into();
    let backends = backends.into_iter().map(|address| Backend {
        address: address.ip(),
        port: address.port(),
        weight: 1,
        state: BackendState::Active,
        max_flows: None,
        sources: sources.clone(),
    });
    Service { backends: backends.collect(), ..Service::default() }
}

/// A numbered address of IPv4 at a side: 1 has the clients, 2 the backends.
pub(crate) fn v4(side: u8, number: u32, port: u16) -> SocketAddr {
    let [.., high, low] = number.to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(10, side, high, low), port).into()
}

/// The same of IPv6; 3 has the VIPs, and 4 what is ours.
pub(crate) fn v6(side: u16, number: u32, port: u16) -> SocketAddr {
    let [high, low] = [(number >> 16) as u16, number as u16];
    (Ipv6Addr::new(0xfd00 + side, 0, 0, 0, 0, 0, high, low), port).into()
}

/// Numbered clients: 65,536 addresses, then the next port of each.
pub(crate) fn client(number: u32) -> SocketAddr {
    let [high, low, ..] = number.to_le_bytes();
    let address = u16::from_be_bytes([high, low]);
    v4(1, address.into(), 1024 + (number >> 16) as u16)
}

/// Numbered services: 250 ports of each address.
pub(crate) fn vip(number: u16) -> SocketAddr {
    let [high, low] = (number / 250).to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(172, 16, high, low), 1000 + number % 250).into()
}

/// What clients connect to.
pub(crate) fn key(vip: SocketAddr, protocol: Protocol) -> ServiceKey {
    ServiceKey { address: vip.ip(), port: vip.port(), protocol }
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
