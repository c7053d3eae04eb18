//! What just fits is served; one more is refused by its name, and nothing of it is there.

use super::*;

/// Those of the size that cost a test little, and small ones of the rest.
const FULL: Limits = Limits {
    services: 65_536,
    backends: 8193,
    ring_words: 1 << 20,
    sources: 16,
    // Those of one list: levels of 4,097, 513, 65, 9, 2 and 1.
    list_nodes: 4687,
    access: 16_384,
};

fn turning(count: usize) -> Service {
    let address = |n: usize| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
    let backends = (0..count).map(|n| Backend { address: address(n), ..backend(0, true) });
    Service { algorithm: Algorithm::RoundRobin, backends: backends.collect(), ..Service::default() }
}

fn listing(count: usize) -> Service {
    // None beside another.
    let prefix = |n: usize| IpNetwork::from(IpAddr::from([10, 1, (n >> 7) as u8, (2 * n) as u8]));
    let access = (0..count).map(|n| Access { prefix: prefix(n), is_admitted: true });
    Service { access: access.collect(), ..service(Algorithm::RoundRobin, &[(1, true)]) }
}

fn from(count: u8) -> Service {
    let mut service = service(Algorithm::RoundRobin, &[(1, true)]);
    service.backends[0].sources = (0..count).map(source).collect();
    service
}

fn ported(more_ports: u16) -> Service {
    Service { more_ports, ..service(Algorithm::RoundRobin, &[]) }
}

fn services(count: u32) -> Table {
    let vip = |n: u32| ServiceKey { address: IpAddr::from((n + 1).to_be_bytes()), ..key(1, 80) };
    table((0..count).map(|n| (vip(n), service(Algorithm::RoundRobin, &[]))))
}

/// Of as many backends as a service may have, for the rings' size.
fn hashing(count: u8, table_size: u32) -> Table {
    let mut all = turning(4096);
    all.algorithm = Algorithm::Maglev;
    all.table_size = NonZero::new(table_size);
    table(
        (1..=count).map(|n| {
            (key(n, 80), Service { backends: all.backends[..100].to_vec(), ..all.clone() })
        }),
    )
}

/// As many turns as a round may have, or more than the rings have words.
fn weighing(services: u8) -> Table {
    let mut all = turning(4096);
    all.backends.iter_mut().for_each(|backend| backend.weight = 255);
    all.backends[0].weight = 254;
    table((1..=services).map(|n| (key(n, 80), all.clone())))
}

type Refusal = fn(&PlanError) -> bool;

#[test]
fn what_just_fits_is_served_and_one_more_is_refused_and_leaves_nothing() {
    let two = |first: u16, more: u16, second: u16| {
        table([(key(9, first), ported(more)), (key(9, second), ported(0))])
    };
    let failed = |table_size| {
        let table_size = NonZero::new(table_size);
        one(Service { table_size, ..service(Algorithm::Maglev, &[(1, false)]) })
    };
    let cases: [(&str, Table, Table, Refusal); 11] = [
        ("services", services(65_536), services(65_537), |e| {
            matches!(e, PlanError::TooManyServices { wanted: 65_537, limit: 65_536 })
        }),
        ("backends of a service", one(turning(4096)), one(turning(4097)), |e| {
            matches!(e, PlanError::TooManyBackends { count: 4097, .. })
        }),
        (
            "backends",
            table([(key(8, 80), turning(4096)), (key(9, 80), turning(4096))]),
            table([
                (key(7, 80), service(Algorithm::RoundRobin, &[(9, true)])),
                (key(8, 80), turning(4096)),
                (key(9, 80), turning(4096)),
            ]),
            |e| matches!(e, PlanError::BackendsFull(8193)),
        ),
        ("prefixes of a service", one(listing(16_384)), one(listing(16_385)), |e| {
            matches!(e, PlanError::TooManyPrefixes { count: 16_385, .. })
        }),
        (
            "prefixes",
            one(listing(16_384)),
            table([(key(8, 80), listing(16_384)), (key(9, 80), listing(1))]),
            |e| matches!(e, PlanError::AccessFull(16_384)),
        ),
        ("sources", one(from(16)), one(from(17)), |e| matches!(e, PlanError::SourcesFull(16))),
        ("turns", weighing(1), weighing(2), |e| {
            matches!(e, PlanError::RingsFull { wanted: 1_044_479, slots: 1_048_576 })
        }),
        ("rings", hashing(16, 65_521), hashing(17, 65_521), |e| {
            matches!(e, PlanError::RingsFull { wanted: 65_521, slots: 1_048_576 })
        }),
        ("the ring of a backend that has failed", failed(1 << 20), failed((1 << 20) + 1), |e| {
            matches!(e, PlanError::RingsFull { wanted: 1_048_577, slots: 1_048_576 })
        }),
        ("the last port", one(ported(u16::MAX - 80)), one(ported(u16::MAX - 79)), |e| {
            matches!(e, PlanError::PortsEnd { .. })
        }),
        ("ranges that touch and that overlap", two(80, 9, 90), two(80, 10, 90), |e| {
            matches!(e, PlanError::PortsOverlap { .. })
        }),
    ];
    for (what, fits, more, is_refused) in cases {
        let mut served = Served::new(FULL);
        let kept = table([(key(1, 443), service(Algorithm::Maglev, &[(1, true)]))]);
        served.plan(&kept).unwrap();
        let error = served.plan(&more).expect_err(what);
        assert!(is_refused(&error), "{what}: {error}");
        let is_of_all = matches!(
            error,
            PlanError::TooManyServices { .. }
                | PlanError::BackendsFull(_)
                | PlanError::AccessFull(_)
                | PlanError::SourcesFull(_)
                | PlanError::RingsFull { .. }
        );
        assert_eq!(error.to_string().contains("raise dataplane.max_"), is_of_all, "{error}");
        assert_eq!(served.plan(&kept).unwrap(), [], "{what}: after {error}");
        let mut served = Served::new(FULL);
        served.plan(&fits).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}
