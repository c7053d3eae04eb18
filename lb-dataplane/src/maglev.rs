//! Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4).
//!
//! A ring depends on nothing but its size and the addresses, ports and weights of the backends that take new flows, so every node
//! with the same configuration and health builds the same one, and a flow that moves to another node finds its backend there.
//! Rings of different sizes have nothing in common, so a size goes by what is configured, never by health.

use std::net::IpAddr;

/// Sizes that a service may ask for: primes, each about twice the one before.
pub const SIZES: [u32; 10] =
    [1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071, 262_139, 524_287];
/// Those that it has otherwise: four times as large each, so that few backends more seldom change the size, and with it the
/// choice for nearly all flows.
const STEPS: [u32; 6] = [1021, 4093, 16_381, 65_521, 262_139, 524_287];
/// Slots per backend at least: shares are right within a percent then, as the paper advises.
const SLOTS_PER_BACKEND: usize = 100;

/// The size of the ring of a service that has so many backends, in words, whatever their state: up to 10, 40, 163, 655, 2621, and
/// more.
#[must_use]
pub fn size_for(backends: usize) -> u32 {
    let wanted = backends * SLOTS_PER_BACKEND;
    let fits = STEPS.into_iter().find(|size| *size as usize >= wanted);
    fits.unwrap_or(STEPS[STEPS.len() - 1])
}

/// The ring of a size, a prime: at each slot the place of its backend in `backends`, whatever their order. A backend has a share of
/// the slots as its weight, 1 or more, says. Empty where there is no backend.
#[must_use]
pub fn ring(size: u32, backends: &[(IpAddr, u16, u8)]) -> Vec<u32> {
    if backends.is_empty() {
        return Vec::new();
    }
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
mod tests;
