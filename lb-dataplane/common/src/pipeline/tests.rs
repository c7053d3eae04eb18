use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::frame::{ACK, Carries, FIN, Frame, RST, SYN, SYN_ACK, UDP, packet};
use crate::model::{ModelPacket, ModelTables, folded, process, serving, serving_any};
use crate::reason::{Contract, Kind};
use crate::service::{ALGORITHM_MAGLEV, ALGORITHM_ROUND_ROBIN, MODE_GUE, MODE_IP_IN_IP, MODE_L2};

const VIP: [u8; 4] = [192, 0, 2, 1];
const BACKENDS: [[u8; 4]; 3] = [[10, 2, 0, 1], [10, 2, 0, 2], [10, 2, 0, 3]];

/// An address, in IPv6 the same behind a prefix.
fn address(v4: [u8; 4], v6: bool) -> IpAddr {
    let [a, b, c, d] = v4;
    if v6 { [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d].into() } else { v4.into() }
}

fn vip(v6: bool) -> SocketAddr {
    SocketAddr::new(address(VIP, v6), 80)
}

fn backends(v6: bool) -> [IpAddr; 3] {
    BACKENDS.map(|backend| address(backend, v6))
}

/// The VIP of this family.
fn world(algorithm: u8, v6: bool) -> ModelTables {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    serving_any(bytes(vip(v6).ip()), algorithm, &backends(v6).map(bytes))
}

/// How the kernel may hold a packet.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Bytes in place at first.
    linear: usize,
    /// The checksum is left to the device.
    partial: bool,
}

fn held() -> impl Strategy<Value = Held> {
    (14_usize..200, any::<bool>()).prop_map(|(linear, partial)| Held { linear, partial })
}

/// A packet from one of few clients to the VIP, or from a backend to one of them.
fn any_packet(v6: bool) -> impl Strategy<Value = Frame> {
    packet_between(move |port, way| {
        let client = SocketAddr::new(address([10, 1, 0, 1], v6), 1000 + port);
        match backends(v6).get(way) {
            Some(backend) => (SocketAddr::new(*backend, 8080), client),
            None => (client, vip(v6)),
        }
    })
}

/// A packet of any kind between two ends, chosen by one of four ports and one of four ways.
fn packet_between(
    ends: impl Fn(u16, usize) -> (SocketAddr, SocketAddr),
) -> impl Strategy<Value = Frame> {
    let carries = prop::sample::select(vec![
        SYN,
        SYN_ACK,
        ACK,
        FIN,
        RST,
        UDP,
        Carries::Udp { checksum: false },
    ]);
    let payload = prop::collection::vec(any::<u8>(), 0..100);
    let options = prop::sample::select(vec![0_usize, 8, 40]);
    (carries, 0_u16..4, 0_usize..4, payload, options, 1_u8..=255).prop_map(
        move |(carries, port, way, payload, options, ttl)| {
            let (from, to) = ends(port, way);
            let frame = packet(carries, "0.0.0.0:0", "0.0.0.0:0").ttl(ttl);
            Frame { from, to, payload, options: vec![1; options], ..frame }
        },
    )
}

/// Where the transport's header begins in a frame.
fn transport_at(frame: &Frame) -> usize {
    let header_len = if frame.from.is_ipv6() { 40 } else { 20 };
    14 + header_len + frame.options.len()
}

/// The packet as the kernel holds it.
fn hold<const TC: bool>(frame: &Frame, held: Held) -> ModelPacket<TC> {
    let mut packet = ModelPacket::new(frame.bytes());
    packet.linear = held.linear.min(packet.bytes.len());
    let checksum_at = match frame.carries {
        Carries::Tcp { .. } => 16,
        Carries::Udp { checksum: true } => 6,
        Carries::Udp { checksum: false }
        | Carries::Sctp { .. }
        | Carries::Icmp { .. }
        | Carries::Other(_) => {
            return packet;
        }
    };
    let transport_at = transport_at(frame);
    if held.partial && TC {
        let at = transport_at + checksum_at;
        let transport_len = (packet.bytes.len() - transport_at) as u16;
        let protocol = if checksum_at == 16 { 6_u16 } else { 17 };
        let word = |at: usize| u16::from_ne_bytes([packet.bytes[at], packet.bytes[at + 1]]);
        let addresses = if frame.from.is_ipv6() { 22..54 } else { 26..34 };
        let mut words: Vec<u16> = addresses.step_by(2).map(word).collect();
        words.extend([protocol.to_be(), transport_len.to_be()]);
        packet.bytes[at..at + 2].copy_from_slice(&folded(&words).to_ne_bytes());
        packet.partial = Some(at);
    }
    packet
}

