//! The counts of clients' flows that a process finds.

use aya::Ebpf;
use aya::maps::HashMap;
use lb_dataplane_common::service::AffinityKey;

use super::ClientPrefixes;
use super::apply::{failed, open};
use crate::error::ApplyError;
use crate::pod::Raw;

const CLIENT_FLOWS: &str = "CLIENT_FLOWS";
/// Where a key says how many bits of addresses clients go by.
const BITS: u32 = 0xffff_0000;

/// Takes out what was counted by other bits of addresses than now: nobody would count it out again.
pub(super) fn forget_others(ebpf: &mut Ebpf, prefixes: ClientPrefixes) -> Result<(), ApplyError> {
    let mut map: HashMap<_, Raw<AffinityKey>, u64> = open(ebpf, CLIENT_FLOWS)?;
    let is_other = |key: &AffinityKey| key.service & BITS != prefixes.bits();
    let keys = map.keys().filter(|key| key.as_ref().map_or(true, |Raw(key)| is_other(key)));
    let others: Vec<_> = keys.collect::<Result<_, _>>().map_err(failed(CLIENT_FLOWS))?;
    for key in others {
        // What has gone meanwhile is gone.
        let _gone = map.remove(&key);
    }
    Ok(())
}
