//! Groups and members: what a route's packets meet.

mod inspect;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::Ordering::{Relaxed, Release};

use lb_dataplane_common::encapsulation::Encapsulation;
use lb_dataplane_common::fib::{
    GROUP_BLACKHOLE, GROUP_KERNEL, GROUP_NO_ROOM, MEMBER_HAS_GATEWAY, MEMBER_HAS_GATEWAY6,
    MEMBER_RESOLVED, MEMBER_TO_PEER, MEMBER_WITHOUT_XDP, MemberEntry, group_buckets, group_kind,
    group_member,
};

use foldhash::fast::FixedState;

use super::buckets::{Ranges, assign, log2_for};
use super::pool::Pool;
use super::{Action, Member};
use crate::mapped::Mapped;

/// Members of a group at most.
pub(super) const MAX_MEMBERS: usize = 256;
/// 32-bit words of a member.
const MEMBER_WORDS: usize = size_of::<MemberEntry>() / 4;

/// Why a group cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// It forwards to nobody, or to too many.
    #[error("it has {0} members: 1 to {MAX_MEMBERS} can be")]
    MemberCount(usize),
    /// The array of groups is full.
    #[error("all groups are in use; raise dataplane.max_fib_groups")]
    GroupsFull,
    /// The array of members is full.
    #[error("all members are in use; raise dataplane.max_fib_next_hops")]
    MembersFull,
    /// The array of buckets is full.
    #[error("all buckets are in use; raise dataplane.max_fib_buckets")]
    BucketsFull,
    /// Routes name it.
    #[error("{0} routes still name it: move them first")]
    InUse(u32),
}

impl GroupError {
    /// Whether the group is one that could be, if there were room for it or for so many members.
    pub(super) fn is_for_want_of_room(self) -> bool {
        match self {
            Self::GroupsFull | Self::MembersFull | Self::BucketsFull => true,
            Self::MemberCount(count) => count > MAX_MEMBERS,
            Self::InUse(_) => false,
        }
    }
}

#[derive(Debug)]
struct Group {
    index: u32,
    /// What its word is to say.
    word: u64,
    /// Routes that name it.
    routes: u32,
    /// The kernel has none of its routes.
    is_apart: bool,
    members: Vec<MemberEntry>,
    range: Option<(u32, u8)>,
    buckets: Vec<u32>,
}

/// What a group's word says, and what it names.
#[derive(Debug)]
struct Target {
    word: u64,
    range: Option<(u32, u8)>,
    buckets: Vec<u32>,
}

impl Target {
    fn plain(word: u64) -> Self {
        Self { word, range: None, buckets: Vec::new() }
    }
}

/// What a previous process used, to be given back at the end of adoption.
#[derive(Debug, Default)]
pub(super) struct Stale {
    pub(super) groups: Vec<u32>,
    pub(super) members: Vec<u32>,
    pub(super) ranges: Vec<(u32, u8)>,
}

/// The tables behind the slots.
#[derive(Debug)]
pub(super) struct Groups {
    words: Mapped,
    bucket_words: Mapped,
    member_words: Mapped,
    indices: Pool,
    ranges: Ranges,
    member_indices: Pool,
    /// By the caller's names, which no neighbour chooses.
    by_name: HashMap<u32, Group, FixedState>,
    /// Members that groups name, with the number of groups.
    members: HashMap<MemberEntry, (u32, u32)>,
    stale: Stale,
    /// What members have of the interfaces that they leave through: `MEMBER_WITHOUT_XDP`, `MEMBER_TO_PEER`.
    ways_out: HashMap<u32, u16>,
    /// The first place behind those of groups.
    end: u32,
    /// What is put around packets that leave through interfaces, other than nothing.
    encapsulations: HashMap<u32, Encapsulation>,
    /// Of those the ones whose longest frames XDP cannot send.
    cramped: HashSet<u32>,
    /// What was given back so far.
    given_back: u64,
}

/// Pools of free indices.
pub(super) struct Pools {
    pub(super) groups: Pool,
    pub(super) members: Pool,
    pub(super) ranges: Ranges,
    /// The first place behind those of groups: here and in the next one are the kernel's group, and the one that drops for
    /// want of room.
    pub(super) end: u32,
}

impl Groups {
    pub(super) fn new(
        [words, bucket_words, member_words]: [Mapped; 3],
        pools: Pools,
        stale: Stale,
    ) -> Self {
        let [kernels, no_room] = [pools.end, pools.end + 1].map(|place| place as usize);
        words.wide_words()[kernels].store(group_kind(GROUP_KERNEL), Release);
        words.wide_words()[no_room].store(group_kind(GROUP_NO_ROOM), Release);
        Self {
            words,
            bucket_words,
            member_words,
            indices: pools.groups,
            ranges: pools.ranges,
            member_indices: pools.members,
            by_name: HashMap::default(),
            members: HashMap::new(),
            stale,
            ways_out: HashMap::new(),
            end: pools.end,
            encapsulations: HashMap::new(),
            cramped: HashSet::new(),
            given_back: 0,
        }
    }

