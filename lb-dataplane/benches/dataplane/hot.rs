//! One flow at a time, all of it in the cache: D1, full NAT beside it, and the packets that are no service's.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use anyhow::Result;
use ipnetwork::IpNetwork;
use lb_dataplane::table::{Access, Backend, BackendState, Protocol, Service, ServiceKey, Source};
use lb_dataplane::{Hook, Reason, Sizes};

use crate::frames::{
    ACK, Carries, Connection, Frame, Frame6, SYN, SYN_ACK, echo6, error, fragment, fragment6,
    frame, segment6,
};
use crate::report::{Report, Series};
use crate::rig::{Rig, Target};
use crate::traffic::{Backends, key, table, vip};
use crate::{ROUNDS, fresh};

/// Packets in one run.
const REPEAT: usize = 200_000;
/// What the others of a hook are compared with.
const PLAIN: [&str; 2] = ["D1 established v4 dnat", "D1 its reverse"];

/// A packet that is run again and again.
struct Case {
    name: String,
    hook: Hook,
    packet: Packet,
    ends: Vec<(Reason, usize)>,
    cost: Series,
}

#[derive(Clone, Copy)]
enum Packet {
    V4(Frame),
    /// Of IPv6, or as long.
    V6(Frame6),
    /// To a backend of the other family and back, by turns.
    Across(Frame, Frame6),
    /// The first of these alone. What moves the packet in its buffer, and back for the next one, is not a part of it.
    There(Frame),
    /// The second.
    Back(Frame6),
}

impl Packet {
    fn load(&self, rig: &mut Rig) {
        match self {
            Self::V4(frame) => rig.load([*frame]),
            Self::V6(frame) => rig.load([*frame]),
            Self::Across(there, back) => rig.load_across([there, back]),
            Self::There(there) => rig.load_across([there]),
            Self::Back(back) => rig.load_across([back]),
        }
    }

    /// What putting it back costs, with the loop. Nothing makes a frame longer where nothing runs, so packets by turns are
    /// measured one after the other.
    fn floor(&self, rig: &mut Rig, hook: Hook) -> Result<f64> {
        match self {
            Self::V4(_) | Self::V6(_) => {
                self.load(rig);
                rig.run(hook, Target::Nothing, REPEAT)
            }
            Self::There(_) | Self::Back(_) => {
                self.load(rig);
                rig.run(hook, Target::Move, REPEAT)
            }
            Self::Across(there, back) => {
                rig.load_across([there]);
                let of_there = rig.run(hook, Target::Nothing, REPEAT)?;
                rig.load_across([back]);
                Ok((of_there + rig.run(hook, Target::Nothing, REPEAT)?) / 2.0)
            }
        }
    }
}

/// Measures what is called so, and what it is compared with.
pub(crate) fn measure(report: &mut Report, named: &str) -> Result<()> {
    let mut rig = Rig::new(Sizes::default(), 64)?;
    let mut cases = scene(&mut rig)?;
    let is_wanted = |name: &str| {
        name.starts_with(named) || PLAIN.into_iter().any(|plain| name.starts_with(plain))
    };
    cases.retain(|case| is_wanted(&case.name));
    let (mut lookup, mut nothing) = ([Series::default(), Series::default()], Series::default());
    let mut moved = [Series::default(), Series::default()];
    for round in 1..=ROUNDS {
        crate::say(&format!("one flow, round {round} of {ROUNDS}"));
        for (hook, series) in [Hook::Tc, Hook::Xdp].into_iter().zip(&mut lookup) {
            if let Some(of_flow) = cases.first() {
                of_flow.packet.load(&mut rig);
            }
            let floor = rig.run(hook, Target::Nothing, REPEAT)?;
            series.push(rig.run(hook, Target::Lookup, REPEAT)? - floor);
            nothing.push(floor);
        }
        for case in &mut cases {
            let floor = case.packet.floor(&mut rig, case.hook)?;
            case.packet.load(&mut rig);
            if matches!(case.packet, Packet::Across(..)) {
                let both = rig.run(case.hook, Target::Move, REPEAT)?;
                moved[usize::from(case.hook == Hook::Xdp)].push(both - floor);
            }
            let packets = case.ends.iter().map(|(_, count)| count).sum::<usize>();
            case.cost.push(rig.expect(case.hook, REPEAT / packets, &case.ends)? - floor);
        }
    }
    tell(report, &cases, &lookup, &nothing);
    for (hook, moved) in ["TC", "XDP"].into_iter().zip(&moved) {
        if !moved.0.is_empty() {
            let what =
                format!("a part of NAT64, both ways: to move the packet in its buffer, {hook}");
            report.note(&what, "ns", moved.median());
        }
    }
    Ok(())
}

