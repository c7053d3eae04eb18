use std::collections::{BTreeMap, HashMap};

use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::*;
use crate::layout::while_changing;
use crate::table::{Access, Algorithm, Backend, BackendState, Protocol, Source};
use lb_dataplane_common::list::{List, NODE_WORDS};
use lb_dataplane_common::service::{BACKEND_IN_USE, SourceEntry, VipKey};

mod ids;
mod limits;
mod modes;
mod ports;

use self::ids::free_ids;

const LIMITS: Limits =
    Limits { services: 16, backends: 24, ring_words: 9000, sources: 16, list_nodes: 8, access: 20 };

/// The maps as packets see them, written step by step.
#[derive(Clone, Default)]
struct Maps {
    services: HashMap<[u8; 8], (VipKey, ServiceEntry)>,
    backends: BTreeMap<u32, BackendEntry>,
    rings: BTreeMap<u32, u32>,
    sources: BTreeMap<u32, SourceEntry>,
    lists: BTreeMap<u32, List>,
    list_words: BTreeMap<u32, u64>,
    ranges: BTreeMap<PortPrefix, u16>,
    /// Entries of `SOURCES` that a backend named since the last grace period.
    sources_read: BTreeMap<u32, ()>,
    /// Ring words that a service named since the last grace period.
    read: BTreeMap<u32, ()>,
    /// Nodes of lists that it led to since then.
    nodes_read: BTreeMap<u32, ()>,
    /// The same of all since the beginning of one that is not over yet.
    since: Option<Named>,
}

/// What is read of a map where it is asked for.
type Read<'a, T> = Box<dyn Fn(u32) -> Option<T> + 'a>;

/// Ring words, entries of `SOURCES`, and nodes of lists.
type Named = [BTreeMap<u32, ()>; 3];

/// A backend's address and port, as its entry has them, and where its flows come from.
type Address = ([u8; 16], [u8; 2], Vec<SourceEntry>);

/// A ring of addresses, what the service's entry says of lists, and its list.
type Meaning = (Vec<Address>, u8, Option<Vec<u64>>);

fn raw(key: &VipKey) -> [u8; 8] {
    let [a, b, c, d] = key.address[3].to_ne_bytes();
    let [p, q] = key.port;
    [a, b, c, d, p, q, key.protocol, key.pad]
}

impl Maps {
    fn carry_out(&mut self, step: &Step) {
        self.is_read_by_nobody(step);
        self.write(step);
        if matches!(
            step,
            Step::Grace | Step::PutBackend { .. } | Step::PutService { .. } | Step::PutList { .. }
        ) {
            self.note();
        }
        self.check();
    }

    /// What is written in place is what no packet reads.
    fn is_read_by_nobody(&self, step: &Step) {
        match step {
            Step::WriteRing { base, words } => {
                for index in (*base..).take(words.len()) {
                    assert!(index < LIMITS.ring_words);
                    assert!(
                        !self.read.contains_key(&index),
                        "a packet may still read word {index}"
                    );
                }
            }
            Step::WriteSources { base, entries } => {
                for index in (*base..).take(entries.len()) {
                    assert!(index < LIMITS.sources);
                    let is_read = self.sources_read.contains_key(&index);
                    assert!(!is_read, "a packet may still read source {index}");
                }
            }
            Step::WriteList { first, words } => {
                for node in (*first..).take(words.len() / NODE_WORDS as usize) {
                    assert!(node < LIMITS.list_nodes);
                    let is_read = self.nodes_read.contains_key(&node);
                    assert!(!is_read, "a packet may still read node {node}");
                }
            }
            Step::RemoveList { service } => assert!(self.lists.contains_key(service)),
            Step::RemoveRange { prefix } => assert!(self.ranges.contains_key(prefix)),
            Step::Grace
            | Step::ClearBackend { .. }
            | Step::PutBackend { .. }
            | Step::ClearService { .. }
            | Step::PutList { .. }
            | Step::PutRange { .. }
            | Step::PutService { .. }
            | Step::RemoveService { .. } => {}
        }
    }

