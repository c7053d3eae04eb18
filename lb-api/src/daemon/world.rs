//! The real appliers: dataplane, router and kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use lb_api_types::config::{Bgp, Config};
use lb_dataplane::table::ServiceKey;
use lb_dataplane::{ApplyError, ReadError, ServiceCounters};
use lb_routing::{RouterHandle, SpeakerConfig};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::dataplane::{self, DataplaneHandle, Owned};
use super::neighbours::OnLinks;
use super::{fib, file_resources, reach, router};
use crate::alarms::{Alarms, Part};
use crate::control::Unreached;
use crate::registry::{Addresses, Appliers, Serve};
use crate::resources::{self, Misfit, Resources, bgp, routing};

/// The real appliers.
pub(super) struct World {
    pub(super) dataplane: DataplaneHandle,
    pub(super) router: RouterHandle,
    /// What of BGP only the file says.
    bgp: Bgp,
    default_id: router::DefaultId,
    keys: router::Keys,
    alarms: Alarms,
    /// Whoever waits for a grace period, so that no change has to.
    grace: Option<JoinHandle<()>>,
    /// What BGP was told, and who we are by it.
    pub(super) told: watch::Sender<(Bgp, SpeakerConfig)>,
    /// Backends that no packet reaches as their VIP needs it.
    unreached: watch::Sender<Arc<Unreached>>,
    /// Where VIPs are announced on links.
    pub(super) on_links: watch::Sender<OnLinks>,
}

impl World {
    /// Has the router speak to the neighbours of the file and of what is kept; with it comes what feeds its FIB to the
    /// dataplane.
    pub(super) async fn spawn(
        config: &Config,
        kept: &Resources,
        (dataplane, adopted): (DataplaneHandle, bool),
        unreached: watch::Sender<Arc<Unreached>>,
        alarms: Alarms,
    ) -> Result<(Self, JoinHandle<()>)> {
        // With the neighbours that are kept, so that the first look at the kernel's routes waits for theirs, too.
        let all = resources::started(&file_resources(config), kept).all;
        let (section, _said_later) = bgp::usable(&config.bgp, all);
        let (mut default_id, mut keys) = (router::DefaultId::default(), router::Keys::default());
        let speaks = router::config(&section, &mut default_id, &mut keys, adopted).await?;
        alarms.set(Part::Neighbours, keys.unread().collect());
        let told = watch::Sender::new((section, speaks.speaker.clone()));
        let (router, batches) =
            lb_routing::spawn(speaks).await.context("the BGP speaker does not start")?;
        let fib = tokio::spawn(fib::pump(batches, dataplane.clone()));
        let (bgp, grace) = (config.bgp.clone(), None);
        let world = Self {
            dataplane,
            router,
            bgp,
            default_id,
            keys,
            alarms,
            grace,
            told,
            unreached,
            on_links: watch::Sender::new(OnLinks::new()),
        };
        Ok((world, fib))
    }
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

    async fn all_are_judged(&mut self) {
        self.router.originates_all().await;
    }

    async fn announce_on(&mut self, address: IpAddr, interfaces: &BTreeSet<String>) {
        self.on_links.send_modify(|all| {
            if interfaces.is_empty() {
                all.remove(&address);
            } else {
                all.insert(address, interfaces.clone());
            }
        });
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
        let unread = self.keys.unread();
        self.alarms.set(Part::Neighbours, misfits.into_iter().chain(unread).collect());
        let speaker = peers.speaker.clone();
        self.router.configure(peers).await.map_err(|error| error.to_string())?;
        self.told.send_replace((section, speaker));
        self.router.set_statics(routing::statics(resources)).await;
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.keys.unread().next().is_none()
    }

    fn could_do_more(&self) -> bool {
        self.keys.could_read_more()
    }

    fn has_news(&self) -> bool {
        self.keys.have_changed()
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
