use std::collections::BTreeMap;

use super::*;

fn prefix(number: u16) -> IpNetwork {
    let [high, low] = number.to_be_bytes();
    IpNetwork::new(IpAddr::from([10, high, low, 0]), 24).unwrap()
}

fn route(med: u32) -> Advertised {
    let attributes = Attributes { med: Some(med), ..Attributes::default() };
    (Arc::new(attributes), IpAddr::from([10, 0, 0, 1]))
}

fn adj_out() -> AdjRibOut {
    AdjRibOut::new(std::iter::empty(), vec![Family::IPV4_UNICAST], Keyed(1))
}

#[test]
fn only_differences_are_said_and_the_end_comes_after_the_beginning() {
    let one = route(1);
    let mut told = BTreeMap::from([(prefix(1), one.clone()), (prefix(2), one)]);
    let mut out = AdjRibOut::new(told.keys().copied(), vec![Family::IPV4_UNICAST], Keyed(1));
    let batch = out.next_batch(|prefix| told.get(prefix).cloned());
    assert_eq!(batch.announced.len(), 1);
    assert_eq!(batch.announced[0].prefixes, [prefix(1), prefix(2)]);
    assert_eq!(batch.end_of_rib, [Family::IPV4_UNICAST]);
    assert!(out.is_idle());

    told.remove(&prefix(1));
    for number in 1..4 {
        out.mark(prefix(number));
    }
    let batch = out.next_batch(|prefix| told.get(prefix).cloned());
    assert_eq!(batch, Batch { withdrawn: vec![prefix(1)], ..Batch::default() });
    assert_eq!(out.len(), 1);
}

#[test]
fn a_batch_is_bounded_and_the_end_waits_for_the_last_one() {
    let all = (0..10_000).map(prefix);
    let mut out = AdjRibOut::new(all, vec![Family::IPV4_UNICAST], Keyed(1));
    let told = route(1);
    let mut sizes = Vec::new();
    while !out.is_idle() {
        let batch = out.next_batch(|_| Some(told.clone()));
        sizes.push(batch.announced[0].prefixes.len());
        assert_eq!(batch.end_of_rib.is_empty(), !out.is_idle());
    }
    assert_eq!(sizes, [BATCH, BATCH, 10_000 - 2 * BATCH]);
}

#[test]
fn a_refresh_says_everything_again_and_loses_no_withdrawal() {
    let told = route(1);
    let mut out = adj_out();
    for number in 1..4 {
        out.mark(prefix(number));
    }
    out.next_batch(|_| Some(told.clone()));
    out.mark(prefix(1));
    out.refresh(Family::IPV4_UNICAST);
    out.refresh(Family::IPV6_UNICAST);
    let batch = out.next_batch(|of| (*of != prefix(1)).then(|| told.clone()));
    assert_eq!(batch.withdrawn, [prefix(1)]);
    assert_eq!(batch.announced[0].prefixes, [prefix(2), prefix(3)]);
    assert!(out.is_idle());
}
