//! Tables with a VIP in them.

use std::cell::Cell;
use std::collections::HashMap;

use super::ModelTables;
use crate::checksum::Delta;
use crate::family::{Family, V4, V6};
use crate::fib::MemberEntry;
use crate::service::{BACKEND_IN_USE, BackendEntry, ServiceEntry, SourceList, VipKey};

/// A VIP with backends, everything sent out through interface 9.
pub(crate) fn serving(vip: [u8; 4], algorithm: u8, backends: &[[u8; 4]]) -> ModelTables {
    let bytes = |address| v6_bytes(V4::from_ne_bytes(address).to_v6());
    let backends: Vec<[u8; 16]> = backends.iter().map(|address| bytes(*address)).collect();
    serving_any(bytes(vip), algorithm, &backends)
}

/// The same for either family.
pub(crate) fn serving_any(vip: [u8; 16], algorithm: u8, backends: &[[u8; 16]]) -> ModelTables {
    let entry = |id: usize| BackendEntry {
        address: backends[id],
        port: 8080_u16.to_be_bytes(),
        flags: BACKEND_IN_USE,
        weight: 1,
        service: 0,
        sources: SourceList::default(),
        max_flows: 0,
        idle: 0,
        vip: [0; 16],
        vip_port: [0; 2],
        protocol: 0,
        pad: 0,
        line: 0,
        load: 0,
    };
    let ring_len = backends.len() as u32;
    let service = ServiceEntry {
        id: 0,
        ring_base: 0,
        ring_len,
        algorithm,
        flags: 0,
        mode: 0,
        on_exhaustion: 0,
        affinity: 0,
        max_flows: 0,
        max_flows_per_client: 0,
        mss: 0,
        generation: 0,
    };
    let vip = V6::from_bytes(vip);
    let key =
        |port: u16, protocol| VipKey { address: vip, port: port.to_be_bytes(), protocol, pad: 0 };
    let address = ServiceEntry { id: u32::MAX, ring_len: 0, flags: 1, ..service };
    ModelTables {
        capacity: 64,
        services: HashMap::from([
            (key(80, 6), service),
            (key(80, 17), service),
            (key(0, 0), address),
        ]),
        rings: (0..ring_len).collect(),
        backends: (0..backends.len()).map(entry).collect(),
        member: MemberEntry {
            ifindex: 9,
            flags: crate::fib::MEMBER_RESOLVED,
            mtu: 1500,
            source_mac: [2, 0, 0, 0, 0, 8],
            destination_mac: [2, 0, 0, 0, 0, 80],
            ..MemberEntry::default()
        },
        clock: Cell::new(1000),
        ..ModelTables::default()
    }
}

/// The two forms of zero aside, whether a plain sum (not complemented) stands for these words.
pub(crate) fn folded(words: &[u16]) -> u16 {
    words.iter().fold(Delta::default(), |sum, word| sum.and(Delta(*word))).0
}

fn v6_bytes(address: V6) -> [u8; 16] {
    let [a, b, c, d] = address.map(u32::to_ne_bytes);
    [a, b, c, d].concat().try_into().unwrap_or_default()
}
