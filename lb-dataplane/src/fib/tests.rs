use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use lb_dataplane_common::fib::{FibTables, MemberEntry, Route, lookup4};
use lb_dataplane_common::fib6::{Fib6Tables, ROOT6_MAP_WORDS, UNIT_WORDS};
use proptest::prelude::*;

use super::*;

/// The arrays as packets read them; the writer has its own view of the same memory.
pub(super) struct Reader {
    pub(super) arrays: Arrays,
}

const CHUNKS: usize = 64;
pub(super) const NODE_BYTES: usize = 64 * 1024;
const GROUPS: usize = 64;
const BUCKETS: usize = 4096;
const MEMBERS: usize = 128;

impl FibTables for Reader {
    fn l1(&self, index: u32) -> Option<u32> {
        load(&self.arrays.l1, index)
    }

    fn l2(&self, index: u32) -> Option<u32> {
        load(&self.arrays.l2, index)
    }

    fn group(&self, index: u32) -> Option<u64> {
        load_wide(&self.arrays.groups, index)
    }

    fn bucket(&self, index: u32) -> Option<u32> {
        load(&self.arrays.buckets, index)
    }

    fn member(&self, index: u32) -> Option<MemberEntry> {
        let word = |n: u32| load(&self.arrays.members, index * 12 + n);
        Some(MemberEntry { ifindex: word(0)?, ..MemberEntry::default() })
    }
}

impl Fib6Tables for Reader {
    type Node = u32;

    fn shortcuts6(&self, first: u32) -> Option<[u64; 4]> {
        let word = |way| load_wide(&self.arrays.root6, first + way);
        Some([word(0)?, word(1)?, word(2)?, word(3)?])
    }

    fn root6(&self, index: u32) -> Option<u64> {
        load_wide(&self.arrays.root6, index)
    }

    fn node6(&self, unit: u32) -> Option<u32> {
        Some(unit * UNIT_WORDS)
    }

    fn word6(&self, first: u32, index: u32) -> u64 {
        // A node beyond the end, or beyond its page, is the writer's mistake.
        assert!(first / 512 == (first + index) / 512, "{first}+{index}");
        load_wide(&self.arrays.nodes6, first + index).unwrap()
    }
}

fn load_wide(memory: &Mapped, index: u32) -> Option<u64> {
    Some(memory.wide_words().get(index as usize)?.load(std::sync::atomic::Ordering::Relaxed))
}

fn load(memory: &Mapped, index: u32) -> Option<u32> {
    Some(memory.words().get(index as usize)?.load(std::sync::atomic::Ordering::Relaxed))
}

/// The arrays as files: whoever maps them sees the same memory.
pub(super) struct Files([std::fs::File; 7]);

const SIZES: [usize; 7] = [
    1 << 26,
    CHUNKS * 1024,
    ROOT6_MAP_WORDS as usize * 8,
    NODE_BYTES,
    GROUPS * 8,
    BUCKETS * 4,
    MEMBERS * 48,
];

impl Files {
    fn new() -> Self {
        Self(SIZES.map(|size| {
            let file = tempfile::tempfile_in("/dev/shm").unwrap();
            file.set_len(size as u64).unwrap();
            file
        }))
    }

    pub(super) fn map(&self) -> Arrays {
        let [l1, l2, root6, nodes6, groups, buckets, members] =
            std::array::from_fn(|n| Mapped::map(&self.0[n], SIZES[n]).unwrap());
        Arrays { l1, l2, root6, nodes6, groups, buckets, members }
    }
}

/// A FIB, a second view of its memory, and the memory itself.
pub(super) fn shared() -> (Files, Fib, Reader) {
    let files = Files::new();
    let fib = Fib::adopt(files.map(), || {});
    let reader = Reader { arrays: files.map() };
    (files, fib, reader)
}

/// A FIB and a second view of its memory.
pub(super) fn fixture() -> (Fib, Reader) {
    let (_, fib, reader) = shared();
    (fib, reader)
}

