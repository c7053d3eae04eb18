use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use lb_dataplane_common::fib::Route;
use lb_dataplane_common::fib6::{ROOT6_WORDS, lookup6, root_index};
use proptest::prelude::*;

use super::tests::{NODE_BYTES, Reader, fixture, group, group_apart, is_apart, next, shared};
use super::*;

fn address(text: &str) -> u128 {
    text.parse::<Ipv6Addr>().unwrap().to_bits()
}

fn add(prefix: u128, len: u8, group: u32) -> FibUpdate {
    FibUpdate::Route { prefix: Ipv6Addr::from_bits(prefix).into(), len, group }
}

fn remove(prefix: u128, len: u8) -> FibUpdate {
    FibUpdate::RouteRemoved { prefix: Ipv6Addr::from_bits(prefix).into(), len }
}

fn route(prefix: &str, len: u8, group: u32) -> FibUpdate {
    add(address(prefix), len, group)
}

fn removed(prefix: &str, len: u8) -> FibUpdate {
    remove(address(prefix), len)
}

impl Reader {
    fn root6_words(&self) -> &[AtomicU64] {
        self.arrays.root6.wide_words()
    }
}

fn look(reader: &Reader, address: u128) -> Option<u32> {
    match lookup6(reader, [(address >> 64) as u64, address as u64], || 7) {
        Route::Forward(member) => Some(member.ifindex),
        Route::Kernel | Route::Blackhole | Route::NoRoom | Route::Miss => None,
    }
}

fn out(reader: &Reader, text: &str) -> Option<u32> {
    look(reader, address(text))
}

fn used(fib: &Fib) -> usize {
    fib.usage().node_bytes.0
}

#[test]
fn the_longest_prefix_wins_and_its_removal_uncovers_the_next() {
    let (mut fib, reader) = fixture();
    for id in 1..=6 {
        group(&mut fib, id, &[id * 10]);
    }
    let empty = used(&fib);
    let routes = [
        ("::", 0, 1),
        ("2001:db8::", 32, 2),
        ("2001:db8:1::", 48, 3),
        ("2001:db8:1:2::", 64, 4),
        ("2001:db8:1:2::3", 128, 5),
        ("fc00::", 7, 6),
    ];
    for (prefix, len, group) in routes {
        fib.update(&route(prefix, len, group)).unwrap();
    }
    assert_eq!(out(&reader, "2001:db9::"), Some(10));
    assert_eq!(out(&reader, "::1"), Some(10));
    assert_eq!(out(&reader, "2001:db8:2::1"), Some(20));
    assert_eq!(out(&reader, "2001:db8:1:3::"), Some(30));
    assert_eq!(out(&reader, "2001:db8:1:2::4"), Some(40));
    assert_eq!(out(&reader, "2001:db8:1:2::3"), Some(50));
    assert_eq!(out(&reader, "fdff::1"), Some(60));
    fib.update(&removed("2001:db8:1:2::", 64)).unwrap();
    assert_eq!(out(&reader, "2001:db8:1:2::4"), Some(30));
    assert_eq!(out(&reader, "2001:db8:1:2::3"), Some(50));
    fib.update(&removed("2001:db8::", 32)).unwrap();
    assert_eq!(out(&reader, "2001:db8:2::1"), Some(10));
    assert_eq!(fib.routes(None, 3)[1].prefix, "2001:db8:1::".parse::<IpAddr>().unwrap());
    for (prefix, len, _) in routes {
        fib.update(&removed(prefix, len)).unwrap();
    }
    assert_eq!(out(&reader, "2001:db8:1:2::3"), None);
    assert_eq!(out(&reader, "fdff::1"), None);
    assert!(fib.is_empty());
    assert_eq!(used(&fib), empty, "a node is left behind");
}