    fn write(&mut self, step: &Step) {
        match step {
            Step::Grace => {
                self.read.clear();
                self.sources_read.clear();
                self.nodes_read.clear();
            }
            Step::PutBackend { id, entry } => drop(self.backends.insert(*id, *entry)),
            Step::WriteRing { base, words } => {
                self.rings.extend((*base..).zip(words.iter().copied()));
            }
            Step::WriteSources { base, entries } => {
                self.sources.extend((*base..).zip(entries.iter().copied()));
            }
            Step::WriteList { first, words } => {
                self.list_words.extend((first * NODE_WORDS..).zip(words.iter().copied()));
            }
            Step::PutList { service, list } => drop(self.lists.insert(*service, *list)),
            Step::RemoveList { service } => drop(self.lists.remove(service)),
            Step::PutRange { prefix, first_port } => drop(self.ranges.insert(*prefix, *first_port)),
            Step::RemoveRange { prefix } => drop(self.ranges.remove(prefix)),
            Step::ClearService { .. } | Step::ClearBackend { .. } => {}
            Step::PutService { key, entry } => {
                self.services.insert(raw(key), (*key, *entry));
                let room = while_changing(LIMITS.services) as usize;
                assert!(self.services.len() <= room, "the map is full");
            }
            Step::RemoveService { key } => drop(self.services.remove(&raw(key))),
        }
    }

    fn note(&mut self) {
        let named = self.named();
        if let Some(since) = &mut self.since {
            since.iter_mut().zip(&named).for_each(|(since, named)| since.extend(named));
        }
        let [words, sources, nodes] = named;
        self.read.extend(words);
        self.sources_read.extend(sources);
        self.nodes_read.extend(nodes);
    }

    /// Ring words, source addresses and nodes of lists that are named now.
    fn named(&self) -> Named {
        let words = self.services.values().flat_map(|(_, entry)| {
            let words = ring::words(entry, |index| self.rings.get(&index).copied()).len() as u32;
            (entry.ring_base..entry.ring_base + words).map(|index| (index, ()))
        });
        let sources = self.backends.values().flat_map(|b| sources(b).map(|index| (index, ())));
        let nodes = self.lists.values().flat_map(|list| (list.first..).take(list.nodes as usize));
        [words.collect(), sources.collect(), nodes.map(|node| (node, ())).collect()]
    }

    /// A grace period begins beside the changes, or ends: then no packet reads any more what nobody named meanwhile.
    fn begin_or_end_of_grace(&mut self, ends: bool) {
        match self.since.take().filter(|_| ends) {
            Some([words, sources, nodes]) => {
                self.read.retain(|word, ()| words.contains_key(word));
                self.sources_read.retain(|source, ()| sources.contains_key(source));
                self.nodes_read.retain(|node, ()| nodes.contains_key(node));
            }
            None => self.since = Some(self.named()),
        }
    }

    /// No packet sees a service whose ring names a backend that is not there, or whose list is not.
    fn check(&self) {
        for (key, entry) in self.services.values() {
            if access::has_list(entry) {
                assert!(self.list_of(entry.id).is_some(), "{key:?} has no list");
            }
            let words = ring::words(entry, |index| self.rings.get(&index).copied()).len() as u32;
            let end = entry.ring_base + entry.ring_len;
            // All but the number of those that follow.
            for index in (entry.ring_base..entry.ring_base + words).filter(|i| *i != end) {
                let backend = self.rings.get(&index).and_then(|id| self.backends.get(id));
                let is_its_own =
                    backend.is_some_and(|b| b.flags & BACKEND_IN_USE != 0 && b.service == entry.id);
                assert!(is_its_own, "{key:?} names nobody at {index}: {backend:?}");
                let sources = backend.map(sources).unwrap_or_default();
                assert!(
                    sources.clone().all(|source| self.sources.contains_key(&source)),
                    "{key:?}: {backend:?} comes from nowhere"
                );
            }
        }
    }

    /// The words of a service's list, if it has one and it is there.
    fn list_of(&self, service: u32) -> Option<Vec<u64>> {
        let list = self.lists.get(&service)?;
        let words = access::there(*list, |index| self.list_words.get(&index).copied());
        (words.len() as u32 == list.nodes * NODE_WORDS).then_some(words)
    }