fn member(ifindex: u32) -> Member {
    Member {
        ifindex,
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: Some([2, 0, 0, 0, 0, 2]),
        gateway: None,
        mtu: 1500,
        weight: 1,
    }
}

fn forward(ifindexes: &[u32]) -> Action {
    Action::Forward(ifindexes.iter().map(|n| member(*n)).collect())
}

pub(super) fn group(fib: &mut Fib, id: u32, ifindexes: &[u32]) {
    fib.update(&FibUpdate::Group { id, action: forward(ifindexes) }).unwrap();
}

/// A group of routes that the kernel does not have.
pub(super) fn group_apart(fib: &mut Fib, id: u32, ifindexes: &[u32]) {
    let action = forward(ifindexes);
    fib.update(&FibUpdate::GroupWith { id, action, like: None, is_apart: true }).unwrap();
}

fn route(prefix: [u8; 4], len: u8, group: u32) -> FibUpdate {
    FibUpdate::Route { prefix: prefix.into(), len, group }
}

fn removed(prefix: [u8; 4], len: u8) -> FibUpdate {
    FibUpdate::RouteRemoved { prefix: prefix.into(), len }
}

fn out(reader: &Reader, address: [u8; 4]) -> Option<u32> {
    match lookup4(reader, u32::from_be_bytes(address), || 7) {
        Route::Forward(member) => Some(member.ifindex),
        Route::Kernel | Route::Blackhole | Route::NoRoom | Route::Miss => None,
    }
}

#[test]
fn the_longest_prefix_wins_and_its_removal_uncovers_the_next() {
    let (mut fib, reader) = fixture();
    for id in 1..=4 {
        group(&mut fib, id, &[id * 10]);
    }
    for update in [
        route([0, 0, 0, 0], 0, 1),
        route([10, 1, 0, 0], 16, 2),
        route([10, 1, 2, 128], 25, 3),
        route([10, 1, 2, 129], 32, 4),
    ] {
        fib.update(&update).unwrap();
    }
    assert_eq!(out(&reader, [9, 9, 9, 9]), Some(10));
    assert_eq!(out(&reader, [10, 1, 2, 1]), Some(20));
    assert_eq!(out(&reader, [10, 1, 2, 130]), Some(30));
    assert_eq!(out(&reader, [10, 1, 2, 129]), Some(40));
    fib.update(&removed([10, 1, 2, 128], 25)).unwrap();
    assert_eq!(out(&reader, [10, 1, 2, 130]), Some(20));
    assert_eq!(out(&reader, [10, 1, 2, 129]), Some(40));
    fib.update(&removed([10, 1, 0, 0], 16)).unwrap();
    assert_eq!(out(&reader, [10, 1, 2, 130]), Some(10));
    fib.update(&removed([10, 1, 2, 129], 32)).unwrap();
    fib.update(&removed([0, 0, 0, 0], 0)).unwrap();
    assert_eq!(out(&reader, [10, 1, 2, 129]), None);
    assert!(fib.is_empty());
}

#[test]
fn a_group_that_changes_takes_its_routes_along() {
    let (mut fib, reader) = fixture();
    group(&mut fib, 1, &[10]);
    fib.update(&route([10, 0, 0, 0], 8, 1)).unwrap();
    group(&mut fib, 1, &[11]);
    assert_eq!(out(&reader, [10, 3, 3, 3]), Some(11));
    fib.update(&FibUpdate::Group { id: 1, action: Action::Kernel }).unwrap();
    assert_eq!(lookup4(&reader, 0x0a01_0101, || 0), Route::Kernel);
    fib.update(&FibUpdate::Group { id: 1, action: Action::Blackhole }).unwrap();
    assert_eq!(lookup4(&reader, 0x0a01_0101, || 0), Route::Blackhole);
}

fn choices(reader: &Reader) -> Vec<u32> {
    let member = |hash: u32| {
        let Route::Forward(member) = lookup4(reader, 0x0a01_0101, || hash) else {
            panic!("hash {hash} leads nowhere")
        };
        member.ifindex
    };
    (0..4096).map(member).collect()
}