#[test]
fn a_lone_prefix_takes_one_cache_line_and_a_change_of_its_group_none() {
    let (mut fib, reader) = fixture();
    group(&mut fib, 1, &[10]);
    group(&mut fib, 2, &[20]);
    let empty = used(&fib);
    fib.update(&route("2001:db8:1::", 48, 1)).unwrap();
    assert_eq!(used(&fib) - empty, 64);
    fib.update(&route("2001:db8:1::", 48, 2)).unwrap();
    assert_eq!(used(&fib) - empty, 64);
    assert_eq!(out(&reader, "2001:db8:1::"), Some(20));
}

#[test]
fn packets_of_what_does_not_fit_are_dropped_where_the_kernel_has_none_of_it_and_by_the_next_process_too()
 {
    let (files, mut fib, reader) = shared();
    group(&mut fib, 1, &[10]);
    group_apart(&mut fib, 2, &[20]);
    fib.synced();
    fib.update(&route("::", 0, 1)).unwrap();
    fib.update(&route("2001:d00::", 24, 1)).unwrap();
    let prefix = |n: u32| address("2001:db8::") + (u128::from(n) << 64);
    let mut routes = (0_u32..).map(|n| n * 2);
    let refused = routes.find(|n| fib.update(&add(prefix(*n), 64, 2)).is_err()).unwrap();
    let high = |address: u128| [(address >> 64) as u64, address as u64];
    let meets = |address: u128| lookup6(&reader, high(address), || 0);
    assert_eq!([prefix(refused), prefix(0)].map(meets), [Route::NoRoom, Route::NoRoom]);
    assert_eq!((fib.usage().left_out, fib.usage().dropped), (1, 1));
    // A route that the kernel has, which may be an address of this host, makes the block the kernel's.
    fib.update(&add(prefix(2), 64, 1)).unwrap();
    assert_eq!((meets(prefix(refused)), fib.usage().dropped), (Route::Kernel, 0));
    fib.update(&add(prefix(2), 64, 2)).unwrap();
    assert_eq!(meets(prefix(refused)), Route::NoRoom);
    assert!(fib.audit(false).is_clean());
    // The next process finds it so, whatever comes first, until a route is told or all are.
    drop(fib);
    let mut fib = next(&files);
    group(&mut fib, 1, &[11]);
    fib.update(&route("::", 0, 1)).unwrap();
    fib.update(&route("2001:d00::", 24, 1)).unwrap();
    fib.update(&add(prefix(0), 64, 1)).unwrap();
    assert_eq!([prefix(refused), prefix(4)].map(meets), [Route::NoRoom, Route::NoRoom]);
    assert_eq!([look(&reader, prefix(0)), out(&reader, "2a00::1")], [Some(11), Some(11)]);
    fib.synced();
    assert_eq!([refused, 0, 4].map(|n| look(&reader, prefix(n))), [Some(11); 3]);
    assert!(fib.audit(false).is_clean());
}

#[test]
fn a_full_table_refuses_before_it_writes_and_still_removes() {
    let (mut fib, reader) = fixture();
    group(&mut fib, 1, &[10]);
    group(&mut fib, 2, &[20]);
    fib.update(&route("::", 0, 2)).unwrap();
    let prefix = |n: u32| address("2001:db8::") + (u128::from(n) << 64);
    // Every other /64: each is a run of its own.
    let mut routes = (0_u32..).map(|n| n * 2);
    let refused = routes.find(|n| fib.update(&add(prefix(*n), 64, 1)).is_err()).unwrap();
    let error = fib.update(&add(prefix(refused), 64, 1)).unwrap_err();
    assert!(matches!(error, FibError::NodesFull { kibibytes: 64, .. }), "{error}");
    assert_eq!(fib.len() as u32, refused / 2 + 1);
    // No packet that it covers takes a shorter route: the kernel has its whole block, and nothing else.
    assert_eq!([prefix(refused), prefix(0)].map(|n| look(&reader, n)), [None, None]);
    assert_eq!(out(&reader, "2a00::1"), Some(20));
    assert_eq!((fib.usage().left_out, fib.audit(false).is_clean()), (1, true));
    // Changes of those that are there, and removals, need no room; the one that is left out comes in when there is some.
    for n in (0..refused).step_by(2) {
        fib.update(&add(prefix(n), 64, 2)).unwrap();
        assert_eq!(look(&reader, prefix(n)), Some(20).filter(|_| fib.usage().left_out == 0));
        fib.update(&remove(prefix(n), 64)).unwrap();
    }
    assert_eq!((fib.usage().left_out, fib.audit(false).is_clean()), (0, true));
    assert_eq!([prefix(refused), prefix(0)].map(|n| look(&reader, n)), [Some(10), Some(20)]);
    assert!(used(&fib) < NODE_BYTES / 16, "{} bytes of one route", used(&fib));
}

