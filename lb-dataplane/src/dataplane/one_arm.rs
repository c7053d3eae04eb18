//! What follows this host's routes and addresses: flows of one-arm services, and the packets around those in tunnels, come from the
//! address that this host itself would use on the way to the backend; those of full NAT, where they come from one of this host's
//! own, from ports that its connections do not use; and backends that no packet can reach as their service wants it get no new
//! flows.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::direct::{self, Towards};
use super::host_routes::HostRoutes;
use crate::sys;
use crate::table::{BackendState, Change, Mode, Service, ServiceKey, Source, Table};

/// Neighbours that the kernel is asked for at a time; others have their turn the next time.
const NEIGHBOURS_AT_ONCE: usize = 256;
/// Backends whose routes are looked at at a time, or those of one service: a few microseconds each, while others wait.
const BACKENDS_AT_ONCE: usize = 256;

/// The one-arm services: as they were asked for, and what became of them.
#[derive(Debug, Default)]
pub(super) struct OneArm {
    services: BTreeMap<ServiceKey, (Service, Service)>,
    /// Backends that get no new flows since packets do not reach them.
    unreached: BTreeSet<(ServiceKey, IpAddr)>,
    /// Those of them that the log names.
    told: BTreeSet<(ServiceKey, IpAddr)>,
    /// The last service whose routes were looked at, if there are more.
    followed: Option<ServiceKey>,
    /// The last neighbour that was asked for, if there are more.
    asked_last: Option<(u32, IpAddr)>,
}

impl OneArm {
    /// A table with sources filled in, as this host's routes and ports are now.
    pub(super) fn of<'a>(
        table: &'a Table,
        host: &mut HostRoutes,
        towards: Towards<'_>,
    ) -> (Cow<'a, Table>, Self) {
        let one_arm = table.services.iter().filter(|(_, service)| service.follows_routes());
        let services = fill_in(one_arm, host, towards);
        if services.is_empty() {
            return (Cow::Borrowed(table), Self::default());
        }
        let mut resolved = table.clone();
        for (key, (_, service)) in &services {
            resolved.services.insert(*key, service.clone());
        }
        let unreached = services.iter().flat_map(|(key, both)| unreached(*key, both)).collect();
        (Cow::Owned(resolved), Self { services, unreached, ..Self::default() })
    }

    /// A change with sources filled in.
    pub(super) fn resolve<'a>(
        change: &'a Change,
        host: &mut HostRoutes,
        towards: Towards<'_>,
    ) -> Cow<'a, Change> {
        let wanted = change.services.iter();
        let one_arm = wanted.filter_map(|(key, service)| {
            service
                .as_ref()
                .filter(|service| service.follows_routes())
                .map(|service| (key, service))
        });
        let filled = fill_in(one_arm, host, towards);
        if filled.is_empty() {
            return Cow::Borrowed(change);
        }
        let mut resolved = change.clone();
        for (key, (_, service)) in filled {
            resolved.services.insert(key, Some(service));
        }
        Cow::Owned(resolved)
    }

    /// Hears that a change was carried out.
    pub(super) fn keep(&mut self, change: &Change, resolved: &Change) {
        for (key, resolved) in &resolved.services {
            let both = match (change.services.get(key), resolved) {
                (Some(Some(asked)), Some(resolved)) if asked.follows_routes() => {
                    Some((asked.clone(), resolved.clone()))
                }
                (_, _) => None,
            };
            if let Some(before) = self.services.remove(key) {
                for gone in unreached(*key, &before) {
                    self.unreached.remove(&gone);
                }
            }
            if let Some(both) = both {
                self.unreached.extend(unreached(*key, &both));
                self.services.insert(*key, both);
            }
        }
    }

    /// Asks the kernel for MACs that packets to backends need and that are not known, of some backends at a time.
    pub(super) fn find_neighbours(&mut self, towards: Towards<'_>) {
        let services = self.services.values();
        let unresolved: BTreeSet<_> =
            services.flat_map(|(asked, _)| direct::unresolved(asked, towards)).collect();
        let after = self.asked_last.map_or(Unbounded, Excluded);
        let next = unresolved.range((after, Unbounded)).take(NEIGHBOURS_AT_ONCE);
        let next: Vec<(u32, IpAddr)> = next.copied().collect();
        self.asked_last = next.last().copied().filter(|_| next.len() == NEIGHBOURS_AT_ONCE);
        if let Err(error) = sys::find_neighbours(&next) {
            tracing::warn!(%error, "cannot ask the kernel for the MACs of backends");
        }
    }

    /// Says in the log which backends packets reach no more.
    pub(super) fn tell(&mut self) {
        for (ServiceKey { address, port, .. }, backend) in self.unreached.difference(&self.told) {
            tracing::warn!(
                vip = %address,
                port,
                %backend,
                "a backend gets no new flows: there is no way to it as the VIP's nat.mode needs one; look at its route, and where \
                 flows come from this host's own addresses, that net.ipv4.ip_local_port_range leaves them ports from 1024 on"
            );
        }
        self.told.clone_from(&self.unreached);
    }

    /// Backends that get no new flows since packets do not reach them.
    pub(super) const fn unreached(&self) -> &BTreeSet<(ServiceKey, IpAddr)> {
        &self.unreached
    }

    /// Whether the next services to be looked at are the first ones.
    pub(super) const fn begins(&self) -> bool {
        self.followed.is_none()
    }

    /// Of the next services those whose sources are no longer what the routes say, as they were asked for; and whether there are
    /// more services to be looked at.
    pub(super) fn moved(
        &mut self,
        host: &mut HostRoutes,
        towards: Towards<'_>,
    ) -> (Option<Change>, bool) {
        let after = self.followed.map_or(Unbounded, Excluded);
        let mut backends = 0;
        let mut next = self.services.range((after, Unbounded)).peekable();
        let some = std::iter::from_fn(|| {
            let (key, (asked, _)) = next.next_if(|_| backends < BACKENDS_AT_ONCE)?;
            backends += asked.backends.len();
            self.followed = Some(*key);
            Some((key, asked))
        });
        let now = fill_in(some, host, towards);
        let is_more = next.peek().is_some();
        let moved = now.into_iter().filter(|(key, (_, resolved))| {
            self.services.get(key).is_none_or(|(_, before)| before != resolved)
        });
        let services: BTreeMap<_, _> = moved.map(|(key, (asked, _))| (key, Some(asked))).collect();
        self.followed = self.followed.filter(|_| is_more);
        ((!services.is_empty()).then_some(Change { services }), is_more)
    }
}