#[test]
fn a_member_that_leaves_takes_only_its_own_flows_along() {
    let (mut fib, reader) = fixture();
    let eight: Vec<u32> = (1..=8).collect();
    group(&mut fib, 1, &eight);
    fib.update(&route([10, 0, 0, 0], 8, 1)).unwrap();
    let before = choices(&reader);
    for ifindex in 1..=8 {
        assert_eq!(before.iter().filter(|member| **member == ifindex).count(), 512);
    }
    let seven: Vec<u32> = (1..=8).filter(|n| *n != 3).collect();
    group(&mut fib, 1, &seven);
    for (old, new) in before.iter().zip(choices(&reader)) {
        assert_ne!(new, 3);
        assert!(*old == 3 || *old == new, "a flow of {old} moved to {new}");
    }
}

#[test]
fn a_group_that_takes_the_place_of_another_one_moves_only_the_flows_of_members_that_it_lacks() {
    let (mut fib, reader) = fixture();
    group(&mut fib, 1, &(1..=8).collect::<Vec<_>>());
    fib.update(&route([10, 0, 0, 0], 8, 1)).unwrap();
    let before = choices(&reader);
    let action = forward(&(1..=8).filter(|n| *n != 3).collect::<Vec<_>>());
    let like = Some(1);
    fib.update(&FibUpdate::GroupWith { id: 2, action, like, is_apart: false }).unwrap();
    fib.update(&route([10, 0, 0, 0], 8, 2)).unwrap();
    fib.update(&FibUpdate::GroupRemoved { id: 1 }).unwrap();
    for (old, new) in before.iter().zip(choices(&reader)) {
        assert!(new != 3 && (*old == 3 || *old == new), "a flow of {old} moved to {new}");
    }
}

#[test]
fn weights_share_out_the_buckets() {
    let (mut fib, reader) = fixture();
    let action = Action::Forward(vec![Member { weight: 3, ..member(1) }, member(2)]);
    fib.update(&FibUpdate::Group { id: 1, action }).unwrap();
    fib.update(&route([10, 0, 0, 0], 8, 1)).unwrap();
    let first = choices(&reader).iter().filter(|member| **member == 1).count();
    assert_eq!(first, 3072);
}

#[test]
fn what_cannot_be_done_is_refused_and_nothing_changes() {
    let (mut fib, reader) = fixture();
    group(&mut fib, 1, &[10]);
    let bad = fib.update(&route([10, 0, 0, 1], 24, 1)).unwrap_err();
    assert!(matches!(bad, FibError::BadPrefix { .. }), "{bad}");
    let unknown = fib.update(&route([10, 0, 0, 0], 24, 2)).unwrap_err();
    assert!(matches!(unknown, FibError::UnknownGroup { group: 2, .. }), "{unknown}");
    let nobody = fib.update(&FibUpdate::Group { id: 3, action: forward(&[]) }).unwrap_err();
    assert!(matches!(nobody, FibError::Group { .. }), "{nobody}");
    for n in 0..CHUNKS {
        fib.update(&route([10, 0, u8::try_from(n).unwrap(), 1], 32, 1)).unwrap();
    }
    let full = fib.update(&route([10, 1, 0, 1], 32, 1)).unwrap_err();
    assert!(matches!(full, FibError::ChunksFull { chunks: CHUNKS, .. }), "{full}");
    assert_eq!((fib.len(), fib.usage().left_out), (CHUNKS, 1));
    let used = fib.update(&FibUpdate::GroupRemoved { id: 1 }).unwrap_err();
    assert!(used.to_string().contains("64 routes still name it"), "{used}");
    // No packet that it covers takes a shorter route, whenever that comes: its /24 is the kernel's.
    fib.update(&FibUpdate::Group { id: 2, action: forward(&[20]) }).unwrap();
    fib.update(&route([10, 0, 0, 0], 8, 2)).unwrap();
    fib.update(&route([10, 1, 0, 0], 24, 2)).unwrap();
    let ways =
        |reader: &Reader| [[10, 1, 0, 1], [10, 1, 0, 2], [10, 1, 1, 1]].map(|to| out(reader, to));
    assert_eq!(ways(&reader), [None, None, Some(20)]);
    assert!(fib.audit(false).is_clean() && fib.lookup([10, 1, 0, 1].into(), 0).left_out);
    let shown = |fib: &Fib, prefix: [u8; 4]| {
        let all = fib.routes(None, usize::MAX).into_iter();
        all.filter(|route| route.prefix == IpAddr::from(prefix))
            .map(|route| (route.len, route.action))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(&fib, [10, 1, 0, 0]), [(24, Action::Kernel)]);
    assert_eq!(shown(&fib, [10, 0, 0, 0]), [(8, forward(&[20]))]);
    // A chunk that is empty again goes to what was left out.
    fib.update(&removed([10, 0, 0, 1], 32)).unwrap();
    fib.synced();
    assert_eq!(ways(&reader), [Some(10), Some(20), Some(20)]);
    assert_eq!((fib.usage().left_out, fib.audit(false).is_clean()), (0, true));
    // One that goes before it fits gives its /24 back.
    assert!(fib.update(&route([10, 2, 0, 1], 32, 1)).is_err());
    assert_eq!(out(&reader, [10, 2, 0, 2]), None);
    fib.update(&removed([10, 2, 0, 1], 32)).unwrap();
    assert_eq!(out(&reader, [10, 2, 0, 1]), Some(20));
}

