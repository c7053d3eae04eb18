//! Groups and members read back from the memory that packets read, and held against what was written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering::{Relaxed, Release};

use lb_dataplane_common::fib::{
    GROUP_BLACKHOLE, GROUP_BUCKETS, GROUP_MEMBER, GROUP_NO_ROOM, MAX_LOG2_BUCKETS,
    MEMBER_HAS_GATEWAY, MEMBER_HAS_GATEWAY6, MEMBER_RESOLVED, MemberEntry,
};

use super::{Groups, MEMBER_WORDS};
use crate::fib::{Action, Member};

impl Groups {
    /// Number of groups.
    pub(in crate::fib) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The callers' names of groups.
    pub(in crate::fib) fn names(&self) -> impl Iterator<Item = u32> + '_ {
        self.by_name.keys().copied()
    }

    /// Number of members that groups name.
    pub(in crate::fib) fn members(&self) -> usize {
        self.members.len()
    }

    /// A group's word, as packets read it.
    pub(in crate::fib) fn word(&self, index: u32) -> Option<u64> {
        Some(self.words.wide_words().get(index as usize)?.load(Relaxed))
    }

    /// A bucket.
    pub(in crate::fib) fn bucket(&self, index: u32) -> Option<u32> {
        Some(self.bucket_words.words().get(index as usize)?.load(Relaxed))
    }

    /// A member.
    pub(in crate::fib) fn stored_member(&self, index: u32) -> Option<MemberEntry> {
        let first = (index as usize).checked_mul(MEMBER_WORDS)?;
        let stored = self.member_words.words().get(first..first + MEMBER_WORDS)?;
        let mut words = [0; MEMBER_WORDS];
        words.iter_mut().zip(stored).for_each(|(word, stored)| *word = stored.load(Relaxed));
        Some(decode(words))
    }

    /// What the memory says that packets of a group meet.
    pub(in crate::fib) fn read(&self, name: u32) -> Option<Action> {
        self.read_at(self.index(name)?)
    }

    /// The same by the group's place.
    pub(in crate::fib) fn read_at(&self, index: u32) -> Option<Action> {
        let word = self.word(index)?;
        let low = (word & 0xffff_ffff) as u32;
        Some(match (word >> 56) as u8 {
            GROUP_MEMBER => Action::Forward(vec![self.read_member(low, 1)]),
            GROUP_BUCKETS => {
                let base = low as usize;
                let log2 = ((word >> 32) as u8).min(MAX_LOG2_BUCKETS);
                let range = base..base + (1_usize << log2);
                let mut counts: Vec<(u32, u16)> = Vec::new();
                for bucket in self.bucket_words.words().get(range)? {
                    let member = bucket.load(Relaxed);
                    match counts.iter_mut().find(|(known, _)| *known == member) {
                        Some((_, count)) => *count += 1,
                        None => counts.push((member, 1)),
                    }
                }
                counts.sort_unstable();
                Action::Forward(
                    counts.iter().map(|(m, count)| self.read_member(*m, *count)).collect(),
                )
            }
            GROUP_BLACKHOLE => Action::Blackhole,
            GROUP_NO_ROOM => Action::NoRoom,
            _ => Action::Kernel,
        })
    }

    /// The member that a hash chooses of the group at a place, if it forwards.
    pub(in crate::fib) fn chosen(&self, index: u32, hash: u32) -> Option<Member> {
        let word = self.word(index)?;
        let low = (word & 0xffff_ffff) as u32;
        let member = match (word >> 56) as u8 {
            GROUP_MEMBER => low,
            GROUP_BUCKETS => {
                let mask = (1 << ((word >> 32) as u8).min(MAX_LOG2_BUCKETS)) - 1;
                self.bucket(low.checked_add(hash & mask)?)?
            }
            _ => return None,
        };
        Some(self.read_member(member, 1))
    }

    /// Groups whose word, buckets or members are not as written; with `repair`, they are written again.
    pub(in crate::fib) fn audit(&self, repair: bool) -> usize {
        let mut wrong = 0;
        for group in self.by_name.values() {
            let first = group.range.map_or(0, |(base, _)| base as usize);
            let buckets = self.bucket_words.words().iter().skip(first).zip(&group.buckets);
            let members: Vec<_> = group
                .members
                .iter()
                .filter_map(|entry| Some((self.members.get(entry)?.0, entry)))
                .collect();
            let is_right = self.word(group.index) == Some(group.word)
                && buckets.clone().all(|(word, member)| word.load(Relaxed) == *member)
                && members
                    .iter()
                    .all(|(index, entry)| self.stored_member(*index).as_ref() == Some(*entry));
            if is_right {
                continue;
            }
            wrong += 1;
            if repair {
                members.iter().for_each(|(index, entry)| self.write_member(*index, entry));
                buckets.for_each(|(word, member)| word.store(*member, Relaxed));
                self.words.wide_words()[group.index as usize].store(group.word, Release);
            }
        }
        wrong
    }

    fn read_member(&self, index: u32, weight: u16) -> Member {
        let entry = self.stored_member(index).unwrap_or_default();
        let gateway = if entry.flags & MEMBER_HAS_GATEWAY != 0 {
            Some(IpAddr::V4(Ipv4Addr::from(entry.gateway)))
        } else {
            let gateway = IpAddr::V6(Ipv6Addr::from(entry.gateway6));
            (entry.flags & MEMBER_HAS_GATEWAY6 != 0).then_some(gateway)
        };
        Member {
            ifindex: entry.ifindex,
            source_mac: entry.source_mac,
            destination_mac: (entry.flags & MEMBER_RESOLVED != 0).then_some(entry.destination_mac),
            gateway,
            mtu: entry.mtu,
            weight,
        }
    }
}

fn decode(
    [ifindex, flags_mtu, w2, w3, w4, gateway, g0, g1, g2, g3, e0, e1]: [u32; MEMBER_WORDS],
) -> MemberEntry {
    let [f0, f1, m0, m1] = flags_mtu.to_ne_bytes();
    let [d0, d1, d2, d3] = w2.to_ne_bytes();
    let [d4, d5, s0, s1] = w3.to_ne_bytes();
    let [s2, s3, s4, s5] = w4.to_ne_bytes();
    let (e, f) = (e0.to_ne_bytes(), e1.to_ne_bytes());
    let mut gateway6 = [0; 16];
    let (quads, _) = gateway6.as_chunks_mut();
    quads.iter_mut().zip([g0, g1, g2, g3]).for_each(|(quad, word)| *quad = word.to_ne_bytes());
    MemberEntry {
        ifindex,
        flags: u16::from_ne_bytes([f0, f1]),
        mtu: u16::from_ne_bytes([m0, m1]),
        gateway: gateway.to_ne_bytes(),
        source_mac: [s0, s1, s2, s3, s4, s5],
        destination_mac: [d0, d1, d2, d3, d4, d5],
        gateway6,
        encapsulation: u64::from_ne_bytes([e[0], e[1], e[2], e[3], f[0], f[1], f[2], f[3]]),
    }
}