fn tell(report: &mut Report, cases: &[Case], lookup: &[Series; 2], nothing: &Series) {
    for case in cases {
        let lookup = &lookup[usize::from(case.hook == Hook::Xdp)];
        if case.name.starts_with("D1") {
            report.bound(&case.name, "ns", &case.cost, 75.0);
        }
        report.beside(
            (&case.name, "a bare lookup in the flow table, hot"),
            "ns",
            &case.cost,
            lookup,
        );
    }
    for hook in ["TC", "XDP"] {
        let [plain, reverse] = PLAIN;
        let named = |name: &str| cases.iter().find(|case| case.name == format!("{name}, {hook}"));
        for (name, plain, target) in [
            ("D3 full NAT", plain, 1.15),
            ("D3 NAT64, both ways", plain, 1.5),
            ("D3 established v6 dnat", plain, 1.3),
            ("D3 v6 dnat, its reverse", reverse, 1.3),
        ] {
            if let (Some(other), Some(plain)) = (named(name), named(plain)) {
                let name = format!("{name}, {hook}");
                report.ratio((&name, "IPv4 DNAT"), "ns", &other.cost, &plain.cost, target);
            }
        }
    }
    report.note("restoring the packet, with the test run's loop", "ns", nothing.median());
}

/// One service of each kind, with one established flow.
fn scene(rig: &mut Rig) -> Result<Vec<Case>> {
    let backends = Backends::new(1);
    let ours = Ipv4Addr::new(172, 17, 0, 1);
    let source = Source { address: ours.into(), first_port: 5000, last_port: 5000 };
    rig.apply(&table([
        (key(vip(0), Protocol::Tcp), backends.service(None, &[])),
        (key(vip(0), Protocol::Udp), backends.service(None, &[])),
        (key(vip(1), Protocol::Tcp), backends.service(None, &[source])),
        service6(Protocol::Tcp),
        service6(Protocol::Udp),
        service_across(),
    ]))?;
    let [there6, back6] = begin6(rig)?;
    let (across, back_across) = begin_across(rig)?;
    let plain = backends.connection(vip(0), 1);
    let towards = SocketAddrV4::new(ours, 5000);
    let full = Connection { towards, ..backends.connection(vip(1), 2) };
    let begun = [(Reason::ForwardedToBackend, 2), (Reason::ForwardedToClient, 1)];
    for connection in [plain, full] {
        rig.load([connection.there(SYN), connection.back(SYN_ACK), connection.there(ACK)]);
        rig.expect(Hook::Tc, 1, &begun)?;
    }
    rig.load([plain.there(Carries::Udp), plain.back(Carries::Udp), plain.there(Carries::Udp)]);
    rig.expect(Hook::Tc, 1, &begun)?;

    let elsewhere = |c, d| SocketAddrV4::new(Ipv4Addr::new(10, 2, c, d), 9);
    let nowhere = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 9);
    let mut arp = frame(ACK, plain.client, plain.vip);
    arp[12..14].copy_from_slice(&[8, 6]);
    let unreachable = unreachable(&plain);
    let [first, later] = [true, false].map(|first| fragment(first, plain.client, plain.vip));
    let [first6, later6] = [true, false].map(|first| fragment6(first, client6(), vip6()));
    let mut cases = Vec::new();
    for (hook, word) in [(Hook::Tc, "TC"), (Hook::Xdp, "XDP")] {
        for (name, packet, ends) in [
            ("D1 established v4 dnat", plain.there(ACK), Reason::ForwardedToBackend),
            ("D1 its reverse", plain.back(ACK), Reason::ForwardedToClient),
            ("D3 full NAT", full.there(ACK), Reason::ForwardedToBackend),
            ("D3 full NAT, its reverse", full.back(ACK), Reason::ForwardedToClient),
            ("UDP dnat", plain.there(Carries::Udp), Reason::ForwardedToBackend),
            ("UDP, its reverse", plain.back(Carries::Udp), Reason::ForwardedToClient),
            ("echo to a VIP, answered", plain.there(Carries::Echo), Reason::EchoAnswered),
            ("fragment, the first", first, Reason::ForwardedToBackend),
            ("fragment, a later one", later, Reason::ForwardedToBackend),
            ("routed, of no service", frame(ACK, plain.client, elsewhere(9, 9)), Reason::Forwarded),
            ("not ours: no route", frame(ACK, plain.client, nowhere), Reason::NoRoute),
            ("not ours: ARP", arp, Reason::NotIp),
        ] {
            let (name, packet) = (format!("{name}, {word}"), Packet::V4(packet));
            let ends = vec![(ends, 1)];
            cases.push(Case { name, hook, packet, ends, cost: Series::default() });
        }
        for (name, packet, ends) in [
            ("D3 established v6 dnat", there6, Reason::ForwardedToBackend),
            ("D3 v6 dnat, its reverse", back6, Reason::ForwardedToClient),
            ("ICMP error about a flow", unreachable, Reason::ErrorToBackend),
            ("v6 echo to a VIP, answered", echo6(client6(), vip6()), Reason::EchoAnswered),
            ("v6 fragment, the first", first6, Reason::ForwardedToBackend),
            ("v6 fragment, a later one", later6, Reason::ForwardedToBackend),
        ] {
            let (name, packet) = (format!("{name}, {word}"), Packet::V6(packet));
            let ends = vec![(ends, 1)];
            cases.push(Case { name, hook, packet, ends, cost: Series::default() });
        }
        let (there, back) = ((Reason::ForwardedToBackend, 1), (Reason::ForwardedToClient, 1));
        for (name, packet, ends) in [
            ("D3 NAT64, both ways", Packet::Across(across, back_across), vec![there, back]),
            ("D3 NAT64, from IPv4, but for moving it", Packet::There(across), vec![there]),
            ("D3 NAT64, from IPv6, but for moving it", Packet::Back(back_across), vec![back]),
        ] {
            let name = format!("{name}, {word}");
            cases.push(Case { name, hook, packet, ends, cost: Series::default() });
        }
    }
    Ok(cases)
}

