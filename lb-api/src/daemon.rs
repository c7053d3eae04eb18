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
mod conditions;
mod counts;
mod dataplane;
mod disk;
mod fib;
mod flow_events;
mod host;
mod links;
mod neighbours;
mod pace;
mod policy;
pub mod privileges;
mod punts;
mod reach;
mod router;
mod sessions;
mod views;
mod world;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lb_api_types::config::{Config, SocketUser};
use lb_routing::RouterHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

pub use self::clean::clean;
use self::dataplane::{DataplaneHandle, Owned};
use self::disk::Disk;
use self::views::Live;
use self::world::World;
use crate::access::Access;
use crate::alarms::Alarms;
use crate::control::Unreached;
use crate::delta;
use crate::events::Events;
use crate::http::{self, Listeners};
use crate::registry::{self, Registry, Start};
use crate::resources::{Resource, Resources, bgp};
use crate::store::Loaded;
use crate::{health, store};

/// How long the VIPs, the sessions and changes that were begun may each take to end.
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
    let access = access(&config)?;
    let listeners = Listeners::bind(&config.api).await?;
    let tcp_address = listeners.tcp_address();
    let mut running = start(&config, store, &access, started).await?;
    let (stop, stopped) = watch::channel(false);
    let views = Arc::clone(&running.views) as _;
    let (registry, events) = (running.registry.clone(), running.events.clone());
    conditions::spawn(Arc::clone(&running.views), Arc::clone(&access), events.clone());
    let router = http::router(registry, views, events, Arc::clone(&access));
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
    if let Ok(signal) = ended {
        tracing::info!(
            signal,
            "stopping: BGP sessions end, the dataplane stays and goes on forwarding; `lbd clean` takes it away"
        );
    }
    stop.send_replace(true);
    running.stop(&access).await;
    // Whoever was answered by the registry reads it, too.
    if !serving.is_finished() && timeout(ANSWER_WITHIN, serving).await.is_err() {
        tracing::debug!("a client still keeps its connection open");
    }
    access.audit().record_own(&format!("end of lbd: {}", ended.unwrap_or_else(|what| what)));
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

impl Running {
    /// Ends what is told to others; what was begun is carried through first, and written down.
    async fn stop(&self, access: &Arc<Access>) {
        self.events.end();
        if let Some(flows) = &self.views.flow_events {
            flows.end();
        }
        // A dataplane that hangs doesn't keep the neighbours from being told.
        if timeout(STOP_WITHIN, self.registry.withdraw()).await.is_err() {
            tracing::warn!("the VIPs' task did not end in time");
        }
        let nothing = |owned: &mut Owned| owned.dataplane.answer_for(&BTreeSet::new(), true);
        if timeout(STOP_WITHIN, self.dataplane.with(nothing)).await.is_err() {
            tracing::warn!("VIPs are still announced on links");
        }
        // Changes that come to the registry from here on are refused, which is written down, too.
        let settled = timeout(STOP_WITHIN, access.settled());
        let (settled, told) = tokio::join!(settled, timeout(STOP_WITHIN, self.router.shutdown()));
        if settled.is_err() {
            tracing::warn!("requests for changes did not end in time: clients still send them");
        }
        if told.is_err() {
            tracing::warn!("BGP sessions did not end in time");
        }
    }
}

/// What of this host keeps lbd from starting here, one sentence each.
#[must_use]
pub fn obstacles() -> Vec<String> {
    views::obstacles()
}

/// Who may use the API.
fn access(config: &Config) -> Result<Arc<Access>> {
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
    let access = Access::open(folder, users, nix::unistd::geteuid().as_raw())
        .with_context(|| format!("cannot use the tokens in {}", folder.display()))?;
    let clients = config.api.tls.iter().flat_map(|tls| &tls.clients);
    let certificates = clients.map(|client| (client.name.clone(), client.role)).collect();
    Ok(Arc::new(access.with_certificates(certificates)))
}

