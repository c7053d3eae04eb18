use std::sync::atomic::Ordering::Relaxed;

use lb_dataplane_common::fib6::{ROOT6_WORDS, root_index};

use super::*;
use crate::fib::tests::{Files, group, shared};
use crate::fib::{Action, FibUpdate};

const ROUTES: [(&str, u8, u32); 8] = [
    ("0.0.0.0", 0, 1),
    ("10.0.0.0", 8, 2),
    ("10.1.0.0", 16, 3),
    ("10.1.2.128", 25, 1),
    ("255.255.255.255", 32, 2),
    ("2001:db8::", 32, 1),
    ("2001:db8:1::", 48, 2),
    ("2001:db8:1:2::", 64, 3),
];

fn filled() -> (Files, Fib) {
    let (files, mut fib, _) = shared();
    (1..=3).for_each(|id| group(&mut fib, id, &[id, id + 10]));
    for (prefix, len, group) in ROUTES {
        let prefix = prefix.parse().unwrap();
        fib.update(&FibUpdate::Route { prefix, len, group }).unwrap();
    }
    fib.synced();
    (files, fib)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_intact_fib_has_no_differences() {
    let (_files, mut fib) = filled();
    let audit = fib.audit(false);
    assert!(audit.is_clean(), "{audit:?}");
    assert_eq!((audit.routes, audit.groups), (8, 3));
}

#[test]
fn words_that_somebody_else_wrote_are_found_named_and_repaired() {
    let (files, mut fib) = filled();
    let memory = files.map();
    let slot = 10 << 16 | 7;
    memory.l1.words()[slot].store(9 << 24 | 3, Relaxed);
    let chunk = (memory.l1.words()[10 << 16 | 1 << 8 | 2].load(Relaxed) & !L1_CHUNK) as usize;
    memory.l2.words()[chunk * 256 + 200].store(0, Relaxed);
    let (index, _) = root_index(0x2001_0db8 << 32);
    assert!(index < ROOT6_WORDS);
    memory.root6.wide_words()[index as usize].store(0, Relaxed);
    memory.groups.wide_words()[2].store(0, Relaxed);
    memory.root6.wide_words()[ROOT6_WORDS as usize + 9].store(1 << 56 | 5, Relaxed);

    let audit = fib.audit(false);
    assert_eq!(
        (audit.differences, audit.wrong_groups, audit.wrong_shortcuts),
        (7, 1, 2),
        "{audit:?}"
    );
    assert_eq!(
        (audit.told[0].first, audit.told[0].last),
        (address("10.0.7.0"), address("10.0.7.255"))
    );
    assert_eq!(audit.told[1].first, address("10.1.2.200"));
    assert_eq!(audit.told[1].first, audit.told[1].last);
    assert_eq!(audit.told[2].first, address("2001:db8::"));
    assert!(!fib.lookup(address("10.0.7.9"), 0).intact);
    assert_eq!(fib.audit(true).differences, 7);
    let audit = fib.audit(false);
    assert!(audit.is_clean(), "{audit:?}");
    let found = fib.lookup(address("2001:db8:1:2::1"), 0);
    assert_eq!((found.route, found.intact), (Some((address("2001:db8:1:2::"), 64)), true));
}

#[test]
fn a_lookup_names_route_group_and_the_member_of_a_hash() {
    let (_files, fib) = filled();
    let found = fib.lookup(address("10.1.9.9"), 0);
    assert_eq!(found.route, Some((address("10.1.0.0"), 16)));
    let Some(Action::Forward(members)) = &found.action else { panic!("{found:?}") };
    let ways: std::collections::BTreeSet<u32> =
        (0..64).map(|hash| fib.lookup(address("10.1.9.9"), hash).member.unwrap().ifindex).collect();
    assert_eq!(ways.into_iter().collect::<Vec<_>>(), [3, 13]);
    assert_eq!(members.len(), 2);
    assert_eq!(fib.lookup(address("2001:db9::"), 0).group, None);
    assert!(fib.lookup(address("2001:db9::"), 0).intact);
}