    /// What clients meet: for each service its ring of addresses, what its entry says of lists, and the list.
    fn meaning(&self) -> BTreeMap<[u8; 8], Meaning> {
        let ring = |entry: &ServiceEntry| {
            let words = entry.ring_base..entry.ring_base + entry.ring_len;
            words
                .map(|index| &self.backends[&self.rings[&index]])
                .map(|b| (b.address, b.port, sources(b).map(|i| self.sources[&i]).collect()))
                .collect()
        };
        let meaning = |entry: &ServiceEntry| (ring(entry), entry.flags, self.list_of(entry.id));
        self.services.iter().map(|(key, (_, entry))| (*key, meaning(entry))).collect()
    }

    fn adopt(&self) -> Served {
        self.adopt_as(LIMITS)
    }

    fn adopt_as(&self, limits: Limits) -> Served {
        Served::adopt(limits, self.found())
    }

    fn found(&self) -> Found<Read<'_, u32>, Read<'_, SourceEntry>, Read<'_, u64>> {
        Found {
            services: self.services.values().copied().collect(),
            backends: self.backends.iter().map(|(id, entry)| (*id, *entry)).collect(),
            ring_word: Box::new(|index| self.rings.get(&index).copied()),
            source: Box::new(|index| self.sources.get(&index).copied()),
            lists: self.lists.iter().map(|(service, list)| (*service, *list)).collect(),
            list_word: Box::new(|index| self.list_words.get(&index).copied()),
            ranges: self.ranges.iter().map(|(prefix, first)| (*prefix, *first)).collect(),
        }
    }
}

/// The entries of `SOURCES` that a backend names.
fn sources(backend: &BackendEntry) -> std::ops::Range<u32> {
    let list = backend.sources;
    list.base()..list.base() + list.len()
}

fn key(vip: u8, port: u16) -> ServiceKey {
    let address = IpAddr::from([203, 0, 113, vip]);
    ServiceKey { address, port, protocol: Protocol::Tcp }
}

fn backend(n: u8, takes_new_flows: bool) -> Backend {
    let state = if takes_new_flows { BackendState::Active } else { BackendState::Failed };
    Backend {
        address: IpAddr::from([10, 0, 0, n]),
        port: 8080,
        weight: 1,
        state,
        // Rings with a list behind them, and rings without.
        max_flows: NonZero::new(u32::from(n / 6)),
        sources: [].into(),
    }
}

fn source(n: u8) -> Source {
    Source { address: IpAddr::from([192, 0, 2, n]), first_port: 1024, last_port: 65_535 }
}

fn service(algorithm: Algorithm, backends: &[(u8, bool)]) -> Service {
    Service {
        algorithm,
        backends: backends.iter().map(|(n, takes)| backend(*n, *takes)).collect(),
        ..Service::default()
    }
}

fn table(services: impl IntoIterator<Item = (ServiceKey, Service)>) -> Table {
    Table { services: services.into_iter().collect() }
}

/// Of another VIP than the rest.
fn one(service: Service) -> Table {
    table([(key(9, 80), service)])
}

/// At every step, what is an address of VIPs before and after is one.
fn carry_out(maps: &mut Maps, steps: &[Step]) {
    let is_address = |entry: &(VipKey, ServiceEntry)| entry.1.id == NO_ID;
    let addresses = |maps: &Maps| -> BTreeSet<[u8; 8]> {
        let all = maps.services.iter().filter(|(_, entry)| is_address(entry));
        all.map(|(key, _)| *key).collect()
    };
    let mut after = maps.clone();
    steps.iter().for_each(|step| after.write(step));
    let stay: Vec<_> = addresses(maps).intersection(&addresses(&after)).copied().collect();
    for step in steps {
        maps.carry_out(step);
        assert!(stay.iter().all(|key| maps.services.contains_key(key)), "{step:?}");
    }
}

#[test]
fn an_address_whose_only_service_moves_to_another_port_is_a_vip_all_the_while() {
    let (mut served, mut maps) = (Served::new(LIMITS), Maps::default());
    let at = |port| ServiceKey { address: [192, 0, 2, 1].into(), port, protocol: Protocol::Tcp };
    for port in [80, 81, 80] {
        let steps = served.plan(&table([(at(port), Service::default())])).unwrap();
        carry_out(&mut maps, &steps);
        assert_eq!(maps.services.len(), 2, "{port}");
    }
    let change = Change { services: [(at(80), None), (at(443), Some(Service::default()))].into() };
    let steps = served.change(&change).unwrap();
    carry_out(&mut maps, &steps);
    carry_out(&mut maps, &served.plan(&Table::default()).unwrap());
    assert_eq!(maps.services.len(), 0);
}

