//! What the running daemon shows of itself.

mod fib;
mod seen;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use futures::FutureExt;
use futures::future::BoxFuture;
use ipnetwork::IpNetwork;
use lb_api_types::bgp::GlobalStatus;
use lb_api_types::config;
use lb_api_types::peer::PeerOptions;
use lb_api_types::view::{
    Appliance, BgpRoute, BgpRouteSpec, CheckState, ClearWhat, Doctor, Explanation, FibAuditView,
    FibEntry, FibLookupView, Flow, HearerView, Interface, InterfaceView, List, Nothing, PeerView,
    ReasonView, SeenMetadata, ServiceAuditView, Status,
};
use lb_dataplane::fib::Packet;
use lb_dataplane::{FlowFilter, FlowPlace, Hook, plan};
use lb_routing::{
    Clear, Destination, PeerStatus, Query, RouterHandle, SpeakerConfig, StaticsStatus,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::attach::{Lacking, Trouble};
use super::dataplane::{DataplaneHandle, sentence};
use super::{certificates, host, router};
use crate::alarms::Alarms;
use crate::control::{self, Ports};
use crate::doctor::{self, Facts, Session};
use crate::events::Events;
use crate::http::{Views, WantedFlows};
use crate::registry::Registry;
use crate::resources::LOCAL;

/// Parts of the flow tables that are looked at for a page at most: a million entries.
const FLOW_PARTS: usize = 64;

/// The running daemon.
pub(super) struct Live {
    pub(super) dataplane: DataplaneHandle,
    pub(super) router: RouterHandle,
    pub(super) registry: Registry,
    /// Why interfaces are not attached.
    pub(super) troubles: watch::Receiver<Vec<Trouble>>,
    /// Those that are to be.
    pub(super) lacking: watch::Receiver<Vec<Lacking>>,
    /// Which VIPs are to be announced on links, and are on none.
    pub(super) nowhere: watch::Receiver<Vec<String>>,
    /// Why kept VIPs are not served.
    pub(super) shadowed: watch::Receiver<Vec<String>>,
    /// When the first of the API's certificates expires.
    pub(super) certificates: watch::Receiver<Option<SystemTime>>,
    /// What is not well since.
    pub(super) alarms: Alarms,
    /// What the file says of interfaces.
    pub(super) wanted: config::Dataplane,
    /// What BGP was told, and who we are by it.
    pub(super) told: watch::Receiver<(config::Bgp, SpeakerConfig)>,
    pub(super) started: Instant,
    /// What happens to flows that are watched.
    pub(super) flow_events: Option<Events>,
    /// Held by the one audit that the dataplane's thread carries out; others wait here, not there.
    pub(super) auditing: Arc<Semaphore>,
}

impl Views for Live {
    fn peers(&self) -> BoxFuture<'_, Vec<PeerView>> {
        async {
            let now = Instant::now();
            let peers = self.router.peers().await;
            let view = |peer: PeerStatus| {
                let (section, _) = &*self.told.borrow();
                let told = section.peers.iter().find(|told| told.spec.address == peer.address);
                let group = || {
                    let name = peer.dynamic.as_ref()?;
                    let group = section.peer_groups.iter().find(|group| group.name == *name)?;
                    Some(PeerOptions { passive: Some(true), ..group.options.clone() })
                };
                let told = told.map(|told| told.spec.effective(&section.peer_groups));
                let options = told.or_else(group);
                router::peer_view(peer, options.as_ref().map(router::peer_settings), now)
            };
            peers.into_iter().map(view).collect()
        }
        .boxed()
    }

    fn clear(&self, peer: IpAddr, what: ClearWhat) -> BoxFuture<'_, bool> {
        let what = match what {
            ClearWhat::Session => Clear::Session,
            ClearWhat::In => Clear::In,
            ClearWhat::Out => Clear::Out,
        };
        self.router.clear(peer, what).boxed()
    }

    fn explain(&self, what: Destination) -> BoxFuture<'_, Result<Explanation, String>> {
        async move {
            let explained = self.router.explain(what).await;
            let explained = explained.ok_or("the router has stopped")?;
            let hearers = explained.neighbours.into_iter();
            Ok(Explanation {
                prefix: explained.prefix,
                paths: explained.paths.into_iter().map(router::route_view).collect(),
                neighbors: hearers
                    .map(|it| HearerView {
                        address: it.peer,
                        withheld: it.withheld,
                        others: it.others,
                    })
                    .collect(),
            })
        }
        .boxed()
    }

    fn routes(
        &self,
        query: Query,
        after: Option<BgpRouteSpec>,
        limit: usize,
    ) -> BoxFuture<'_, List<BgpRoute>> {
        async move {
            let after =
                after.map(|last| (last.prefix, last.peer, last.path_id.unwrap_or_default()));
            let paths = self.router.query(&query, after, limit.saturating_add(1)).await;
            let routes = paths.into_iter().map(router::route_view);
            cut(routes, limit, |route: &BgpRoute| &route.metadata)
        }
        .boxed()
    }

    fn fib(
        &self,
        after: Option<IpNetwork>,
        limit: usize,
    ) -> BoxFuture<'_, Result<List<FibEntry>, String>> {
        async move {
            let after = after.map(|last| (last.ip(), last.prefix()));
            let routes = self.dataplane.with(move |owned| {
                let routes = owned.dataplane.fib_routes(after, limit.saturating_add(1)).into_iter();
                let sourced = routes.map(|route| {
                    let source = owned.sources.get(&(route.prefix, route.len)).copied();
                    (route, source)
                });
                sourced.collect::<Vec<_>>()
            });
            let routes = routes.await?;
            let names = self.names();
            let entries =
                routes.into_iter().map(|(route, source)| fib::view(&route, source, &names));
            Ok(cut(entries, limit, |entry: &FibEntry| &entry.metadata))
        }
        .boxed()
    }

    fn fib_lookup(&self, packet: Packet) -> BoxFuture<'_, Result<FibLookupView, String>> {
        fib::lookup(self, packet).boxed()
    }

    fn fib_audit(&self, repair: bool) -> BoxFuture<'_, Result<FibAuditView, String>> {
        fib::audit(self, repair).boxed()
    }

    fn service_audit(&self, repair: bool) -> BoxFuture<'_, Result<ServiceAuditView, String>> {
        async move { self.audit(repair).await.map(|audit| seen::service_audit(audit, repair)) }
            .boxed()
    }

    fn flows(
        &self,
        from: Option<FlowPlace>,
        limit: usize,
        wanted: WantedFlows,
    ) -> BoxFuture<'_, Result<List<Flow>, String>> {
        async move {
            let from = from.unwrap_or_default();
            let vips = self.registry.list().await.map_err(|refusal| refusal.to_string())?;
            let WantedFlows { mut filter, service } = wanted;
            if let Some(name) = service {
                let Some(vip) = vips.iter().find(|vip| vip.metadata.name == name) else {
                    return Ok(List { items: Vec::new(), truncated: false, next: None });
                };
                filter.vip = Some((vip.spec.address, vip.spec.port..=vip.spec.last_port()));
                filter.protocol = Some(control::key(&vip.spec).protocol);
            }
            let (flows, next) = self.flow_page(from, limit, filter).await?;
            let mut names = Ports::default();
            for vip in vips {
                // No two VIPs have a port in common.
                let _always_added = names.add(&vip.spec, vip.metadata.name);
            }
            let items = flows.iter().map(|flow| seen::flow(flow, &names)).collect();
            Ok(List { items, truncated: next.is_some(), next: next.map(|next| next.to_string()) })
        }
        .boxed()
    }

    fn statics(&self) -> BoxFuture<'_, StaticsStatus> {
        self.router.statics().boxed()
    }

    fn flow_events(&self) -> Option<Events> {
        self.flow_events.clone()
    }

    fn interfaces(&self) -> BoxFuture<'_, Result<Vec<Interface>, String>> {
        async {
            let read = self
                .dataplane
                .with(|owned| (owned.dataplane.attached(), owned.dataplane.interface_reasons()));
            let (attached, reasons) = read.await?;
            let mut reasons = reasons.map_err(|error| sentence(&error))?;
            let hooks: HashMap<u32, _> =
                attached.into_iter().map(|one| (one.ifindex, hook(one.hook))).collect();
            let links = self.router.links().borrow().clone();
            let troubles = self.troubles.borrow().clone();
            let view = |link: lb_routing::Link| {
                let came = seen::reasons(reasons.remove(&link.ifindex).unwrap_or_default());
                let instead = super::attach::instead(&links, &link, &self.wanted.interfaces);
                let why = troubles.iter().find(|trouble| trouble.of == Some(link.ifindex));
                let why = why.map(|trouble| trouble.said.as_str());
                seen::interface(link, &hooks, came, &self.wanted, instead, why)
            };
            let mut all: Vec<_> = links.iter().cloned().map(view).collect();
            all.sort_by(|a: &Interface, b| a.metadata.name.cmp(&b.metadata.name));
            Ok(all)
        }
        .boxed()
    }

    fn global(&self) -> BoxFuture<'_, GlobalStatus> {
        async {
            let peers = self.peers().await;
            let established = peers.iter().filter(|peer| peer.state == "Established").count();
            let (section, us) = self.told.borrow().clone();
            let listening = self.router.listening().await;
            GlobalStatus {
                listening: listening.into_iter().map(router::listen_view).collect(),
                conditions: vec![seen::sessions(established, peers.len())],
                asn: us.asn,
                router_id: us.router_id,
                cluster_id: us.cluster_id.unwrap_or(us.router_id),
                decision: section.global().decision(),
                listen: section.global().listen(),
                peers: peers.len(),
                established,
            }
        }
        .boxed()
    }

    fn status(&self) -> BoxFuture<'_, Result<Appliance, String>> {
        async {
            let read = self.dataplane.with(|owned| {
                let dataplane = &owned.dataplane;
                let (lost, held) = (dataplane.flow_events_lost(), dataplane.held_fragments());
                (dataplane.attached(), dataplane.fib_usage(), lost, held)
            });
            let (interfaces, usage, lost, held) = read.await?;
            let reasons = self.reasons().await?;
            let mut warnings = self.alarms.all();
            warnings.extend(host_warnings());
            warnings.extend(self.shadowed.borrow().iter().cloned());
            warnings.extend(self.troubles());
            warnings.extend(self.nowhere.borrow().iter().cloned());
            let lacking = self.lacking.borrow().clone();
            let (_, us) = self.told.borrow().clone();
            let status = Status {
                conditions: seen::conditions(&self.wanted, interfaces.len(), &lacking, &warnings),
                version: env!("CARGO_PKG_VERSION").into(),
                uptime_secs: self.started.elapsed().as_secs(),
                router_id: us.router_id,
                asn: us.asn,
                interfaces: interfaces
                    .into_iter()
                    .map(|attached| InterfaceView {
                        name: attached.name,
                        index: attached.ifindex,
                        hook: hook(attached.hook),
                    })
                    .collect(),
                fib: fib::usage(&usage),
                flow_events_lost: lost.map_err(|error| sentence(&error))?,
                early_fragments: seen::early_fragments(held),
                reasons: reasons.into_iter().filter(|count| count.packets > 0).collect(),
                warnings,
                certificate_expires_secs: self.certificates.borrow().map(certificates::remaining),
            };
            Ok(Appliance { metadata: SeenMetadata::of(LOCAL), spec: Nothing {}, status })
        }
        .boxed()
    }

    fn reasons(&self) -> BoxFuture<'_, Result<Vec<ReasonView>, String>> {
        async {
            let reasons = self.dataplane.with(|owned| owned.dataplane.reasons()).await?;
            let all = reasons.map_err(|error| sentence(&error))?.into_iter();
            Ok(all.map(seen::reason).collect())
        }
        .boxed()
    }

    fn doctor(&self) -> BoxFuture<'_, Result<Doctor, String>> {
        async { Ok(doctor::examine(&self.facts().await?)) }.boxed()
    }
}

