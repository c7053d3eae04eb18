//! The plan against a kernel that fails, forgets and is read at awkward moments.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lb_routing_proto::fib::KernelNextHop;

use super::*;
use crate::ledger::RETRY_MAX;

fn net(n: u8) -> RouteId {
    RouteId::of(IpNetwork::from(IpAddr::from([172, 16, n, 0])))
}

fn address(n: u8) -> IpAddr {
    net(n).prefix.network()
}

fn via(last: u8) -> OwnRoute {
    let gateway = Some(IpAddr::from([10, 0, 0, last]));
    OwnRoute::Via([KernelNextHop { ifindex: 1, gateway, weight: 1, mtu: None }].into())
}

/// Our routes in a kernel that behaves.
#[derive(Debug, Default)]
struct Kernel(BTreeMap<RouteId, OwnRoute>);

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
        let ops = plan.ledger.next_batch(2, now);
        if ops.is_empty() {
            return;
        }
        for op in ops {
            if kernel.take(&op) {
                plan.ledger.succeeded(op);
            } else {
                plan.ledger.failed(op.key(), String::new(), now);
            }
        }
    }
}

fn read(plan: &mut Plan, kernel: &Kernel) {
    plan.ledger.reading();
    for (prefix, route) in &kernel.0 {
        plan.ledger.found(*prefix, route.clone());
    }
    plan.ledger.read();
}

#[test]
fn routes_are_added_replaced_and_removed() {
    let (mut plan, mut kernel, now) = (Plan::default(), Kernel::default(), Instant::now());
    plan.set(net(1), Some(via(2)));
    assert_eq!(plan.ledger.next_batch(9, now), [Op::Add(net(1), via(2))]);
    plan.ledger.succeeded(Op::Add(net(1), via(2)));
    assert_eq!(plan.ledger.next_batch(9, now), []);
    plan.set(net(1), Some(via(3)));
    assert_eq!(plan.ledger.next_batch(9, now), [Op::Replace(net(1), via(3))]);
    plan.ledger.succeeded(Op::Replace(net(1), via(3)));
    plan.set(net(1), None);
    settle(&mut plan, &mut kernel, now);
    assert!(kernel.0.is_empty());
}

#[test]
fn a_prefix_has_one_operation_under_way_at_most() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    plan.set(net(1), Some(via(2)));
    let first = plan.ledger.next_batch(9, now);
    plan.set(net(1), Some(via(3)));
    assert_eq!(plan.ledger.next_batch(9, now), []);
    plan.ledger.succeeded(first[0].clone());
    assert_eq!(plan.ledger.next_batch(9, now), [Op::Replace(net(1), via(3))]);
}

#[test]
fn a_failure_is_tried_again_later_each_time_and_at_once_when_the_route_changes() {
    let (mut plan, mut now) = (Plan::default(), Instant::now());
    plan.set(net(1), Some(via(2)));
    for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
        let op = plan.ledger.next_batch(9, now).pop().unwrap();
        assert_eq!(plan.ledger.failed(op.key(), String::new(), now), Duration::from_secs(expected));
        assert_eq!(plan.ledger.next_batch(9, now), []);
        now = plan.ledger.poll_timeout().unwrap();
    }
    let op = plan.ledger.next_batch(9, now).pop().unwrap();
    plan.ledger.failed(op.key(), String::new(), now);
    plan.set(net(1), Some(via(3)));
    assert_eq!(plan.ledger.next_batch(9, now), [Op::Add(net(1), via(3))]);
}

#[test]
fn what_was_left_stays_until_the_end_of_stale_unless_somebody_speaks_of_it() {
    let (mut plan, mut kernel, now) = (Plan::default(), Kernel::default(), Instant::now());
    for n in 1..=3 {
        kernel.0.insert(net(n), via(2));
        plan.ledger.left_behind(net(n), via(2));
    }
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0.len(), 3);
    // The same again: nothing to do. Withdrawn: gone at once.
    plan.set(net(1), Some(via(2)));
    plan.set(net(2), None);
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0.keys().copied().collect::<Vec<_>>(), [net(1), net(3)]);
    assert_eq!(plan.ledger.end_of_stale(), 1);
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0.keys().copied().collect::<Vec<_>>(), [net(1)]);
}

#[test]
fn left_vips_that_are_none_any_more_go_when_the_vips_are_known() {
    let (mut plan, mut kernel, now) = (Plan::default(), Kernel::default(), Instant::now());
    for n in 1..=2 {
        kernel.0.insert(net(n), OwnRoute::Unreachable);
        plan.ledger.left_behind(net(n), OwnRoute::Unreachable);
    }
    plan.set_vips(BTreeSet::from([address(1)]));
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0, BTreeMap::from([(net(1), OwnRoute::Unreachable)]));
}

#[test]
fn routes_of_other_metrics_stand_beside_a_vips_and_the_speakers() {
    let (mut plan, mut kernel, now) = (Plan::default(), Kernel::default(), Instant::now());
    let fixed = RouteId { metric: 20, ..net(1) };
    plan.set_vips(BTreeSet::from([address(1)]));
    plan.set(fixed, Some(OwnRoute::Blackhole));
    plan.set(net(2), Some(via(2)));
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0.len(), 3);
    assert!(plan.ledger.is_there(&fixed));
    // One that a previous process left and nobody wants goes at the end of its time, whatever its metric.
    let left = RouteId { metric: 30, ..net(3) };
    kernel.0.insert(left, via(2));
    plan.ledger.left_behind(left, via(2));
    plan.set(fixed, None);
    settle(&mut plan, &mut kernel, now);
    assert!(kernel.0.contains_key(&left) && !kernel.0.contains_key(&fixed));
    plan.ledger.end_of_stale();
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0.len(), 2);
}

#[test]
fn a_vip_goes_before_a_learned_route_to_its_address() {
    let (mut plan, mut kernel, now) = (Plan::default(), Kernel::default(), Instant::now());
    plan.set(net(1), Some(via(2)));
    plan.set_vips(BTreeSet::from([address(1)]));
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0[&net(1)], OwnRoute::Unreachable);
    // Said twice, it still gives back what stands behind it.
    plan.change_vips(&[address(1)], &[]);
    plan.change_vips(&[address(2)], &[address(1)]);
    settle(&mut plan, &mut kernel, now);
    assert_eq!(kernel.0[&net(1)], via(2));
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
                    let route = (random.below(3) > 0).then(|| via(random.below(3)));
                    wanted.remove(&prefix);
                    wanted.extend(route.clone().map(|route| (prefix, route)));
                    plan.set(prefix, route);
                }
                2 => drop(kernel.0.remove(&prefix)),
                3 => read(&mut plan, &kernel),
                4 => plan.ledger.lost(prefix),
                _ => {
                    for op in plan.ledger.next_batch(2, now) {
                        if random.below(4) > 0 && kernel.take(&op) {
                            plan.ledger.succeeded(op);
                        } else {
                            plan.ledger.failed(op.key(), String::new(), now);
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