#[test]
fn host_bits_and_lengths_beyond_an_address_are_refused() {
    let (mut fib, _) = fixture();
    group(&mut fib, 1, &[10]);
    let bad = fib.update(&route("2001:db8::1", 64, 1)).unwrap_err();
    assert_eq!(
        bad.to_string(),
        "2001:db8::1/64 is no prefix: it has host bits, or is longer than an address"
    );
    let long = fib.update(&route("2001:db8::1", 129, 1)).unwrap_err();
    assert!(matches!(long, FibError::BadPrefix { .. }), "{long}");
}

#[test]
fn words_that_point_anywhere_are_taken_over_as_misses() {
    let (files, mut old, reader) = shared();
    group(&mut old, 1, &[10]);
    old.update(&route("2001:db8:1::", 48, 1)).unwrap();
    old.update(&route("2001:db9:1::", 48, 1)).unwrap();
    drop(old);
    let root = files.map().root6;
    let place = |text| {
        let (index, _) = lb_dataplane_common::fib6::root_index((address(text) >> 64) as u64);
        &root.wide_words()[index as usize]
    };
    use std::sync::atomic::Ordering::Relaxed;
    // A node beyond the end, and one that two words lead to.
    place("2001:d00::").store(u64::from(u32::MAX) << 32, Relaxed);
    let node = place("2001:dff::").load(Relaxed);
    place("2002::").store(node, Relaxed);
    let mut new = next(&files);
    new.synced();
    assert_eq!(out(&reader, "2001:db8:1::"), None);
    group(&mut new, 1, &[10]);
    new.update(&route("2001:db8:1::", 48, 1)).unwrap();
    assert_eq!(out(&reader, "2001:db8:1::"), Some(10));
}

type Prefix = (u128, u8);

/// Crowded ones of all lengths, some in a subnet's last bits, and any others.
fn prefix() -> impl Strategy<Value = Prefix> {
    let crowded = (any::<u32>(), 0_u128..3).prop_map(|(bits, net)| {
        let spread = u128::from(bits & 0x0303_0303) << 72;
        address("2001:db8::") + (net << 104) + spread
    });
    let hosts = any::<u16>().prop_map(|n| address("2001:db8::") + u128::from(n & 0x0707));
    let local = any::<u8>().prop_map(|n| address("fd00::") + (u128::from(n & 7) << 100));
    let address = prop_oneof![5 => crowded, 2 => hosts, 1 => local, 1 => any::<u128>()];
    let len = prop_oneof![6 => 24_u8..=64, 2 => 65_u8..=128, 1 => 10_u8..24, 1 => 0_u8..10, 1 => Just(128)];
    (address, len).prop_map(|(address, len)| (address & u128::mask(len), len))
}

#[derive(Clone, Debug)]
enum Op {
    Put(Prefix, u32),
    Remove(Prefix),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        60 => (prefix(), 1_u32..6).prop_map(|(prefix, group)| Op::Put(prefix, group)),
        15 => prefix().prop_map(Op::Remove),
        1 => Just(Op::Restart),
    ]
}

/// The table that is obviously right: every prefix is tried.
#[derive(Clone, Default)]
struct Naive(BTreeMap<Prefix, u32>);

impl Naive {
    fn longest(&self, address: u128) -> Option<Prefix> {
        let prefixes = (0..=128).rev().map(|len| (address & u128::mask(len), len));
        prefixes.into_iter().find(|prefix| self.0.contains_key(prefix))
    }

