use proptest::prelude::*;

use super::*;

/// Lanes, and nothing in the slots.
struct Lanes([u64; WORDS]);

impl Shared<()> for Lanes {
    fn word(&self, n: usize) -> u64 {
        self.0[n]
    }
    fn swap_word(&self, _: usize, _: u64, _: u64) -> bool {
        false
    }
    fn add_word(&self, _: usize, _: u64) {}
    fn away(&self) -> u64 {
        0
    }
    fn add_away(&self, _: u64) {}
    fn has_key(&self, _: u32, (): &()) -> bool {
        false
    }
    fn write(&self, _: u32, (): &(), _: &FlowEntry) {}
}

/// The bits of the lanes that are so.
fn naive(lanes: &Lanes, is_so: impl Fn(u16) -> bool) -> u64 {
    let all = (0..WORDS).flat_map(|n| (0..4).map(move |l| (n, l)));
    let those = all.filter(|(n, l)| is_so((lanes.0[*n] >> (16 * l)) as u16));
    those.map(|(n, l)| 1 << (16 * l + n)).fold(0, |bits, bit: u64| bits | bit)
}

proptest! {
    /// Lanes of two tags that differ in the lowest bit, of another one, and free ones: the comparison finds all of a tag, the lowest of
    /// them first, and beside them only what differs in the lowest bit.
    #[test]
    fn lanes_are_told_apart_but_for_the_lowest_bit(
        tag in 2_u16..LIVE,
        kinds in prop::array::uniform16((0_usize..4, any::<bool>())),
    ) {
        let lane = |(kind, is_live): (usize, bool)| {
            let tag = [0, tag, tag ^ 1, tag ^ 2 | 4][kind];
            u64::from(if kind != 0 && is_live { tag | LIVE } else { tag })
        };
        let word = |n: usize| (0..4).map(|l| lane(kinds[4 * n + l]) << (16 * l)).sum();
        let lanes = Lanes(core::array::from_fn(word));
        for wanted in [tag, tag | LIVE] {
            let (exact, found) = (naive(&lanes, |lane| lane == wanted), matching(&lanes, wanted));
            prop_assert_eq!(found & exact, exact);
            prop_assert_eq!(found & !naive(&lanes, |lane| lane & !1 == wanted & !1), 0);
            prop_assert_eq!(found & found.wrapping_neg() & !exact, 0);
        }
        let (all, live) = lanes_of(&lanes, tag, 0);
        prop_assert_eq!(all, naive(&lanes, |lane| lane & !LIVE == tag));
        prop_assert_eq!(live, naive(&lanes, |lane| lane == tag | LIVE));
        prop_assert_eq!(kin(&lanes, tag), naive(&lanes, |lane| lane & !LIVE & !1 == tag & !1));
        prop_assert_eq!(naive(&lanes, |lane| lane == 0), matching(&lanes, 0));
    }
}

/// Words are read one after the other, so there may seem to be three, of which only two would be compared.
#[test]
fn of_three_that_are_live_one_may_be_the_keys() {
    let live = u64::from(7 | LIVE);
    let lanes = |count| Lanes(core::array::from_fn(|n| if n < count { live } else { 0 }));
    assert!(!may_have(&lanes(2), 7, &(), 0) && may_have(&lanes(3), 7, &(), 0));
}
