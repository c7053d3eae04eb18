//! The counts of clients' flows that a process finds.

use aya::Ebpf;
use aya::maps::HashMap;
use lb_dataplane_common::service::{AffinityKey, CLIENT_REMOVED};

use super::apply::{failed, open};
use crate::error::ApplyError;
use crate::pod::Raw;
use crate::sys;

const CLIENT_FLOWS: &str = "CLIENT_FLOWS";

/// Takes out entries that are marked as about to be removed, and stay so: no packet is about to do it any more after a grace period.
/// What was counted by other prefixes than now goes with the flows that it counts.
pub(super) fn forget_removed(ebpf: &mut Ebpf) -> Result<(), ApplyError> {
    let mut map: HashMap<_, Raw<AffinityKey>, u64> = open(ebpf, CLIENT_FLOWS)?;
    let is_marked = |word: u64| word as u32 & CLIENT_REMOVED != 0;
    let entries =
        map.iter().filter(|entry| entry.as_ref().map_or(true, |(_, word)| is_marked(*word)));
    let marked: Vec<_> = entries.collect::<Result<_, _>>().map_err(failed(CLIENT_FLOWS))?;
    if !marked.is_empty() {
        sys::grace_period().map_err(ApplyError::Grace)?;
    }
    for (key, _) in marked {
        if map.get(&key, 0).is_ok_and(is_marked) {
            let _gone = map.remove(&key);
        }
    }
    Ok(())
}