fn address6(side: u16, port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(Ipv6Addr::new(0xfd00 + side, 0, 0, 0, 0, 0, 0, 1), port, 0, 0)
}

/// What a router on the way to the client says of the backend's answer.
fn unreachable(connection: &Connection) -> Frame6 {
    let answer = frame(Carries::Udp, connection.vip, connection.client);
    error(Ipv4Addr::new(10, 1, 99, 99), *connection.vip.ip(), &answer)
}

fn client6() -> SocketAddrV6 {
    address6(CLIENT, 5000)
}

fn vip6() -> SocketAddrV6 {
    address6(VIP, 80)
}

const CLIENT: u16 = 1;
const BACKEND: u16 = 2;
const VIP: u16 = 3;

/// A service of IPv6 with one backend.
fn service6(protocol: Protocol) -> (ServiceKey, Service) {
    let vip = vip6();
    let backend = Backend {
        address: (*address6(BACKEND, 0).ip()).into(),
        port: 8080,
        weight: 1,
        state: BackendState::Active,
        max_flows: None,
        sources: [].into(),
    };
    let key = ServiceKey { address: (*vip.ip()).into(), port: 80, protocol };
    (key, Service { backends: vec![backend], ..Service::default() })
}

const OURS: u16 = 4;

/// A service of IPv4 with one backend of IPv6.
fn service_across() -> (ServiceKey, Service) {
    let (_, mut service) = service6(Protocol::Tcp);
    let address = (*address6(OURS, 0).ip()).into();
    service.backends[0].sources = [Source { address, first_port: 5000, last_port: 5000 }].into();
    (key(vip(2), Protocol::Tcp), service)
}

