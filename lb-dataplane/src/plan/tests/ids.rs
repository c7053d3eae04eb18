//! Ids of backends and services, and the flows of those that are gone.

use super::*;

/// All flows have ended, and nobody counts any more: the ids of what is gone are free.
pub(super) fn free_ids(served: &mut Served, maps: &mut Maps) {
    for _ in 0..2 {
        let waiting = served.all_that_waits();
        maps.carry_out(&Step::Grace);
        served.passed(waiting);
        for id in served.left_mut().settle(|_| true) {
            if let Some(entry) = maps.backends.get_mut(&id) {
                entry.service = NO_SERVICE;
            }
            served.settled(id);
        }
        served.free_services();
    }
}

#[test]
fn ids_of_what_is_gone_are_nobodys_until_their_flows_have_ended() {
    let limits = Limits { services: 1, backends: 3, ..LIMITS };
    let (mut served, mut maps) = (Served::new(limits), Maps::default());
    let of = |port, n| table([(key(1, port), service(Algorithm::RoundRobin, &[(n, true)]))]);
    let ids = |served: &Served| {
        let ident = served.idents().next().unwrap();
        (ident.id, ident.backends[0].2)
    };
    let serve = |served: &mut Served, maps: &mut Maps, port, n| {
        let steps = served.plan(&of(port, n)).unwrap();
        carry_out(maps, &steps);
        steps.iter().for_each(|step| served.carried_out(step));
        ids(served)
    };
    assert_eq!(serve(&mut served, &mut maps, 80, 1), (0, 0));
    assert_eq!(serve(&mut served, &mut maps, 81, 2), (1, 1));
    // As many ids of services as there may be are in use, which are two. A grace period alone frees none.
    for restarts in [false, true] {
        if restarts {
            served = maps.adopt_as(limits);
        }
        let waiting = served.all_that_waits();
        maps.carry_out(&Step::Grace);
        served.passed(waiting);
        served.free_services();
        assert_eq!(served.plan(&of(82, 2)), Err(PlanError::ServicesHeld(1)));
        assert_eq!(served.plan(&of(81, 2)).unwrap(), []);
    }
    assert_eq!(serve(&mut served, &mut maps, 81, 3), (1, 2));
    assert_eq!(served.plan(&of(81, 4)), Err(PlanError::BackendsFull(3)));
    free_ids(&mut served, &mut maps);
    let (service, backend) = serve(&mut served, &mut maps, 82, 4);
    assert!(service == 0 && backend < 2, "{service} {backend}");
}

#[test]
fn a_new_process_gives_ids_that_flows_of_backends_that_are_gone_may_have_to_nobody_yet() {
    let (mut served, mut maps) = (Served::new(LIMITS), Maps::default());
    let of = |backends| table([(key(1, 80), service(Algorithm::RoundRobin, backends))]);
    carry_out(&mut maps, &served.plan(&of(&[(1, true), (2, true)])).unwrap());
    carry_out(&mut maps, &served.plan(&of(&[(1, true)])).unwrap());
    let given_out: Vec<_> = maps.backends.keys().copied().collect();
    // A process takes longer to start than a packet to pass.
    maps.carry_out(&Step::Grace);
    let mut adopted = maps.adopt();
    carry_out(&mut maps, &adopted.plan(&of(&[(1, true), (3, true)])).unwrap());
    let gone = |id: &&u32| maps.backends[*id].flags & BACKEND_IN_USE == 0;
    assert_eq!(given_out.iter().filter(gone).count(), 1, "the second one's is not the third one's");
}

#[test]
fn a_new_process_gives_no_service_the_id_that_flows_of_one_that_is_gone_may_have() {
    let (mut served, mut maps) = (Served::new(LIMITS), Maps::default());
    let of = |port| (key(1, port), service(Algorithm::RoundRobin, &[(1, true)]));
    let ids = |served: &Served| served.idents().map(|ident| ident.id).collect::<Vec<_>>();
    carry_out(&mut maps, &served.plan(&table([of(80), of(81)])).unwrap());
    assert_eq!(ids(&served), [0, 1]);
    carry_out(&mut maps, &served.plan(&table([of(80)])).unwrap());
    // A process takes longer to start than a packet to pass.
    maps.carry_out(&Step::Grace);
    let mut adopted = maps.adopt();
    carry_out(&mut maps, &adopted.plan(&table([of(80), of(82)])).unwrap());
    assert_eq!(ids(&adopted), [0, 2]);
}
