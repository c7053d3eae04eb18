//! The counts of clients' flows that a process finds.

use aya::Ebpf;
use aya::maps::HashMap;
use lb_dataplane_common::service::{AffinityKey, CLIENT_REMOVED};

use super::apply::{failed, open};
use super::{AgePart, ClientPrefixes};
use crate::error::ApplyError;
use crate::pod::Raw;
use crate::sys;

const CLIENT_FLOWS: &str = "CLIENT_FLOWS";
/// Where a key says how many bits of addresses clients go by.
const BITS: u32 = 0xffff_0000;

/// By what clients are counted, and whether programs may have counted by something else.
#[derive(Debug)]
pub(super) struct Clients {
    prefixes: ClientPrefixes,
    is_due: bool,
}

impl Clients {
    /// What is left is taken out: what was counted by other bits, and entries that a packet was about to remove and could not.
    pub(super) fn adopt(ebpf: &mut Ebpf, prefixes: ClientPrefixes) -> Result<Self, ApplyError> {
        let mut clients = Self { prefixes, is_due: true };
        clients.forget_others(ebpf)?;
        forget_removed(ebpf)?;
        Ok(clients)
    }

    /// An interface has the programs of this process in the place of those that it may have had before, which may have counted by
    /// other bits until then.
    pub(super) fn replaced(&mut self) {
        self.is_due = true;
    }

    /// After the last part of a walk over the flows: takes out what was counted by other bits until interfaces had the programs of this
    /// process. What cannot be taken out now is after the next walk.
    pub(super) fn follow(&mut self, part: &AgePart, ebpf: &mut Ebpf) {
        if part.is_last() && self.is_due {
            let _due = self.forget_others(ebpf);
        }
    }

    /// Takes out what was counted by other bits of addresses than now: nobody would count it out again.
    fn forget_others(&mut self, ebpf: &mut Ebpf) -> Result<(), ApplyError> {
        let mut map: HashMap<_, Raw<AffinityKey>, u64> = open(ebpf, CLIENT_FLOWS)?;
        let is_other = |key: &AffinityKey| key.service & BITS != self.prefixes.bits();
        let keys = map.keys().filter(|key| key.as_ref().map_or(true, |Raw(key)| is_other(key)));
        let others: Vec<_> = keys.collect::<Result<_, _>>().map_err(failed(CLIENT_FLOWS))?;
        for key in others {
            // What has gone meanwhile is gone.
            let _gone = map.remove(&key);
        }
        self.is_due = false;
        Ok(())
    }
}

/// Takes out entries that are marked as about to be removed, and stay so: no packet is about to do it any more after a grace period.
fn forget_removed(ebpf: &mut Ebpf) -> Result<(), ApplyError> {
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