/// The packet as it leaves the device, which completes what was left to it.
fn on_the_wire<const TC: bool>(mut packet: ModelPacket<TC>, frame: &Frame) -> Frame {
    if let Some(at) = packet.partial {
        let checksum_at = if matches!(frame.carries, Carries::Tcp { .. }) { 16 } else { 6 };
        let transport = &packet.bytes[at - checksum_at..];
        let mut words: Vec<u16> = transport
            .chunks(2)
            .map(|w| u16::from_ne_bytes([w[0], w.get(1).copied().unwrap_or(0)]))
            .collect();
        // The field holds the pseudo-header's sum, so summing it along is all there is to do (RFC 1071).
        let checksum = match !folded(&std::mem::take(&mut words)) {
            0 if matches!(frame.carries, Carries::Udp { .. }) => 0xffff,
            other => other,
        };
        packet.bytes[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
    }
    Frame::parse(&packet.bytes)
}

/// A NAT as one would write it on a napkin.
#[derive(Default)]
struct Napkin {
    /// Client and protocol to backend.
    flows: std::collections::BTreeMap<(SocketAddr, bool), SocketAddr>,
}

impl Napkin {
    /// What is to become of a packet that was forwarded to `backend`, or that came from one.
    #[expect(clippy::wildcard_enum_match_arm, reason = "any other reason is a failure")]
    fn check(&mut self, frame: &Frame, reason: Reason, out: &Frame) -> Result<(), TestCaseError> {
        let is_tcp = matches!(frame.carries, Carries::Tcp { .. });
        let v6 = frame.from.is_ipv6();
        let mut expected = Frame { ttl: frame.ttl.wrapping_sub(1), ..frame.clone() };
        expected.destination_mac = [2, 0, 0, 0, 0, 80];
        expected.source_mac = [2, 0, 0, 0, 0, 8];
        match reason {
            Reason::ForwardedToBackend => {
                prop_assert_eq!(frame.to, vip(v6));
                prop_assert!(backends(v6).contains(&out.to.ip()));
                let anew = frame.carries == SYN;
                let known = self.flows.entry((frame.from, is_tcp)).or_insert(out.to);
                if anew {
                    *known = out.to;
                }
                expected.to = *known;
            }
            Reason::ForwardedToClient => {
                prop_assert_eq!(self.flows.get(&(frame.to, is_tcp)), Some(&frame.from));
                expected.from = vip(v6);
            }
            // A backend's packet of no flow is routed like any other.
            Reason::Forwarded => prop_assert_ne!(frame.to, vip(v6)),
            // What a router minds, the kernel minds.
            Reason::IpOptions => {
                prop_assert!(frame.from.is_ipv4() && !frame.options.is_empty());
                expected = frame.clone();
            }
            Reason::FlowTtlExpired | Reason::TtlExpired => {
                prop_assert_eq!(frame.ttl, 1);
                expected = frame.clone();
            }
            Reason::UnknownFlow => {
                prop_assert!(is_tcp);
                expected = frame.clone();
            }
            other => prop_assert!(false, "{:?} {:?}", other, frame),
        }
        prop_assert_eq!(out, &expected);
        Ok(())
    }
}

fn agree<const TC: bool>(
    tables: &ModelTables,
    packets: &[(Frame, Held)],
) -> Result<(), TestCaseError> {
    let mut napkin = Napkin::default();
    for (frame, held) in packets {
        let mut packet = hold::<TC>(frame, *held);
        let outcome = process(&mut packet, tables);
        prop_assert_eq!(tables.counted.borrow_mut().pop(), Some(outcome.reason), "counted once");
        prop_assert!(tables.counted.borrow().is_empty());
        let forwarded = outcome.reason.kind() == Kind::Forward;
        prop_assert_eq!(outcome.way.ifindex, if forwarded { 9 } else { 0 });
        let is_flow_to_be =
            outcome.reason == Reason::FlowTtlExpired && frame.to == vip(frame.from.is_ipv6());
        if is_flow_to_be {
            // The flow has begun though its first packet ended here: what it chose is not seen. Start over.
            tables.v4.flows.borrow_mut().clear();
            tables.v6.flows.borrow_mut().clear();
            napkin = Napkin::default();
            continue;
        }
        napkin.check(frame, outcome.reason, &on_the_wire(packet, frame))?;
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_conversation_is_translated_as_a_naive_nat_would(
        packets in prop::collection::vec((any_packet(false), held()), 1..60),
        algorithm in prop::sample::select(vec![ALGORITHM_MAGLEV, ALGORITHM_ROUND_ROBIN]),
    ) {
        agree::<true>(&world(algorithm, false), &packets)?;
        agree::<false>(&world(algorithm, false), &packets)?;
    }

    #[test]
    fn any_conversation_in_ipv6_too(
        packets in prop::collection::vec((any_packet(true), held()), 1..60),
        algorithm in prop::sample::select(vec![ALGORITHM_MAGLEV, ALGORITHM_ROUND_ROBIN]),
    ) {
        agree::<true>(&world(algorithm, true), &packets)?;
        agree::<false>(&world(algorithm, true), &packets)?;
    }

    #[test]
    fn no_bytes_make_the_pipeline_stumble(
        mut bytes in prop::collection::vec(any::<u8>(), 0..160),
        v6: bool,
    ) {
        let (ethertype, version) = if v6 { ([0x86, 0xdd], 0x60) } else { ([8, 0], 0x40) };
        if let Some(addressed) = bytes.get_mut(..14) {
            addressed[..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6]);
            addressed[12..].copy_from_slice(&ethertype);
        }
        if let Some(first) = bytes.get_mut(14) {
            *first = version | *first & 15;
        }
        let tables = serving(VIP, ALGORITHM_MAGLEV, &BACKENDS);
        let mut packet = ModelPacket::<true>::new(bytes.clone());
        let outcome = process(&mut packet, &tables);
        let passed_as_it_came = outcome.reason.kind() == Kind::Pass
            && outcome.reason.contract() == Contract::Original;
        if passed_as_it_came {
            prop_assert_eq!(packet.bytes, bytes);
        }
    }
}

mod across;
mod anew;
mod established;
mod least;
mod together;

#[test]
fn a_packet_that_the_kernel_is_to_send_is_handed_over_rewritten() {
    let mut tables = serving(VIP, ALGORITHM_MAGLEV, &BACKENDS[..1]);
    tables.member.flags = 0;
    let frame = packet(SYN, "10.1.0.1:1000", "192.0.2.1:80");
    let rewritten = Frame { to: "10.2.0.1:8080".parse().expect("an address"), ..frame.clone() };

    let mut at_tc = ModelPacket::<true>::new(frame.bytes());
    let outcome = process(&mut at_tc, &tables);
    assert_eq!(outcome.reason, Reason::FlowThroughNeighbour);
    assert_eq!(outcome.way.next_hop[0].to_ne_bytes(), [10, 2, 0, 1]);
    assert_eq!(Frame::parse(&at_tc.bytes), rewritten.clone().ttl(63));

    let mut at_xdp = ModelPacket::<false>::new(frame.bytes());
    assert_eq!(process(&mut at_xdp, &tables).reason, Reason::FlowNextHopUnresolved);
    assert_eq!(Frame::parse(&at_xdp.bytes), rewritten);
}

#[test]
fn a_full_table_leaves_no_half_flow() {
    let mut tables = serving(VIP, ALGORITHM_MAGLEV, &BACKENDS);
    tables.capacity = 3;
    let send = |client: u16| {
        let mut frame = packet(SYN, "10.1.0.1:0", "192.0.2.1:80");
        frame.from.set_port(client);
        process(&mut ModelPacket::<true>::new(frame.bytes()), &tables).reason
    };
    assert_eq!(send(1), Reason::ForwardedToBackend);
    assert_eq!(send(2), Reason::FlowTableFull);
    assert_eq!(tables.keys().len(), 2);
}

#[test]
fn no_flow_begins_in_a_tunnel_whose_own_address_is_not_known() {
    for (mode, expected) in [
        (MODE_L2, Reason::ForwardedDirectly),
        (MODE_IP_IN_IP, Reason::NoBackend),
        (MODE_GUE, Reason::NoBackend),
    ] {
        let mut tables = serving(VIP, ALGORITHM_MAGLEV, &BACKENDS);
        tables.services.values_mut().for_each(|service| service.mode = mode as u8);
        let frame = packet(SYN, "10.1.0.1:1000", "192.0.2.1:80");
        let outcome = process(&mut ModelPacket::<true>::new(frame.bytes()), &tables);
        assert_eq!(outcome.reason, expected, "{mode}");
    }
}

#[test]
fn no_flow_begins_by_an_entry_that_is_replaced_while_it_is_read() {
    let mut ends = Vec::new();
    for step in 0..32 {
        let mut tables = serving(VIP, ALGORITHM_MAGLEV, &BACKENDS[..2]);
        tables.services.values_mut().for_each(|service| service.ring_len = 1);
        tables.services_after = tables.services.clone();
        tables.services_after.values_mut().for_each(|service| {
            (service.id, service.ring_base, service.generation) = (1, 1, 1);
        });
        *tables.interruption.borrow_mut() = Some((step, Box::new(|t| t.are_replaced.set(true))));
        let frame = packet(SYN, "10.1.0.1:1000", "192.0.2.1:80");
        let outcome = process(&mut ModelPacket::<true>::new(frame.bytes()), &tables);
        let begun = tables.keys().first().map(|key| {
            let entry = &tables.v4.flows.borrow()[key];
            (entry.service(), tables.backend_of(entry.line()))
        });
        assert!(matches!(begun, None | Some((0, 0) | (1, 1))), "{step}: {begun:?}");
        assert_eq!(begun.is_none(), outcome.reason == Reason::ServiceChanging, "{step}");
        ends.push(begun);
    }
    assert!(ends.contains(&None) && ends.contains(&Some((0, 0))) && ends.contains(&Some((1, 1))));
}