#[test]
fn what_does_not_change_needs_no_step() {
    let mut served = Served::new(LIMITS);
    let same = table([(key(1, 80), service(Algorithm::Maglev, &[(1, true), (2, true)]))]);
    assert!(!served.plan(&same).unwrap().is_empty());
    assert_eq!(served.plan(&same).unwrap(), []);
}

#[test]
fn an_address_is_there_as_long_as_a_service_of_it() {
    let (mut served, mut maps) = (Served::new(LIMITS), Maps::default());
    let rr = || service(Algorithm::RoundRobin, &[(1, true)]);
    let address = raw(&address_key([203, 0, 113, 1].into()));
    for (ports, there) in [(&[80, 81][..], true), (&[81][..], true), (&[][..], false)] {
        let steps = served.plan(&table(ports.iter().map(|port| (key(1, *port), rr())))).unwrap();
        carry_out(&mut maps, &steps);
        assert_eq!(maps.services.contains_key(&address), there, "{ports:?}");
    }
    assert!(maps.services.is_empty());
}

/// A service that refuses so many addresses, none beside another.
fn listing(count: u8) -> Service {
    let prefix = |n: u8| IpNetwork::from(IpAddr::from([198, 51, 100, 2 * n + 1]));
    let access = (0..count).map(|n| Access { prefix: prefix(n), is_admitted: false });
    Service { access: access.collect(), ..service(Algorithm::RoundRobin, &[(1, true)]) }
}

#[test]
fn a_list_that_comes_has_the_room_of_one_that_goes() {
    let (mut served, mut maps) = (Served::new(LIMITS), Maps::default());
    // Seven nodes of eight, of one service and then of another.
    for port in [80, 81, 80] {
        let steps = served.plan(&table([(key(1, port), listing(20))])).unwrap();
        carry_out(&mut maps, &steps);
        assert_eq!(maps.lists.values().map(|list| list.nodes).collect::<Vec<_>>(), [7]);
    }
    // Not so the next list of the same service: packets meet one of the two at any time.
    let error = served.plan(&table([(key(1, 80), listing(19))])).unwrap_err();
    assert!(matches!(error, PlanError::AccessFull(_)), "{error}");
}

#[test]
fn a_list_stays_where_it_is_while_what_it_says_is_the_same() {
    let (mut served, mut maps) = (Served::new(LIMITS), Maps::default());
    carry_out(&mut maps, &served.plan(&table([(key(1, 80), listing(4))])).unwrap());
    let is_of_lists = |step: &Step| {
        matches!(step, Step::WriteList { .. } | Step::PutList { .. } | Step::RemoveList { .. })
    };
    let mut other = listing(4);
    other.backends = vec![backend(2, true)];
    let steps = served.plan(&table([(key(1, 80), other.clone())])).unwrap();
    assert!(!steps.iter().any(is_of_lists), "{steps:?}");
    carry_out(&mut maps, &steps);
    // In other words, and in another process.
    let mut access = other.access.to_vec();
    access.reverse();
    access.push(Access { prefix: "198.51.100.1/32".parse().unwrap(), is_admitted: false });
    other.access = access.into();
    maps.carry_out(&Step::Grace);
    let mut adopted = maps.adopt();
    let steps = adopted.plan(&table([(key(1, 80), other)])).unwrap();
    assert!(!steps.iter().any(is_of_lists), "{steps:?}");
}