impl Live {
    /// Interfaces' names by their indices.
    fn names(&self) -> HashMap<u32, String> {
        let links = self.router.links().borrow().clone();
        links.into_iter().map(|link| (link.ifindex, link.name)).collect()
    }

    fn troubles(&self) -> Vec<String> {
        self.troubles.borrow().iter().map(|trouble| trouble.said.clone()).collect()
    }

    /// A page that is put together of parts, so that other calls of the dataplane come between.
    async fn flow_page(
        &self,
        from: FlowPlace,
        limit: usize,
        filter: FlowFilter,
    ) -> Result<(Vec<lb_dataplane::Flow>, Option<FlowPlace>), String> {
        let (mut flows, mut next) = (Vec::new(), Some(from));
        for _ in 0..FLOW_PARTS {
            let Some(place) = next.filter(|_| flows.len() < limit) else { break };
            let (room, filter) = (limit - flows.len(), filter.clone());
            let part =
                self.dataplane.with(move |owned| owned.dataplane.flow_page(place, room, &filter));
            let (some, place) = part.await?;
            flows.extend(some);
            next = place;
        }
        Ok((flows, next))
    }

    /// An audit waits for the one before: health changes and ageing are carried out by the same thread, between two of them.
    async fn place_to_audit(&self) -> Result<OwnedSemaphorePermit, String> {
        // It is never closed.
        Arc::clone(&self.auditing).acquire_owned().await.map_err(|closed| closed.to_string())
    }