#[test]
fn packets_of_what_does_not_fit_are_dropped_where_the_kernel_has_none_of_it() {
    let (files, mut fib, reader) = shared();
    group(&mut fib, 1, &[10]);
    group_apart(&mut fib, 2, &[20]);
    fib.synced();
    for n in 0..CHUNKS {
        fib.update(&route([10, 0, u8::try_from(n).unwrap(), 1], 32, 1)).unwrap();
    }
    fib.update(&route([0, 0, 0, 0], 0, 1)).unwrap();
    let meets = || lookup4(&reader, u32::from_be_bytes([10, 1, 0, 1]), || 0);
    assert!(fib.update(&route([10, 1, 0, 0], 26, 2)).is_err());
    assert!(fib.update(&route([10, 1, 0, 64], 26, 2)).is_err());
    assert_eq!((meets(), fib.usage().left_out, fib.usage().dropped), (Route::NoRoom, 2, 2));
    let shown = fib.lookup([10, 1, 0, 200].into(), 0);
    assert_eq!((shown.action, shown.left_out, shown.intact), (Some(Action::NoRoom), true, true));
    // One that the kernel has makes the block the kernel's, as long as it is there.
    assert!(fib.update(&route([10, 1, 0, 128], 32, 1)).is_err());
    assert_eq!((meets(), fib.usage().left_out, fib.usage().dropped), (Route::Kernel, 3, 0));
    assert!(fib.audit(false).is_clean());
    fib.update(&removed([10, 1, 0, 128], 32)).unwrap();
    assert_eq!(meets(), Route::NoRoom);
    // The next process finds it so, whatever comes first, and until it has said all.
    drop(fib);
    let mut fib = next(&files);
    group(&mut fib, 1, &[10]);
    fib.update(&route([0, 0, 0, 0], 0, 1)).unwrap();
    fib.update(&route([10, 1, 0, 0], 24, 1)).unwrap();
    assert_eq!(meets(), Route::NoRoom);
    fib.synced();
    assert_eq!(out(&reader, [10, 1, 0, 1]), Some(10));
}

