//! One-arm services: flows to a backend come from the address that this host itself would use on the way there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::table::{BackendState, Source, Table};

/// Where this host keeps the ports of its own connections.
const OWN_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// What they are where the kernel does not say.
const DEFAULT_OWN_PORTS: RangeInclusive<u16> = 32_768..=60_999;
/// Ports below are those of well-known services.
const FIRST_PORT: u16 = 1024;

/// The table with sources for one-arm services filled in, as this host's routes and ports are now.
pub(super) fn resolve(table: &Table) -> Cow<'_, Table> {
    if !table.services.values().any(|service| service.one_arm) {
        return Cow::Borrowed(table);
    }
    Cow::Owned(fill_in(table, &ports(&own_ports()), |backend| address_towards(backend).ok()))
}

/// The table with sources for one-arm services filled in. A backend that no route leads to gets no new flows: they would
/// come from nowhere.
fn fill_in(
    table: &Table,
    ports: &RangeInclusive<u16>,
    address_towards: impl Fn(IpAddr) -> Option<IpAddr>,
) -> Table {
    let mut known: BTreeMap<IpAddr, Option<Arc<[Source]>>> = BTreeMap::new();
    let mut table = table.clone();
    for service in table.services.values_mut().filter(|service| service.one_arm) {
        for backend in &mut service.backends {
            let found = known.entry(backend.address).or_insert_with(|| {
                let address = address_towards(backend.address)?;
                let (first_port, last_port) = (*ports.start(), *ports.end());
                Some([Source { address, first_port, last_port }].into())
            });
            match found {
                Some(sources) => backend.sources = sources.clone(),
                None if backend.state == BackendState::Active => {
                    backend.state = BackendState::Draining;
                }
                None => {}
            }
        }
    }
    table
}

/// The source address that the kernel's routes choose: a datagram socket that is connected has it, and sends nothing.
fn address_towards(backend: IpAddr) -> io::Result<IpAddr> {
    const DISCARD: u16 = 9;
    let any = match backend {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(SocketAddr::new(backend, DISCARD))?;
    let address = socket.local_addr()?.ip();
    if address.is_unspecified() { Err(io::ErrorKind::AddrNotAvailable.into()) } else { Ok(address) }
}

/// The ports that this host's own connections come from.
fn own_ports() -> RangeInclusive<u16> {
    std::fs::read_to_string(OWN_PORTS)
        .ok()
        .and_then(|text| {
            let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
            Some(numbers.next()?..=numbers.next()?)
        })
        .unwrap_or(DEFAULT_OWN_PORTS)
}

/// The larger of the ranges below and above the host's own ports: flows and the host's own connections never meet.
fn ports(own: &RangeInclusive<u16>) -> RangeInclusive<u16> {
    let below = FIRST_PORT..=own.start().saturating_sub(1).max(FIRST_PORT);
    let above = own.end().saturating_add(1)..=u16::MAX;
    if below.len() >= above.len() { below } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Algorithm, Backend, Protocol, Service, ServiceKey};

    #[test]
    fn ports_are_those_that_the_host_does_not_use() {
        assert_eq!(ports(&(32_768..=60_999)), 1024..=32_767);
        assert_eq!(ports(&(1024..=4999)), 5000..=65_535);
        assert_eq!(ports(&(10_000..=20_000)), 20_001..=65_535);
    }

    #[test]
    fn the_source_is_the_one_that_this_host_would_use() {
        let towards_itself = address_towards([127, 0, 0, 2].into()).expect("loopback is up");
        assert!(towards_itself.is_loopback());
    }

    #[test]
    fn only_one_arm_services_are_filled_in_and_what_cannot_be_reached_takes_no_new_flows() {
        let backend = |address: [u8; 4]| Backend {
            address: address.into(),
            port: 80,
            weight: 1,
            state: BackendState::Active,
            sources: [].into(),
        };
        let service = |one_arm| Service {
            algorithm: Algorithm::Maglev,
            affinity: None,
            access: [].into(),
            backends: vec![backend([10, 0, 0, 1]), backend([10, 9, 9, 9])],
            one_arm,
        };
        let key =
            |port| ServiceKey { address: [192, 0, 2, 1].into(), port, protocol: Protocol::Tcp };
        let table = Table { services: [(key(1), service(false)), (key(2), service(true))].into() };
        let route =
            |to: IpAddr| (to == IpAddr::from([10, 0, 0, 1])).then(|| [10, 0, 0, 254].into());
        let resolved = fill_in(&table, &(1024..=32_767), route);
        assert_eq!(resolved.services[&key(1)], table.services[&key(1)]);
        let [near, nowhere] = &resolved.services[&key(2)].backends[..] else { panic!("two") };
        let source =
            Source { address: [10, 0, 0, 254].into(), first_port: 1024, last_port: 32_767 };
        assert_eq!(*near.sources, [source]);
        assert_eq!((near.state, nowhere.state), (BackendState::Active, BackendState::Draining));
    }
}