async fn start(
    config: &Config,
    store: store::Store,
    access: &Arc<Access>,
    started: Instant,
) -> Result<Running> {
    let loaded = store.load()?;
    let events = Events::default();
    let alarms = Alarms::new(events.clone());
    look_after(config, &loaded, access, &alarms);
    let adopted = dataplane::spawn(&config.dataplane).await?;
    let dataplane = adopted.0.clone();
    let unreached = watch::Sender::new(Arc::default());
    let heard_unreached = unreached.subscribe();
    let flow_events = follow(&dataplane, config, &unreached, &events).await?;
    let (world, fib) =
        World::spawn(config, &loaded.resources, adopted, unreached, alarms.clone()).await?;
    let (router, told) = (world.router.clone(), world.told.subscribe());
    let router_id = told.borrow().1.router_id;
    let attach::Attachment { attached, lacking, troubles } =
        attach::spawn(router.links(), dataplane.clone(), config.dataplane.clone());
    let interfaces = config.dataplane.interfaces.clone();
    let on_links = world.on_links.subscribe();
    let nowhere = neighbours::spawn(router.links(), on_links, dataplane.clone(), interfaces)?;
    sessions::spawn(router.clone(), events.clone());
    counts::spawn(router.clone(), dataplane.clone(), events.clone());
    links::spawn(router.links(), events.clone());
    let (targets, wanted) = delta::channel();
    let start = Start {
        file: config.vips.clone(),
        file_resources: file_resources(config),
        kept: loaded.vips,
        kept_resources: loaded.resources,
        revision: loaded.revision,
        store,
        attached,
        unreached: heard_unreached,
        verdicts: health::prober::spawn(wanted),
        targets,
        events: events.clone(),
        audit: access.audit(),
    };
    let (registry, shadowed) = registry::spawn(start, world)
        .await
        .map_err(|why| anyhow::anyhow!("the dataplane refuses the VIPs: {why}"))?;
    let host = views::host_warnings();
    host.iter().chain(shadowed.borrow().iter()).for_each(|warning| tracing::warn!("{warning}"));
    let views = Arc::new(Live {
        dataplane: dataplane.clone(),
        router: router.clone(),
        registry: registry.clone(),
        troubles,
        lacking,
        nowhere,
        shadowed,
        certificates: certificates::spawn(config.api.tls.clone(), alarms.clone(), access.audit()),
        alarms,
        wanted: config.dataplane.clone(),
        told,
        started,
        flow_events,
        auditing: Arc::new(Semaphore::new(1)),
    });
    Ok(Running { registry, views, dataplane, router, fib, router_id, events })
}

/// Writes down with what it starts, which nobody has asked for by a request, and looks after where that is kept.
fn look_after(config: &Config, loaded: &Loaded, access: &Arc<Access>, alarms: &Alarms) {
    let (kept, audit) = (loaded.kept_revision, access.audit());
    let (version, count) = (env!("CARGO_PKG_VERSION"), loaded.vips.len());
    audit.record_own(&format!("start of lbd {version}: revision {kept} with {count} VIPs is kept"));
    if loaded.revision > kept {
        let later = loaded.revision;
        audit.record_own(&format!(
            "start without revision {later}, which is not kept: it was refused, not confirmed, or is lost"
        ));
    }
    for notice in &loaded.notices {
        audit.record_own(&format!("start: {}", notice.said()));
    }
    let (folder, notices) = (config.state_dir.0.clone(), loaded.notices.clone());
    let (access, alarms) = (Arc::clone(access), alarms.clone());
    Disk { folder, notices, access, alarms }.spawn();
}

/// Has the dataplane follow what becomes of routes, flows and packets that it cannot send; what happens to flows that are watched.
async fn follow(
    dataplane: &DataplaneHandle,
    config: &Config,
    unreached: &watch::Sender<Arc<Unreached>>,
    events: &Events,
) -> Result<Option<Events>> {
    dataplane::follow_routes(dataplane, unreached.clone());
    let sockets = punts::spawn(dataplane).await?;
    dataplane::age_flows(dataplane, &config.dataplane, sockets, events.clone());
    flow_events::spawn(dataplane, &config.dataplane).await
}

/// What the file says beside VIPs.
pub(crate) fn file_resources(config: &Config) -> Resources {
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
