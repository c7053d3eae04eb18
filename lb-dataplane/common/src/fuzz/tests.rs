use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn whatever_comes_a_plain_flow_table_agrees(
        first: u8,
        steps in prop::collection::vec(any::<[u8; STEP]>(), 0..200),
    ) {
        script(&[&[first], steps.as_flattened()].concat());
    }
}

/// What of each is to come through, and of how many packets one is such at least: it says nothing otherwise.
const KINDS: [(&str, usize); 9] = [
    ("to a backend", 40),
    ("to a client", 40),
    ("in a frame to a backend", 100),
    ("within another packet", 50),
    ("routed as it is", 10),
    ("a later part", 200),
    ("an error to a backend", 100),
    ("an error to a client", 300),
    ("an echo that is answered", 300),
];

#[test]
fn of_scripts_of_chance_some_packets_come_through_in_each_way() {
    let mut chance = 1_u64;
    let mut byte = || {
        // Knuth's MMIX.
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (chance >> 56) as u8
    };
    let (mut packets, mut reached) = (0, Reached::new());
    for first in 0..=u8::MAX {
        let steps: Vec<u8> = (0..200 * STEP).map(|_| byte()).collect();
        for (what, count) in script(&[&[first], &steps[..]].concat()) {
            *reached.entry(what).or_default() += count;
        }
        packets += 2 * 200;
    }
    println!("of {packets}: {reached:?}");
    for (what, of) in KINDS {
        let count = reached.get(what).copied().unwrap_or(0);
        assert!(count >= packets / of, "of {packets} only {count} were {what}");
    }
}

#[test]
fn the_kept_corpus_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/dataplane");
    let mut scripts = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is there") {
        let path = entry.expect("an entry").path();
        script(&std::fs::read(&path).expect("a file"));
        scripts += 1;
    }
    assert!(scripts > 10, "{scripts} scripts: is this the corpus?");
}
