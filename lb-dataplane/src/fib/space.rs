//! Room for the nodes of the IPv6 trie: pages with a bit per free unit.
//!
//! Random packets pay less for the cache lines of a lookup than for the pages that these lie in: a node that is in no
//! translation buffer costs several memory accesses. So nodes that lead to each other lie in one page as far as there is
//! room, and what begins a way from the root goes where a page is nearly empty.

use std::collections::BTreeSet;

use lb_dataplane_common::fib6::PAGE_UNITS;

use super::Grace;

/// Free units of a page from which on it takes another way from the root, tried in this order.
const ROOMY: [u32; 3] = [PAGE_UNITS - 24, PAGE_UNITS / 2, 1];
/// Given-back units that are worth a grace period, which costs about 10 ms: one in so many of all, and 256 KiB at least. A
/// table that is filled gives back several units a route.
const WORTH_WAITING: (u32, u32) = (16, 4096);

const _: () = assert!(PAGE_UNITS == u64::BITS);

/// Pages of units.
#[derive(Debug)]
pub(super) struct Space {
    /// Of each page, a bit per unit.
    free: Vec<u64>,
    /// Where the search for a page goes on, and which entry of `ROOMY` it goes by.
    next: usize,
    roomy: usize,
    /// Given back; packets may still read them.
    retired: Vec<(u32, u8)>,
    retired_units: u32,
    /// As many are worth a grace period.
    worth_waiting: u32,
    grace: Grace,
}

impl Space {
    /// What `used` leaves of `units`.
    pub(super) fn between(used: &BTreeSet<(u32, u8)>, units: u32, grace: Grace) -> Self {
        let free = vec![u64::MAX; (units / PAGE_UNITS) as usize];
        let (share, least) = WORTH_WAITING;
        let mut space = Self {
            free,
            next: 0,
            roomy: 0,
            retired: Vec::new(),
            retired_units: 0,
            worth_waiting: (units / share).max(least),
            grace,
        };
        for (unit, log2) in used {
            if let Some(page) = space.free.get_mut((unit / PAGE_UNITS) as usize) {
                *page &= !bits(unit % PAGE_UNITS, *log2);
            }
        }
        space
    }

    /// `1 << log2` units that nobody reads, in the page of `near` if that has room; `None`: there are none.
    pub(super) fn take(&mut self, log2: u8, near: Option<u32>) -> Option<u32> {
        if self.retired_units >= self.worth_waiting {
            self.reclaim();
        }
        let near = near.and_then(|unit| self.take_in((unit / PAGE_UNITS) as usize, log2));
        near.or_else(|| self.take_anywhere(log2)).or_else(|| {
            self.reclaim();
            self.take_anywhere(log2)
        })
    }

    /// Gives units back: no word leads there any more.
    pub(super) fn give_back(&mut self, unit: u32, log2: u8) {
        self.retired.push((unit, log2));
        self.retired_units += 1 << log2;
    }

    /// Units that no word leads to.
    pub(super) fn available(&self) -> usize {
        let free: u32 = self.free.iter().map(|page| page.count_ones()).sum();
        (free + self.retired_units) as usize
    }

    fn take_in(&mut self, page: usize, log2: u8) -> Option<u32> {
        let free = self.free.get_mut(page)?;
        let place = starts(*free, log2).trailing_zeros();
        (place < PAGE_UNITS).then(|| {
            *free &= !bits(place, log2);
            page as u32 * PAGE_UNITS + place
        })
    }

    fn take_anywhere(&mut self, log2: u8) -> Option<u32> {
        while let Some(roomy) = ROOMY.get(self.roomy) {
            let rest = self.free.get(self.next..).unwrap_or_default();
            let fits = |page: &u64| page.count_ones() >= *roomy && starts(*page, log2) != 0;
            if let Some(found) = rest.iter().position(fits) {
                self.next += found;
                return self.take_in(self.next, log2);
            }
            // A smaller node may still fit where this one does not.
            if self.roomy + 1 == ROOMY.len() && log2 > 0 {
                return self.first_fit(log2);
            }
            self.next = 0;
            self.roomy += 1;
        }
        None
    }

    fn first_fit(&mut self, log2: u8) -> Option<u32> {
        let page = self.free.iter().position(|page| starts(*page, log2) != 0)?;
        self.take_in(page, log2)
    }

    /// Waits for packets to leave what was given back.
    fn reclaim(&mut self) {
        if self.retired.is_empty() {
            return;
        }
        (self.grace)();
        for (unit, log2) in self.retired.drain(..) {
            if let Some(page) = self.free.get_mut((unit / PAGE_UNITS) as usize) {
                *page |= bits(unit % PAGE_UNITS, log2);
            }
        }
        (self.retired_units, self.next, self.roomy) = (0, 0, 0);
    }
}

/// The bits of `1 << log2` units from `place` on.
fn bits(place: u32, log2: u8) -> u64 {
    let size = 1_u32 << log2.min(6);
    (u64::MAX >> (PAGE_UNITS - size)) << place
}

/// The places where `1 << log2` free units begin, each at a multiple of its size.
fn starts(mut free: u64, log2: u8) -> u64 {
    /// Multiples of 1, 2, 4 and so on.
    const MULTIPLES: [u64; 7] = [
        u64::MAX,
        0x5555_5555_5555_5555,
        0x1111_1111_1111_1111,
        0x0101_0101_0101_0101,
        0x0001_0001_0001_0001,
        0x0000_0001_0000_0001,
        1,
    ];
    for half in 0..log2.min(6) {
        free &= free >> (1 << half);
    }
    free & MULTIPLES[usize::from(log2.min(6))]
}
