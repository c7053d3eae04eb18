use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

type Named = (IpAddr, u16, u8);

/// So many of one weight; those of a seed have their own addresses.
fn backends(seed: u16, is_v6: bool, count: u16) -> Vec<Named> {
    let [high, low] = seed.to_be_bytes();
    let address = |n: u16| {
        let [a, b] = n.to_be_bytes();
        if is_v6 {
            IpAddr::from([0x2001, 0xdb8, seed, 0, 0, 0, 0, n])
        } else {
            IpAddr::from([10, high ^ low, a, b])
        }
    };
    (0..count).map(|n| (address(n), 8080, 1)).collect()
}

fn shares(ring: &[u32]) -> HashMap<u32, usize> {
    ring.iter().fold(HashMap::new(), |mut shares, place| {
        *shares.entry(*place).or_default() += 1;
        shares
    })
}

/// The part of the slots that had another backend than one that is gone, and have one that was not there before, or another one:
/// what is moved without need.
fn moved(before: (&[u32], &[Named]), after: (&[u32], &[Named])) -> f64 {
    assert_eq!(before.0.len(), after.0.len(), "rings of two sizes have nothing in common");
    let moves = before.0.iter().zip(after.0).filter(|(old, new)| {
        let (old, new) = (before.1[**old as usize], after.1[**new as usize]);
        old != new && after.1.contains(&old) && before.1.contains(&new)
    });
    moves.count() as f64 / before.0.len() as f64
}

/// What moves without need at most when one backend of many comes or goes, by the size of the ring. The more slots a backend has,
/// the less it is; among a few hundred slots two backends' walks may follow each other, in the worst of thousands of cases.
fn most_moved(size: u32) -> f64 {
    match size {
        ..4093 => 0.25,
        4093..16_381 => 0.12,
        16_381.. => 0.05,
    }
}

#[test]
fn every_backend_has_its_share_to_a_percent_of_the_paper() {
    for count in [1, 2, 3, 7, 10, 11, 40, 41, 163, 164, 200] {
        for is_v6 in [false, true] {
            let ring = ring(size_for(count.into()), &backends(1, is_v6, count));
            let even = ring.len() as f64 / f64::from(count);
            for (place, slots) in shares(&ring) {
                let off = (slots as f64 - even).abs() / even;
                assert!(off < 0.02, "{count} backends: {place} has {slots} of {even}");
            }
        }
    }
}

proptest! {
    #[test]
    fn shares_follow_the_weights(weights in prop::collection::vec(1_u8..=20, 1..20)) {
        let mut backends = backends(1, false, weights.len() as u16);
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        backends.iter_mut().zip(&weights).for_each(|(backend, weight)| backend.2 = *weight);
        let ring = ring(size_for(backends.len()), &backends);
        for (place, slots) in shares(&ring) {
            let part = f64::from(weights[place as usize]) / sum;
            let share = ring.len() as f64 * part;
            // A turn, and a part of the last round, which may be a part of the backends only.
            let off = 1.0 + part * weights.len() as f64;
            prop_assert!((slots as f64 - share).abs() <= off, "{slots} of {share}");
        }
    }
}

#[test]
fn a_ring_of_none_is_empty() {
    assert!(ring(1021, &[]).is_empty());
}

#[test]
fn sizes_are_those_that_are_documented() {
    let documented =
        [(10, 1021), (40, 4093), (163, 16_381), (655, 65_521), (2621, 262_139), (4096, 524_287)];
    let mut least = 0;
    for (most, size) in documented {
        assert_eq!([size_for(least), size_for(most)], [size; 2]);
        assert!(SIZES.contains(&size));
        least = most + 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_order_of_the_backends_does_not_matter(count in 1_u16..40, turn in 0_usize..40) {
        let straight = backends(1, false, count);
        let mut turned = straight.clone();
        turned.rotate_left(turn % usize::from(count));
        let names = |of: &[Named]| -> Vec<Named> {
            ring(4093, of).into_iter().map(|place| of[place as usize]).collect()
        };
        prop_assert_eq!(names(&straight), names(&turned));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The paper's §5.3: one backend of N that fails takes its own share along and moves few others, whatever the number of
    /// those that are configured, have failed already and are left, and whatever their weights.
    #[test]
    fn a_backend_that_fails_or_returns_moves_few_slots_of_the_others(
        (seed, is_v6) in any::<(u16, bool)>(),
        weights in prop_oneof![
            prop::collection::vec(Just(1_u8), 3..200),
            prop::collection::vec(1_u8..=20, 3..200),
            prop::collection::vec(1_u8.., 3..50),
            prop::collection::vec(1_u8.., 3..12),
        ],
        (failed, gone) in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let mut all = backends(seed, is_v6, weights.len() as u16);
        all.iter_mut().zip(&weights).for_each(|(backend, weight)| backend.2 = *weight);
        let size = size_for(all.len());
        let failed = failed.index(all.len() / 2 + 1);
        all.drain(..failed);
        let mut rest = all.clone();
        rest.remove(gone.index(all.len()));
        prop_assume!(!rest.is_empty());
        let moved = moved((&ring(size, &all), &all), (&ring(size, &rest), &rest));
        prop_assert!(moved < most_moved(size), "{moved} of {size} slots moved without need");
    }
}

#[test]
fn with_a_size_of_its_own_a_service_grows_beyond_a_step_and_moves_few_slots() {
    // The last two: as many as a service may have.
    let grown = [(16_381, 11), (16_381, 41), (65_521, 164), (65_521, 656), (524_287, 4096)];
    for (size, count) in grown {
        for is_v6 in [false, true] {
            let all = backends(2, is_v6, count);
            let before = &all[..all.len() - 1];
            let moved = moved((&ring(size, before), before), (&ring(size, &all), &all));
            assert!(moved < 0.02, "{moved} of {size} slots moved when number {count} came");
        }
    }
}
