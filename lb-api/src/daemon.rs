//! The daemon: one place where configuration, registry, dataplane, router and API meet.
//!
//! ```text
//!   config ─┬─▶ dataplane (a thread of its own) ◀── table, FIB ──┬── registry ◀─▶ store
//!           ├─▶ router (sessions, kernel routes) ── FIB, links ──┘      ▲
//!           └─▶ API (Unix socket, loopback) ─────────────────────────────┘
//! ```
//!
//! Order at the start: the socket and the state folder are taken first, so that a second daemon stops before it touches
//! anything; then the dataplane is adopted, the kept VIPs are served, and only then requests are answered.

mod attach;
mod certificates;
mod clean;
mod counts;
mod dataplane;
mod fib;
mod flow_events;
mod host;
mod links;
mod policy;
pub mod privileges;
mod punts;
mod reach;
mod router;
mod sessions;
mod views;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use lb_api_types::config::{Bgp, Config, SocketUser};
use lb_dataplane::table::ServiceKey;
use lb_dataplane::{ApplyError, ReadError, ServiceCounters};
use lb_routing::{RouterHandle, SpeakerConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

pub use self::clean::clean;
use self::dataplane::{DataplaneHandle, Owned};
use self::views::Live;
use crate::access::Access;
use crate::alarms::{Alarms, Part};
use crate::control::Unreached;
use crate::delta;
use crate::events::Events;
use crate::http::{self, Listeners};
use crate::registry::{self, Addresses, Appliers, Registry, Serve, Start};
use crate::resources::{self, Misfit, Resource, Resources, bgp, routing};
use crate::{health, store};

/// How long the VIPs and the sessions may each take to end.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How long answers that are under way may take to be read.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// One sentence that says what is missing and what to do.
pub async fn run(config: Config) -> Result<()> {
    let started = Instant::now();
    // Signals that come while the daemon starts are not lost.
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let store = store::Store::open(&config.state_dir.0)?;
    let (access, unwell) = access(&config)?;
    let listeners = Listeners::bind(&config.api).await?;
    let tcp_address = listeners.tcp_address();
    let mut running = start(&config, store, started, unwell).await?;
    let (stop, stopped) = watch::channel(false);
    let views = Arc::clone(&running.views) as _;
    let router = http::router(running.registry.clone(), views, running.events.clone(), access);
    let mut serving = tokio::spawn(http::serve(listeners, router, stopped));
    announce_start(&config, &running, tcp_address);

    let ended = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        () = running.registry.ended() => Err("the VIPs' task has ended"),
        () = running.dataplane.ended() => Err("the dataplane's thread has ended"),
        _ = &mut running.fib => Err("the router has ended"),
        _ = &mut serving => Err("the API has ended"),
    };
    stop.send_replace(true);
    running.events.end();
    if let Some(flows) = &running.views.flow_events {
        flows.end();
    }
    if let Ok(signal) = ended {
        tracing::info!(
            signal,
            "stopping: BGP sessions end, the dataplane stays and goes on forwarding; `lbd clean` takes it away"
        );
    }
    // A dataplane that hangs doesn't keep the neighbours from being told.
    if timeout(STOP_WITHIN, running.registry.withdraw()).await.is_err() {
        tracing::warn!("the VIPs' task did not end in time");
    }
    if timeout(STOP_WITHIN, running.router.shutdown()).await.is_err() {
        tracing::warn!("BGP sessions did not end in time");
    }
    // Whoever was answered by the registry reads it, too.
    if !serving.is_finished() && timeout(ANSWER_WITHIN, serving).await.is_err() {
        tracing::debug!("a client still keeps its connection open");
    }
    let _socket_is_gone_already = std::fs::remove_file(&config.api.socket);
    match ended {
        Ok(_) => Ok(()),
        Err(what) => bail!("{what}: this is a bug, the log above says more"),
    }
}

/// What runs.
struct Running {
    registry: Registry,
    views: Arc<Live>,
    dataplane: DataplaneHandle,
    router: RouterHandle,
    /// Feeds the router's FIB to the dataplane.
    fib: tokio::task::JoinHandle<()>,
    router_id: Ipv4Addr,
    events: Events,
}

