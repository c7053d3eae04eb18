//! The dataplane's thread: its calls block, so they wait in one bounded queue of their own.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lb_api_types::config;
use lb_api_types::event::EventKind;
use lb_dataplane::plan::Waiting;
use lb_dataplane::{
    AGE_BATCH, AgePart, Answer, ClientPrefixes, Dataplane, Options, Sizes, Timeouts, seconds,
};
use lb_routing::Source;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::counts::Flows;
use super::pace::Pace;
use super::punts::Sockets;
use crate::control::Unreached;
use crate::events::Events;

/// Calls that wait at most; beyond, callers wait.
const MAX_JOBS: usize = 64;
/// How often idle flows are looked for.
const AGE_EVERY: Duration = Duration::from_secs(1);
/// How often source addresses of one-arm VIPs are compared with the routes.
const FOLLOW_ROUTES_EVERY: Duration = Duration::from_secs(5);
/// Slots in a page of the rings.
const RING_PAGE: u32 = 1024;
/// /24 blocks in a page of the FIB's second level.
const BLOCKS_PER_PAGE: u32 = 4;
/// KiB of a page of the FIB's nodes for IPv6.
const KIB_PER_PAGE: u32 = 4;
/// Groups in a page of the FIB's groups.
const GROUPS_PER_PAGE: u32 = 512;
/// Parts of the flow table that wait for one grace period together.
const AGE_PARTS: usize = 32;
/// In what is waited for when the thread is asked for something.
const ENDED: &str = "the dataplane's thread has ended";

/// What the thread owns.
pub(super) struct Owned {
    pub(super) dataplane: Dataplane,
    /// Whom each route comes from, for people.
    pub(super) sources: HashMap<(IpAddr, u8), Source>,
}

type Job = Box<dyn FnOnce(&mut Owned) + Send>;

/// A way to the thread.
#[derive(Clone)]
pub(super) struct DataplaneHandle {
    jobs: mpsc::Sender<Job>,
}

impl DataplaneHandle {
    /// Has the thread call this, after what was asked before.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Owned) -> T + Send + 'static,
    ) -> Result<T, String> {
        let (sender, answer) = oneshot::channel();
        let job: Job = Box::new(move |owned| {
            // A caller that has gone wants no answer.
            let _gone = sender.send(call(owned));
        });
        self.jobs.send(job).await.map_err(|_closed| ENDED)?;
        answer.await.map_err(|_closed| ENDED.to_owned())
    }

    /// Returns when the thread has ended.
    pub(super) async fn ended(&self) {
        self.jobs.closed().await;
    }
}

/// Opens the dataplane in a thread of its own.
/// Also says whether it is that of an earlier lbd, which forwarded all the while.
pub(super) async fn spawn(config: &config::Dataplane) -> Result<(DataplaneHandle, bool)> {
    let options = options(config);
    let (jobs, mut queue) = mpsc::channel::<Job>(MAX_JOBS);
    let (opened, answer) = oneshot::channel();
    thread::Builder::new().name("dataplane".into()).spawn(move || {
        let dataplane = match Dataplane::open(&options) {
            Ok(dataplane) => dataplane,
            Err(error) => {
                let _gone = opened.send(Err(error));
                return;
            }
        };
        let adopted = dataplane.adopted();
        let _gone = opened.send(Ok(adopted));
        let mut owned = Owned { dataplane, sources: HashMap::new() };
        while let Some(job) = queue.blocking_recv() {
            job(&mut owned);
        }
    })?;
    let adopted = answer.await.context(ENDED)??;
    if adopted {
        tracing::info!("the dataplane of an earlier lbd is adopted with its flows");
    }
    let handle = DataplaneHandle { jobs };
    Ok((handle, adopted))
}

/// Waits for a grace period beside the changes, so that what they have given back can be used again.
pub(super) async fn pass(handle: DataplaneHandle, waiting: Waiting) {
    let over = tokio::task::spawn_blocking(lb_dataplane::host::grace_period).await;
    if matches!(over, Ok(Ok(()))) {
        // Where the thread has ended, nobody needs it.
        let _ended = handle.with(move |owned| owned.dataplane.passed(waiting)).await;
    }
}

/// Begins to remove flows that are over, and to tell their sides where they are to hear of it.
pub(super) fn age_flows(
    handle: &DataplaneHandle,
    config: &config::Dataplane,
    sockets: Arc<Sockets>,
    events: Events,
) {
    let pace = Pace::new(options(config).sizes.flow_slots(), AGE_BATCH);
    tokio::spawn(age(handle.clone(), pace, sockets, events));
}

