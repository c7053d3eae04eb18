//! A million random operations, half for each family, held against a plain table all the while: in the kernel by a program,
//! on the host by the same memory. And groups as large as they come.

use super::*;

const OPERATIONS: u32 = 500_000;
/// Operations between two looks.
const EVERY: u32 = 4000;
/// Addresses at each look.
const PROBES: usize = 128;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// In a few crowded places, and now and then anywhere.
    fn address(&mut self, family: Family) -> u128 {
        let bits = u128::from(self.next());
        match (family, self.once_in(16)) {
            (Family::V4, true) => bits << 96,
            (Family::V4, false) => {
                let place = [0x0a00_0000, 0x0a01_0000, 0xc0a8_0000, 0x0000_0000];
                (place[(bits >> 60) as usize % 4] | (bits & 0x03ff)) << 96
            }
            (Family::V6, true) => bits << 64 | u128::from(self.next()),
            (Family::V6, false) => {
                0x2001_0db8 << 96 | (bits & 0x0303) << 72 | (bits >> 32 & 0x0101) << 40 | bits >> 61
            }
        }
    }

    /// Mostly long ones: a short one of IPv4 is as many stores as it has /24.
    fn len(&mut self, family: Family) -> u8 {
        let (short, long) = match family {
            Family::V4 => (24, 32),
            Family::V6 => (32, 128),
        };
        let (least, most) = if self.once_in(65_536) {
            (0, 0)
        } else if self.once_in(2048) {
            (1, 16)
        } else if self.once_in(32) {
            (16, short)
        } else {
            (short, long)
        };
        least + self.below(u64::from(most - least) + 1) as u8
    }

    fn op(&mut self, family: Family) -> Op {
        let (address, len) = (self.address(family), self.len(family));
        let network = address & mask(len);
        let group = GROUPS.start + self.below(u64::from(GROUPS.end - GROUPS.start)) as u32;
        match self.below(32) {
            0..=16 => Op::Put(network, len, group),
            17..=30 => Op::Remove(network, len),
            _ => Op::Group(
                group,
                match self.below(8) {
                    0 => Err(KERNEL),
                    1 => Err(BLACKHOLE),
                    _ => Ok((0..=self.below(6)).map(|_| self.below(20) as u8 + 1).collect()),
                },
            ),
        }
    }
}

impl Pair<'_> {
    /// Some addresses, in the kernel and on the host.
    fn probe(&self, random: &mut Random) {
        let probes: Vec<u128> = (0..PROBES).map(|_| random.address(self.family)).collect();
        let answers = self.kernel.answers(self.family, &probes);
        for (answer, bits) in answers.into_iter().zip(probes) {
            let allowed = self.allowed(bits);
            let address = self.family.address(bits);
            assert!(allowed.contains(&answer), "{address}: {answer:#x}, not of {allowed:x?}");
            let found = self.fib.lookup(address, random.next() as u32);
            let on_host = match (&found.action, &found.member) {
                (None, _) => MISS,
                (Some(Action::Forward(_)), Some(member)) => leaves_by((member.ifindex - 100) as u8),
                (Some(Action::Blackhole | Action::NoRoom), _) => BLACKHOLE,
                (Some(Action::Kernel | Action::Forward(_)), _) => KERNEL,
            };
            assert!(allowed.contains(&on_host), "{address}: {found:?}, not of {allowed:x?}");
            assert!(found.intact, "{address}: {found:?}");
        }
    }
}

fn walk(family: Family) {
    let kernel = Kernel::load();
    let mut pair = Pair::new(&kernel, family);
    let mut random = Random(family as u64 + 1);
    for done in 1..=OPERATIONS {
        pair.carry_out(random.op(family));
        if done % EVERY == 0 {
            pair.probe(&mut random);
        }
    }
    pair.check();
    assert!(pair.naive.routes.len() > 1000, "the walk stays among many routes");
}

#[test]
fn half_a_million_random_operations_leave_the_ipv4_fib_as_a_plain_table_has_it() {
    walk(Family::V4);
}

#[test]
fn half_a_million_random_operations_leave_the_ipv6_fib_as_a_plain_table_has_it() {
    walk(Family::V6);
}

#[test]
fn a_group_of_256_members_leads_by_each_of_them() {
    let kernel = Kernel::load();
    let mut fib = kernel.writer();
    fib.synced();
    let members = (0..=255).map(|n| Member { ifindex: n + 1, ..member(0) }).collect();
    fib.update(&FibUpdate::Group { id: 1, action: Action::Forward(members) }).unwrap();
    let prefix = Ipv4Addr::new(10, 0, 0, 0).into();
    fib.update(&FibUpdate::Route { prefix, len: 8, group: 1 }).unwrap();
    let found = fib.lookup(Ipv4Addr::new(10, 1, 1, 1).into(), 0);
    let Some(Action::Forward(members)) = found.action else { panic!("{found:?}") };
    // Its weight is how many of the 4,096 buckets name a member.
    assert!(members.len() == 256 && members.iter().all(|member| member.weight == 16));
}