#[test]
fn a_group_that_does_not_fit_and_whose_routes_the_kernel_does_not_have_drops() {
    let (mut fib, reader) = fixture();
    let many: Vec<u32> = (1..=257).collect();
    group_apart(&mut fib, 1, &[10]);
    fib.update(&route([10, 1, 0, 0], 16, 1)).unwrap();
    let meets = || lookup4(&reader, u32::from_be_bytes([10, 1, 0, 1]), || 0);
    let action = forward(&many);
    let too_many = FibUpdate::GroupWith { id: 1, action, like: None, is_apart: true };
    assert!(fib.update(&too_many).is_err());
    assert_eq!((meets(), fib.usage().dropped), (Route::NoRoom, 1));
    // Without a place of its own, too.
    while fib
        .update(&FibUpdate::Group { id: 100 + fib.groups.len() as u32, action: Action::Kernel })
        .is_ok()
    {}
    assert!(
        fib.update(&FibUpdate::GroupWith {
            id: 2,
            action: forward(&[9]),
            like: None,
            is_apart: true
        })
        .is_err()
    );
    fib.update(&route([10, 1, 0, 0], 16, 2)).unwrap();
    assert_eq!(meets(), Route::NoRoom);
    fib.update(&FibUpdate::GroupRemoved { id: 1 }).unwrap();
    assert_eq!(out(&reader, [10, 1, 0, 1]), Some(9));
}

#[test]
fn a_group_of_more_members_than_one_can_have_is_the_kernels_and_not_what_it_was_before() {
    let (mut fib, reader) = fixture();
    let many: Vec<u32> = (1..=257).collect();
    group(&mut fib, 1, &[10]);
    fib.update(&route([10, 1, 0, 0], 16, 1)).unwrap();
    for id in [1, 2] {
        let refused = fib.update(&FibUpdate::Group { id, action: forward(&many) }).unwrap_err();
        assert!(refused.to_string().contains("257 members"), "{refused}");
    }
    fib.update(&route([10, 2, 0, 0], 16, 2)).unwrap();
    let meets = |to: [u8; 4]| lookup4(&reader, u32::from_be_bytes(to), || 0);
    assert_eq!([[10, 1, 0, 1], [10, 2, 0, 1]].map(meets), [Route::Kernel, Route::Kernel]);
    group(&mut fib, 1, &[20]);
    assert_eq!((out(&reader, [10, 1, 0, 1]), fib.left_out()), (Some(20), 1));
}

#[test]
fn a_group_that_does_not_fit_is_the_kernels_until_there_is_room() {
    let (mut fib, reader) = fixture();
    group(&mut fib, 0, &[1]);
    fib.update(&route([10, 0, 0, 0], 8, 0)).unwrap();
    // First the members run out, then the groups.
    let three = |id: u32| forward(&[10 * id, 10 * id + 1, 10 * id + 2]);
    let mut put = |id, action| fib.update(&FibUpdate::Group { id, action });
    let members = (1..).find(|id| put(*id, three(*id)).is_err()).unwrap();
    let groups = (members + 1..).find(|id| put(*id, Action::Blackhole).is_err()).unwrap();
    let full = |error| matches!(error, FibError::Group { source: GroupError::GroupsFull, .. });
    assert!(full(put(groups, three(groups)).unwrap_err()));
    fib.update(&route([10, 1, 0, 0], 16, members)).unwrap();
    fib.update(&route([10, 2, 0, 0], 16, groups)).unwrap();
    let ways = || [[10, 1, 0, 1], [10, 2, 0, 1]].map(|to| out(&reader, to).map(|way| way / 10));
    let kernels = || {
        [[10, 1, 0, 1], [10, 2, 0, 1]]
            .map(|to| lookup4(&reader, u32::from_be_bytes(to), || 0) == Route::Kernel)
    };
    assert_eq!(kernels(), [true, true]);
    assert_eq!((fib.usage().left_out, fib.audit(false).is_clean()), (2, true));
    // Room for three members, then for a group and three more.
    fib.update(&FibUpdate::GroupRemoved { id: 1 }).unwrap();
    assert_eq!((ways(), kernels()), ([Some(members), None], [false, true]));
    fib.update(&FibUpdate::GroupRemoved { id: 2 }).unwrap();
    assert_eq!(ways(), [Some(members), Some(groups)]);
    assert_eq!((fib.usage().left_out, fib.audit(false).is_clean()), (0, true));
}

