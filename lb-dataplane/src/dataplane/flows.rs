//! Reading the flow table.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{HashMap, Map};
use lb_dataplane_common::flow::{
    DIRECTION_TO_BACKEND, FlowEntry, FlowKey, TCP, Translation, ticks_since,
};
use lb_dataplane_common::tables::TICK_SHIFT;

use super::Flow;
use super::counters::read_error;
use crate::error::ReadError;
use crate::pod::Raw;
use crate::sys::{self, Cursor};
use crate::table::Protocol;

/// Entries that one system call reads.
const READ_BATCH: usize = 4096;

/// An entry of the flow table with its key.
pub(super) type Entry = (FlowKey, FlowEntry);

pub(super) fn flows(ebpf: &Ebpf, limit: usize) -> Result<Vec<Flow>, ReadError> {
    let now = sys::tick();
    let back: HashMap<_, Raw<FlowKey>, Raw<FlowEntry>> =
        map(ebpf).try_into().map_err(read_error("FLOWS"))?;
    let mut cursor = Cursor::default();
    let mut flows = Vec::new();
    loop {
        let (entries, over) = read(ebpf, &mut cursor, READ_BATCH)?;
        for (key, entry) in entries {
            if flows.len() == limit {
                return Ok(flows);
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
            return Ok(flows);
        }
    }
}

/// The key of a flow's other direction.
fn peer_key(key: &FlowKey, translation: &Translation) -> FlowKey {
    translation.key_after(key.protocol).reversed()
}

fn flow(key: &FlowKey, entry: &FlowEntry, idle_ticks: u32) -> Flow {
    let end = |address: u32, port: u16| {
        SocketAddr::from((Ipv4Addr::from(u32::from_be(address)), u16::from_be(port)))
    };
    Flow {
        protocol: if key.protocol == TCP { Protocol::Tcp } else { Protocol::Udp },
        client: end(key.source, key.source_port),
        vip: end(key.destination, key.destination_port),
        backend: end(entry.translation.destination, entry.translation.destination_port),
        idle: Duration::from_nanos(u64::from(idle_ticks) << TICK_SHIFT),
    }
}

/// The next entries of a walk, and whether it is over.
pub(super) fn read(
    ebpf: &Ebpf,
    cursor: &mut Cursor,
    at_most: usize,
) -> Result<(Vec<Entry>, bool), ReadError> {
    let nothing = FlowKey {
        source: 0,
        destination: 0,
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        pad: [0; 3],
    };
    let mut keys = vec![Raw(nothing); at_most];
    let untranslated = Translation::between(&nothing, &nothing);
    let mut values = vec![Raw(FlowEntry::new(untranslated, 0, 0, 0, 0)); at_most];
    let (count, over) = sys::lookup_batch(fd(map(ebpf)), cursor, &mut keys, &mut values)
        .map_err(|source| ReadError { map: "FLOWS", source })?;
    let entries = keys.into_iter().zip(values).take(count).map(|(k, v)| (k.0, v.0)).collect();
    Ok((entries, over))
}

fn map(ebpf: &Ebpf) -> &Map {
    ebpf.map("FLOWS").expect("the object holds this map")
}

fn fd(map: &Map) -> BorrowedFd<'_> {
    let Map::HashMap(data) = map else { unreachable!("the object declares FLOWS as a hash") };
    data.fd().as_fd()
}
