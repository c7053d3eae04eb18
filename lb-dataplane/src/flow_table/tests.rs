use std::array;
use std::collections::{HashMap, HashSet};
use std::sync::Barrier;
use std::sync::atomic::AtomicU32;
use std::thread;

use lb_dataplane_common::family::V6;
use lb_dataplane_common::flow::Translation;
use lb_dataplane_common::flow_table::{SLOTS, buckets_for};
use proptest::prelude::*;

use super::*;

impl<A: Family> FlowTable<A> {
    fn on_heap(buckets: u32, seed: u64) -> Self {
        let words = Mapped::on_heap(buckets as usize * size_of::<Bucket<A>>());
        let table = Self { words, buckets, family: PhantomData };
        table.set_seed(seed);
        table
    }

    fn add(&self, key: &FlowKey<A>, line: u32) -> Result<(), InsertError> {
        let mut entry = entry(line);
        entry.state = key.tag();
        entry.check = key.tag() as u8;
        flow_table::insert(&self, key, &entry)
    }

    fn line(&self, key: &FlowKey<A>) -> Option<u32> {
        self.get(key).map(|entry| entry.line)
    }
}

fn entry(line: u32) -> FlowEntry {
    FlowEntry::new(Translation::default(), 0, line, 0, 0)
}

fn key4(number: u32) -> FlowKey<V4> {
    FlowKey {
        source: number >> 4,
        destination: 0x0100_0a0a,
        source_port: number as u16,
        destination_port: 80,
        protocol: 6,
        pad: 0,
    }
}

fn key6(number: u32) -> FlowKey<V6> {
    FlowKey {
        source: [0x20, 1, number >> 4, 7],
        destination: [0x20, 2, 0, 1],
        source_port: number as u16,
        destination_port: 80,
        protocol: 17,
        pad: 0,
    }
}

#[derive(Clone, Debug)]
enum Act {
    Add(u32),
    Remove(u32),
    Find(u32),
}

fn act() -> impl Strategy<Value = Act> {
    (0..200_u32, 0..4).prop_map(|(number, what)| match what {
        0 | 1 => Act::Add(number),
        2 => Act::Remove(number),
        _ => Act::Find(number),
    })
}

proptest! {
    /// Six buckets, of which some are full at times and send entries to others.
    #[test]
    fn a_table_has_what_a_map_has(acts in prop::collection::vec(act(), 1..600), seed in any::<u64>()) {
        let table = FlowTable::<V4>::on_heap(6, seed | 1);
        let mut map = HashMap::new();
        for (n, act) in acts.into_iter().enumerate() {
            let n = n as u32;
            match act {
                Act::Add(number) => match table.add(&key4(number), n) {
                    Ok(()) => prop_assert_eq!(map.insert(number, n), None),
                    Err(InsertError::Exists) => prop_assert!(map.contains_key(&number)),
                    Err(InsertError::Full) => prop_assert!(map.len() as u32 > 2 * SLOTS),
                },
                Act::Remove(number) => {
                    prop_assert_eq!(table.remove(&key4(number)), map.remove(&number).is_some());
                }
                Act::Find(number) => {
                    prop_assert_eq!(table.line(&key4(number)), map.get(&number).copied());
                }
            }
        }
        let found: HashMap<_, _> = table.entries().into_iter().map(|(k, e)| (k, e.line)).collect();
        prop_assert_eq!(found, map.into_iter().map(|(n, line)| (key4(n), line)).collect());
    }
}

/// Words of lanes of a table of two buckets that has this key alone.
fn lanes(table: &FlowTable<V4>, key: &FlowKey<V4>) -> [u64; 8] {
    assert_eq!(table.add(key, 0), Ok(()));
    let words = array::from_fn(|n| table.at(n as u32 / 4).unwrap().word(n % 4));
    assert!(table.remove(key));
    words
}

/// Keys that belong into the bucket of the first, in a table of two. All have its tag; or every other one has that which differs in the
/// lowest bit.
fn alike(seed: u64, count: usize, by_turns: bool) -> Vec<FlowKey<V4>> {
    let table = FlowTable::<V4>::on_heap(2, seed);
    let first = lanes(&table, &key4(0));
    let other = first.map(|word| word ^ (word >> 15 & 0x0001_0001_0001_0001));
    let other = if by_turns { other } else { first };
    let mut wanted = [first, other].into_iter().cycle().take(count).peekable();
    (0..)
        .map(key4)
        .filter(|key| wanted.next_if(|wanted| lanes(&table, key) == *wanted).is_some())
        .take(count)
        .collect()
}