    /// The place of the kernel's group, which those share that there is no place for.
    pub(super) fn kernels(&self) -> u32 {
        self.end
    }

    /// The place of the group that drops for want of room, which those share that the kernel has no routes of.
    pub(super) fn no_room(&self) -> u32 {
        self.end + 1
    }

    /// Whether the kernel has none of a group's routes.
    pub(super) fn is_apart(&self, name: u32) -> bool {
        self.by_name.get(&name).is_some_and(|group| group.is_apart)
    }

    /// Whether another group with a member of its own can be had.
    pub(super) fn has_room(&self) -> Result<(), GroupError> {
        match (self.indices.available(), self.member_indices.available()) {
            (0, _) => Err(GroupError::GroupsFull),
            (_, 0) => Err(GroupError::MembersFull),
            (_, _) => Ok(()),
        }
    }

    /// Notes what is known of interfaces that members leave through, also in the members that there are.
    pub(super) fn set_ways_out(&mut self, found: &[(u32, u16)]) {
        for (ifindex, flags) in found {
            self.ways_out.insert(*ifindex, *flags);
        }
        self.ways_out.retain(|_, flags| *flags != 0);
        if !found.is_empty() {
            self.finish_anew();
        }
    }

    /// Notes what is put around packets that leave through interfaces, also in the members that there are.
    pub(super) fn set_encapsulations(
        &mut self,
        by_interface: HashMap<u32, Encapsulation>,
        cramped: HashSet<u32>,
    ) {
        if self.encapsulations != by_interface || self.cramped != cramped {
            (self.encapsulations, self.cramped) = (by_interface, cramped);
            self.finish_anew();
        }
    }

    /// Finishes all members again. Those that become others change in the encapsulation, one word, and then in the flags, which
    /// are one too: a packet that sees one of the two is sent through the interface of a VLAN, or left to the kernel.
    fn finish_anew(&mut self) {
        let changed = |entry: &MemberEntry| Some(self.finished(*entry)).filter(|new| new != entry);
        let all = self.members.keys().filter_map(|entry| Some((*entry, changed(entry)?)));
        let changes: HashMap<MemberEntry, MemberEntry> = all.collect();
        for (old, new) in &changes {
            if let Some(place) = self.members.remove(old) {
                self.write_member(place.0, new);
                self.members.insert(*new, place);
            }
        }
        let named = self.by_name.values_mut().flat_map(|group| &mut group.members);
        named.for_each(|entry| *entry = *changes.get(entry).unwrap_or(entry));
    }

    /// A member with what is known of the interface that it leaves through.
    fn finished(&self, mut entry: MemberEntry) -> MemberEntry {
        let around = self.encapsulations.get(&entry.ifindex);
        let is_resolved = entry.flags & MEMBER_RESOLVED != 0;
        entry.encapsulation = around.filter(|_| is_resolved).map_or(0, |it| it.encode());
        entry.flags &= !(MEMBER_WITHOUT_XDP | MEMBER_TO_PEER);
        entry.flags |= self.ways_out.get(&self.leaves_through(entry.ifindex)).unwrap_or(&0);
        if self.cramped.contains(&entry.ifindex) {
            entry.flags |= MEMBER_WITHOUT_XDP;
        }
        entry
    }

    /// The interface that frames leave through that go out by this one: a VLAN's link.
    pub(super) fn leaves_through(&self, ifindex: u32) -> u32 {
        match self.encapsulations.get(&ifindex) {
            Some(Encapsulation::Vlan { link, .. }) => *link,
            Some(Encapsulation::None | Encapsulation::Unknown) | None => ifindex,
        }
    }