    fn lookup(&self, address: u128) -> Option<u32> {
        Some(self.0[&self.longest(address)?] * 10)
    }

    /// The first and last address of every prefix and their neighbours.
    fn edges(&self) -> Vec<u128> {
        let edge = |(first, len): &Prefix| {
            let last = *first | !u128::mask(*len);
            [*first, last, first.wrapping_sub(1), last.wrapping_add(1), *first | 1 << 70]
        };
        self.0.keys().flat_map(edge).collect()
    }
}

fn groups(fib: &mut Fib) {
    (1..6).for_each(|id| match is_apart(id) {
        true => group_apart(fib, id, &[id * 10]),
        false => group(fib, id, &[id * 10]),
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn the_trie_agrees_with_a_naive_table_and_is_empty_in_the_end(
        ops in prop::collection::vec(op(), 1..200),
        probes in prop::collection::vec(prefix(), 32),
        full in prop::bool::weighted(0.3),
    ) {
        let (files, mut fib, reader) = shared();
        let empty = used(&fib);
        let mut naive = Naive::default();
        groups(&mut fib);
        if full {
            // Three nodes each. The last ones make room for a few more.
            let mut routes = (0_u128..).map(|n| (n << 113 | 1, 128));
            let crowd = routes.by_ref().take_while(|(prefix, len)| fib.update(&add(*prefix, *len, 1)).is_ok());
            let crowd: Vec<_> = crowd.collect();
            let (left, gone) = crowd.split_at(crowd.len() - 4);
            naive.0.extend(left.iter().map(|prefix| (*prefix, 1)));
            let refused = ((crowd.len() as u128) << 113 | 1, 128);
            let gone = gone.iter().copied().chain([refused]);
            gone.for_each(|(prefix, len)| fib.update(&remove(prefix, len)).unwrap());
        }
        // Whatever is refused, no packet takes another way than it should, but for the kernel's.
        let agrees = |fib: &Fib, naive: &Naive, address: u128| {
            let left_out = fib.lookup(Ipv6Addr::from_bits(address).into(), 0).left_out;
            let wanted = naive.lookup(address).filter(|_| !left_out);
            let (index, bits) = root_index((address >> 64) as u64);
            let mut inside = naive.0.iter().filter(|((prefix, len), _)| {
                u32::from(*len) > bits && root_index((prefix >> 64) as u64).0 == index
            });
            let is_lost = left_out && inside.all(|(_, group)| is_apart(*group));
            let drops = lookup6(&reader, [(address >> 64) as u64, address as u64], || 7) == Route::NoRoom;
            (look(&reader, address) == wanted && drops == is_lost).then_some(()).ok_or(wanted)
        };
        for op in ops {
            match op {
                Op::Put((prefix, len), group) => match fib.update(&add(prefix, len, group)) {
                    Ok(()) => { naive.0.insert((prefix, len), group); }
                    Err(error) => {
                        prop_assert!(matches!(error, FibError::NodesFull { .. }), "{}", error);
                        prop_assert!(fib.usage().left_out > 0, "{prefix:x}/{len} is forgotten");
                        naive.0.insert((prefix, len), group);
                    }
                },
                Op::Remove((prefix, len)) => {
                    fib.update(&remove(prefix, len)).unwrap();
                    naive.0.remove(&(prefix, len));
                }
                Op::Restart => {
                    fib = next(&files);
                    groups(&mut fib);
                    for ((prefix, len), group) in &naive.0 {
                        let done = fib.update(&add(*prefix, *len, *group));
                        prop_assert!(done.is_ok() || full, "{done:?}");
                    }
                    fib.synced();
                }
            }
        }
        for address in naive.edges().into_iter().chain(probes.iter().map(|(address, _)| *address)) {
            prop_assert_eq!(agrees(&fib, &naive, address), Ok(()), "{:x}", address);
        }
        prop_assert_eq!(fib.len() + fib.usage().left_out, naive.0.len());
        prop_assert!(!full || fib.audit(false).is_clean());
        // In another order than they came in.
        let mut left = naive.clone();
        for (prefix, len) in naive.0.keys().rev() {
            fib.update(&remove(*prefix, *len)).unwrap();
            left.0.remove(&(*prefix, *len));
            prop_assert_eq!(agrees(&fib, &left, *prefix), Ok(()), "{:x}", prefix);
        }
        prop_assert_eq!((used(&fib), fib.usage().left_out), (empty, 0));
        let shortcuts = &reader.root6_words()[ROOT6_WORDS as usize..];
        prop_assert!(shortcuts.iter().all(|word| word.load(Relaxed) == 0), "a shortcut is left behind");
    }

    /// Routes come back in an order of their own, under groups of other names. Packets of those that do notice nothing at
    /// any point; the others fall to what covers them at the end, and not before.
    #[test]
    fn a_restart_is_noticed_only_by_packets_of_routes_that_do_not_come_back(
        routes in prop::collection::btree_map(prefix(), (1_u32..6, prop::bool::weighted(0.8)), 1..60)
            .prop_map(Vec::from_iter)
            .prop_shuffle(),
        default in any::<bool>(),
    ) {
        let (files, mut old, reader) = shared();
        groups(&mut old);
        let mut routes = routes;
        routes.retain(|(prefix, _)| *prefix != (0, 0));
        if default {
            routes.insert(0, ((0, 0), (1, true)));
        }
        let (mut before, mut after) = (Naive::default(), Naive::default());
        for ((prefix, len), (group, again)) in &routes {
            old.update(&add(*prefix, *len, *group)).unwrap();
            before.0.insert((*prefix, *len), *group);
            if *again {
                after.0.insert((*prefix, *len), *group);
            }
        }
        drop(old);
        routes.retain(|(_, (_, again))| *again);
        // What packets of routes that come back meet all the time.
        let probes = before.edges();
        let kept = probes.iter().filter(|address| after.longest(**address) == before.longest(**address));
        let kept: Vec<(u128, Option<u32>)> = kept.map(|a| (*a, before.lookup(*a))).collect();
        let mut new = next(&files);
        (1..6).for_each(|id| group(&mut new, id + 10, &[id * 10]));
        for ((prefix, len), (group, _)) in &routes {
            new.update(&add(*prefix, *len, group + 10)).unwrap();
            let lost = kept.iter().find(|(address, then)| look(&reader, *address) != *then);
            prop_assert!(lost.is_none(), "after {prefix:x}/{len}: {lost:x?}");
        }
        new.synced();
        for address in probes {
            prop_assert_eq!(look(&reader, address), after.lookup(address), "{:x}", address);
        }
        prop_assert_eq!(new.len(), after.0.len());
    }
}

#[test]
fn the_way_to_an_address_is_that_of_its_longest_route_once_the_routes_are_known() {
    let (mut fib, _) = fixture();
    group(&mut fib, 1, &[7]);
    group(&mut fib, 2, &[8]);
    for (prefix, len, group) in [("10.0.0.0", 8, 1), ("10.2.0.0", 16, 2), ("2001:db8::", 32, 2)] {
        let prefix = prefix.parse().unwrap();
        fib.update(&FibUpdate::Route { prefix, len, group }).unwrap();
    }
    let out = |fib: &Fib, address: &str| match fib.towards(address.parse().unwrap()) {
        Some(Action::Forward(members)) => members[0].ifindex,
        Some(Action::Kernel) => 0,
        other => panic!("{address}: {other:?}"),
    };
    assert_eq!(fib.towards([10, 2, 0, 1].into()), None, "more routes may come");
    fib.synced();
    let cases = [("10.1.0.1", 7), ("10.2.0.1", 8), ("11.0.0.1", 0), ("2001:db8::1", 8), ("::1", 0)];
    for (address, ifindex) in cases {
        assert_eq!(out(&fib, address), ifindex, "{address}");
    }
}