/// Who may use the API, and what is to be said of what is kept for it.
fn access(config: &Config) -> Result<(Arc<Access>, Vec<String>)> {
    let role = |user: &SocketUser| {
        let uid = match user.user.parse() {
            Ok(uid) => uid,
            Err(_) => match nix::unistd::User::from_name(&user.user)? {
                Some(found) => found.uid.as_raw(),
                None => {
                    bail!("api.users: this host has no user {}: add it, or take it out", user.user)
                }
            },
        };
        Ok((uid, user.role))
    };
    let users = config.api.users.iter().map(role).collect::<Result<_>>()?;
    let folder = &config.state_dir.0;
    let (access, unwell) = Access::open(folder, users, nix::unistd::geteuid().as_raw())
        .with_context(|| format!("cannot use the tokens in {}", folder.display()))?;
    let clients = config.api.tls.iter().flat_map(|tls| &tls.clients);
    let certificates = clients.map(|client| (client.name.clone(), client.role)).collect();
    Ok((Arc::new(access.with_certificates(certificates)), unwell))
}

async fn start(
    config: &Config,
    store: store::Store,
    started: Instant,
    unwell: Vec<String>,
) -> Result<Running> {
    let loaded = store.load()?;
    let mut warnings = loaded.warnings;
    warnings.extend(unwell);
    // With the neighbours that are kept, so that the first look at the kernel's routes waits for theirs, too.
    let file = file_resources(config);
    let all = resources::started(&file, &loaded.resources).all;
    let (section, _said_later) = bgp::usable(&config.bgp, all);
    let (dataplane, adopted) = dataplane::spawn(&config.dataplane).await?;
    let mut default_id = router::DefaultId::default();
    let events = Events::default();
    let alarms = Alarms::new(events.clone());
    let mut keys = router::Keys::default();
    let router_config = router::config(&section, &mut default_id, &mut keys, adopted).await?;
    alarms.set(Part::Neighbours, keys.unread.clone());
    let (told, telling) = watch::channel((section, router_config.speaker.clone()));
    let router_id = router_config.speaker.router_id;
    let (unreached, _) = watch::channel(Arc::default());
    dataplane::follow_routes(&dataplane, unreached.clone());
    let sockets = punts::spawn(&dataplane).await?;
    dataplane::age_flows(&dataplane, &config.dataplane, sockets, events.clone());
    let flow_events = flow_events::spawn(&dataplane, &config.dataplane).await?;
    let (router, batches) =
        lb_routing::spawn(router_config).await.context("the BGP speaker does not start")?;
    let fib = tokio::spawn(fib::pump(batches, dataplane.clone()));
    let attach::Attachment { attached, troubles } =
        attach::spawn(router.links(), dataplane.clone(), config.dataplane.clone());

    sessions::spawn(router.clone(), events.clone());
    counts::spawn(router.clone(), dataplane.clone(), events.clone());
    links::spawn(router.links(), events.clone());
    let (targets, wanted) = delta::channel();
    let start = Start {
        file: config.vips.clone(),
        file_resources: file,
        kept: loaded.vips,
        kept_resources: loaded.resources,
        revision: loaded.revision,
        store,
        attached,
        unreached: unreached.subscribe(),
        verdicts: health::prober::spawn(wanted),
        targets,
        events: events.clone(),
    };
    let world = World {
        dataplane: dataplane.clone(),
        router: router.clone(),
        bgp: config.bgp.clone(),
        default_id,
        keys,
        alarms: alarms.clone(),
        grace: None,
        told,
        unreached,
    };
    let (registry, shadowed) = registry::spawn(start, world)
        .await
        .map_err(|why| anyhow::anyhow!("the dataplane refuses the VIPs: {why}"))?;
    let host = views::host_warnings();
    warnings
        .iter()
        .chain(&host)
        .chain(shadowed.borrow().iter())
        .for_each(|warning| tracing::warn!("{warning}"));
    let views = Arc::new(Live {
        dataplane: dataplane.clone(),
        router: router.clone(),
        registry: registry.clone(),
        troubles,
        shadowed,
        warnings,
        certificates: certificates::spawn(config.api.tls.clone(), alarms.clone()),
        alarms,
        wanted: config.dataplane.clone(),
        told: telling,
        started,
        flow_events,
        auditing: Arc::new(Semaphore::new(1)),
    });
    Ok(Running { registry, views, dataplane, router, fib, router_id, events })
}

fn file_resources(config: &Config) -> Resources {
    let addresses = config.addresses.iter().cloned().map(Resource::Address);
    let routes = config.static_routes.iter().cloned().map(Resource::StaticRoute);
    let pools = config.pools.iter().cloned().map(Resource::Pool);
    let checks = config.health_checks.iter().cloned().map(Resource::HealthCheck);
    let nodes = config.nodes.iter().cloned().map(Resource::Node);
    let routing = addresses.chain(routes);
    pools.chain(checks).chain(nodes).chain(routing).chain(bgp::of_file(&config.bgp)).collect()
}