    /// The interfaces that members leave through.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = u32> + '_ {
        self.members.keys().map(|entry| self.leaves_through(entry.ifindex))
    }

    /// The group's place in `FIB_GROUPS`.
    pub(super) fn index(&self, name: u32) -> Option<u32> {
        self.by_name.get(&name).map(|group| group.index)
    }

    /// One more route names it; its place in `FIB_GROUPS`.
    pub(super) fn used(&mut self, name: u32) -> Option<u32> {
        let group = self.by_name.get_mut(&name)?;
        group.routes += 1;
        Some(group.index)
    }

    pub(super) fn unused(&mut self, name: u32) {
        if let Some(group) = self.by_name.get_mut(&name) {
            group.routes -= 1;
        }
    }

    /// How often anything was given back: there may be room then.
    pub(super) fn given_back(&self) -> u64 {
        self.given_back
    }

    /// Creates a group that spreads flows like another one as far as it can, or swaps what it does; says whether its place is
    /// another one than routes that name it know.
    pub(super) fn put(
        &mut self,
        name: u32,
        action: &Action,
        like: u32,
        is_apart: bool,
    ) -> Result<bool, GroupError> {
        let members = self.entries(action)?;
        let has_place = self.by_name.get(&name).is_some_and(|group| group.index < self.end);
        if !has_place && self.indices.available() == 0 {
            return Err(GroupError::GroupsFull);
        }
        let weighted = self.acquire(&members)?;
        let made = match (action, weighted.as_slice()) {
            (Action::Kernel, _) | (Action::Forward(_), []) => {
                Some(Target::plain(group_kind(GROUP_KERNEL)))
            }
            (Action::Blackhole, _) => Some(Target::plain(group_kind(GROUP_BLACKHOLE))),
            (Action::NoRoom, _) => Some(Target::plain(group_kind(GROUP_NO_ROOM))),
            (Action::Forward(_), [(only, _)]) => Some(Target::plain(group_member(*only))),
            (Action::Forward(_), several) => self.fill_range(name, like, several),
        };
        let keys: Vec<MemberEntry> = members.into_iter().map(|(entry, _)| entry).collect();
        let Some(Target { word, range, buckets }) = made else {
            self.release(&keys);
            return Err(GroupError::BucketsFull);
        };
        let place = if has_place { self.index(name) } else { self.indices.take() };
        let Some(index) = place else {
            self.release(&keys);
            return Err(GroupError::GroupsFull);
        };
        let old = self.by_name.remove(&name);
        let (routes, is_apart) =
            old.as_ref().map_or((0, is_apart), |group| (group.routes, group.is_apart));
        self.words.wide_words()[index as usize].store(word, Release);
        let members = keys;
        self.by_name.insert(name, Group { index, word, routes, is_apart, members, range, buckets });
        if let Some(old) = old {
            self.give_up(&old);
        }
        Ok(!has_place && routes > 0)
    }

    /// Makes a group the kernel's, or has it drop, whatever it did: there is no room for what it is to do.
    pub(super) fn leave_out(&mut self, name: u32, is_apart: bool) {
        let old = self.by_name.remove(&name);
        let (routes, is_apart) =
            old.as_ref().map_or((0, is_apart), |group| (group.routes, group.is_apart));
        let (kind, shared) = match is_apart {
            true => (GROUP_NO_ROOM, self.no_room()),
            false => (GROUP_KERNEL, self.kernels()),
        };
        let word = group_kind(kind);
        let place = old.as_ref().map(|group| group.index).or_else(|| self.indices.take());
        let index = place.unwrap_or(shared);
        self.words.wide_words()[index as usize].store(word, Release);
        let (members, range, buckets) = Default::default();
        self.by_name.insert(name, Group { index, word, routes, is_apart, members, range, buckets });
        if let Some(old) = old {
            self.give_up(&old);
        }
    }

    /// Removes a group; one that is not there is gone already.
    pub(super) fn remove(&mut self, name: u32) -> Result<(), GroupError> {
        match self.by_name.get(&name) {
            None => return Ok(()),
            Some(group) if group.routes > 0 => return Err(GroupError::InUse(group.routes)),
            Some(_) => {}
        }
        if let Some(group) = self.by_name.remove(&name) {
            if group.index < self.end {
                self.indices.give_back(group.index);
            }
            self.give_up(&group);
        }
        Ok(())
    }

    /// Gives back what a group named.
    fn give_up(&mut self, group: &Group) {
        self.given_back += 1;
        self.release(&group.members);
        if let Some((base, log2)) = group.range {
            self.ranges.give_back(base, log2);
        }
    }

    /// Gives back what a previous process used.
    pub(super) fn drop_stale(&mut self) {
        self.given_back += 1;
        let stale = std::mem::take(&mut self.stale);
        stale.groups.into_iter().for_each(|index| self.indices.give_back(index));
        stale.members.into_iter().for_each(|index| self.member_indices.give_back(index));
        stale.ranges.into_iter().for_each(|(base, log2)| self.ranges.give_back(base, log2));
    }

    fn fill_range(&mut self, name: u32, like: u32, members: &[(u32, u16)]) -> Option<Target> {
        let old = self.by_name.get(&name).or_else(|| self.by_name.get(&like));
        let before = old.and_then(|group| Some(group.range?.1)).unwrap_or(0);
        // A table never shrinks: its buckets would change hands.
        let log2 = log2_for(members).max(before);
        let buckets = assign(members, old.map_or(&[], |group| &group.buckets), log2);
        let base = self.ranges.take(log2)?;
        for (word, member) in self.bucket_words.words()[base as usize..].iter().zip(&buckets) {
            word.store(*member, Relaxed);
        }
        Some(Target { word: group_buckets(base, log2), range: Some((base, log2)), buckets })
    }

    /// Finds or makes the members, each counted once more; all of them or none.
    fn acquire(&mut self, members: &[(MemberEntry, u16)]) -> Result<Vec<(u32, u16)>, GroupError> {
        let missing = members.iter().filter(|(entry, _)| !self.members.contains_key(entry)).count();
        if self.member_indices.available() < missing {
            return Err(GroupError::MembersFull);
        }
        let mut acquired = Vec::with_capacity(members.len());
        for (entry, weight) in members {
            if !self.members.contains_key(entry) {
                let index = self.member_indices.take().ok_or(GroupError::MembersFull)?;
                self.write_member(index, entry);
                self.members.insert(*entry, (index, 0));
            }
            if let Some((index, groups)) = self.members.get_mut(entry) {
                *groups += 1;
                acquired.push((*index, *weight));
            }
        }
        Ok(acquired)
    }

    fn release(&mut self, members: &[MemberEntry]) {
        for entry in members {
            let Some((index, groups)) = self.members.get_mut(entry) else { continue };
            *groups -= 1;
            if *groups == 0 {
                let index = *index;
                self.members.remove(entry);
                self.member_indices.give_back(index);
            }
        }
    }

    /// The members of an action as the kernel holds them, each once, with their weights.
    fn entries(&self, action: &Action) -> Result<Vec<(MemberEntry, u16)>, GroupError> {
        let Action::Forward(members) = action else { return Ok(Vec::new()) };
        if members.is_empty() || members.len() > MAX_MEMBERS {
            return Err(GroupError::MemberCount(members.len()));
        }
        let mut entries: Vec<(MemberEntry, u16)> = Vec::with_capacity(members.len());
        for member in members {
            let entry = self.finished(entry(member));
            match entries.iter_mut().find(|(known, _)| *known == entry) {
                Some((_, weight)) => *weight = weight.saturating_add(member.weight),
                None => entries.push((entry, member.weight)),
            }
        }
        Ok(entries)
    }

    fn write_member(&self, index: u32, entry: &MemberEntry) {
        let first = index as usize * MEMBER_WORDS;
        let words = &self.member_words.words()[first..first + MEMBER_WORDS];
        // The last two as one: packets may be reading them.
        let last = (index as usize + 1) * MEMBER_WORDS / 2 - 1;
        self.member_words.wide_words()[last].store(entry.encapsulation, Release);
        for (word, value) in words.iter().zip(encode(entry)) {
            word.store(value, Release);
        }
    }
}

