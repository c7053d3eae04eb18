//! The plan against a kernel that fails, forgets and is read at awkward moments.

use std::collections::BTreeMap;

use super::*;

fn net(n: u8) -> IpNetwork {
    IpNetwork::from(IpAddr::from([172, 16, n, 0]))
}

fn via(last: u8) -> Arc<[KernelNextHop]> {
    let gateway = Some(IpAddr::from([10, 0, 0, last]));
    Arc::new([KernelNextHop { ifindex: 1, gateway, weight: 1 }])
}

/// Our routes in a kernel that behaves.
#[derive(Debug, Default)]
struct Kernel(BTreeMap<IpNetwork, OwnRoute>);

impl Kernel {
    /// Whether it accepts the operation.
    fn take(&mut self, op: &Op) -> bool {
        match op {
            Op::Add(prefix, _) if self.0.contains_key(prefix) => return false,
            Op::Add(prefix, route) | Op::Replace(prefix, route) => {
                self.0.insert(*prefix, route.clone());
            }
            Op::Delete(prefix) => drop(self.0.remove(prefix)),
        }
        true
    }
}

fn settle(plan: &mut Plan, kernel: &mut Kernel, now: Instant) {
    loop {
        let ops = plan.next_batch(2, now);
        if ops.is_empty() {
            return;
        }
        for op in ops {
            if kernel.take(&op) {
                plan.succeeded(op);
            } else {
                plan.failed(&op, now);
            }
        }
    }
}

fn read(plan: &mut Plan, kernel: &Kernel) {
    plan.reading();
    for (prefix, route) in &kernel.0 {
        plan.found(*prefix, route.clone());
    }
    plan.read();
}

#[test]
fn routes_are_added_replaced_and_removed() {
    let (mut plan, mut kernel, now) = (Plan::default(), Kernel::default(), Instant::now());
    plan.set_learned(net(1), via(2));
    assert_eq!(plan.next_batch(9, now), [Op::Add(net(1), OwnRoute::Via(via(2)))]);
    plan.succeeded(Op::Add(net(1), OwnRoute::Via(via(2))));
    assert_eq!(plan.next_batch(9, now), []);
    plan.set_learned(net(1), via(3));
    assert_eq!(plan.next_batch(9, now), [Op::Replace(net(1), OwnRoute::Via(via(3)))]);
    plan.succeeded(Op::Replace(net(1), OwnRoute::Via(via(3))));
    plan.set_learned(net(1), Arc::default());
    settle(&mut plan, &mut kernel, now);
    assert!(kernel.0.is_empty());
}

#[test]
fn a_prefix_has_one_operation_under_way_at_most() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    plan.set_learned(net(1), via(2));
    let first = plan.next_batch(9, now);
    plan.set_learned(net(1), via(3));
    assert_eq!(plan.next_batch(9, now), []);
    plan.succeeded(first[0].clone());
    assert_eq!(plan.next_batch(9, now), [Op::Replace(net(1), OwnRoute::Via(via(3)))]);
}

#[test]
fn a_failure_is_tried_again_later_each_time_and_at_once_when_the_route_changes() {
    let (mut plan, mut now) = (Plan::default(), Instant::now());
    plan.set_learned(net(1), via(2));
    for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
        let op = plan.next_batch(9, now).pop().unwrap();
        assert_eq!(plan.failed(&op, now), Duration::from_secs(expected));
        assert_eq!(plan.next_batch(9, now), []);
        now = plan.poll_timeout().unwrap();
    }
    let op = plan.next_batch(9, now).pop().unwrap();
    plan.failed(&op, now);
    plan.set_learned(net(1), via(3));
    assert_eq!(plan.next_batch(9, now), [Op::Add(net(1), OwnRoute::Via(via(3)))]);
}

#[test]
fn what_was_left_stays_until_the_end_of_stale_unless_somebody_speaks_of_it() {
    let (mut plan, mut kernel, now) = (Plan::default(), Kernel::default(), Instant::now());
    for n in 1..=3 {
        kernel.0.insert(net(n), OwnRoute::Via(via(2)));
        plan.left_behind(net(n), OwnRoute::Via(via(2)));
    }
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0.len(), 3);
    // The same again: nothing to do. Withdrawn: gone at once.
    plan.set_learned(net(1), via(2));
    plan.set_learned(net(2), Arc::default());
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0.keys().copied().collect::<Vec<_>>(), [net(1), net(3)]);
    assert_eq!(plan.end_of_stale(), 1);
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0.keys().copied().collect::<Vec<_>>(), [net(1)]);
}

#[test]
fn left_vips_that_are_none_any_more_go_when_the_vips_are_known() {
    let (mut plan, mut kernel, now) = (Plan::default(), Kernel::default(), Instant::now());
    for n in 1..=2 {
        kernel.0.insert(net(n), OwnRoute::Unreachable);
        plan.left_behind(net(n), OwnRoute::Unreachable);
    }
    plan.set_vips(BTreeSet::from([net(1).network()]));
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0, BTreeMap::from([(net(1), OwnRoute::Unreachable)]));
}

#[test]
fn a_vip_goes_before_a_learned_route_to_its_address() {
    let (mut plan, mut kernel, now) = (Plan::default(), Kernel::default(), Instant::now());
    plan.set_learned(net(1), via(2));
    plan.set_vips(BTreeSet::from([net(1).network()]));
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0[&net(1)], OwnRoute::Unreachable);
    plan.change_vips(&[net(2).network()], &[net(1).network()]);
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0[&net(1)], OwnRoute::Via(via(2)));
    assert_eq!(kernel.0[&net(2)], OwnRoute::Unreachable);
}

/// Whatever happens, a last reading of the kernel's table leads to what is wanted.
#[test]
fn after_a_reading_the_kernel_has_what_is_wanted() {
    for seed in 0..500_u64 {
        let mut random = Random(seed);
        let (mut plan, mut kernel) = (Plan::default(), Kernel::default());
        let mut now = Instant::now();
        let mut wanted = BTreeMap::new();
        for _ in 0..random.below(60) {
            let prefix = net(random.below(4));
            match random.below(6) {
                0 | 1 => {
                    let hops =
                        if random.below(3) == 0 { Arc::default() } else { via(random.below(3)) };
                    wanted.remove(&prefix);
                    if !hops.is_empty() {
                        wanted.insert(prefix, OwnRoute::Via(Arc::clone(&hops)));
                    }
                    plan.set_learned(prefix, hops);
                }
                2 => drop(kernel.0.remove(&prefix)),
                3 => read(&mut plan, &kernel),
                4 => plan.lost(prefix),
                _ => {
                    for op in plan.next_batch(2, now) {
                        if random.below(4) > 0 && kernel.take(&op) {
                            plan.succeeded(op);
                        } else {
                            plan.failed(&op, now);
                        }
                    }
                }
            }
        }
        read(&mut plan, &kernel);
        now += RETRY_MAX;
        settle(&mut plan, &mut kernel, now);
        assert_eq!(kernel.0, wanted, "seed {seed}");
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u8) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u8::try_from((mixed ^ (mixed >> 31)) % u64::from(bound)).unwrap()
    }
}