/// Whatever becomes of backends: the same slots, most of which have the same backend.
#[test]
fn the_size_of_a_maglev_ring_is_the_same_however_many_backends_take_flows() {
    for algorithm in [Algorithm::Maglev, Algorithm::SourceHash] {
        let mut served = Served::new(Limits { ring_words: 1 << 20, ..LIMITS });
        let mut all = service(algorithm, &[]);
        all.backends = (1..=11).map(|n| backend(n, true)).collect();
        served.plan(&one(all.clone())).unwrap();
        let ring = |served: &Served| {
            let held = &served.services[&key(9, 80)];
            let (mut words, len) = ring::whole(held.wanted.as_ref().unwrap(), &held.backends);
            assert_eq!((ring::Digest::of(&words), len), (held.ring, held.entry.ring_len));
            words.truncate(len as usize);
            words
        };
        let whole = ring(&served);
        for state in [BackendState::Failed, BackendState::Draining] {
            for n in 1..11 {
                all.backends[n].state = state;
                served.plan(&one(all.clone())).unwrap();
                assert_eq!(ring(&served).len(), whole.len(), "{algorithm:?}: {n} {state:?}");
            }
            all.backends.iter_mut().for_each(|backend| backend.state = BackendState::Active);
        }
        all.backends[10].state = BackendState::Failed;
        served.plan(&one(all.clone())).unwrap();
        let stay = ring(&served).into_iter().zip(&whole).filter(|(now, then)| now == *then).count();
        assert!(stay as f64 > 0.8 * whole.len() as f64, "{stay} of {}", whole.len());
        all.table_size = NonZero::new(2039);
        served.plan(&one(all)).unwrap();
        assert_eq!(ring(&served).len(), 2039);
    }
}

#[test]
fn a_service_without_takers_stays_and_has_an_empty_ring() {
    let (mut served, mut maps) = (Served::new(LIMITS), Maps::default());
    let steps =
        served.plan(&table([(key(1, 80), service(Algorithm::Maglev, &[(1, false)]))])).unwrap();
    carry_out(&mut maps, &steps);
    assert!(maps.meaning().values().all(|(ring, _, _)| ring.is_empty()));
}

#[test]
fn what_cannot_be_served_is_refused_and_nothing_changes() {
    let mut served = Served::new(LIMITS);
    let good = table([(key(1, 80), service(Algorithm::RoundRobin, &[(1, true)]))]);
    served.plan(&good).unwrap();
    let v6 = ServiceKey { address: "2001:db8::1".parse().unwrap(), ..key(1, 80) };
    let cases = [
        table([(v6, service(Algorithm::RoundRobin, &[(1, true)]))]),
        table([(key(1, 0), service(Algorithm::RoundRobin, &[]))]),
        table((1..=17).map(|vip| (key(vip, 80), service(Algorithm::RoundRobin, &[])))),
        table([(
            key(1, 80),
            service(Algorithm::RoundRobin, &(1..=25).map(|n| (n, true)).collect::<Vec<_>>()),
        )]),
        table((0..9).map(|port| (key(1, 80 + port), service(Algorithm::Maglev, &[(1, true)])))),
    ];
    let mut from_nowhere = service(Algorithm::RoundRobin, &[(1, true)]);
    from_nowhere.backends[0].sources = [Source { first_port: 9, last_port: 8, ..source(1) }].into();
    let mut too_many_sources = service(Algorithm::RoundRobin, &[(1, true)]);
    too_many_sources.backends[0].sources = (0..17).map(source).collect();
    let mut beyond = service(Algorithm::RoundRobin, &[(1, true)]);
    beyond.more_ports = u16::MAX - 8079;
    let mut two = service(Algorithm::RoundRobin, &[(1, true)]);
    two.more_ports = 1;
    let overlapping = table([(key(1, 79), two.clone()), (key(1, 80), two)]);
    assert!(matches!(served.plan(&overlapping), Err(PlanError::PortsOverlap { .. })));
    let more =
        [from_nowhere, too_many_sources, beyond].map(|service| table([(key(1, 81), service)]));
    for case in cases.into_iter().chain(more) {
        let error = served.plan(&case).unwrap_err();
        assert!(!error.to_string().is_empty());
        assert_eq!(served.plan(&good).unwrap(), [], "after {error}");
    }
}

#[test]
fn a_backend_whose_answers_need_no_flow_is_refused_beside_another_service_of_its_port() {
    let alone = Service {
        hashes_when_full: true,
        backends: vec![Backend { port: 8081, ..backend(1, true) }],
        ..service(Algorithm::Maglev, &[])
    };
    let mut range = service(Algorithm::Maglev, &[(1, true)]);
    range.more_ports = 1;
    let change = |vip, service: &Service| Change {
        services: [(key(vip, 80), Some(service.clone()))].into(),
    };
    let is_refused = |served: &mut Served, vip, service| {
        matches!(served.change(&change(vip, service)), Err(PlanError::NotAlone { .. }))
    };
    for (first, second) in [(&alone, &range), (&range, &alone), (&alone, &alone)] {
        let mut served = Served::new(LIMITS);
        served.change(&change(1, first)).unwrap();
        assert!(is_refused(&mut served, 2, second));
        assert!(is_refused(&mut served, 2, second), "a refusal leaves nothing behind");
        served.change(&change(2, &service(Algorithm::Maglev, &[(1, true)]))).unwrap();
        served.change(&Change { services: [(key(1, 80), None)].into() }).unwrap();
        served.change(&change(2, second)).unwrap();
        assert!(is_refused(&mut served, 1, first));
    }
}

