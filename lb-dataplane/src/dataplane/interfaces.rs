//! What the programs know of the interfaces that they are attached to: MACs, and where each is counted.

use std::collections::BTreeSet;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues};
use lb_dataplane_common::reason::{
    INTERFACE_KNOWN, INTERFACE_PLACES, MAX_PLACED_IFINDEX, REASON_PLACES, ReasonCounts,
};

use super::counters::read_error;
use crate::error::ReadError;
use crate::pod::Raw;

/// Entries of `IFACES`: six bytes of MAC and two of the place in the counters.
type Known<M> = HashMap<M, u32, [u8; 8]>;

/// The interfaces that are known.
pub(super) fn known(ebpf: &mut Ebpf) -> Vec<u32> {
    let Ok(known) = known_mut(ebpf) else { return Vec::new() };
    known.keys().filter_map(Result::ok).collect()
}

/// The places of those that are counted by themselves.
pub(super) fn places(ebpf: &Ebpf) -> Result<Vec<(u32, usize)>, ReadError> {
    let map = ebpf.map("IFACES").expect("the object holds this map");
    let known: Known<_> = map.try_into().map_err(read_error("IFACES"))?;
    let placed = known.iter().filter_map(Result::ok).map(|(index, entry)| (index, place(entry)));
    Ok(placed.filter(|(_, place)| *place != 0).map(|(i, place)| (i, place.into())).collect())
}

/// Makes an interface known. It keeps its place; a new one begins to count at zero.
pub(super) fn note(ebpf: &mut Ebpf, ifindex: u32, mac: [u8; 6]) -> Result<(), MapError> {
    let known = known_mut(ebpf)?;
    let place = match known.get(&ifindex, 0) {
        Ok(entry) => place(entry),
        Err(_) if ifindex < MAX_PLACED_IFINDEX => {
            let used: BTreeSet<u16> =
                known.iter().filter_map(Result::ok).map(|(_, entry)| place(entry)).collect();
            let free = (1..INTERFACE_PLACES as u16).find(|place| !used.contains(place));
            let place = free.unwrap_or(0);
            if place != 0 {
                clear(ebpf, place.into())?;
            }
            place
        }
        Err(_) => 0,
    };
    let [a, b, c, d, e, f] = mac;
    let [p, q] = place.to_ne_bytes();
    known_mut(ebpf)?.insert(ifindex, [a, b, c, d, e, f, p, q], 0)?;
    let [p, q] = (place | INTERFACE_KNOWN).to_ne_bytes();
    set_near(ebpf, ifindex, [a, b, c, d, e, f, p, q])
}

/// Forgets one that is not attached any more; what stays is tried again with the next interface.
pub(super) fn forget(ebpf: &mut Ebpf, ifindex: u32) {
    let _not_counted_by_itself = set_near(ebpf, ifindex, [0; 8]);
    if let Ok(mut known) = known_mut(ebpf) {
        let _was_not_there = known.remove(&ifindex);
    }
}

fn place([.., p, q]: [u8; 8]) -> u16 {
    u16::from_ne_bytes([p, q])
}

fn known_mut(ebpf: &mut Ebpf) -> Result<Known<&mut MapData>, MapError> {
    ebpf.map_mut("IFACES").expect("the object holds this map").try_into()
}

fn set_near(ebpf: &mut Ebpf, ifindex: u32, entry: [u8; 8]) -> Result<(), MapError> {
    if ifindex >= MAX_PLACED_IFINDEX {
        return Ok(());
    }
    let map = ebpf.map_mut("NEAR_IFACES").expect("the object holds this map");
    Array::<_, [u8; 8]>::try_from(map)?.set(ifindex, entry, 0)
}

/// Begins to count anew at a place; what was counted there goes to the place of all others, so that no sum ever shrinks.
fn clear(ebpf: &mut Ebpf, place: u32) -> Result<(), MapError> {
    let map = ebpf.map_mut("REASONS").expect("the object holds this map");
    let mut counts = PerCpuArray::<_, Raw<ReasonCounts>>::try_from(map)?;
    for reason in 0..REASON_PLACES {
        let here = place * REASON_PLACES + reason;
        let old = counts.get(&here, 0)?;
        if old.iter().all(|count| count.0.packets == 0) {
            continue;
        }
        let others = counts.get(&reason, 0)?;
        let sum = others.iter().zip(old.iter()).map(|(a, b)| {
            Raw(ReasonCounts { packets: a.0.packets + b.0.packets, bytes: a.0.bytes + b.0.bytes })
        });
        let nothing = vec![Raw(ReasonCounts::default()); old.len()];
        let values = |values| PerCpuValues::try_from(values).map_err(MapError::IoError);
        counts.set(reason, values(sum.collect())?, 0)?;
        counts.set(here, values(nothing)?, 0)?;
    }
    Ok(())
}