#[test]
fn groups_and_members_are_used_again_after_a_grace_period() {
    let (mut fib, reader) = fixture();
    group(&mut fib, 1, &[1]);
    fib.update(&route([10, 0, 0, 0], 8, 1)).unwrap();
    for turn in 0..10_000 {
        let pair = [turn % 100 + 2, turn % 99 + 200];
        group(&mut fib, 2 + turn % 3, &pair);
        if turn % 2 == 0 {
            fib.update(&FibUpdate::GroupRemoved { id: 2 + turn % 3 }).unwrap();
        }
    }
    assert_eq!(out(&reader, [10, 1, 1, 1]), Some(1));
}

#[test]
fn a_new_writer_keeps_what_is_there_until_it_is_synced() {
    let (files, mut old, reader) = shared();
    group(&mut old, 1, &[10, 11]);
    group(&mut old, 2, &[20]);
    old.update(&route([10, 0, 0, 0], 8, 1)).unwrap();
    old.update(&route([20, 0, 0, 0], 24, 2)).unwrap();
    old.update(&route([20, 0, 0, 7], 32, 2)).unwrap();
    drop(old);
    let mut new = next(&files);
    group(&mut new, 7, &[30]);
    new.update(&route([10, 0, 0, 0], 9, 7)).unwrap();
    assert_eq!(out(&reader, [10, 1, 1, 1]), Some(30));
    assert!(out(&reader, [10, 128, 0, 1]).is_some(), "the other half of the old /8 is still there");
    assert_eq!(out(&reader, [20, 0, 0, 7]), Some(20));
    new.synced();
    assert_eq!(out(&reader, [10, 1, 1, 1]), Some(30));
    assert_eq!(out(&reader, [10, 128, 0, 1]), None);
    assert_eq!(out(&reader, [20, 0, 0, 7]), None);
    assert_eq!(new.routes(None, 10).len(), 1);
}

/// The next writer of the memory that a reader shows.
pub(super) fn next(files: &Files) -> Fib {
    Fib::adopt(files.map(), || {})
}

#[test]
fn a_short_route_that_a_new_writer_hears_of_first_leaves_longer_ones_alone() {
    let (files, mut old, reader) = shared();
    group(&mut old, 1, &[10]);
    group(&mut old, 2, &[20]);
    old.update(&route([0, 0, 0, 0], 0, 1)).unwrap();
    old.update(&route([10, 1, 0, 0], 16, 2)).unwrap();
    old.update(&route([10, 2, 3, 64], 26, 2)).unwrap();
    drop(old);
    let mut new = next(&files);
    group(&mut new, 1, &[11]);
    new.update(&route([0, 0, 0, 0], 0, 1)).unwrap();
    assert_eq!(out(&reader, [9, 9, 9, 9]), Some(11));
    assert_eq!(out(&reader, [10, 1, 1, 1]), Some(20));
    assert_eq!(out(&reader, [10, 2, 3, 65]), Some(20));
    // What nobody renewed falls to the route that covers it.
    new.synced();
    assert_eq!(out(&reader, [10, 1, 1, 1]), Some(11));
    assert_eq!(out(&reader, [10, 2, 3, 65]), Some(11));
}

#[test]
fn buckets_that_come_back_in_small_pieces_make_room_for_a_large_group() {
    let (mut fib, _) = fixture();
    let pairs = u32::try_from(BUCKETS).unwrap() / 32;
    // More than the groups that there are: in turns.
    for turn in 0..pairs {
        group(&mut fib, turn % 50, &[turn % 40 + 1, turn % 40 + 2]);
        let unused = FibUpdate::GroupRemoved { id: turn % 50 };
        fib.update(&unused).unwrap();
    }
    let many: Vec<u32> = (1..=120).collect();
    group(&mut fib, 1, &many);
}

