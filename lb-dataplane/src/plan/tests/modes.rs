//! Services whose mode changes while packets come.

use super::*;
use crate::table::Mode;

/// How packets reach a backend: its service's mode, and where its flows come from.
type Met = (u8, Vec<SourceEntry>);

/// What packets meet at each backend that the service's ring names.
fn met(maps: &Maps) -> Vec<Met> {
    let words = |(_, entry): &(VipKey, ServiceEntry)| {
        let ring = ring::words(entry, |index| maps.rings.get(&index).copied());
        let sources = |id| sources(&maps.backends[&id]).map(|i| maps.sources[&i]).collect();
        ring.into_iter().map(|id| (entry.mode, sources(id))).collect::<Vec<_>>()
    };
    maps.services.values().filter(|(_, entry)| entry.id != NO_ID).flat_map(words).collect()
}

fn of(mode: Mode, sources: &[u8]) -> Table {
    let mut service = service(Algorithm::RoundRobin, &[(1, true), (2, true), (3, false)]);
    service.mode = mode;
    for backend in &mut service.backends {
        backend.sources = sources.iter().copied().map(source).collect();
    }
    one(service)
}

#[test]
fn no_packet_meets_the_backends_of_one_mode_in_another() {
    let all = [
        of(Mode::Nat, &[]),
        of(Mode::Nat, &[7, 8]),
        of(Mode::L2, &[]),
        of(Mode::IpInIp, &[9]),
        of(Mode::Gue, &[9]),
        of(Mode::Gue, &[6]),
    ];
    let alone = |table: &Table| {
        let (mut served, mut maps) = (Served::new(LIMITS), Maps::default());
        carry_out(&mut maps, &served.plan(table).unwrap());
        (served, maps)
    };
    for before in &all {
        for after in &all {
            let (mut served, mut maps) = alone(before);
            let either = [met(&maps), met(&alone(after).1)].map(|of_all| of_all[0].clone());
            for step in served.plan(after).unwrap() {
                maps.carry_out(&step);
                let now = met(&maps);
                assert!(now.iter().all(|it| either.contains(it)), "{step:?}: {now:?} {either:?}");
                assert_eq!(now.len(), 2, "{step:?}: backends are there all the while");
            }
            assert_eq!(met(&maps)[0], either[1]);
        }
    }
}

/// Whose flows were begun in the mode before are those of backends that have left.
#[test]
fn a_backend_keeps_its_place_unless_the_mode_changes() {
    let ids = |served: &Served| {
        let ident = served.idents().next().unwrap();
        (ident.id, ident.backends.iter().map(|(_, _, id)| *id).collect::<Vec<_>>())
    };
    let mut served = Served::new(LIMITS);
    served.plan(&of(Mode::Nat, &[])).unwrap();
    let first = ids(&served);
    served.plan(&of(Mode::Nat, &[7])).unwrap();
    assert_eq!(ids(&served), first);
    served.plan(&of(Mode::IpInIp, &[7])).unwrap();
    let second = ids(&served);
    assert_eq!(second.0, first.0, "it is the same service");
    assert!(second.1.iter().all(|id| !first.1.contains(id)), "{second:?}");
}