#[test]
fn two_of_a_tag_are_in_a_bucket_and_others_in_their_second() {
    for by_turns in [false, true] {
        two_are_in_a_bucket(&alike(3, 5, by_turns));
    }
}

fn two_are_in_a_bucket(keys: &[FlowKey<V4>]) {
    let table = FlowTable::<V4>::on_heap(2, 3);
    for (n, key) in keys.iter().enumerate().take(4) {
        assert_eq!(table.add(key, n as u32), Ok(()));
        assert_eq!(table.add(key, 9), Err(InsertError::Exists));
    }
    let there = |at| table.at(at).unwrap().entries().count();
    assert_eq!((there(0), there(1)), (2, 2));
    assert_eq!(table.add(&keys[4], 4), Err(InsertError::Full), "both buckets have two");
    for (n, key) in keys.iter().enumerate().take(4) {
        assert_eq!(table.line(key), Some(n as u32));
        assert!(table.remove(key) && table.line(key).is_none() && !table.remove(key));
        let others = keys[..4].iter().filter(|other| *other != key);
        assert!(others.into_iter().all(|other| table.line(other).is_some()));
        assert_eq!(table.add(&keys[4], 4), Ok(()));
        assert_eq!((table.line(&keys[4]), table.remove(&keys[4])), (Some(4), true));
        assert_eq!(table.add(key, n as u32), Ok(()));
    }
    keys[..4].iter().for_each(|key| assert!(table.remove(key)));
    assert!([0, 1].iter().all(|n| table.at(*n).unwrap().away() == 0));
    assert!([0, 1].iter().all(|at| (0..4).all(|n| table.at(*at).unwrap().word(n) == 0)));
}

/// A multiplication keeps a change of the highest bit what it is, so a hash that only multiplied would let a sender choose addresses
/// that have the hash of another flow's, of which a table takes four.
#[test]
fn no_change_of_the_highest_bits_of_two_words_leaves_the_hash_as_it_was() {
    for seed in 1..100 {
        let table = FlowTable::<V6>::on_heap(64, seed);
        for change in 0..64_u32 {
            let mut key = key6(1);
            key.source[1] ^= (change & 7) << 29;
            key.source[3] ^= (change >> 3) << 29;
            assert_eq!(table.add(&key, change), Ok(()), "seed {seed}");
        }
    }
}

/// As many as were asked for find room, whatever they are.
#[test]
fn there_is_room_for_as_many_as_were_asked_for() {
    fn fill<A: Family>(entries: u32, seed: u64, key: fn(u32) -> FlowKey<A>) -> u32 {
        let table = FlowTable::<A>::on_heap(buckets_for(entries), seed);
        let mut full = (0..).filter(|n| table.add(&key(*n), *n) == Err(InsertError::Full));
        let (one, other) = (full.next().unwrap(), full.next().unwrap());
        let there = || (0..other).filter(|n| *n != one);
        assert!(there().all(|n| table.line(&key(n)) == Some(n)), "what is there stays");
        assert_eq!(table.entries().len(), there().count());
        other - 1
    }
    for seed in 1..20 {
        for entries in [64, 1024, 4096, 100_000] {
            let (v4, v6) = (fill(entries, seed, key4), fill(entries, seed, key6));
            assert!(v4 >= entries && v6 >= entries, "{entries}: {v4}, {v6}");
        }
    }
}

/// So an error that says what is pinned says a size that this is opened with.
#[test]
fn as_many_entries_as_a_size_stands_for_have_that_size() {
    for entries in (1..5000).chain([1 << 23, u32::MAX]) {
        let buckets = buckets_for(entries);
        let most = entries_for(buckets);
        assert!(most >= entries, "{entries}: {most}");
        assert_eq!(buckets_for(most), buckets, "{entries}");
        assert!(most == u32::MAX || buckets_for(most + 1) == buckets + 1, "{entries}");
    }
}

#[test]
fn a_walk_has_each_entry_once_and_parts_as_they_were_asked_for() {
    let table = FlowTable::<V4>::on_heap(buckets_for(4096), 7);
    (0..3000).for_each(|n| table.add(&key4(n), n).unwrap());
    for at_most in [16, 100, 5000] {
        let (mut cursor, mut seen) = (Cursor::default(), HashSet::new());
        loop {
            let (part, is_over) = table.read(&mut cursor, at_most).unwrap();
            assert!(part.len() <= at_most);
            assert!(part.iter().all(|(key, _)| seen.insert(*key)), "twice");
            if is_over {
                break;
            }
        }
        assert_eq!((seen.len(), cursor), (3000, Cursor::default()));
        let mut one = 0;
        loop {
            let (part, is_over) = table.read_one(&mut cursor);
            one += part.len();
            if is_over {
                break;
            }
        }
        assert_eq!(one, 3000);
    }
}