    async fn audit(&self, repair: bool) -> Result<plan::Audit, String> {
        let place = self.place_to_audit().await?;
        let audit = self.dataplane.with(move |owned| {
            let audit = owned.dataplane.audit(repair);
            drop(place);
            audit
        });
        let audit = audit.await?;
        audit.map_err(|error| sentence(&error))
    }

    async fn facts(&self) -> Result<Facts, String> {
        let (interfaces, compiled) = self
            .dataplane
            .with(|owned| (owned.dataplane.attached(), owned.dataplane.compiled()))
            .await?;
        let links = self.router.links().borrow().clone();
        let read = tokio::task::spawn_blocking(move || {
            let is_up = |index| links.iter().any(|link| link.ifindex == index && link.up);
            let all = interfaces.iter();
            let interfaces = all.map(|attached| {
                host::interface(&attached.name, hook(attached.hook), is_up(attached.ifindex))
            });
            let grace_period = lb_dataplane::host::grace_period();
            let host = host::facts();
            Facts {
                interfaces: interfaces.collect(),
                grace_period: Some(grace_period.map_err(|error| error.to_string())),
                // What it says now counts for what is loaded from now on.
                compiled: host.compiled.or(compiled),
                ..host
            }
        });
        let mut facts = read.await.map_err(|error| error.to_string())?;
        facts.left_out = self.dataplane.with(|owned| owned.dataplane.fib_left_out()).await?;
        facts.lacking = self.lacking.borrow().iter().map(|one| one.name.clone()).collect();
        facts.interfaces_wanted = !self.wanted.interfaces.is_empty();
        facts.troubles = self.troubles();
        facts.troubles.extend(self.nowhere.borrow().iter().cloned());
        facts.policy_rules = self.router.policy_rules();
        facts.alarms = self.alarms.all();
        facts.state = self.shadowed.borrow().clone();
        facts.sessions = self.peers().await.into_iter().map(session).collect();
        let vips = self.registry.list().await.map_err(|refusal| refusal.to_string())?;
        let addresses = vips.iter().map(|vip| vip.spec.address).collect();
        let of_kernel = move || (host::unrouted(&addresses), host::own(&addresses));
        let read = tokio::task::spawn_blocking(of_kernel).await;
        (facts.unrouted, facts.own) = read.map_err(|error| error.to_string())?;
        // Maps that cannot be read are a finding of their own, beside the others.
        let audit = self.audit(false).await.inspect_err(|why| tracing::warn!("{why}")).ok();
        facts.maps = audit.map(|audit| (audit.differences(), audit.told));
        if !facts.interfaces.is_empty() {
            let unserved = vips.iter().filter(|v| v.status.as_ref().is_some_and(|s| !s.serving));
            facts.unserved = unserved.map(|vip| vip.metadata.name.clone()).collect();
        }
        let wanted: Vec<_> = vips.into_iter().filter(|vip| vip.spec.advertise).collect();
        facts.vips = wanted.len();
        let lacking = wanted.into_iter().filter_map(|vip| {
            let status = vip.status.filter(|status| !status.advertised)?;
            Some((vip.metadata.name, status.message))
        });
        facts.unadvertised = lacking.collect();
        Ok(facts)
    }
}

