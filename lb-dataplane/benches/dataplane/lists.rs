//! A flow's first packet where the service lists clients: what it costs beside that of a service without a list, however long the
//! list is.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV6};
use std::sync::Arc;

use anyhow::Result;
use ipnetwork::IpNetwork;
use lb_dataplane::table::{Access, Backend, BackendState, Protocol, Service, ServiceKey};
use lb_dataplane::{Hook, Reason, Sizes};

use crate::ROUNDS;
use crate::frames::{Frame, Frame6, SYN, segment6};
use crate::fresh::NEW;
use crate::report::{Report, Series};
use crate::rig::{Rig, Target};
use crate::traffic::{Backends, key, table, vip};

/// Prefixes of a list; with none there is no list.
const LENS: [usize; 4] = [0, 1, 100, 10_000];
/// Services that are met by turns, so that their lists are in no cache that is near.
const COLD: u16 = 64;

/// Which services packets are for.
#[derive(Clone, Copy)]
enum To {
    V4(u16),
    /// By turns so many from this one on.
    Each(u16),
    V6(u16),
}

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    // One of IPv6 takes the room of two.
    let mut rig = Rig::new(Sizes { access: 1 << 20, ..Sizes::default() }, 2 * NEW)?;
    let backends = Backends::new(100);
    let listing = |access: Arc<[Access]>| Service { access, ..backends.service(None, &[]) };
    let lens = || (0_u16..).zip(LENS);
    let of_v4 = lens().map(|(n, len)| (key(vip(n), Protocol::Tcp), listing(prefixes(len))));
    let of_v6 = lens().map(|(n, len)| service6(n, prefixes6(len)));
    let long = prefixes(10_000);
    let cold = (0..2 * COLD).map(|n| {
        let access = if n < COLD { [].into() } else { long.clone() };
        (key(vip(1000 + n), Protocol::Tcp), listing(access))
    });
    rig.apply(&table(of_v4.chain(of_v6).chain(cold)))?;
    let mut cases: Vec<(String, String, To)> = Vec::new();
    for (family, to) in [("IPv4", To::V4 as fn(u16) -> To), ("IPv6", To::V6)] {
        let named = |len| format!("{family}, list of {len}");
        let of_family = lens().map(|(n, len)| (named(len), named(0), to(n)));
        cases.extend(of_family);
    }
    let named = |len| format!("IPv4, {COLD} lists of {len} by turns");
    cases.push((named(0), named(0), To::Each(1000)));
    cases.push((named(10_000), named(0), To::Each(1000 + COLD)));

    let mut costs: Vec<[Series; 2]> = cases.iter().map(|_| Default::default()).collect();
    let mut used = 0;
    for round in 1..=ROUNDS {
        crate::say(&format!("lists of clients, round {round} of {ROUNDS}"));
        for (at, hook) in [Hook::Tc, Hook::Xdp].into_iter().enumerate() {
            for ((_, _, to), cost) in cases.iter().zip(&mut costs) {
                let numbers = used..used + NEW as u32;
                used = numbers.end;
                match *to {
                    To::V4(n) => rig.load(numbers.map(|number| first(&backends, n, number))),
                    To::Each(n) => rig.load(numbers.map(|number| {
                        first(&backends, n + (number % u32::from(COLD)) as u16, number)
                    })),
                    To::V6(n) => rig.load(numbers.map(|number| first6(n, number))),
                }
                let floor = rig.run(hook, Target::Nothing, NEW)?;
                let taken = rig.expect(hook, 1, &[(Reason::ForwardedToBackend, NEW)])?;
                cost[at].push(taken - floor);
                rig.forget()?;
            }
        }
    }
    for (at, hook) in ["TC", "XDP"].into_iter().enumerate() {
        for ((name, against, _), cost) in cases.iter().zip(&costs) {
            let beside = cases.iter().position(|(name, ..)| name == against).unwrap_or_default();
            let name = format!("a flow's first packet, {name}, {hook}");
            report.beside((&name, against), "ns", &cost[at], &costs[beside][at]);
        }
    }
    Ok(())
}

/// Numbers below 65,536 of which half are clients, and the others, as many as are wanted, in lists: these lie between those, scattered
/// by Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, section 6.4).
fn listed(len: usize) -> BTreeSet<u16> {
    let mut listed = BTreeSet::new();
    for n in 0_u32.. {
        if listed.len() == len {
            break;
        }
        listed.insert((n.wrapping_mul(0x9e37_79b9) >> 16) as u16 | 1);
    }
    listed
}

/// So many addresses that may begin no flows.
fn prefixes(len: usize) -> Arc<[Access]> {
    let address = |n: u16| Ipv4Addr::from_bits(0x0a01_0000 | u32::from(n));
    let refuse = |n| Access { prefix: IpAddr::V4(address(n)).into(), is_admitted: false };
    listed(len).into_iter().map(refuse).collect()
}

/// The same of networks of IPv6.
fn prefixes6(len: usize) -> Arc<[Access]> {
    let refuse = |n| Access {
        prefix: IpNetwork::new((*client6(n, 0).ip()).into(), 48).expect("a length of IPv6"),
        is_admitted: false,
    };
    listed(len).into_iter().map(refuse).collect()
}

/// A numbered client's first segment.
fn first(backends: &Backends, service: u16, number: u32) -> Frame {
    // The lowest bit of an address, which `Backends` takes from the ninth of a number, is not set.
    let number = number >> 8 << 9 | number & 0xff;
    backends.connection(vip(service), number).there(SYN)
}

fn first6(service: u16, number: u32) -> Frame6 {
    let client = client6((number << 1) as u16, number >> 15);
    segment6(0x02, client, vip6(service))
}

/// A client of a numbered network of those that packets may come from.
fn client6(network: u16, number: u32) -> SocketAddrV6 {
    let [high, low] = [(number >> 16) as u16, number as u16];
    SocketAddrV6::new([0xfd01, 0, network, 0, 0, 0, high, low].into(), 5000, 0, 0)
}

fn vip6(number: u16) -> SocketAddrV6 {
    SocketAddrV6::new([0xfd03, 0, 0, 0, 0, 0, 0, number].into(), 80, 0, 0)
}

fn service6(number: u16, access: Arc<[Access]>) -> (ServiceKey, Service) {
    let backend = |n| Backend {
        address: [0xfd02_u16, 0, 0, 0, 0, 0, 0, n].into(),
        port: 8080,
        weight: 1,
        state: BackendState::Active,
        max_flows: None,
        sources: [].into(),
    };
    let backends = (1..=100_u16).map(backend).collect();
    let key =
        ServiceKey { address: (*vip6(number).ip()).into(), port: 80, protocol: Protocol::Tcp };
    (key, Service { backends, access, ..Service::default() })
}
