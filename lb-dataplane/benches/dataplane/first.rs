//! A flow's first packet: of each protocol, of both families, and where a source port is to be found for it.

use std::net::{Ipv4Addr, SocketAddrV6};

use anyhow::Result;
use lb_dataplane::table::{Backend, BackendState, Protocol, Service, ServiceKey, Source};
use lb_dataplane::{Hook, Reason, Sizes};

use crate::ROUNDS;
use crate::frames::{Carries, Connection, Frame, Frame6, SYN, segment6};
use crate::fresh::NEW;
use crate::report::{Report, Series};
use crate::rig::{Rig, Target};
use crate::traffic::{Backends, key, table, vip};

/// What begins flows.
enum Begins {
    V4(fn(&Connection) -> Frame, u16),
    V6,
}

const CASES: [(&str, Begins); 4] = [
    ("IPv4 TCP, DNAT", Begins::V4(|connection| connection.there(SYN), 0)),
    ("IPv4 UDP, DNAT", Begins::V4(|connection| connection.there(Carries::Udp), 0)),
    ("IPv4 TCP, full NAT", Begins::V4(|connection| connection.there(SYN), 1)),
    ("IPv6 TCP, DNAT", Begins::V6),
];

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    // One of IPv6 takes the room of two.
    let mut rig = Rig::new(Sizes::default(), 2 * NEW)?;
    let backends = Backends::new(100);
    let source = Source {
        address: Ipv4Addr::new(172, 17, 0, 1).into(),
        first_port: 1024,
        last_port: u16::MAX,
    };
    rig.apply(&table([
        (key(vip(0), Protocol::Tcp), backends.service(None, &[])),
        (key(vip(0), Protocol::Udp), backends.service(None, &[])),
        (key(vip(1), Protocol::Tcp), backends.service(None, &[source])),
        service6(),
    ]))?;
    let mut costs = [(); 2 * CASES.len()].map(|()| Series::default());
    let mut used = 0;
    for round in 1..=ROUNDS {
        crate::say(&format!("first packets, round {round} of {ROUNDS}"));
        for (at, hook) in [Hook::Tc, Hook::Xdp].into_iter().enumerate() {
            for (case, (_, begins)) in CASES.iter().enumerate() {
                let numbers = used..used + NEW as u32;
                used = numbers.end;
                match begins {
                    Begins::V4(packet, to) => {
                        rig.load(numbers.map(|n| packet(&backends.connection(vip(*to), n))));
                    }
                    Begins::V6 => rig.load(numbers.map(first6)),
                }
                let floor = rig.run(hook, Target::Nothing, NEW)?;
                let cost = rig.expect(hook, 1, &[(Reason::ForwardedToBackend, NEW)])?;
                costs[at * CASES.len() + case].push(cost - floor);
                rig.forget()?;
            }
        }
    }
    for (at, hook) in ["TC", "XDP"].into_iter().enumerate() {
        let of_hook = &costs[at * CASES.len()..];
        for ((name, _), cost) in CASES.iter().zip(of_hook) {
            let name = format!("a flow's first packet, {name}, {hook}");
            report.beside((&name, "IPv4 TCP, DNAT"), "ns", cost, &of_hook[0]);
        }
    }
    Ok(())
}

fn address6(side: u16, number: u32, port: u16) -> SocketAddrV6 {
    let [high, low] = [(number >> 16) as u16, number as u16];
    SocketAddrV6::new([0xfd00 + side, 0, 0, 0, 0, 0, high, low].into(), port, 0, 0)
}

/// The first segment of a numbered client's connection.
fn first6(number: u32) -> Frame6 {
    segment6(0x02, address6(1, number, 5000), address6(3, 1, 80))
}

/// A service of IPv6 with as many backends as those of IPv4 have.
fn service6() -> (ServiceKey, Service) {
    let backend = |n| Backend {
        address: (*address6(2, n, 0).ip()).into(),
        port: 8080,
        weight: 1,
        state: BackendState::Active,
        max_flows: None,
        sources: [].into(),
    };
    let address = (*address6(3, 1, 0).ip()).into();
    let key = ServiceKey { address, port: 80, protocol: Protocol::Tcp };
    (key, Service { backends: (1..=100).map(backend).collect(), ..Service::default() })
}