#[test]
fn a_new_process_goes_on_with_ids_and_rings() {
    let (mut served, mut maps) = (Served::new(LIMITS), Maps::default());
    let wanted = table([
        (key(1, 80), service(Algorithm::Maglev, &[(1, true), (2, true), (3, true)])),
        (key(2, 80), service(Algorithm::RoundRobin, &[(1, true), (4, true)])),
    ]);
    carry_out(&mut maps, &served.plan(&wanted).unwrap());
    let mut adopted = maps.adopt();
    assert_eq!(adopted.idents().collect::<Vec<_>>(), served.idents().collect::<Vec<_>>());
    assert_eq!(adopted.plan(&wanted).unwrap(), []);
}

fn any_table() -> impl Strategy<Value = Table> {
    let backends = prop::collection::btree_map(1_u8..9, (any::<bool>(), 0_u8..4), 0..4);
    let access = prop::collection::btree_map(0_u8..4, any::<bool>(), 0..3);
    let ports = prop::sample::select(vec![0_u16, 0, 1, 7, 1000]);
    let one =
        (any::<bool>(), backends, access, ports).prop_map(|(maglev, backends, access, more)| {
            let algorithm = if maglev { Algorithm::Maglev } else { Algorithm::RoundRobin };
            let takers: Vec<_> = backends.iter().map(|(n, (takes, _))| (*n, *takes)).collect();
            let mut service = service(algorithm, &takers);
            for (backend, (_, sources)) in service.backends.iter_mut().zip(backends.values()) {
                // A list of its own for each length.
                backend.sources = (0..*sources).map(|n| source(10 * sources + n)).collect();
            }
            let prefix = |n: &u8| format!("10.{n}.0.0/16").parse().unwrap();
            let access =
                access.iter().map(|(n, admit)| Access { prefix: prefix(n), is_admitted: *admit });
            service.access = access.collect();
            service.more_ports = more;
            service
        });
    prop::collection::btree_map((1_u8..4, 80_u16..82), one, 0..6).prop_map(|services| {
        table(services.into_iter().map(|((vip, port), s)| (key(vip, port), s)))
    })
}