/// Begins a connection between the families; the packets that it has each way from then on.
fn begin_across(rig: &mut Rig) -> Result<(Frame, Frame6)> {
    let client = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 9), 5000);
    let there = |carries| frame(carries, client, vip(2));
    let back = |flags| segment6(flags, address6(BACKEND, 8080), address6(OURS, 5000));
    let begun = [(Reason::ForwardedToBackend, 1), (Reason::ForwardedToClient, 1)];
    rig.load_across([&there(SYN), &back(0x12)]);
    rig.expect(Hook::Tc, 1, &begun)?;
    rig.load_across([&there(ACK), &back(0x10)]);
    rig.expect(Hook::Tc, 1, &begun)?;
    Ok((there(ACK), back(0x10)))
}

/// Begins a connection of IPv6; the packets that it has each way from then on.
fn begin6(rig: &mut Rig) -> Result<[Frame6; 2]> {
    let (client, vip, backend) = (client6(), vip6(), address6(BACKEND, 8080));
    let there = |flags| segment6(flags, client, vip);
    let back = |flags| segment6(flags, backend, client);
    rig.load([there(0x02), back(0x12), there(0x10)]);
    let begun = [(Reason::ForwardedToBackend, 2), (Reason::ForwardedToClient, 1)];
    rig.expect(Hook::Tc, 1, &begun)?;
    Ok([there(0x10), back(0x10)])
}

/// A new connection's three packets above three established ones: D4.
pub(crate) fn measure_new(report: &mut Report) -> Result<()> {
    let mut rig = Rig::new(Sizes::default(), 3 * fresh::NEW)?;
    let backends = Backends::new(100);
    let plain = backends.service(None, &[]);
    let listing = Service { access: prefixes(), ..plain.clone() };
    rig.apply(&table([
        (key(vip(0), Protocol::Tcp), plain),
        (key(vip(1), Protocol::Tcp), listing),
    ]))?;
    let (mut costs, mut listed) = (fresh::Costs::default(), fresh::Costs::default());
    for round in 1..=ROUNDS {
        crate::say(&format!("new connections, round {round} of {ROUNDS}"));
        for hook in [Hook::Tc, Hook::Xdp] {
            costs.round(&mut rig, hook, &backends, vip(0))?;
            listed.round(&mut rig, hook, &backends, vip(1))?;
        }
    }
    costs.tell(report, "table of 262,144");
    listed.tell_beside(report, "list of 10,000 prefixes", &costs);
    Ok(())
}

/// Ten thousand prefixes, half of them scattered over the clients' own network, so that most clients are found deep in the trie
/// and others behind a walk that leads nowhere; the shortest lets every client in.
fn prefixes() -> Arc<[Access]> {
    let mut prefixes = BTreeSet::from([(Ipv4Addr::new(10, 1, 0, 0), 16)]);
    for n in 0_u32.. {
        if prefixes.len() == 10_000 {
            break;
        }
        // Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, section 6.4).
        let [_, b, c, d] = n.wrapping_mul(0x9e37_79b9).to_be_bytes();
        let len = 18 + d % 13;
        let address = Ipv4Addr::new(10, if n % 2 == 0 { 1 } else { b }, c, d.reverse_bits());
        prefixes.insert((Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << (32 - len))), len));
    }
    let access = |(address, len): (Ipv4Addr, u8)| Access {
        prefix: IpNetwork::new(address.into(), len).expect("a length of IPv4"),
        is_admitted: true,
    };
    prefixes.into_iter().map(access).collect()
}