pub(super) fn options(config: &config::Dataplane) -> Options {
    let sizes = Sizes {
        flow_entries: config.max_flow_entries,
        flow_entries6: config.max_flow_entries_ipv6,
        services: config.max_services,
        backends: config.max_backends,
        sources: config.max_source_addresses,
        access: config.max_access_prefixes,
        counted_clients: config.max_counted_clients,
        affinities: config.max_affinity_clients,
        ring_pages: config.max_ring_slots.div_ceil(RING_PAGE),
        fib_second_level_pages: config.max_fib_blocks.div_ceil(BLOCKS_PER_PAGE),
        fib6_pages: config.max_fib_ipv6_kib.div_ceil(KIB_PER_PAGE),
        fib_group_pages: config.max_fib_groups.div_ceil(GROUPS_PER_PAGE),
        fib_bucket_pages: config.max_fib_buckets.div_ceil(RING_PAGE),
        fib_members: config.max_fib_next_hops,
        early_fragments: config.max_early_fragments,
    };
    let wanted = &config.timeouts;
    let ticks = |of: u32| seconds(u64::from(of));
    let timeouts = Timeouts {
        tcp_established: ticks(wanted.tcp_established),
        tcp_transitory: ticks(wanted.tcp_transitory),
        tcp_closed: ticks(wanted.tcp_closed),
        half_open: ticks(wanted.half_open),
        udp_answered: ticks(wanted.udp_answered),
        udp: ticks(wanted.udp),
        sctp_established: ticks(wanted.sctp_established),
        sctp_shutdown: ticks(wanted.sctp_shutdown),
        sctp_closed: ticks(wanted.sctp_closed),
        icmp: ticks(wanted.icmp),
    };
    Options {
        pin_dir: config.pin_dir.clone(),
        sizes,
        timeouts,
        client_prefixes: ClientPrefixes {
            v4: config.client_prefix_v4,
            v6: config.client_prefix_v6,
        },
        early_fragments_for: Duration::from_secs(config.early_fragments_secs.into()),
        sample_every: config.sample_flows.unwrap_or(0),
        redirect_to_peer: config.redirect_to_peer.clone(),
        record: false,
    }
}

/// Keeps the source addresses of one-arm VIPs those of the routes, and says which backends no packet reaches.
pub(super) fn follow_routes(handle: &DataplaneHandle, unreached: watch::Sender<Arc<Unreached>>) {
    tokio::spawn(follow(handle.clone(), unreached));
}

/// Says which backends no packet reaches, if those are others than before.
pub(super) fn tell_unreached(owned: &Owned, unreached: &watch::Sender<Arc<Unreached>>) {
    let now = owned.dataplane.unreached();
    unreached.send_if_modified(|told| {
        let is_news = **told != *now;
        if is_news {
            *told = Arc::new(now.clone());
        }
        is_news
    });
}

async fn follow(handle: DataplaneHandle, unreached: watch::Sender<Arc<Unreached>>) {
    let mut tick = interval(FOLLOW_ROUTES_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mut is_more = true;
        while is_more {
            let told = unreached.clone();
            let followed = handle.with(move |owned| {
                let followed = owned.dataplane.follow_routes();
                tell_unreached(owned, &told);
                followed
            });
            let Ok(followed) = followed.await else { return };
            is_more = followed.unwrap_or_else(|error| {
                tracing::error!(why = sentence(&error), "one-arm VIPs keep their source addresses");
                false
            });
        }
        let mut is_more = true;
        while is_more {
            let followed = handle.with(|owned| owned.dataplane.follow_ways_out());
            let Ok(followed) = followed.await else { return };
            is_more = followed;
        }
    }
}

/// Marks flows that are over in parts of the table, so many at most and to its end at most; why it came no further, if so. The
/// grace period after it is waited for once for all of them, and beside the thread, whose other calls go on meanwhile. What is
/// marked and not removed after this is with the next scan.
async fn mark(
    handle: &DataplaneHandle,
    most: usize,
) -> Result<(Vec<AgePart>, Option<String>), String> {
    let (mut parts, mut why) = (Vec::new(), None);
    while parts.len() < most && why.is_none() && !parts.last().is_some_and(AgePart::is_last) {
        match handle.with(|owned| owned.dataplane.begin_age()).await? {
            Ok(part) => parts.push(part),
            Err(error) => why = Some(sentence(&error)),
        }
    }
    if parts.iter().any(AgePart::waits) {
        let over = tokio::task::spawn_blocking(lb_dataplane::host::grace_period).await;
        if let Err(error) = over.map_err(io::Error::other).flatten() {
            return Ok((Vec::new(), Some(sentence(&error))));
        }
    }
    Ok((parts, why))
}

/// Looks for flows that are over, some parts of the table a round, so that calls of others come between.
async fn age(handle: DataplaneHandle, mut pace: Pace, sockets: Arc<Sockets>, events: Events) {
    let mut tick = interval(AGE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut failed, mut flows) = (false, Flows::default());
    loop {
        tick.tick().await;
        let mut left = pace.round();
        while left > 0 {
            let most = left.min(AGE_PARTS);
            let Ok((parts, mut why)) = mark(&handle, most).await else { return };
            left -= most;
            pace.looked_at(parts.len(), parts.last().is_some_and(AgePart::is_last));
            for part in parts {
                let end = move |owned: &mut Owned| owned.dataplane.end_age(part, Ok(()));
                let Ok(aged) = handle.with(end).await else { return };
                if let Some(message) = flows.heard(&aged, Instant::now()) {
                    events.tell(EventKind::FlowsChanged, "", message);
                }
                left = if aged.wrapped { 0 } else { left };
                tell_ends(&sockets, aged.resets).await;
                why = aged.failed.as_ref().map(|error| sentence(error)).or(why);
            }
            if let Some(why) = why.as_ref().filter(|_| !failed) {
                tracing::error!(why, "idle flows are not removed");
            }
            failed = why.is_some();
        }
    }
}

/// Sends the RSTs of flows that are over. The flows are gone by then: what is not sent is said, since nobody can send it later.
async fn tell_ends(sockets: &Arc<Sockets>, resets: Vec<Answer>) {
    if resets.is_empty() {
        return;
    }
    let sockets = Arc::clone(sockets);
    let lost = tokio::task::spawn_blocking(move || sockets.send_all(&resets)).await;
    if let Ok(Some((count, why))) = lost {
        tracing::warn!(count, %why, "RSTs to ends of flows that are over were not sent");
    }
}

/// An error with its causes.
pub(super) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        // Some errors repeat their cause.
        if !text.ends_with(&said) {
            let _infallible = write!(text, ": {said}");
        }
        source = cause.source();
    }
    text
}