#[test]
fn a_new_writer_has_the_buckets_between_those_in_use() {
    let (files, mut old, reader) = shared();
    let half: Vec<u32> = (1..=60).collect();
    group(&mut old, 1, &half);
    group(&mut old, 2, &half);
    group(&mut old, 3, &[1, 2]);
    old.update(&route([10, 0, 0, 0], 8, 3)).unwrap();
    // Groups 1 and 2 lie below group 3, and no route names them.
    drop(old);
    let mut new = next(&files);
    group(&mut new, 1, &half);
    group(&mut new, 2, &half);
    assert!(out(&reader, [10, 1, 1, 1]).is_some());
}

#[derive(Clone, Debug)]
enum Op {
    Put(u32, u8, u32),
    Remove(u32, u8),
    Group(u32, Vec<u32>),
}

/// Prefixes in two crowded /16 and everywhere, of all lengths.
fn prefix() -> impl Strategy<Value = (u32, u8)> {
    let crowded = (any::<u16>(), 0_u32..2)
        .prop_map(|(low, high)| (10 + high) << 24 | u32::from(low & 0x03ff));
    let address = prop_oneof![4 => crowded, 1 => any::<u32>()];
    (address, prop_oneof![4 => 20_u8..=32, 2 => 8_u8..20, 1 => 3_u8..8])
        .prop_map(|(address, len)| (address & u32::mask(len), len))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (prefix(), 1_u32..6).prop_map(|((p, len), group)| Op::Put(p, len, group)),
        3 => prefix().prop_map(|(p, len)| Op::Remove(p, len)),
        1 => (1_u32..6, prop::collection::vec(1_u32..9, 1..4)).prop_map(|(g, m)| Op::Group(g, m)),
    ]
}

/// Whether the kernel does not have the routes of a group.
pub(super) fn is_apart(group: u32) -> bool {
    group >= 4
}

/// The table that is obviously right: every prefix is tried.
#[derive(Default)]
struct Naive {
    routes: BTreeMap<(u32, u8), u32>,
    groups: BTreeMap<u32, Vec<u32>>,
}

impl Naive {
    fn longest(&self, address: u32) -> Option<(u32, u8)> {
        let prefixes = (0..=32).rev().map(|len| (address & u32::mask(len), len));
        prefixes.into_iter().find(|prefix| self.routes.contains_key(prefix))
    }

