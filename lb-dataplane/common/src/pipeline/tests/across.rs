//! A VIP of one family and backends of the other, beside a naive NAT.

use std::collections::BTreeMap;

use super::*;
use crate::service::{SourceEntry, SourceList};

/// First of four ports that flows come from.
const FIRST_PORT: u16 = 2000;

fn source(v6: bool) -> IpAddr {
    address([192, 0, 2, 9], v6)
}

fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Clients are of IPv6 if `v6`, and backends are not.
pub(super) fn world(algorithm: u8, v6: bool) -> ModelTables {
    let mut tables = serving_any(bytes(vip(v6).ip()), algorithm, &backends(!v6).map(bytes));
    let address = bytes(source(!v6));
    let ports = SourceEntry { address, first_port: FIRST_PORT, more_ports: 3, pad: 0 };
    tables.sources = vec![ports];
    tables.backends.iter_mut().for_each(|backend| backend.sources = SourceList::new(0, 1));
    tables
}

/// A packet from one of few clients to the VIP, or from a backend to one of few ports of the source.
pub(super) fn any_packet(v6: bool) -> impl Strategy<Value = Frame> {
    let ends = move |port, way| match backends(!v6).get(way) {
        Some(backend) => {
            (SocketAddr::new(*backend, 8080), SocketAddr::new(source(!v6), FIRST_PORT + port))
        }
        None => (SocketAddr::new(address([10, 1, 0, 1], v6), 1000 + port), vip(v6)),
    };
    packet_between(ends).prop_map(|frame| {
        // There are none without a checksum in IPv6.
        let is_udp = matches!(frame.carries, Carries::Udp { .. }) && frame.from.is_ipv6();
        Frame { carries: if is_udp { UDP } else { frame.carries }, ..frame }
    })
}

/// A NAT between the families as one would write it on a napkin.
#[derive(Default)]
struct Napkin {
    /// Client and protocol to source and backend.
    there: BTreeMap<(SocketAddr, bool), (SocketAddr, SocketAddr)>,
    /// Source, backend and protocol to client.
    back: BTreeMap<(SocketAddr, SocketAddr, bool), SocketAddr>,
}

impl Napkin {
    #[expect(clippy::wildcard_enum_match_arm, reason = "any other reason is a failure")]
    fn check(&mut self, frame: &Frame, reason: Reason, out: &Frame) -> Result<(), TestCaseError> {
        let is_tcp = matches!(frame.carries, Carries::Tcp { .. });
        let mut expected = Frame {
            ttl: frame.ttl.wrapping_sub(1),
            options: Vec::new(),
            destination_mac: [2, 0, 0, 0, 0, 80],
            source_mac: [2, 0, 0, 0, 0, 8],
            ..frame.clone()
        };
        match reason {
            Reason::ForwardedToBackend => {
                let known = self.there.entry((frame.from, is_tcp)).or_insert((out.from, out.to));
                if frame.carries == SYN && *known != (out.from, out.to) {
                    self.back.remove(&(known.0, known.1, is_tcp));
                    *known = (out.from, out.to);
                }
                let way = (known.0, known.1, is_tcp);
                let client = *self.back.entry(way).or_insert(frame.from);
                prop_assert_eq!(client, frame.from, "two clients have one port");
                (expected.from, expected.to) = *known;
                if frame.carries == (Carries::Udp { checksum: false }) {
                    expected.carries = UDP;
                }
            }
            Reason::ForwardedToClient => {
                let client = self.back.get(&(frame.to, frame.from, is_tcp));
                prop_assert!(client.is_some(), "an answer of no flow");
                (expected.from, expected.to) =
                    (vip(out.from.is_ipv6()), *client.unwrap_or(&frame.to));
                if frame.carries == (Carries::Udp { checksum: false }) {
                    expected.carries = UDP;
                }
            }
            // A backend's packet of no flow is routed like any other.
            Reason::Forwarded => expected.options.clone_from(&frame.options),
            // What a router minds, the kernel minds.
            Reason::IpOptions => {
                prop_assert!(frame.from.is_ipv4() && !frame.options.is_empty());
                expected = frame.clone();
            }
            Reason::FlowTtlExpired | Reason::TtlExpired => {
                prop_assert_eq!(frame.ttl, 1);
                expected = frame.clone();
            }
            Reason::UnknownFlow | Reason::NoSourcePort => expected = frame.clone(),
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
        // A flow whose first packet ends here has chosen, unseen.
        let frame = Frame { ttl: frame.ttl.max(2), ..frame.clone() };
        let mut packet = hold::<TC>(&frame, *held);
        let outcome = process(&mut packet, tables);
        napkin.check(&frame, outcome.reason, &on_the_wire(packet, &frame))?;
    }
    prop_assert_eq!(tables.v4.flows.borrow().len(), tables.v6.flows.borrow().len());
    Ok(())
}

proptest! {
    #[test]
    fn any_conversation_crosses_as_a_naive_nat_would_have_it(
        (v6, packets) in any::<bool>().prop_flat_map(|v6| {
            (Just(v6), prop::collection::vec((any_packet(v6), held()), 1..60))
        }),
        algorithm in prop::sample::select(vec![ALGORITHM_MAGLEV, ALGORITHM_ROUND_ROBIN]),
    ) {
        agree::<true>(&world(algorithm, v6), &packets)?;
        agree::<false>(&world(algorithm, v6), &packets)?;
    }
}

/// RFC 7915 §5.1 goes by the packets that were on the wire, and that will be.
#[test]
fn segments_that_a_sender_need_not_make_shorter_may_be_fragmented_however_many_were_merged() {
    const DONT_FRAGMENT: u16 = 0x4000;
    for (payload, expected) in [(0, DONT_FRAGMENT), (1200, 0), (1232, 0), (1233, DONT_FRAGMENT)] {
        let tables = world(ALGORITHM_MAGLEV, true);
        let (from, to) = (SocketAddr::new(address([10, 1, 0, 1], true), 1000), vip(true));
        let frame = Frame { from, to, ..packet(UDP, "0.0.0.0:0", "0.0.0.0:0") };
        let mut merged = ModelPacket::<true>::new(frame.payload(1440).bytes());
        merged.segment_payload = payload;
        assert_eq!(process(&mut merged, &tables).reason, Reason::ForwardedToBackend);
        let [flags] = merged.read(20).expect("a header");
        assert_eq!(u16::from_be(flags), expected, "{payload}");
        let [number] = merged.read(18).expect("a header");
        assert_eq!(number == 0, expected != 0, "{payload}: what may be fragmented has one");
    }
}
