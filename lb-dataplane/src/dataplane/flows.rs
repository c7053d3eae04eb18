//! Reading the flow tables.

use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{HashMap, Map};
use lb_dataplane_common::family::{Family, V4, V6};
use lb_dataplane_common::flow::{
    DIRECTION_TO_BACKEND, FlowEntry, FlowKey, TCP, Translation, mode_of, ticks_since,
};
use lb_dataplane_common::service::MODE_NAT;
use lb_dataplane_common::tables::TICK_SHIFT;

use super::counters::read_error;
use super::{Flow, open};
use crate::error::ReadError;
use crate::pod::Raw;
use crate::sys::{self, Cursor};
use crate::table::Protocol;

/// Entries that one system call reads.
const READ_BATCH: usize = 4096;

/// A family with a flow table.
pub(super) trait Table: Family {
    /// The map.
    const MAP: &'static str;
    /// The program that removes idle flows.
    const AGE: &'static str;

    /// A key as that program takes it.
    fn words(key: &FlowKey<Self>) -> Vec<u16>;
}

impl Table for V4 {
    const MAP: &'static str = "FLOWS";
    const AGE: &'static str = open::AGE;

    fn words(key: &FlowKey<Self>) -> Vec<u16> {
        key.to_words().to_vec()
    }
}

impl Table for V6 {
    const MAP: &'static str = "FLOWS6";
    const AGE: &'static str = open::AGE6;

    fn words(key: &FlowKey<Self>) -> Vec<u16> {
        key.to_words().to_vec()
    }
}

/// An entry of a flow table with its key.
pub(super) type Entry<A> = (FlowKey<A>, FlowEntry<A>);

pub(super) fn flows(ebpf: &Ebpf, limit: usize) -> Result<Vec<Flow>, ReadError> {
    let mut flows = Vec::new();
    read_all::<V4>(ebpf, limit, &mut flows)?;
    read_all::<V6>(ebpf, limit, &mut flows)?;
    Ok(flows)
}

fn read_all<A: Table>(ebpf: &Ebpf, limit: usize, flows: &mut Vec<Flow>) -> Result<(), ReadError> {
    let now = sys::tick();
    let back: HashMap<_, Raw<FlowKey<A>>, Raw<FlowEntry<A>>> =
        map::<A>(ebpf).try_into().map_err(read_error(A::MAP))?;
    let mut cursor = Cursor::default();
    loop {
        let (entries, over) = read::<A>(ebpf, &mut cursor, READ_BATCH)?;
        for (key, entry) in entries {
            if flows.len() == limit {
                return Ok(());
            }
            if entry.direction == DIRECTION_TO_BACKEND {
                let peer = back.get(&Raw(peer_key(&key, &entry.translation)), 0).ok();
                let idle = peer
                    .map_or(u32::MAX, |p| ticks_since(p.0.last_seen, now))
                    .min(ticks_since(entry.last_seen, now));
                flows.push(flow(&key, &entry, idle));
            }
        }
        if over {
            return Ok(());
        }
    }
}

/// The key of a flow's other direction.
fn peer_key<A: Family>(key: &FlowKey<A>, translation: &Translation<A>) -> FlowKey<A> {
    translation.key_after(key.protocol).reversed()
}

fn flow<A: Family>(key: &FlowKey<A>, entry: &FlowEntry<A>, idle_ticks: u32) -> Flow {
    let end = |address: A, port: u16| {
        let [a, b, c, d] = address.to_v6().map(|word| u128::from(u32::from_be(word)));
        let address = Ipv6Addr::from(a << 96 | b << 64 | c << 32 | d).to_canonical();
        SocketAddr::new(address, u16::from_be(port))
    };
    // A packet that reaches a backend as it came keeps its port.
    let port_there = match mode_of(entry.state) {
        MODE_NAT => entry.translation.destination_port,
        _ => key.destination_port,
    };
    Flow {
        protocol: if key.protocol() == TCP { Protocol::Tcp } else { Protocol::Udp },
        client: end(key.source, key.source_port),
        vip: end(key.destination, key.destination_port),
        backend: end(entry.translation.destination, port_there),
        idle: Duration::from_nanos(u64::from(idle_ticks) << TICK_SHIFT),
    }
}

/// The next entries of a walk, and whether it is over.
pub(super) fn read<A: Table>(
    ebpf: &Ebpf,
    cursor: &mut Cursor,
    at_most: usize,
) -> Result<(Vec<Entry<A>>, bool), ReadError> {
    let nothing = FlowKey {
        source: A::default(),
        destination: A::default(),
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        pad: 0,
    };
    let mut keys = vec![Raw(nothing); at_most];
    let untranslated = Translation::between(&nothing, &nothing);
    let mut values = vec![Raw(FlowEntry::new(untranslated, 0, 0, 0, 0)); at_most];
    let (count, over) = sys::lookup_batch(fd(map::<A>(ebpf)), cursor, &mut keys, &mut values)
        .map_err(|source| ReadError { map: A::MAP, source })?;
    let entries = keys.into_iter().zip(values).take(count).map(|(k, v)| (k.0, v.0)).collect();
    Ok((entries, over))
}

fn map<A: Table>(ebpf: &Ebpf) -> &Map {
    ebpf.map(A::MAP).expect("the object holds this map")
}

fn fd(map: &Map) -> BorrowedFd<'_> {
    let Map::HashMap(data) = map else { unreachable!("the object declares flow tables as hashes") };
    data.fd().as_fd()
}
