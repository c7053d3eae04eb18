//! A flow's first packet where the service lists clients: what it costs beside that of a service without a list, however long the
//! list is.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use ipnetwork::IpNetwork;
use lb_dataplane::table::{Access, Protocol, Service, ServiceKey};
use lb_dataplane::{Hook, Reason, Sizes};
use lb_dataplane_common::flow::TCP;

use crate::ROUNDS;
use crate::frames::{SYN, packet};
use crate::fresh::NEW;
use crate::report::{Report, Series};
use crate::rig::{Rig, Target};
use crate::tables::Between;
use crate::traffic::{client, key, service, table, v4, v6, vip};

/// Prefixes of a list; with none there is no list.
const LENS: [usize; 4] = [0, 1, 100, 10_000];
/// Services that are met by turns, so that their lists are in no cache that is near.
const COLD: u16 = 64;
/// The first of them; as many with long lists follow those without.
const FIRST_COLD: u16 = 1000;

/// Which services packets are for, and from whom.
#[derive(Clone, Copy)]
enum To {
    V4(u16),
    /// By turns so many from this one on.
    Each(u16),
    V6(u16),
}

impl To {
    /// A numbered flow's way there.
    fn way(self, number: u32) -> Between {
        let (from, to) = match self {
            Self::V4(n) => (client4(number), vip(n)),
            Self::Each(n) => (client4(number), vip(n + (number % u32::from(COLD)) as u16)),
            Self::V6(n) => (client6((number << 1) as u16, number >> 15), vip6(n)),
        };
        Between { protocol: TCP, from, to }
    }
}

/// A service that is measured beside another one.
struct Case {
    name: String,
    against: String,
    to: To,
    costs: [Series; 2],
}

impl Case {
    fn new(named: impl Fn(usize) -> String, len: usize, to: To) -> Self {
        Self { name: named(len), against: named(0), to, costs: Default::default() }
    }
}

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    // As many flows of IPv6 as of IPv4, as where first packets of others are measured.
    let flow_entries6 = Sizes::default().flow_entries;
    let sizes = Sizes { access: 1 << 20, flow_entries6, ..Sizes::default() };
    // A packet of IPv6 takes the room of two.
    let mut rig = Rig::new(sizes, 2 * NEW)?;
    rig.apply(&table(services()))?;
    let mut cases = cases();
    let mut used = 0;
    for round in 1..=ROUNDS {
        crate::say(&format!("lists of clients, round {round} of {ROUNDS}"));
        for (at, hook) in [Hook::Tc, Hook::Xdp].into_iter().enumerate() {
            for case in &mut cases {
                let ways: Vec<Between> =
                    (used..used + NEW as u32).map(|number| case.to.way(number)).collect();
                used += NEW as u32;
                rig.load(ways.iter().map(|way| packet(SYN, way.from, way.to)));
                let floor = rig.run(hook, Target::Nothing, NEW)?;
                let taken = rig.expect(hook, 1, &[(Reason::ForwardedToBackend, NEW)])?;
                case.costs[at].push(taken - floor);
                ways.iter().try_for_each(|way| rig.forget(way))?;
            }
        }
    }
    for (at, hook) in ["TC", "XDP"].into_iter().enumerate() {
        for case in &cases {
            let beside = cases.iter().find(|other| other.name == case.against).unwrap_or(case);
            let name = format!("a flow's first packet, {}, {hook}", case.name);
            report.beside((&name, &case.against), "ns", &case.costs[at], &beside.costs[at]);
        }
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (family, to) in [("IPv4", To::V4 as fn(u16) -> To), ("IPv6", To::V6)] {
        let named = |len| format!("{family}, list of {len}");
        cases.extend((0..).zip(LENS).map(|(n, len)| Case::new(named, len, to(n))));
    }
    let named = |len| format!("IPv4, {COLD} lists of {len} by turns");
    cases.push(Case::new(named, 0, To::Each(FIRST_COLD)));
    cases.push(Case::new(named, 10_000, To::Each(FIRST_COLD + COLD)));
    cases
}

fn services() -> Vec<(ServiceKey, Service)> {
    let listing = |vip: SocketAddr, access| {
        let backend = |n| if vip.is_ipv6() { v6(2, n, 8080) } else { v4(2, n, 8080) };
        let service = Service { access, ..service((1..=100).map(backend), &[]) };
        (key(vip, Protocol::Tcp), service)
    };
    let mut services = Vec::new();
    for (n, len) in (0..).zip(LENS) {
        services.push(listing(vip(n), prefixes(len)));
        services.push(listing(vip6(n), prefixes6(len)));
    }
    let long = prefixes(10_000);
    for n in FIRST_COLD..FIRST_COLD + COLD {
        services.push(listing(vip(n), [].into()));
        services.push(listing(vip(n + COLD), long.clone()));
    }
    services
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
        prefix: IpNetwork::new(client6(n, 0).ip(), 48).expect("a length of IPv6"),
        is_admitted: false,
    };
    listed(len).into_iter().map(refuse).collect()
}

/// A numbered client, the lowest bit of whose address, which is the ninth of [`client`]'s numbers, is not set.
fn client4(number: u32) -> SocketAddr {
    client(number >> 8 << 9 | number & 0xff)
}

/// A client of a numbered network of those that packets may come from.
fn client6(network: u16, number: u32) -> SocketAddr {
    let [high, low] = [(number >> 16) as u16, number as u16];
    (Ipv6Addr::new(0xfd01, 0, network, 0, 0, 0, high, low), 5000).into()
}

fn vip6(number: u16) -> SocketAddr {
    v6(3, number.into(), 80)
}
