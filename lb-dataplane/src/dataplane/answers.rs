//! On which links this node answers who asks for the MAC of a VIP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::{HashMap, MapError};
use lb_dataplane_common::tables::AnswerKey;

use super::apply::{failed, open};
use super::interfaces;
use crate::error::ApplyError;
use crate::plan;
use crate::pod::Raw;

/// Takes in MACs of interfaces that are attached.
pub(super) fn note_macs(ebpf: &mut Ebpf, macs: &BTreeMap<u32, [u8; 6]>) -> Result<(), ApplyError> {
    for ifindex in interfaces::known(ebpf) {
        if let Some(mac) = macs.get(&ifindex) {
            interfaces::note(ebpf, ifindex, *mac).map_err(failed("IFACES"))?;
        }
    }
    Ok(())
}

/// Has the programs answer for these VIPs on the links of these interfaces, and with `exactly` for no others.
pub(super) fn set(
    ebpf: &mut Ebpf,
    wanted: &BTreeSet<(u32, IpAddr)>,
    exactly: bool,
) -> Result<(), ApplyError> {
    let mut map: HashMap<_, Raw<AnswerKey>, u32> = open(ebpf, "ANSWERS")?;
    let key = |(ifindex, address): &(u32, IpAddr)| AnswerKey {
        address: plan::words(*address),
        ifindex: *ifindex,
    };
    let wanted: BTreeSet<AnswerKey> = wanted.iter().map(key).collect();
    let there = map.keys().map(|key| key.map(|key| key.0)).collect::<Result<BTreeSet<_>, _>>();
    let there = there.map_err(failed("ANSWERS"))?;
    // First what goes: the table may be full.
    for key in there.difference(&wanted).filter(|_| exactly) {
        match map.remove(&Raw(*key)) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(failed("ANSWERS")(error)),
        }
    }
    let mut new = wanted.difference(&there);
    new.try_for_each(|key| map.insert(Raw(*key), 1, 0).map_err(failed("ANSWERS")))
}
