//! Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4).
//!
//! A ring depends on nothing but the backends' addresses, ports and weights, so every node with the same backends builds the same
//! one, and a flow that moves to another node finds its backend there.

use std::net::IpAddr;

/// Ring sizes: primes, each about twice the one before. The paper advises at least 100 slots a backend.
const SIZES: [u32; 10] =
    [1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071, 262_139, 524_287];
/// Slots per backend at least.
const SLOTS_PER_BACKEND: usize = 100;

/// The size of the ring of so many backends, in words; 0 for none.
pub fn ring_len(backends: usize) -> u32 {
    if backends == 0 {
        return 0;
    }
    let wanted = backends * SLOTS_PER_BACKEND;
    let fits = SIZES.into_iter().find(|size| *size as usize >= wanted);
    fits.unwrap_or(SIZES[SIZES.len() - 1])
}

/// The ring: at each slot the place of its backend in `backends`, whatever their order. A backend has a share of the slots
/// as its weight, 1 or more, says.
pub fn ring(backends: &[(IpAddr, u16, u8)]) -> Vec<u32> {
    let size = ring_len(backends.len());
    let mut turns: Vec<Turn> =
        (0..).zip(backends).map(|(place, b)| Turn::new(place, b, size)).collect();
    turns.sort_unstable_by_key(|turn| turn.identity);
    let mut slots = vec![0; size as usize];
    let mut free = Free::new(size);
    let mut filled = 0;
    // Each backend in turn takes the next free slot of its permutation; one with a smaller weight than the greatest lets
    // turns pass, spread over the rounds. At most `size` rounds, since each fills a slot.
    let greatest = backends.iter().map(|(_, _, weight)| u64::from(*weight)).max().unwrap_or(1);
    while filled < size {
        for turn in &mut turns {
            turn.credit += turn.weight;
            if turn.credit < greatest {
                continue;
            }
            turn.credit -= greatest;
            slots[turn.next_free(&mut free) as usize] = turn.place;
            filled += 1;
            if filled == size {
                break;
            }
        }
    }
    slots
}

/// The slots that nobody has yet, as bits: a walk meets a dozen slots for each one that is free, and these stay near.
struct Free(Vec<u64>);

impl Free {
    fn new(size: u32) -> Self {
        Self(vec![u64::MAX; size.div_ceil(u64::BITS) as usize])
    }

    /// Takes a slot; whether it was free.
    fn take(&mut self, slot: u32) -> bool {
        let (word, bit) = (&mut self.0[(slot / u64::BITS) as usize], 1 << (slot % u64::BITS));
        let was_free = *word & bit != 0;
        *word &= !bit;
        was_free
    }
}

/// A backend and its walk over the slots: `(offset + i * skip) mod size`, which a prime size makes a permutation.
struct Turn {
    place: u32,
    identity: (IpAddr, u16),
    weight: u64,
    /// The weight of the rounds since its last turn.
    credit: u64,
    next: u32,
    skip: u32,
    size: u32,
}

impl Turn {
    fn new(place: u32, &(address, port, weight): &(IpAddr, u16, u8), size: u32) -> Self {
        let bits = match address {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        };
        let (high, low) = ((bits >> 64) as u64, (bits & u128::from(u64::MAX)) as u64);
        let name = mix(mix(mix(high) ^ low) ^ u64::from(port));
        // Below a size, which has 20 bits.
        let offset = (mix(name ^ 0x6f66_6673_6574) % u64::from(size)) as u32;
        let skip = (mix(name ^ 0x736b_6970) % u64::from(size - 1)) as u32 + 1;
        let weight = u64::from(weight.max(1));
        Self { place, identity: (address, port), weight, credit: 0, next: offset, skip, size }
    }

    fn next_free(&mut self, free: &mut Free) -> u32 {
        loop {
            let slot = self.next;
            let next = slot + self.skip;
            self.next = if next < self.size { next } else { next - self.size };
            if free.take(slot) {
                return slot;
            }
        }
    }
}

/// The finaliser of MurmurHash3 (64 bits).
const fn mix(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    word = (word ^ (word >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn backends(count: u8) -> Vec<(IpAddr, u16, u8)> {
        (0..count).map(|n| (IpAddr::from([10, 1, n / 250, n % 250 + 1]), 8080, 1)).collect()
    }

    fn shares(ring: &[u32]) -> HashMap<u32, usize> {
        ring.iter().fold(HashMap::new(), |mut shares, place| {
            *shares.entry(*place).or_default() += 1;
            shares
        })
    }

    #[test]
    fn every_backend_has_its_share_to_a_percent_of_the_paper() {
        for count in [1, 2, 3, 7, 10, 50, 200] {
            let backends = backends(count);
            let ring = ring(&backends);
            let even = ring.len() as f64 / f64::from(count);
            for (place, slots) in shares(&ring) {
                let off = (slots as f64 - even).abs() / even;
                assert!(off < 0.02, "{count} backends: {place} has {slots} of {even}");
            }
        }
    }

    proptest! {
        #[test]
        fn shares_follow_the_weights(weights in prop::collection::vec(1_u8..=20, 1..20)) {
            let mut backends = backends(weights.len() as u8);
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            backends.iter_mut().zip(&weights).for_each(|(backend, weight)| backend.2 = *weight);
            let ring = ring(&backends);
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
        assert!(ring(&[]).is_empty());
        assert_eq!(ring_len(0), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_order_of_the_backends_does_not_matter(count in 1_u8..40, turn in 0_usize..40) {
            let straight = backends(count);
            let mut turned = straight.clone();
            turned.rotate_left(turn % usize::from(count));
            let names = |ring: Vec<u32>, of: &[(IpAddr, u16, u8)]| -> Vec<(IpAddr, u16, u8)> {
                ring.into_iter().map(|place| of[place as usize]).collect()
            };
            prop_assert_eq!(names(ring(&straight), &straight), names(ring(&turned), &turned));
        }

        /// The paper's figure 12: one backend of N that leaves takes its own share along and moves few others.
        #[test]
        fn one_backend_that_leaves_moves_few_slots_of_the_others(count in 3_u8..40, gone in 0_usize..40) {
            let all = backends(count);
            let gone = gone % all.len();
            let mut rest = all.clone();
            let left = rest.remove(gone);
            let (before, after) = (ring(&all), ring(&rest));
            prop_assume!(before.len() == after.len());
            let moved = before.iter().zip(&after).filter(|(old, new)| {
                let old = all[**old as usize];
                old != left && old != rest[**new as usize]
            });
            let share = moved.count() as f64 / before.len() as f64;
            prop_assert!(share < 0.12, "{share} of the slots moved without need");
        }
    }
}
