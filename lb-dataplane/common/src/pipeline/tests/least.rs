//! Least connections: how far the fullest backend is from the average, however many there are, and while connections come and go.

use std::collections::VecDeque;

use super::*;
use crate::frame::RST_ACK;
use crate::service::ALGORITHM_LEAST_CONNECTIONS;

/// Weights in turns, each backend's as often as its weight says.
fn world_of(weights: &[u8], v6: bool) -> ModelTables {
    let backends: Vec<[u8; 16]> = (0..weights.len())
        .map(|n| match address([10, 2, (n >> 8) as u8, n as u8], v6) {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        })
        .collect();
    let vip = match vip(v6).ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let mut tables = serving_any(vip, ALGORITHM_LEAST_CONNECTIONS, &backends);
    tables.capacity = 1 << 20;
    let most = weights.iter().copied().max().unwrap_or(1);
    let turns = (0..most).flat_map(|turn| {
        (0_u32..).zip(weights).filter(move |(_, weight)| turn < **weight).map(|(place, _)| place)
    });
    tables.rings = turns.collect();
    let ring_len = tables.rings.len() as u32;
    tables.services.values_mut().for_each(|s| s.ring_len = s.ring_len.min(1) * ring_len);
    tables.backends.iter_mut().zip(weights).for_each(|(b, weight)| b.weight = *weight);
    // None of these flows has to make room for another.
    fn enlarge<T: Copy>(ring: &mut VecDeque<T>) {
        let first = ring[0];
        ring.resize(1 << 16, first);
    }
    enlarge(&mut tables.v4.half_open.borrow_mut());
    enlarge(&mut tables.v6.half_open.borrow_mut());
    tables
}

fn client(n: u32, v6: bool) -> SocketAddr {
    let [_, a, b, c] = n.to_be_bytes();
    SocketAddr::new(address([10, 100, a, b], v6), 40_000 + u16::from(c))
}

/// Begins a connection; whose it is.
fn begin(tables: &ModelTables, n: u32, v6: bool) -> SocketAddr {
    let mut packet = ModelPacket::<true>::new(packet_of(SYN, client(n, v6), vip(v6)));
    assert_eq!(process(&mut packet, tables).reason, Reason::ForwardedToBackend);
    Frame::parse(&packet.bytes).to
}

fn packet_of(carries: Carries, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    packet(carries, &from.to_string(), &to.to_string()).bytes()
}

/// The most and the fewest connections of a backend for its share.
fn spread(tables: &ModelTables, weights: &[u8], connections: u32) -> [f64; 2] {
    let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let loads = tables.loads.borrow();
    let off = (0_u32..).zip(weights).map(|(backend, weight)| {
        let share = f64::from(connections) * f64::from(*weight) / sum;
        loads.get(&backend).copied().unwrap_or(0) as f64 - share
    });
    off.fold([0.0; 2], |[most, fewest], off| [off.max(most), off.min(fewest)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Of n backends, the fullest of two choices has ln ln n / ln 2 more than the average, and a constant (Azar et al. 1994), however
    /// many connections there are (Berenbrink et al. 2000) and while some end and others begin; by chance alone it grows with the
    /// root of the connections.
    #[test]
    fn the_fullest_backend_is_near_the_average_while_connections_come_and_go(
        v6: bool,
        count in prop_oneof![2_usize..10, 10_usize..100, 100_usize..400],
        each in 4_u32..24,
        ends in prop::collection::vec(any::<prop::sample::Index>(), 200),
    ) {
        let weights = vec![1; count];
        let tables = world_of(&weights, v6);
        let connections = each * count as u32;
        let mut open: Vec<_> = (0..connections).map(|n| (n, begin(&tables, n, v6))).collect();
        let most = (count as f64).log2().max(1.0).log2() + 3.0;
        let [above, _] = spread(&tables, &weights, connections);
        prop_assert!(above <= most, "{above} above the average of {each} of {count} backends");
        for (n, end) in (connections..).zip(ends) {
            let (gone, backend) = open.swap_remove(end.index(open.len()));
            let mut reset = ModelPacket::<true>::new(packet_of(RST_ACK, backend, client(gone, v6)));
            prop_assert_eq!(process(&mut reset, &tables).reason, Reason::ForwardedToClient);
            open.push((n, begin(&tables, n, v6)));
        }
        let [above, _] = spread(&tables, &weights, connections);
        prop_assert!(above <= most, "{above} above the average of {each} of {count} backends, later");
    }

    #[test]
    fn loads_follow_the_weights(
        v6: bool,
        weights in prop::collection::vec(1_u8..=8, 2..60),
        each in 4_u32..12,
    ) {
        let tables = world_of(&weights, v6);
        let connections = each * weights.iter().map(|weight| u32::from(*weight)).sum::<u32>();
        for n in 0..connections {
            begin(&tables, n, v6);
        }
        let [above, below] = spread(&tables, &weights, connections);
        // A connection weighs as much as its backend's weight is small.
        prop_assert!(above <= 8.0 && below >= -12.0, "{above} above, {below} below: {weights:?}");
    }
}

#[test]
fn of_as_many_backends_as_a_service_may_have_none_is_far_above_the_average() {
    let weights = vec![1; 4096];
    let tables = world_of(&weights, false);
    for n in 0..4 * 4096 {
        begin(&tables, n, false);
    }
    let [above, _] = spread(&tables, &weights, 4 * 4096);
    assert!(above <= 5.0, "{above} above the average of 4");
}
