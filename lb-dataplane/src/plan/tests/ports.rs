//! Which service a port leads to, at every step of a plan.

use super::*;

/// With room for what comes beside what goes.
const ROOMY: Limits = Limits { services: 64, ring_words: 1 << 18, backends: 512, ..LIMITS };

/// Where new flows to a port may go.
type Meets = Option<BTreeSet<([u8; 16], u16)>>;

impl Maps {
    /// As a packet looks it up: the service of just this port, or the one that the longest prefix names.
    fn meets(&self, vip: u8, port: u16) -> Meets {
        let at = |port| self.services.get(&raw(&entries::service_key(&key(vip, port))));
        let (first, entry) = match at(port) {
            Some((_, entry)) => (port, entry),
            None => {
                let address = words(key(vip, port).address);
                let holds = |(prefix, _): &(&PortPrefix, &u16)| {
                    prefix.1.address == address && ranges::holds(prefix, port)
                };
                let (_, first) =
                    self.ranges.iter().filter(holds).max_by_key(|((bits, _), _)| *bits)?;
                (*first, &at(*first)?.1)
            }
        };
        let ring = entry.ring_base..entry.ring_base + entry.ring_len;
        let backends = ring.map(|index| &self.backends[&self.rings[&index]]);
        Some(backends.map(|b| (b.address, u16::from_be_bytes(b.port) + port - first)).collect())
    }

    fn all_meet(&self) -> Vec<Meets> {
        [1, 2]
            .into_iter()
            .flat_map(|vip| (78..150).map(move |port| self.meets(vip, port)))
            .collect()
    }
}

/// Carries a plan out; at every step a port leads where it did before it, or to where it does after it.
fn carry_out_smoothly(maps: &mut Maps, steps: &[Step]) {
    let mut after = maps.clone();
    steps.iter().for_each(|step| after.write(step));
    let (before, after) = (maps.all_meet(), after.all_meet());
    for step in steps {
        maps.carry_out(step);
        for ((now, before), after) in maps.all_meet().iter().zip(&before).zip(&after) {
            assert!(now == before || now == after, "{step:?}: {before:?}, {now:?}, {after:?}");
        }
    }
}

fn ranged(more_ports: u16, backends: &[(u8, bool)]) -> Service {
    Service { more_ports, ..service(Algorithm::RoundRobin, backends) }
}

#[test]
fn a_range_whose_first_port_moves_is_served_all_the_while() {
    let (mut served, mut maps) = (Served::new(ROOMY), Maps::default());
    for (first, more) in [(80, 10), (79, 11), (82, 8), (82, 0), (80, 31), (90, 3)] {
        let wanted = table([(key(1, first), ranged(more, &[(1, true), (2, true)]))]);
        carry_out_smoothly(&mut maps, &served.plan(&wanted).unwrap());
        assert_eq!(maps.services.len(), 2, "nothing is left of the one before");
    }
}

#[test]
fn where_the_map_is_full_what_goes_makes_room_for_what_comes() {
    let limits = Limits { backends: 32, ..LIMITS };
    let (mut served, mut maps) = (Served::new(limits), Maps::default());
    for first in [80, 81, 80, 81] {
        let all = (1..=16).map(|vip| (key(vip, first), ranged(1, &[(vip, true)])));
        let steps = served.plan(&table(all)).unwrap();
        carry_out(&mut maps, &steps);
        steps.iter().for_each(|step| served.carried_out(step));
        free_ids(&mut served, &mut maps);
        assert_eq!(maps.services.len(), 32);
    }
}

/// Ranges that follow one another, with gaps, with their backends.
fn any_ranges() -> impl Strategy<Value = Vec<(u16, u16, BTreeSet<u8>)>> {
    let one = (0_u16..4, 0_u16..12, prop::collection::btree_set(1_u8..9, 1..3));
    prop::collection::vec(one, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn at_every_step_a_port_leads_where_it_did_or_where_it_is_to(
        tables in prop::collection::vec([any_ranges(), any_ranges()], 2..5)
    ) {
        let (mut served, mut maps) = (Served::new(ROOMY), Maps::default());
        for vips in &tables {
            let mut wanted = Table::default();
            for (vip, ranges) in [1, 2].into_iter().zip(vips) {
                let mut next = 80;
                for (gap, more, backends) in ranges {
                    let first = next + gap;
                    next = first + more + 1;
                    let takers: Vec<_> = backends.iter().map(|n| (*n, true)).collect();
                    wanted.services.insert(key(vip, first), ranged(*more, &takers));
                }
            }
            let steps = served.plan(&wanted).unwrap();
            let waits = steps.iter().filter(|step| matches!(step, Step::Grace)).count();
            prop_assert!(waits <= 1, "there is room");
            carry_out_smoothly(&mut maps, &steps);
        }
    }
}