/// What leads from one table to another, with a service that is named and stays as it is.
fn changes(from: &Table, to: &Table) -> Change {
    let gone = from.services.keys().filter(|key| !to.services.contains_key(key));
    let gone = gone.map(|key| (*key, None));
    let mut same = true;
    let new = to.services.iter().filter(|(key, service)| {
        from.services.get(key) != Some(service) || std::mem::take(&mut same)
    });
    Change { services: gone.chain(new.map(|(key, s)| (*key, Some(s.clone())))).collect() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_way_to_a_table_means_the_same_as_building_it_anew(
        tables in prop::collection::vec((any_table(), any::<[bool; 3]>()), 1..12)
    ) {
        let (mut served, mut maps) = (Served::new(LIMITS), Maps::default());
        let (mut before_it, mut waiting) = (Table::default(), None);
        for (wanted, [restart, as_change, grace]) in &tables {
            let change = changes(&before_it, wanted);
            if *grace {
                maps.begin_or_end_of_grace(waiting.is_some());
                waiting = match waiting.take() {
                    None => Some(served.all_that_waits()),
                    Some(waited) => {
                        served.passed(waited);
                        None
                    }
                };
            }
            if *restart {
                // A process takes longer to start than a packet to pass.
                maps.carry_out(&Step::Grace);
                served = maps.adopt().replaces(&served);
            }
            let plan = |served: &mut Served| {
                let before = format!("{served:?}");
                let planned =
                    if *as_change { served.change(&change) } else { served.plan(wanted) };
                assert!(planned.is_ok() || format!("{served:?}") == before, "a refusal leaves a trace");
                planned
            };
            let planned = plan(&mut served).or_else(|error| {
                if error.is_of_ids() {
                    free_ids(&mut served, &mut maps);
                }
                plan(&mut served)
            });
            let Ok(steps) = planned else { continue };
            before_it = wanted.clone();
            carry_out(&mut maps, &steps);
            steps.iter().for_each(|step| served.carried_out(step));
            prop_assert_eq!(served.audit(&maps.found()).told, Vec::<String>::new());
            let mut fresh = Maps::default();
            carry_out(&mut fresh, &Served::new(LIMITS).plan(wanted).unwrap());
            prop_assert_eq!(maps.meaning(), fresh.meaning());
            prop_assert_eq!(maps.lists.len(), fresh.lists.len(), "nothing is left behind");
            prop_assert_eq!(&maps.ranges, &fresh.ranges);
        }
    }
}

/// Damages one entry of one map; says whether there was one.
fn damage(maps: &mut Maps, served: &Served, kind: u8, nth: usize) -> bool {
    let used: Vec<u32> = served.idents().flat_map(|of| of.backends).map(|(.., id)| id).collect();
    let words: Vec<u32> = maps.rings.keys().copied().collect();
    let words: Vec<u32> = words.into_iter().filter(|word| maps.read.contains_key(word)).collect();
    let lists: Vec<(u32, List)> = maps.lists.iter().map(|(id, list)| (*id, *list)).collect();
    let ranges: Vec<PortPrefix> = maps.ranges.keys().copied().collect();
    let mut keys: Vec<[u8; 8]> = maps.services.keys().copied().collect();
    keys.sort_unstable();
    match kind {
        0 => {
            keys.get(nth % keys.len().max(1)).and_then(|key| maps.services.remove(key)).map(|_| ())
        }
        1 => keys.get(nth % keys.len().max(1)).map(|key| {
            let (_, entry) = maps.services.get_mut(key).expect("it is there");
            entry.max_flows ^= 1;
        }),
        2 => used.get(nth % used.len().max(1)).map(|id| {
            maps.backends.get_mut(id).expect("it is there").port = [9, 9];
        }),
        3 => used.iter().max().map(|last| {
            // In use, and nobody's.
            let beyond = BackendEntry { service: 9, ..maps.backends[last] };
            maps.backends.insert(LIMITS.backends - 1, beyond);
        }),
        4 => words.get(nth % words.len().max(1)).map(|word| {
            maps.rings.insert(*word, 4711);
        }),
        5 => lists.get(nth % lists.len().max(1)).map(|(_, list)| {
            let word = (list.first + nth as u32 % list.nodes) * NODE_WORDS;
            *maps.list_words.get_mut(&word).expect("it is there") ^= 1;
        }),
        6 => lists.get(nth % lists.len().max(1)).map(|(_, list)| {
            maps.lists.insert(4711, *list);
        }),
        7 => ranges
            .get(nth % ranges.len().max(1))
            .and_then(|range| maps.ranges.remove(range))
            .map(|_| ()),
        _ => {
            let lists: Vec<u32> = served.sources.written().map(|(base, _)| base).collect();
            lists.get(nth % lists.len().max(1)).map(|base| {
                maps.sources.get_mut(base).expect("it is there").first_port ^= 1;
            })
        }
    }
    .is_some()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn an_audit_finds_whatever_is_damaged_and_its_steps_mend_it(
        wanted in any_table(), damages in prop::collection::vec((0_u8..9, any::<prop::sample::Index>()), 1..4)
    ) {
        let (mut served, mut maps) = (Served::new(LIMITS), Maps::default());
        let Ok(steps) = served.plan(&wanted) else { return Ok(()) };
        carry_out(&mut maps, &steps);
        let whole = maps.meaning();
        for (kind, nth) in damages {
            if !damage(&mut maps, &served, kind, nth.index(1 << 16)) {
                continue;
            }
            let audit = served.audit(&maps.found());
            prop_assert!(audit.differences() > 0 && audit.told.len() == audit.differences(), "{audit:?}");
            audit.steps.iter().for_each(|step| maps.write(step));
            prop_assert_eq!(served.audit(&maps.found()).told, Vec::<String>::new());
            prop_assert_eq!(maps.meaning(), whole.clone());
        }
    }
}
