//! Random routes, random destinations below them, and the reference that says what each lookup is to find.

use std::collections::{HashMap, HashSet};

/// Next hops, and so groups and members: as many as a route server's clients.
pub(crate) const NEXT_HOPS: u32 = 4096;
/// Destinations, as many as the benchmark's programs hold.
pub(crate) const PROBES: usize = 65_536;

/// A route: network address, length, next hop.
pub(crate) type Route = (u32, u8, u32);

/// A table and what to ask of it.
pub(crate) struct Routes {
    pub(crate) routes: Vec<Route>,
    /// Destinations with the next hop that each is to find.
    pub(crate) probes: Vec<(u32, u32)>,
    known: Reference,
}

impl Routes {
    /// `count` different prefixes, and destinations spread over them.
    pub(crate) fn random(count: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut known = HashSet::with_capacity(count);
        let mut routes = Vec::with_capacity(count);
        while routes.len() < count {
            let len = random.len();
            let address = random.address() & mask(len);
            if known.insert((address, len)) {
                routes.push((address, len, random.below(NEXT_HOPS)));
            }
        }
        Self::of(routes, &mut random)
    }

    /// The first routes, and destinations spread over them.
    pub(crate) fn prefix(&self, count: usize, seed: u64) -> Self {
        Self::of(self.routes[..count].to_vec(), &mut Random(seed))
    }

    fn of(routes: Vec<Route>, random: &mut Random) -> Self {
        let reference = Reference::new(&routes);
        let probes = (0..PROBES).map(|_| {
            let (network, len, _) = routes[random.below(routes.len() as u32) as usize];
            let destination = network | random.next() as u32 & !mask(len);
            (destination, reference.lookup(destination))
        });
        let probes = probes.collect();
        Self { routes, probes, known: reference }
    }

    /// The same with the first routes only; every destination hits the first of them.
    pub(crate) fn first(&self, count: usize) -> Self {
        // A /24 or shorter that no other route of the large table covers in part, so that both find the same.
        let plain = |route: &&Route| route.1 == 24 && self.known.lookup(route.0 | 1) == route.2;
        let routes: Vec<Route> = self.routes.iter().filter(plain).take(count).copied().collect();
        let probes = routes.iter().map(|(network, _, next_hop)| (network | 1, *next_hop)).collect();
        let known = Reference::new(&routes);
        Self { routes, probes, known }
    }
}

/// Different prefixes as of the Internet's table, of which few are longer than /24.
pub(crate) fn internet(count: usize) -> Vec<Route> {
    let mut random = Random(5);
    let mut known = HashSet::with_capacity(count);
    let mut routes = Vec::with_capacity(count);
    while routes.len() < count {
        let len = random.len();
        let len = if routes.len().is_multiple_of(100) { len } else { len.min(24) };
        let address = random.address() & mask(len);
        if known.insert((address, len)) {
            routes.push((address, len, random.below(NEXT_HOPS)));
        }
    }
    routes
}

/// Longest match by trying every length: obviously right.
struct Reference {
    by_len: Vec<HashMap<u32, u32>>,
}

impl Reference {
    fn new(routes: &[Route]) -> Self {
        let mut by_len = vec![HashMap::new(); 33];
        for (network, len, next_hop) in routes {
            by_len[usize::from(*len)].insert(*network, *next_hop);
        }
        Self { by_len }
    }

    fn lookup(&self, destination: u32) -> u32 {
        let hit = (0..=32_u8)
            .rev()
            .find_map(|len| self.by_len[usize::from(len)].get(&(destination & mask(len))).copied());
        hit.expect("destinations are made from routes")
    }
}

/// xorshift64*: the same routes in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }

    /// Unicast, and none of the addresses that the benchmark's own network uses.
    fn address(&mut self) -> u32 {
        loop {
            let address = self.next() as u32;
            let first = address >> 24;
            if first > 0 && first < 224 && first != 10 && first != 127 {
                return address;
            }
        }
    }

    /// Roughly the lengths of the Internet's table, with 4 % longer than /24, for the second level.
    fn len(&mut self) -> u8 {
        match self.below(100) {
            0 => 12 + self.below(4) as u8,
            1..=20 => 16 + self.below(6) as u8,
            21..=44 => 22 + self.below(2) as u8,
            45..=95 => 24,
            _ => 25 + self.below(8) as u8,
        }
    }
}

fn mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}