    fn lookup(&self, address: u32) -> Option<&Vec<u32>> {
        self.groups.get(self.routes.get(&self.longest(address)?)?)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Routes come back in an order of their own, under groups of other names. Packets of those that do notice nothing at
    /// any point; the others fall to what covers them at the end, and not before.
    #[test]
    fn a_restart_is_noticed_only_by_packets_of_routes_that_do_not_come_back(
        routes in prop::collection::btree_map(prefix(), (1_u32..6, prop::bool::weighted(0.8)), 1..40)
            .prop_map(Vec::from_iter)
            .prop_shuffle(),
        default in any::<bool>(),
    ) {
        let (files, mut old, reader) = shared();
        let mut routes = routes;
        if default {
            routes.insert(0, ((0, 0), (1, true)));
        }
        let update = |p: u32, len, group| FibUpdate::Route { prefix: Ipv4Addr::from(p).into(), len, group };
        let (mut before, mut after) = (Naive::default(), Naive::default());
        for id in 1..6 {
            group(&mut old, id, &[id]);
            before.groups.insert(id, vec![id]);
        }
        after.groups = before.groups.clone();
        for ((p, len), (group, again)) in &routes {
            if old.update(&update(*p, *len, *group)).is_ok() {
                before.routes.insert((*p, *len), *group);
                if *again {
                    after.routes.insert((*p, *len), *group);
                }
            }
        }
        drop(old);
        let routes: Vec<_> = routes.into_iter().filter(|(p, _)| after.routes.contains_key(p)).collect();
        let edges = before.routes.keys().flat_map(|(p, len)| [*p, *p | !u32::mask(*len), p.wrapping_sub(1)]);
        let probes: Vec<u32> = edges.collect();
        let answers = || -> Vec<Option<u32>> {
            probes.iter().map(|address| out(&reader, address.to_be_bytes())).collect()
        };
        let expected = |naive: &Naive| -> Vec<Option<u32>> {
            probes.iter().map(|address| Some(naive.lookup(*address)?[0])).collect()
        };
        let mut new = next(&files);
        for id in 1..6 {
            group(&mut new, id + 10, &[id]);
        }
        for ((p, len), (group, _)) in &routes {
            new.update(&update(*p, *len, group + 10)).unwrap();
            let lost = answers().into_iter().zip(expected(&before)).zip(&probes).find(|((now, then), address)| {
                now != then && after.longest(**address) == before.longest(**address)
            });
            prop_assert!(lost.is_none(), "after {p:#x}/{len}: {lost:?}");
        }
        new.synced();
        prop_assert_eq!(answers(), expected(&after));
        prop_assert_eq!(new.len(), after.routes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_fib_agrees_with_a_naive_table(
        ops in prop::collection::vec(op(), 1..120),
        probes in prop::collection::vec(prefix(), 64),
        full in prop::bool::weighted(0.3),
    ) {
        let (mut fib, reader) = fixture();
        let mut naive = Naive::default();
        for id in 1..6 {
            if is_apart(id) {
                group_apart(&mut fib, id, &[id]);
            } else {
                group(&mut fib, id, &[id]);
            }
            naive.groups.insert(id, vec![id]);
        }
        if full {
            fib.synced();
        }
        // Almost no room: what does not fit is the kernel's, and nothing takes another way than it should.
        for n in 0..if full { CHUNKS as u32 - 3 } else { 0 } {
            let p = 0xac10_0000 | n << 8;
            fib.update(&FibUpdate::Route { prefix: Ipv4Addr::from(p).into(), len: 32, group: 1 }).unwrap();
            naive.routes.insert((p, 32), 1);
        }
        for op in &ops {
            match op {
                Op::Put(p, len, group) => {
                    let update = FibUpdate::Route { prefix: Ipv4Addr::from(*p).into(), len: *len, group: *group };
                    if let Err(error) = fib.update(&update) {
                        prop_assert!(full && matches!(error, FibError::ChunksFull { .. }), "{}", error);
                        prop_assert!(fib.usage().left_out > 0);
                    }
                    naive.routes.insert((*p, *len), *group);
                }
                Op::Remove(p, len) => {
                    fib.update(&FibUpdate::RouteRemoved { prefix: Ipv4Addr::from(*p).into(), len: *len }).unwrap();
                    naive.routes.remove(&(*p, *len));
                }
                Op::Group(id, members) => {
                    group(&mut fib, *id, members);
                    naive.groups.insert(*id, members.clone());
                }
            }
        }
        let edges = naive.routes.keys().flat_map(|(p, len)| [*p, *p | !u32::mask(*len), p.wrapping_sub(1)]);
        for address in edges.chain(probes.iter().map(|(p, _)| *p)) {
            let expected = naive.lookup(address);
            match (lookup4(&reader, address, || address.wrapping_mul(0x9e37_79b9)), expected) {
                (Route::Forward(member), Some(members)) => prop_assert!(members.contains(&member.ifindex)),
                (Route::Miss, None) => {}
                (found @ (Route::Kernel | Route::NoRoom), _)
                    if fib.lookup(Ipv4Addr::from(address).into(), 0).left_out =>
                {
                    // The kernel's, if it has a longer route of the /24.
                    let mut inside = naive.routes.iter().filter(|((p, len), _)| *len > 24 && *p >> 8 == address >> 8);
                    let is_lost = inside.all(|(_, group)| is_apart(*group));
                    prop_assert_eq!(found == Route::NoRoom, is_lost, "{:#x}", address);
                }
                (found, expected) => prop_assert!(false, "{address:#x}: {found:?}, expected {expected:?}"),
            }
        }
        prop_assert_eq!(fib.len() + fib.usage().left_out, naive.routes.len());
        prop_assert!(!full || fib.audit(false).is_clean());
    }
}