/// The backends of a service, as asked for and as it became, that packets do not reach.
fn unreached(
    key: ServiceKey,
    (asked, resolved): &(Service, Service),
) -> impl Iterator<Item = (ServiceKey, IpAddr)> {
    let backends = asked.backends.iter().zip(&resolved.backends);
    let drained = backends.filter(|(asked, resolved)| asked.state != resolved.state);
    drained.map(move |(asked, _)| (key, asked.address))
}

/// Services with their sources filled in.
type Filled = BTreeMap<ServiceKey, (Service, Service)>;

fn fill_in<'a>(
    services: impl Iterator<Item = (&'a ServiceKey, &'a Service)>,
    host: &mut HostRoutes,
    towards: Towards<'_>,
) -> Filled {
    let mut services = services.peekable();
    if services.peek().is_none() {
        return Filled::new();
    }
    host.look_again();
    let ports = host.free_ports();
    let host = RefCell::new(host);
    let towards_backend = |backend| host.borrow_mut().towards(backend);
    let is_own = |address| host.borrow_mut().is_own(address);
    let mut filled = fill_in_with(services, ports, towards_backend, is_own);
    for (_, service) in filled.values_mut() {
        direct::drain(service, towards);
    }
    filled
}

/// A backend that no route leads to, or whose flows are to come from addresses none of which is this host's, gets no new ones:
/// they would come from nowhere. Nor does one while this host's own connections may have any port, if its flows can come from no
/// other address: answers to either would be taken for the other's. Where nobody knows whether an address is this host's own, the
/// more careful holds: it is not taken for one where that is needed, and flows have no port of it that this host may give away.
fn fill_in_with<'a>(
    services: impl Iterator<Item = (&'a ServiceKey, &'a Service)>,
    ports: Option<RangeInclusive<u16>>,
    address_towards: impl Fn(IpAddr) -> Option<IpAddr>,
    is_own: impl Fn(IpAddr) -> Option<bool>,
) -> Filled {
    type Key = (bool, IpAddr, Arc<[Source]>);
    let mut known: BTreeMap<Key, Option<Arc<[Source]>>> = BTreeMap::new();
    let mut elsewhere: BTreeMap<Arc<[Source]>, Option<Arc<[Source]>>> = BTreeMap::new();
    let ports = ports.map(RangeInclusive::into_inner);
    let source = |is_nat, address| {
        // The packets around others have none that anybody else could use.
        let ports = if is_nat { ports } else { Some((1, u16::MAX)) };
        ports.map(|(first_port, last_port)| Source { address, first_port, last_port })
    };
    let some = |sources: Vec<Source>| (!sources.is_empty()).then(|| Arc::from(sources));
    let resolve = |(key, asked): (&ServiceKey, &Service)| {
        let mut service = asked.clone();
        let (one_arm, needs) = (asked.one_arm, asked.needs_own_address());
        let is_nat = asked.mode == Mode::Nat;
        for backend in &mut service.backends {
            let found = if one_arm || needs && backend.sources.is_empty() {
                let key = (is_nat, backend.address, backend.sources.clone());
                known.entry(key).or_insert_with(|| {
                    if backend.sources.is_empty() {
                        return Some([source(is_nat, address_towards(backend.address)?)?].into());
                    }
                    let own = backend.sources.iter().map(|named| named.address);
                    let own = own.filter(|named| is_own(*named) == Some(true));
                    some(own.filter_map(|named| source(is_nat, named)).collect())
                })
            } else if backend.sources.is_empty() || !is_nat {
                continue;
            } else {
                elsewhere.entry(backend.sources.clone()).or_insert_with(|| {
                    let narrowed = |named: &Source| match is_own(named.address) {
                        Some(false) => Some(*named),
                        Some(true) | None => source(true, named.address),
                    };
                    some(backend.sources.iter().filter_map(narrowed).collect())
                })
            };
            match found {
                Some(sources) => backend.sources = sources.clone(),
                None if backend.state == BackendState::Active => {
                    backend.state = BackendState::Draining;
                }
                None => {}
            }
        }
        (*key, (asked.clone(), service))
    };
    services.map(resolve).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Backend, Protocol};

    #[test]
    fn named_addresses_are_used_while_they_are_this_hosts_and_with_its_free_ports() {
        let named = |address: [u8; 4]| Source {
            address: address.into(),
            first_port: 1024,
            last_port: u16::MAX,
        };
        let backend = |sources: &[Source]| Backend {
            address: [10, 0, 0, 1].into(),
            port: 80,
            weight: 1,
            state: BackendState::Active,
            max_flows: None,
            sources: sources.into(),
        };
        let (here, elsewhere) = (named([10, 7, 0, 1]), named([10, 7, 0, 2]));
        let backends = vec![backend(&[here, elsewhere]), backend(&[elsewhere])];
        let asked = Service { backends, one_arm: true, ..Service::default() };
        let (address, port) = ([192, 0, 2, 1].into(), 80);
        let key = ServiceKey { address, port, protocol: Protocol::Tcp };
        let services = [(&key, &asked)].into_iter();
        let nowhere = |_| -> Option<IpAddr> { panic!("no route is asked for") };
        let ports = Some(1024..=32_767);
        let filled = fill_in_with(services, ports.clone(), nowhere, |a| Some(a == here.address));
        let [some, none] = &filled[&key].1.backends[..] else { panic!("two") };
        assert_eq!(*some.sources, [Source { last_port: 32_767, ..here }]);
        assert_eq!((some.state, none.state), (BackendState::Active, BackendState::Draining));

        // Full NAT takes all ports of an address that is not this host's.
        let asked = Service { one_arm: false, ..asked };
        assert!(asked.follows_routes());
        for (ports, expected) in [
            (ports, [vec![Source { last_port: 32_767, ..here }, elsewhere], vec![elsewhere]]),
            (None, [vec![elsewhere], vec![elsewhere]]),
        ] {
            let services = [(&key, &asked)].into_iter();
            let filled = fill_in_with(services, ports, nowhere, |a| Some(a == here.address));
            for (backend, expected) in filled[&key].1.backends.iter().zip(expected) {
                assert_eq!(*backend.sources, expected);
                assert_eq!(backend.state, BackendState::Active);
            }
        }
        let filled = fill_in_with([(&key, &asked)].into_iter(), None, nowhere, |_| Some(true));
        let states = filled[&key].1.backends.iter().map(|backend| backend.state);
        assert_eq!(states.collect::<Vec<_>>(), [BackendState::Draining; 2], "no port is left");
        // What nobody knows is used as neither: no port of an address that may be this host's, nothing that has to be.
        let ports = Some(1024..=32_767);
        let filled = fill_in_with([(&key, &asked)].into_iter(), ports.clone(), nowhere, |_| None);
        let sources = filled[&key].1.backends.iter().flat_map(|backend| backend.sources.iter());
        assert!(sources.clone().all(|source| source.last_port == 32_767));
        assert_eq!(sources.count(), 3);
        let own = Service { one_arm: true, ..asked.clone() };
        let filled = fill_in_with([(&key, &own)].into_iter(), ports, nowhere, |_| None);
        let states = filled[&key].1.backends.iter().map(|backend| backend.state);
        assert_eq!(states.collect::<Vec<_>>(), [BackendState::Draining; 2]);
        // Packets around others need none.
        let around = Service { mode: Mode::Gue, ..asked };
        let filled = fill_in_with([(&key, &around)].into_iter(), None, nowhere, |_| Some(true));
        let states = filled[&key].1.backends.iter().map(|backend| backend.state);
        assert_eq!(states.collect::<Vec<_>>(), [BackendState::Active; 2]);
    }

    #[test]
    fn routes_are_followed_some_services_at_a_time_and_what_is_not_reached_by_each_change() {
        let elsewhere =
            Source { address: [192, 0, 2, 77].into(), first_port: 1024, last_port: 2000 };
        let backend = |n: u8, sources: &[Source]| Backend {
            address: [10, 0, 0, n].into(),
            port: 80,
            weight: 1,
            state: BackendState::Active,
            max_flows: None,
            sources: sources.into(),
        };
        let service = |sources: &[Source]| Service {
            backends: (1..=100).map(|n| backend(n, sources)).collect(),
            one_arm: true,
            ..Service::default()
        };
        let key =
            |port| ServiceKey { address: [192, 0, 2, 1].into(), port, protocol: Protocol::Tcp };
        let here = Source { address: [127, 0, 0, 1].into(), ..elsewhere };
        let services = (1..=8).map(|port| (key(port), service(&[here]))).collect();
        let (_, mut one_arm) =
            OneArm::of(&Table { services }, &mut HostRoutes::default(), &|_| None);
        // 256 backends are in three services.
        let mut rounds = Vec::new();
        for _ in 0..6 {
            assert_eq!(one_arm.begins(), rounds.len() % 3 == 0);
            let (change, is_more) = one_arm.moved(&mut HostRoutes::default(), &|_| None);
            assert_eq!(change, None);
            rounds.push(is_more);
        }
        assert_eq!(rounds, [true, true, false, true, true, false]);

        for (sources, count) in [(elsewhere, 100), (here, 0), (elsewhere, 100)] {
            let change = Change { services: [(key(3), Some(service(&[sources])))].into() };
            one_arm.keep(&change, &OneArm::resolve(&change, &mut HostRoutes::default(), &|_| None));
            assert_eq!(one_arm.unreached().len(), count);
        }
        let gone = Change { services: [(key(3), None)].into() };
        one_arm.keep(&gone, &OneArm::resolve(&gone, &mut HostRoutes::default(), &|_| None));
        assert_eq!((one_arm.unreached().len(), one_arm.services.len()), (0, 7));
    }

    #[test]
    fn only_one_arm_services_are_filled_in_and_what_cannot_be_reached_takes_no_new_flows() {
        let backend = |address: [u8; 4]| Backend {
            address: address.into(),
            port: 80,
            weight: 1,
            state: BackendState::Active,
            max_flows: None,
            sources: [].into(),
        };
        let service = |one_arm| Service {
            backends: vec![backend([10, 0, 0, 1]), backend([10, 9, 9, 9])],
            one_arm,
            ..Service::default()
        };
        let key =
            |port| ServiceKey { address: [192, 0, 2, 1].into(), port, protocol: Protocol::Tcp };
        let route =
            |to: IpAddr| (to == IpAddr::from([10, 0, 0, 1])).then(|| [10, 0, 0, 254].into());
        let (one, asked) = (key(2), service(true));
        let ports = Some(1024..=32_767);
        let filled = fill_in_with([(&one, &asked)].into_iter(), ports, route, |_| Some(true));
        assert_eq!(filled[&one].0, asked);
        let [near, nowhere] = &filled[&one].1.backends[..] else { panic!("two") };
        let source =
            Source { address: [10, 0, 0, 254].into(), first_port: 1024, last_port: 32_767 };
        assert_eq!(*near.sources, [source]);
        assert_eq!((near.state, nowhere.state), (BackendState::Active, BackendState::Draining));
        let both = Table { services: [(key(1), service(false)), (one, asked)].into() };
        let (resolved, _) = OneArm::of(&both, &mut HostRoutes::default(), &|_| None);
        assert_eq!(resolved.services[&key(1)], both.services[&key(1)], "others stay as they are");
    }
}
