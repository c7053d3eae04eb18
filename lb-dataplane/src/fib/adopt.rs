//! What a previous process left in the arrays: found by a scan, kept until the new process has said what it wants.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use lb_dataplane_common::fib::{
    CHUNK_WORDS, GROUP_BUCKETS, GROUP_MEMBER, L1_CHUNK, MAX_LOG2_BUCKETS, MemberEntry, NO_GROUP,
};

use super::Grace;
use super::buckets::Ranges;
use super::groups::{Groups, Pools, Stale};
use super::pool::Pool;
use super::slots::Slots;
use crate::mapped::Mapped;

/// The slots, and the groups that they name.
pub(super) fn slots(l1: Mapped, l2: Mapped, grace: Grace) -> (Slots, BTreeSet<u32>) {
    let chunk_count = l2.words().len() / CHUNK_WORDS as usize;
    let mut used = vec![false; chunk_count];
    let mut live = BTreeSet::new();
    let mut last = NO_GROUP;
    for slot in l1.words() {
        let word = slot.load(Relaxed);
        if word == NO_GROUP || word == last {
            continue;
        }
        last = word;
        if word & L1_CHUNK == 0 {
            live.insert(word);
            continue;
        }
        let chunk = (word & !L1_CHUNK) as usize;
        let Some(used) = used.get_mut(chunk) else {
            // No such chunk: packets meet a miss there already.
            slot.store(NO_GROUP, Relaxed);
            continue;
        };
        *used = true;
        let first = chunk * CHUNK_WORDS as usize;
        let words = &l2.words()[first..first + CHUNK_WORDS as usize];
        live.extend(words.iter().map(|word| word.load(Relaxed)).filter(|word| *word != NO_GROUP));
    }
    let mut chunks = Pool::new(0, u32::try_from(chunk_count).unwrap_or(u32::MAX), grace);
    chunks.reserve(|chunk| used.get(chunk as usize).copied().unwrap_or(false));
    (Slots::new(l1, l2, chunks), live)
}

/// The groups, with those in `live` left alone.
pub(super) fn groups(
    words: Mapped,
    buckets: Mapped,
    members: Mapped,
    live: &BTreeSet<u32>,
    grace: Grace,
) -> Groups {
    let mut stale = Stale { groups: live.iter().copied().collect(), ..Stale::default() };
    let mut stale_members = BTreeSet::new();
    let mut first_free_bucket = 0;
    for word in live.iter().filter_map(|index| words.wide_words().get(*index as usize)) {
        let word = word.load(Relaxed);
        let low = (word & 0xffff_ffff) as u32;
        match (word >> 56) as u8 {
            GROUP_MEMBER => {
                stale_members.insert(low);
            }
            GROUP_BUCKETS => {
                let log2 = ((word >> 32) as u8).min(MAX_LOG2_BUCKETS);
                let end = low + (1 << log2);
                first_free_bucket = first_free_bucket.max(end);
                stale.ranges.push((low, log2));
                let range = buckets.words().get(low as usize..end as usize).unwrap_or_default();
                stale_members.extend(range.iter().map(|bucket| bucket.load(Relaxed)));
            }
            _ => {}
        }
    }
    let size = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let member_count = members.words().len() * 4 / size_of::<MemberEntry>();
    let mut pools = Pools {
        // Group 0 is "no route".
        groups: Pool::new(NO_GROUP + 1, size(words.wide_words().len()), grace),
        members: Pool::new(0, size(member_count), grace),
        ranges: Ranges::new(first_free_bucket, size(buckets.words().len()), grace),
    };
    pools.groups.reserve(|index| live.contains(&index));
    pools.members.reserve(|index| stale_members.contains(&index));
    stale.members.extend(stale_members);
    Groups::new([words, buckets, members], pools, stale)
}