fn entry(member: &Member) -> MemberEntry {
    let resolved = if member.destination_mac.is_some() { MEMBER_RESOLVED } else { 0 };
    let (has_gateway, gateway, gateway6) = match member.gateway {
        None => (0, [0; 4], [0; 16]),
        Some(IpAddr::V4(gateway)) => (MEMBER_HAS_GATEWAY, gateway.octets(), [0; 16]),
        Some(IpAddr::V6(gateway)) => (MEMBER_HAS_GATEWAY6, [0; 4], gateway.octets()),
    };
    MemberEntry {
        ifindex: member.ifindex,
        flags: resolved | has_gateway,
        mtu: member.mtu,
        gateway,
        source_mac: member.source_mac,
        destination_mac: member.destination_mac.unwrap_or_default(),
        gateway6,
        encapsulation: 0,
    }
}

/// A member's bytes as words of this machine, without the encapsulation.
fn encode(entry: &MemberEntry) -> [u32; MEMBER_WORDS - 2] {
    let [f0, f1] = entry.flags.to_ne_bytes();
    let [m0, m1] = entry.mtu.to_ne_bytes();
    let [s0, s1, s2, s3, s4, s5] = entry.source_mac;
    let [d0, d1, d2, d3, d4, d5] = entry.destination_mac;
    let word = u32::from_ne_bytes;
    let mut words = [0; MEMBER_WORDS - 2];
    let (front, back) = words.split_at_mut(6);
    front.copy_from_slice(&[
        entry.ifindex,
        word([f0, f1, m0, m1]),
        word([d0, d1, d2, d3]),
        word([d4, d5, s0, s1]),
        word([s2, s3, s4, s5]),
        word(entry.gateway),
    ]);
    let (quads, _) = entry.gateway6.as_chunks();
    back.iter_mut().zip(quads).for_each(|(back, quad)| *back = word(*quad));
    words
}