/// Threads add and remove the same few keys in a table with room for fewer: no key is ever there twice, who has added one finds it
/// and is the only one to remove it, and in the end the table is as empty as it was.
#[test]
fn of_those_who_add_a_key_at_once_one_does_at_most() {
    let keys: Vec<_> = (0..30).map(key4).collect();
    let table = FlowTable::<V4>::on_heap(2, SEED);
    let tags = keys.iter().map(|key| {
        let words = lanes(&table, key).into_iter();
        let mut tags = words.flat_map(|word| [0, 16, 32, 48].map(|at| (word >> at) as u16 >> 1));
        tags.find(|tag| *tag != 0).expect("it is there")
    });
    assert_eq!(tags.collect::<HashSet<_>>().len(), keys.len(), "all may be told apart");
    add_at_once(&keys, 1);
}

/// The same where each key has the tag of all others. Beside two changes one may be missed.
#[test]
fn of_those_who_add_keys_of_one_tag_at_once_one_adds_each_at_most() {
    for by_turns in [false, true] {
        add_at_once(&alike(SEED, 6, by_turns), 100);
    }
}

const SEED: u64 = 1;

/// Who has added one looks for it so many times at most.
fn add_at_once(keys: &[FlowKey<V4>], looks: u32) {
    const THREADS: u32 = 3;
    let table = FlowTable::<V4>::on_heap(2, SEED);
    let holders: Vec<AtomicU32> = keys.iter().map(|_| AtomicU32::new(0)).collect();
    let (start, added) = (Barrier::new(THREADS as usize), AtomicU32::new(0));
    thread::scope(|scope| {
        for thread in 1..=THREADS {
            let (table, holders, start, added) = (&table, &holders, &start, &added);
            scope.spawn(move || {
                start.wait();
                let mut random = u64::from(thread).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                for _ in 0..200_000 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let number = random as usize % keys.len();
                    let (key, holder) = (keys[number], &holders[number]);
                    if table.add(&key, thread).is_ok() {
                        added.fetch_add(1, Relaxed);
                        assert_eq!(holder.swap(thread, AcqRel), 0, "{number} is there twice");
                        let found = (0..looks).find_map(|_| table.line(&key));
                        assert_eq!(found, Some(thread));
                        assert_eq!(holder.swap(0, AcqRel), thread);
                        while !table.remove(&key) {}
                    }
                }
            });
        }
    });
    assert!(added.load(Relaxed) > 10_000);
    assert_eq!(table.entries(), []);
    assert!([0, 1].iter().all(|n| table.at(*n).unwrap().away() == 0));
    assert!([0, 1].iter().all(|at| (0..4).all(|n| table.at(*at).unwrap().word(n) == 0)));
}

#[test]
fn each_bit_that_stands_for_a_lane_has_a_slot_of_its_own() {
    let bits = (0..4).flat_map(|lane| (0..4).map(move |word| 1_u64 << (16 * lane + word)));
    let slots: HashSet<u32> = bits.map(slot_of).collect();
    assert_eq!(slots, (0..SLOTS).collect());
}

/// As it is between the two steps of who adds one: in a lane, and not to be found.
#[test]
fn what_another_cpu_is_about_to_add_is_not_taken_for_want_of_room() {
    let table = FlowTable::<V4>::on_heap(2, 7);
    let there: Vec<u32> = (0..).filter(|n| table.add(&key4(*n), 1).is_ok()).take(32).collect();
    let key = key4(there[9]);
    let place = find(&&table, &key).unwrap();
    let lanes = (0..4).flat_map(|lane| (0..4).map(move |word| (word, 16 * lane)));
    let (word, lane) =
        lanes.into_iter().find(|(word, lane)| slot_of(1 << (lane + word)) == place.slot).unwrap();
    let at = place.index as usize * FlowTable::<V4>::BUCKET_WORDS + word;
    table.words.wide_words()[at].fetch_and(!(0x8000 << lane), Relaxed);
    assert_eq!(table.line(&key), None);
    assert!(matches!(table.add(&key, 1), Err(InsertError::Exists)));
    table.words.wide_words()[at].fetch_or(0x8000 << lane, Relaxed);
    assert!(matches!(table.add(&key, 1), Err(InsertError::Exists)));
    assert!(matches!(table.add(&key4(u32::MAX), 1), Err(InsertError::Full)));
}