fn announce_start(config: &Config, running: &Running, tcp: Option<SocketAddr>) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        asn = config.bgp.global().asn(),
        router_id = %running.router_id,
        listen = %running.views.told.borrow().0.global().listen(),
        peers = config.bgp.peers.len(),
        socket = %config.api.socket.display(),
        tcp = tcp.map(|address| address.to_string()),
        "lbd runs"
    );
    if config.dataplane.interfaces.is_empty() {
        tracing::warn!(
            "no interface is configured, so no packet is balanced: name some in dataplane.interfaces"
        );
    }
}

/// The real appliers.
struct World {
    dataplane: DataplaneHandle,
    router: RouterHandle,
    /// What of BGP only the file says.
    bgp: Bgp,
    default_id: router::DefaultId,
    keys: router::Keys,
    alarms: Alarms,
    /// Whoever waits for a grace period, so that no change has to.
    grace: Option<tokio::task::JoinHandle<()>>,
    /// What BGP was told, and who we are by it.
    told: watch::Sender<(Bgp, SpeakerConfig)>,
    /// Backends that no packet reaches as their VIP needs it.
    unreached: watch::Sender<Arc<Unreached>>,
}

impl Appliers for World {
    async fn serve(&mut self, wanted: Serve) -> Result<(), String> {
        let unreached = self.unreached.clone();
        let serve = move |owned: &mut Owned| {
            match wanted {
                Serve::All(table) => owned.dataplane.apply(&table),
                Serve::Change(change) => owned.dataplane.change(&change),
            }?;
            dataplane::tell_unreached(owned, &unreached);
            Ok(owned.dataplane.waiting())
        };
        let served = self.dataplane.with(serve).await?;
        let waiting = served.map_err(|error: ApplyError| dataplane::sentence(&error))?;
        let is_waited_for = self.grace.as_ref().is_some_and(|grace| !grace.is_finished());
        if let Some(waiting) = waiting.filter(|_| !is_waited_for) {
            self.grace = Some(tokio::spawn(dataplane::pass(self.dataplane.clone(), waiting)));
        }
        Ok(())
    }

    async fn announce(&mut self, addresses: Addresses<'_>) {
        let prefix = |address: &IpAddr| IpNetwork::from(*address);
        match addresses {
            Addresses::All(all) => self.router.originate(all.iter().map(prefix).collect()).await,
            Addresses::Change { come, go } => {
                let [come, go] = [come, go].map(|some| some.iter().map(prefix).collect());
                self.router.change_originated(come, go).await;
            }
        }
    }

    async fn admit(&mut self, before: &Resources, after: &Resources) -> Result<(), Misfit> {
        reach::readable(before, after)?;
        reach::admit(&self.router, before, after).await?;
        reach::room(&self.dataplane, before, after).await
    }

    /// Pools and health checks are carried out by the VIPs that name them.
    async fn configure(&mut self, resources: &Resources) -> Result<(), String> {
        let (mut section, misfits) = bgp::usable(&self.bgp, resources.clone());
        if resources.is_drained() {
            router::say_goodbye(&mut section);
        }
        let peers = router::peers(&section, &mut self.default_id, &mut self.keys).await;
        let peers = peers.map_err(|error| format!("{error:#}"))?;
        let unread = self.keys.unread.iter().cloned();
        self.alarms.set(Part::Neighbours, misfits.into_iter().chain(unread).collect());
        let speaker = peers.speaker.clone();
        self.router.configure(peers).await.map_err(|error| error.to_string())?;
        self.told.send_replace((section, speaker));
        self.router.set_statics(routing::statics(resources)).await;
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.keys.unread.is_empty()
    }

    async fn route(&mut self, addresses: Addresses<'_>) {
        match addresses {
            Addresses::All(all) => self.router.set_vips(all.iter().copied().collect()).await,
            Addresses::Change { come, go } => {
                self.router.change_vips(come.to_vec(), go.to_vec()).await;
            }
        }
    }

    async fn counters(&mut self) -> ServiceCounters {
        counted(self.dataplane.with(|owned| owned.dataplane.service_counters()).await)
    }

    async fn counters_of(&mut self, key: ServiceKey) -> ServiceCounters {
        counted(self.dataplane.with(move |owned| owned.dataplane.counters_of(&key)).await)
    }
}

fn counted(counters: Result<Result<ServiceCounters, ReadError>, String>) -> ServiceCounters {
    let counters = counters.and_then(|read| read.map_err(|error| dataplane::sentence(&error)));
    counters.unwrap_or_else(|why| {
        tracing::warn!(why, "no counters");
        ServiceCounters::new()
    })
}