/// What of this host keeps lbd from starting on it, whatever its configuration and whoever asks.
pub(super) fn obstacles() -> Vec<String> {
    let checks = doctor::host(&host::facts()).into_iter();
    let of_kernel = checks.filter(|check| ["kernel", "bpf-jit"].contains(&check.name.as_str()));
    let bad = of_kernel.filter(|check| check.state == CheckState::Error);
    bad.map(|check| doctor::sentence(&check)).collect()
}

/// What of this host alone is not well.
pub(super) fn host_warnings() -> Vec<String> {
    let checks = doctor::host(&host::facts()).into_iter();
    let bad = checks.filter(|check| check.state > CheckState::Unknown);
    bad.map(|check| doctor::sentence(&check)).collect()
}

fn session(peer: PeerView) -> Session {
    Session { name: peer.name, state: peer.state, last_error: peer.last_error }
}

fn mac([a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn hook(hook: Hook) -> config::Hook {
    match hook {
        Hook::Tc => config::Hook::Tc,
        Hook::Xdp | Hook::GenericXdp => config::Hook::Xdp,
    }
}

/// At most `limit` of them; if there were more, the next page begins after the last one.
fn cut<T>(
    items: impl Iterator<Item = T>,
    limit: usize,
    metadata: impl Fn(&T) -> &SeenMetadata,
) -> List<T> {
    let mut items: Vec<T> = items.take(limit.saturating_add(1)).collect();
    let truncated = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| truncated).map(|last| metadata(last).name.clone());
    List { items, truncated, next }
}
