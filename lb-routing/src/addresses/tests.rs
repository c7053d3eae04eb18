//! Addresses as interfaces, other people and restarts come between.

use super::*;

const ETH: u32 = 2;

fn asked(address: &str) -> InterfaceAddress {
    InterfaceAddress { interface: "eth1".into(), address: address.parse().unwrap() }
}

fn key(address: &str) -> AddressKey {
    (ETH, address.parse().unwrap())
}

fn ops(addresses: &mut Addresses) -> Vec<AddressOp> {
    let ops = addresses.next_batch(9, Instant::now());
    ops.iter().for_each(|op| addresses.succeeded(op.clone()));
    ops
}

#[test]
fn an_address_waits_for_its_interface_and_comes_back_with_it() {
    let mut addresses = Addresses::default();
    let wanted = asked("192.0.2.1/24");
    addresses.set([wanted.clone()].into());
    assert_eq!(addresses.state(&wanted), AddressState::NoInterface);
    addresses.link(ETH, "eth1");
    assert_eq!(addresses.state(&wanted), AddressState::Pending);
    assert_eq!(ops(&mut addresses), [Change::Add(key("192.0.2.1/24"), ())]);
    assert_eq!(addresses.state(&wanted), AddressState::Present);
    addresses.link_gone(ETH);
    assert_eq!(ops(&mut addresses), []);
    addresses.link(3, "eth1");
    assert_eq!(ops(&mut addresses), [Change::Add((3, wanted.address), ())]);
    addresses.set(BTreeSet::new());
    assert_eq!(ops(&mut addresses), [Change::Delete((3, wanted.address))]);
}

#[test]
fn an_address_that_somebody_takes_away_is_given_again() {
    let mut addresses = Addresses::default();
    addresses.link(ETH, "eth1");
    addresses.set([asked("2001:db8::1/64")].into());
    assert_eq!(ops(&mut addresses).len(), 1);
    addresses.gone(key("2001:db8::1/64"));
    assert_eq!(ops(&mut addresses), [Change::Add(key("2001:db8::1/64"), ())]);
}

#[test]
fn somebody_elses_address_is_neither_added_nor_removed() {
    let mut addresses = Addresses::default();
    addresses.link(ETH, "eth1");
    addresses.found(key("192.0.2.1/24"), false);
    addresses.set([asked("192.0.2.1/24")].into());
    assert_eq!(ops(&mut addresses), []);
    assert_eq!(addresses.state(&asked("192.0.2.1/24")), AddressState::Others);
    addresses.set(BTreeSet::new());
    assert_eq!(ops(&mut addresses), []);
    // Theirs goes, and the configuration still asks for it.
    addresses.set([asked("192.0.2.1/24")].into());
    addresses.gone(key("192.0.2.1/24"));
    assert_eq!(ops(&mut addresses), [Change::Add(key("192.0.2.1/24"), ())]);
}

#[test]
fn what_a_previous_process_left_goes_when_the_configuration_is_known() {
    let mut addresses = Addresses::default();
    addresses.link(ETH, "eth1");
    for left in ["192.0.2.1/24", "192.0.2.2/24"] {
        addresses.found(key(left), true);
    }
    assert_eq!(ops(&mut addresses), []);
    addresses.set([asked("192.0.2.1/24")].into());
    assert_eq!(ops(&mut addresses), [Change::Delete(key("192.0.2.2/24"))]);
    // One that is only found then, too.
    addresses.found(key("192.0.2.3/24"), true);
    assert_eq!(ops(&mut addresses), [Change::Delete(key("192.0.2.3/24"))]);
}

#[test]
fn a_refusal_is_said_and_tried_again_later() {
    let (mut addresses, now) = (Addresses::default(), Instant::now());
    addresses.link(ETH, "eth1");
    addresses.set([asked("192.0.2.1/24")].into());
    let op = addresses.next_batch(9, now).pop().unwrap();
    addresses.failed(&op, "no room".into(), now);
    assert_eq!(addresses.state(&asked("192.0.2.1/24")), AddressState::Refused("no room".into()));
    assert_eq!(addresses.next_batch(9, now), []);
    let later = addresses.poll_timeout().unwrap();
    assert_eq!(addresses.next_batch(9, later).len(), 1);
}
