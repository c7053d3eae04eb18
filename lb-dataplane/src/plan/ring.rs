//! The ring of a service: backend ids, those of backends with a greater weight more often.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZero;

use lb_dataplane_common::service::{SERVICE_BOUNDS_BACKENDS, ServiceEntry};

use super::Backends;
use super::entries::bounds;
use crate::maglev;
use crate::table::{Algorithm, Backend, Service};

/// What is remembered of a ring, or of a list of clients, whose words are in the map: of many services the words would be the most
/// that there is to remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    /// Words, what is behind the ring included.
    pub(super) len: u32,
    hash: u64,
}

impl Digest {
    pub(super) fn of<T: Hash>(words: &[T]) -> Self {
        // Of fixed keys, so that it is the same each time.
        let mut hasher = DefaultHasher::new();
        words.hash(&mut hasher);
        Self { len: words.len() as u32, hash: hasher.finish() }
    }
}

/// The slots of a ring whose length somebody has said.
pub(super) fn asked(service: &Service) -> Option<u32> {
    let is_hashed = matches!(service.algorithm, Algorithm::Maglev | Algorithm::SourceHash);
    service.table_size.filter(|_| is_hashed).map(NonZero::get)
}

/// The ring with what is behind it, and the length of the ring alone.
pub(super) fn whole(service: &Service, backends: &Backends) -> (Vec<u32>, u32) {
    let mut ring = ring(service, backends);
    let len = ring.len() as u32;
    if bounds(service) & SERVICE_BOUNDS_BACKENDS != 0 && len != 0 {
        append_takers(&mut ring);
    }
    (ring, len)
}

/// Backend ids, slot by slot; only of backends that take new flows. How many slots a hash chooses from goes by all backends: a
/// health check that fails must move no flows but its backend's.
fn ring(service: &Service, backends: &Backends) -> Vec<u32> {
    let takers: Vec<&Backend> =
        service.backends.iter().filter(|backend| backend.takes_new_flows()).collect();
    let places = match service.algorithm {
        Algorithm::RoundRobin | Algorithm::LeastConnections => {
            round(&takers.iter().map(|backend| backend.weight).collect::<Vec<_>>())
        }
        Algorithm::Maglev | Algorithm::SourceHash => {
            let names = takers.iter().map(|b| (b.address, b.port, b.weight)).collect::<Vec<_>>();
            let size = service.table_size.map(NonZero::get);
            maglev::ring(size.unwrap_or_else(|| maglev::size_for(service.backends.len())), &names)
        }
    };
    let id =
        |backend: &&Backend| backends.get(&(backend.address, backend.port)).map(|place| place.id);
    let ids: Vec<Option<u32>> = takers.iter().map(id).collect();
    places.into_iter().filter_map(|place| ids[place as usize]).collect()
}

/// Appends how many backends a ring has, and each of them once: where one is full, others are looked for there.
fn append_takers(ring: &mut Vec<u32>) {
    let takers: BTreeSet<u32> = ring.iter().copied().collect();
    ring.push(takers.len() as u32);
    ring.extend(takers);
}

/// The words of the ring that an entry names, with what is behind it.
pub(super) fn words(entry: &ServiceEntry, word: impl Fn(u32) -> Option<u32>) -> Vec<u32> {
    let end = entry.ring_base.saturating_add(entry.ring_len);
    let behind = if entry.flags & SERVICE_BOUNDS_BACKENDS == 0 || entry.ring_len == 0 {
        0
    } else {
        word(end).map_or(0, |takers| takers.saturating_add(1))
    };
    (entry.ring_base..end.saturating_add(behind)).map_while(word).collect()
}

/// How often each has its turn in a round: the weights without their greatest common divisor.
fn turns_of_each(weights: &[u8]) -> impl Iterator<Item = usize> {
    let gcd = |a: u8, b: u8| {
        let (mut a, mut b) = (a, b);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let divisor = weights.iter().copied().reduce(gcd).unwrap_or(1).max(1);
    weights.iter().map(move |weight| usize::from(weight / divisor))
}

/// A round in which each has as many turns as its weight asks for, spread out as evenly as they can be: the k-th of n turns
/// lies (2k + 1) / 2n of the round after its beginning.
fn round(weights: &[u8]) -> Vec<u32> {
    let mut order: Vec<(usize, usize, u32)> = (0..)
        .zip(turns_of_each(weights))
        .flat_map(|(place, n)| (0..n).map(move |k| (2 * k + 1, n, place)))
        .collect();
    // Fractions compare by their cross products.
    order.sort_by(|(at, of, place), (other_at, other_of, other)| {
        (at * other_of).cmp(&(other_at * of)).then(place.cmp(other))
    });
    order.into_iter().map(|(_, _, place)| place).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn backends_are_listed_once_behind_the_ring() {
        let mut ring = vec![7, 3, 7, 7, 5];
        append_takers(&mut ring);
        assert_eq!(ring, [7, 3, 7, 7, 5, 3, 3, 5, 7]);
    }

    #[test]
    fn turns_are_spread_over_the_round() {
        assert_eq!(round(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(round(&[7, 7]), [0, 1]);
        assert_eq!(round(&[5, 1, 1]), [0, 0, 0, 1, 2, 0, 0]);
        assert_eq!(round(&[2, 1]), [0, 1, 0]);
        assert!(round(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn each_has_exactly_its_share_of_a_round_and_of_any_part_of_it_nearly(
            weights in prop::collection::vec(1_u8.., 1..20)
        ) {
            let ring = round(&weights);
            let sum: u32 = weights.iter().map(|w| u32::from(*w)).sum();
            let mut seen = vec![0_u32; weights.len()];
            for (n, place) in (1_u32..).zip(&ring) {
                seen[*place as usize] += 1;
                for (had, weight) in seen.iter().zip(&weights) {
                    let share = f64::from(n) * f64::from(*weight) / f64::from(sum);
                    prop_assert!((f64::from(*had) - share).abs() < weights.len() as f64);
                }
            }
            for (had, weight) in seen.iter().zip(&weights) {
                let whole = ring.len() as u64 * u64::from(*weight);
                prop_assert_eq!(u64::from(*had) * u64::from(sum), whole);
            }
        }
    }
}
