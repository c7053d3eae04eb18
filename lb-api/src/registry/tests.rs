use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lb_api_types::resource::{Pool, PoolSpec};
use lb_api_types::view::ChangeKind;
use lb_api_types::vip::{Backend, Health, Metadata, Protocol, VipSpec};

use super::*;
use crate::control;
use crate::health::{Verdict, Verdicts};
use crate::store;

/// What a world of appliers was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Serve(usize),
    Announce(Vec<IpAddr>),
    AnnounceOn(IpAddr, Vec<String>),
    Route(Vec<IpAddr>),
}

/// What health checks would check.
#[derive(Debug)]
struct Checked(delta::Receiver<Target, bool>, BTreeSet<Target>);

impl Checked {
    fn now(&mut self) -> BTreeSet<Target> {
        for (target, is_wanted) in self.0.take() {
            match is_wanted {
                true => self.1.insert(target),
                false => self.1.remove(&target),
            };
        }
        self.1.clone()
    }
}

type Targets = Arc<Mutex<Checked>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    told: Arc<Mutex<Vec<Told>>>,
    refuse: Arc<Mutex<Option<String>>>,
    /// What is served.
    table: Arc<Mutex<Table>>,
    targets: Arc<Mutex<Option<Targets>>>,
    /// What was to be checked when the dataplane refused last.
    checked: Arc<Mutex<BTreeSet<Target>>>,
    announced: BTreeSet<IpAddr>,
    routed: BTreeSet<IpAddr>,
    /// How often it was told of resources, and whether it waits for something that they name, and that is there.
    configured: Arc<AtomicUsize>,
    /// How often it was said that every VIP is judged.
    judged: Arc<AtomicUsize>,
    waits: Arc<AtomicBool>,
    comes: Arc<AtomicBool>,
    news: Arc<AtomicBool>,
}

impl World {
    fn tell(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    pub(crate) fn refuse(&self, why: Option<&str>) {
        *self.refuse.lock().unwrap() = why.map(str::to_owned);
    }
}

impl Appliers for World {
    async fn serve(&mut self, wanted: Serve) -> Result<(), String> {
        let refuse = self.refuse.lock().unwrap().clone();
        let mut table = self.table.lock().unwrap().clone();
        match wanted {
            Serve::All(all) => table = all,
            Serve::Change(change) => {
                for (key, service) in change.services {
                    match service {
                        Some(service) => drop(table.services.insert(key, service)),
                        None => drop(table.services.remove(&key)),
                    }
                }
            }
        }
        // One service is what the refusing dataplane has room for.
        match refuse.filter(|_| table.services.len() > 1) {
            Some(why) => {
                if let Some(targets) = &*self.targets.lock().unwrap() {
                    *self.checked.lock().unwrap() = targets.lock().unwrap().now();
                }
                Err(why)
            }
            None => {
                self.tell(Told::Serve(table.services.len()));
                *self.table.lock().unwrap() = table;
                Ok(())
            }
        }
    }

    async fn announce(&mut self, addresses: Addresses<'_>) {
        follow(&mut self.announced, addresses);
        self.tell(Told::Announce(self.announced.iter().copied().collect()));
    }

    async fn all_are_judged(&mut self) {
        self.judged.fetch_add(1, Relaxed);
    }

    async fn announce_on(&mut self, address: IpAddr, interfaces: &BTreeSet<String>) {
        self.tell(Told::AnnounceOn(address, interfaces.iter().cloned().collect()));
    }

    async fn admit(&mut self, _: &Resources, after: &Resources) -> Result<(), Misfit> {
        // What nobody reaches, here as in the documentation (RFC 5737).
        let unreachable = after.static_routes().find(|route| {
            let hops = &route.spec.next_hops;
            hops.iter().any(|hop| hop.address == Some([198, 51, 100, 99].into()))
        });
        match unreachable {
            None => Ok(()),
            Some(route) => Err(Misfit {
                key: Key(Kind::StaticRoute, route.metadata.name.clone()),
                field: "/spec/next_hops/0".into(),
                message: "no network of this host leads to 198.51.100.99".into(),
            }),
        }
    }

    async fn configure(&mut self, _: &Resources) -> Result<(), String> {
        self.configured.fetch_add(1, Relaxed);
        Ok(())
    }

    fn is_settled(&self) -> bool {
        !self.waits.load(Relaxed)
    }

    fn could_do_more(&self) -> bool {
        self.comes.load(Relaxed)
    }

    fn has_news(&self) -> bool {
        self.news.swap(false, Relaxed)
    }

    async fn route(&mut self, addresses: Addresses<'_>) {
        follow(&mut self.routed, addresses);
        self.tell(Told::Route(self.routed.iter().copied().collect()));
    }

    async fn counters(&mut self) -> ServiceCounters {
        ServiceCounters::new()
    }

    async fn counters_of(&mut self, _key: ServiceKey) -> ServiceCounters {
        ServiceCounters::new()
    }
}

fn follow(all: &mut BTreeSet<IpAddr>, addresses: Addresses<'_>) {
    match addresses {
        Addresses::All(new) => all.clone_from(new),
        Addresses::Change { come, go } => {
            assert!(come.iter().all(|address| all.insert(*address)), "{come:?} are new");
            assert!(go.iter().all(|address| all.remove(address)), "{go:?} were there");
        }
    }
}

pub(crate) fn vip(name: &str, last: u8) -> Vip {
    Vip {
        metadata: Metadata { name: name.into(), ..Metadata::default() },
        spec: VipSpec {
            address: [203, 0, 113, last].into(),
            pool: None,
            port: 80,
            last_port: None,
            protocol: Protocol::Tcp,
            algorithm: Default::default(),
            affinity_secs: None,
            maglev_table_size: None,
            max_flows: None,
            max_flows_per_client: None,
            idle_timeout_secs: None,
            reset_on_expiry: false,
            on_unhealthy: None,
            mss_clamp: None,
            access: Default::default(),
            full_table: Default::default(),
            nat: Default::default(),
            backends: vec![Backend {
                address: [10, 0, 0, 1].into(),
                port: 8080,
                weight: 1,
                max_flows: None,
                drain: false,
                disabled: false,
            }],
            health_check: Default::default(),
            advertise: true,
            announce_on: Vec::new(),
        },
        status: None,
    }
}

/// A registry over a world of its own.
pub(crate) struct Bench {
    pub(crate) registry: Registry,
    pub(crate) world: World,
    pub(crate) attachment: watch::Sender<bool>,
    pub(crate) ways: watch::Sender<Arc<control::Unreached>>,
    pub(crate) verdicts: delta::Sender<Target, Option<Verdict>>,
    /// Everything that was found.
    found: Mutex<Verdicts>,
    targets: Targets,
    pub(crate) warnings: watch::Receiver<Vec<String>>,
    pub(crate) events: Events,
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn new(file: Vec<Vip>) -> Self {
        let bench = Self::over(tempfile::tempdir().unwrap(), file).await;
        bench.world.told();
        bench
    }

    pub(crate) async fn over(folder: tempfile::TempDir, file: Vec<Vip>) -> Self {
        Self::of(folder, file, Resources::default()).await
    }

    /// That of a whole file.
    pub(crate) async fn of(
        folder: tempfile::TempDir,
        file: Vec<Vip>,
        file_resources: Resources,
    ) -> Self {
        let store = Store::open(folder.path()).unwrap();
        let store::Loaded { revision, vips: kept, resources, .. } = store.load().unwrap();
        let (verdicts, found) = delta::channel();
        let (wanted, targets) = delta::channel();
        let targets = Arc::new(Mutex::new(Checked(targets, BTreeSet::new())));
        let world = World::default();
        *world.targets.lock().unwrap() = Some(Arc::clone(&targets));
        let (attachment, attached) = watch::channel(true);
        let (ways, unreached) = watch::channel(Arc::default());
        let events = Events::default();
        let start = Start {
            file,
            file_resources,
            kept,
            kept_resources: resources,
            revision,
            store,
            attached,
            unreached,
            verdicts: found,
            targets: wanted,
            events: events.clone(),
            audit: Arc::new(Audit::open(folder.path(), "audit.log")),
        };
        let (registry, warnings) = spawn(start, world.clone()).await.unwrap();
        let found = Mutex::default();
        Self {
            registry,
            world,
            attachment,
            ways,
            verdicts,
            found,
            targets,
            warnings,
            events,
            folder,
        }
    }

    /// Ends the daemon and starts another one over its state.
    pub(crate) async fn restart(self, file: Vec<Vip>) -> Self {
        let Self { registry, folder, verdicts, .. } = self;
        registry.withdraw().await;
        drop((registry, verdicts));
        // The task lets go of the folder when it has ended.
        eventually(|| async { Store::open(folder.path()).is_ok() }).await;
        Self::over(folder, file).await
    }

    async fn put(&self, vip: Vip) -> Result<Applied, Refusal> {
        self.registry.put(vip, Terms::default()).await
    }

    async fn delete(&self, name: &str) -> Result<(), Refusal> {
        self.registry.delete(name, Terms::default()).await
    }

    /// Kinds and names of everything that was told.
    fn heard(&self) -> Vec<(&'static str, String)> {
        use crate::events::{From, Heard};
        match self.events.watch(&From::Start).unwrap().hear_kept() {
            Heard::Events(events) => {
                events.iter().map(|event| (event.kind.name(), event.name.clone())).collect()
            }
            Heard::Nothing | Heard::Ended | Heard::Overrun => Vec::new(),
        }
    }

    pub(crate) fn find(&self, health: Health) {
        self.find_of(health, |_| true);
    }

    fn find_of(&self, health: Health, which: impl Fn(&Target) -> bool) {
        let verdict = Verdict { health, message: String::new() };
        let targets = self.targets().into_iter().filter(which);
        let found: Verdicts = targets.map(|target| (target, verdict.clone())).collect();
        self.found.lock().unwrap().extend(found.clone());
        self.verdicts.tell(found.into_iter().map(|(target, verdict)| (target, Some(verdict))));
    }

    /// What is to be checked.
    pub(crate) fn targets(&self) -> BTreeSet<Target> {
        self.targets.lock().unwrap().now()
    }

    async fn advertised(&self, name: &str) -> bool {
        self.registry.get(name).await.unwrap().status.unwrap().advertised
    }

    async fn names(&self) -> Vec<String> {
        self.registry.list().await.unwrap().into_iter().map(|vip| vip.metadata.name).collect()
    }
}

async fn eventually<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    let all = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), all).await.expect("it holds in time");
}

#[tokio::test]
async fn it_is_said_once_that_every_vip_is_judged_when_its_address_was_announced() {
    let bench = Bench::new(vec![vip("web", 10)]).await;
    let judged = || bench.world.judged.load(Relaxed);
    assert_eq!(judged(), 0);
    bench.find(Health::Healthy);
    eventually(async || judged() == 1).await;
    assert!(bench.world.told().contains(&Told::Announce(vec![[203, 0, 113, 10].into()])));
    bench.put(vip("other", 11)).await.unwrap();
    bench.find(Health::Unhealthy);
    eventually(async || !bench.advertised("web").await).await;
    assert_eq!(judged(), 1);
}

#[tokio::test]
async fn a_vip_is_served_first_and_advertised_when_health_has_spoken() {
    let bench = Bench::new(vec![]).await;
    let applied = bench.put(vip("web", 10)).await.unwrap();
    assert!(applied.created && applied.vip.status.as_ref().unwrap().serving);
    let address = IpAddr::from([203, 0, 113, 10]);
    assert_eq!(bench.world.told(), [Told::Route(vec![address]), Told::Serve(1)]);
    assert!(!bench.advertised("web").await);
    bench.find(Health::Healthy);
    eventually(|| bench.advertised("web")).await;
    assert_eq!(bench.world.told(), [Told::Announce(vec![address])]);
}

#[tokio::test]
async fn a_vip_is_announced_on_its_links_while_it_is_healthy_and_no_longer_before_it_goes() {
    let bench = Bench::new(vec![]).await;
    let mut on_link = vip("web", 10);
    (on_link.spec.advertise, on_link.spec.announce_on) = (false, vec!["eth1".to_owned()]);
    bench.put(on_link).await.unwrap();
    let address = IpAddr::from([203, 0, 113, 10]);
    assert_eq!(bench.world.told(), [Told::Route(vec![address]), Told::Serve(1)]);
    let message = || async { bench.registry.get("web").await.unwrap().status.unwrap().message };
    assert!(message().await.starts_with("not announced on eth1: health checks"));
    bench.find(Health::Healthy);
    eventually(|| async { message().await == "announced on eth1: 1 of 1 backends healthy" }).await;
    let on = |on: &[&str]| Told::AnnounceOn(address, on.iter().map(|&on| on.to_owned()).collect());
    assert_eq!(bench.world.told(), [on(&["eth1"])]);
    bench.find(Health::Unhealthy);
    eventually(|| async { message().await.contains("unhealthy") }).await;
    assert_eq!(bench.world.told(), [on(&[]), Told::Serve(1)]);
    bench.find(Health::Healthy);
    eventually(|| async { message().await.starts_with("announced on") }).await;
    bench.world.told();
    bench.delete("web").await.unwrap();
    assert_eq!(bench.world.told(), [on(&[]), Told::Serve(0), Told::Route(vec![])]);
}

#[tokio::test]
async fn a_vip_is_withdrawn_before_it_is_taken_out_of_the_dataplane() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("web", 10)).await.unwrap();
    bench.find(Health::Healthy);
    eventually(|| bench.advertised("web")).await;
    bench.world.told();
    bench.delete("web").await.unwrap();
    assert_eq!(bench.world.told(), [Told::Announce(vec![]), Told::Serve(0), Told::Route(vec![])]);
    assert!(bench.targets().is_empty());
}

#[tokio::test]
async fn a_vip_is_advertised_only_while_the_dataplane_is_attached() {
    let bench = Bench::new(vec![vip("web", 10)]).await;
    bench.find(Health::Healthy);
    eventually(|| bench.advertised("web")).await;
    bench.attachment.send_replace(false);
    eventually(|| async { !bench.advertised("web").await }).await;
    bench.attachment.send_replace(true);
    eventually(|| bench.advertised("web")).await;
}

#[tokio::test]
async fn a_vip_is_advertised_only_while_packets_reach_a_healthy_backend_and_says_of_which_they_do_not()
 {
    let bench = Bench::new(vec![vip("web", 10)]).await;
    bench.find(Health::Healthy);
    eventually(|| bench.advertised("web")).await;
    let web = bench.registry.get("web").await.unwrap();
    let backends = web.spec.backends.iter().map(|b| (control::key(&web.spec), b.address));
    bench.ways.send_replace(Arc::new(backends.collect()));
    eventually(|| async { !bench.advertised("web").await }).await;
    let status = bench.registry.get("web").await.unwrap().status.unwrap();
    assert!(status.backends.iter().all(|b| b.message.contains("no packet reaches it")));
    assert!(status.backends.iter().all(|b| b.health == Health::Healthy), "{status:?}");
    bench.ways.send_replace(Arc::default());
    eventually(|| bench.advertised("web")).await;
}

#[tokio::test]
async fn a_vip_that_fails_is_withdrawn_and_stays_served() {
    let bench = Bench::new(vec![vip("web", 10)]).await;
    bench.find(Health::Healthy);
    eventually(|| bench.advertised("web")).await;
    bench.world.told();
    bench.find(Health::Unhealthy);
    eventually(|| async { !bench.advertised("web").await }).await;
    assert_eq!(bench.world.told(), [Told::Announce(vec![]), Told::Serve(1)]);
}

#[tokio::test]
async fn what_the_dataplane_refuses_changes_nothing() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("a", 1)).await.unwrap();
    bench.world.refuse(Some("no room"));
    let refused = bench.put(vip("b", 2)).await;
    assert_eq!(refused, Err(Refusal::Dataplane("no room".into())));
    assert_eq!(bench.names().await, ["a"]);
    assert_eq!(bench.world.told().last(), Some(&Told::Route(vec![[203, 0, 113, 1].into()])));
    bench.world.refuse(None);
    let bench = bench.restart(vec![]).await;
    assert_eq!(bench.names().await, ["a"]);
}

#[tokio::test]
async fn what_cannot_be_kept_changes_nothing() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("a", 1)).await.unwrap();
    bench.world.told();
    let broken = bench.folder.path().join(crate::store::BROKEN);
    std::fs::write(&broken, "").unwrap();
    let refused = bench.put(vip("b", 2)).await;
    assert!(matches!(refused, Err(Refusal::NotWritten(_))), "{refused:?}");
    let refused = bench.delete("a").await;
    assert!(matches!(refused, Err(Refusal::NotWritten(_))), "{refused:?}");
    assert_eq!(bench.names().await, ["a"]);
    assert_eq!(bench.world.told(), [], "a full disk disturbs no traffic");
    std::fs::remove_file(broken).unwrap();
    bench.put(vip("b", 2)).await.unwrap();
}

#[tokio::test]
async fn vips_survive_a_restart_and_wait_for_health_again() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("web", 10)).await.unwrap();
    bench.find(Health::Healthy);
    eventually(|| bench.advertised("web")).await;
    let bench = bench.restart(vec![]).await;
    assert_eq!(bench.names().await, ["web"]);
    let address = IpAddr::from([203, 0, 113, 10]);
    assert_eq!(bench.world.told(), [Told::Route(vec![address]), Told::Serve(1)]);
    assert!(!bench.advertised("web").await);
}

#[tokio::test]
async fn the_files_vips_cannot_be_changed_over_rest() {
    let bench = Bench::new(vec![vip("file", 1)]).await;
    let from_file = Refusal::FromFile("VIP file".into());
    assert_eq!(bench.put(vip("file", 2)).await, Err(from_file.clone()));
    assert_eq!(bench.delete("file").await, Err(from_file));
    let refused = bench.put(vip("other", 1)).await.unwrap_err();
    assert!(matches!(&refused, Refusal::Duplicate { other, .. } if other == "file"), "{refused}");
}

#[tokio::test]
async fn a_backend_whose_answers_need_no_flow_is_one_vips_alone() {
    let alone = |name: &str, last| {
        let mut vip = vip(name, last);
        vip.spec.full_table = lb_api_types::vip::FullTable::Hash;
        vip
    };
    let bench = Bench::new(vec![]).await;
    bench.put(alone("web", 10)).await.unwrap();
    bench.put(alone("web", 10)).await.unwrap();
    let refused = bench.put(vip("other", 11)).await.unwrap_err();
    assert!(matches!(&refused, Refusal::NotAlone { other, .. } if other == "web"), "{refused}");
    assert!(refused.to_string().contains("10.0.0.1:8080"), "{refused}");
    let mut apart = vip("other", 11);
    apart.spec.backends[0].port = 8081;
    bench.put(apart).await.unwrap();
    assert!(matches!(bench.put(vip("other", 11)).await, Err(Refusal::NotAlone { .. })));
    // And where the other one is there first.
    bench.put(vip("web", 10)).await.unwrap();
    bench.put(vip("other", 11)).await.unwrap();
    assert!(matches!(bench.put(alone("web", 10)).await, Err(Refusal::NotAlone { .. })));
    bench.delete("other").await.unwrap();
    bench.put(alone("web", 10)).await.unwrap();
    // And many at once, with what stays and among themselves.
    for vips in [
        vec![alone("web", 10), vip("more", 12)],
        vec![vip("web", 10), alone("more", 12)],
        vec![alone("web", 10), alone("more", 12)],
    ] {
        let (at, refused) = bench.apply_for(vips, 60).await.unwrap_err();
        assert!(matches!(refused, Refusal::NotAlone { .. }), "{refused}");
        assert!(at.is_some_and(|at| at.kind.is_none()), "{at:?}");
    }
    bench.apply_for(vec![vip("web", 10), vip("more", 12)], 60).await.unwrap();
}

#[tokio::test]
async fn a_range_of_ports_leads_to_as_many_of_a_backend_which_none_has_alone_then() {
    let mut alone = vip("alone", 10);
    alone.spec.full_table = lb_api_types::vip::FullTable::Hash;
    alone.spec.backends[0].port = 8130;
    let range = |last_port| {
        let mut vip = vip("range", 11);
        vip.spec.last_port = Some(vip.spec.port + last_port);
        vip
    };
    let bench = Bench::new(vec![]).await;
    bench.put(range(50)).await.unwrap();
    assert!(matches!(bench.put(alone.clone()).await, Err(Refusal::NotAlone { .. })));
    let (_, refused) = bench.apply_for(vec![range(50), alone.clone()], 60).await.unwrap_err();
    assert!(matches!(refused, Refusal::NotAlone { .. }), "{refused}");
    bench.put(range(49)).await.unwrap();
    bench.put(alone).await.unwrap();
    assert!(matches!(bench.put(range(50)).await, Err(Refusal::NotAlone { .. })));
}

#[tokio::test]
async fn a_kept_vip_that_clashes_with_the_file_is_said_and_not_lost() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("web", 10)).await.unwrap();
    let bench = bench.restart(vec![vip("file", 10)]).await;
    assert_eq!(bench.names().await, ["file"]);
    assert!(bench.warnings.borrow()[0].contains("VIP web"), "{:?}", bench.warnings);
    bench.put(vip("more", 11)).await.unwrap();
    let bench = bench.restart(vec![]).await;
    assert_eq!(bench.names().await, ["more", "web"]);
}

#[tokio::test]
async fn putting_the_same_again_touches_nothing() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("web", 10)).await.unwrap();
    bench.world.told();
    let applied = bench.put(vip("web", 10)).await.unwrap();
    assert!(!applied.created);
    assert_eq!(bench.world.told(), []);
    assert_eq!(control::targets(&[("web".into(), vip("web", 10))].into()), bench.targets());
}

#[tokio::test]
async fn a_refused_change_loses_nothing_that_is_known_of_health() {
    let bench = Bench::new(vec![]).await;
    let mut only_b = vip("b", 2);
    only_b.spec.backends[0].port = 8;
    bench.put(vip("a", 1)).await.unwrap();
    bench.put(only_b).await.unwrap();
    let before = bench.targets();
    bench.world.refuse(Some("no room"));
    let mut other = vip("b", 2);
    other.spec.backends[0].port = 9;
    assert!(bench.put(other).await.is_err());
    assert!(bench.world.checked.lock().unwrap().is_superset(&before), "nothing was let go of");
    bench.world.refuse(None);
    eventually(|| async { bench.targets() == before }).await;
}

#[tokio::test]
async fn a_kept_vip_that_is_not_served_gives_way_to_a_new_one_and_can_be_removed() {
    let bench = Bench::new(vec![]).await;
    for (name, last) in [("a", 1), ("b", 2)] {
        bench.put(vip(name, last)).await.unwrap();
    }
    let file = || vec![vip("file1", 1), vip("file2", 2)];
    let bench = bench.restart(file()).await;
    assert_eq!(bench.warnings.borrow().len(), 2);
    assert!(bench.put(vip("a", 3)).await.unwrap().created);
    bench.delete("b").await.unwrap();
    assert_eq!(bench.warnings.borrow().len(), 0);
    let bench = bench.restart(file()).await;
    assert_eq!(bench.names().await, ["a", "file1", "file2"]);
    assert_eq!(bench.warnings.borrow().len(), 0);
}

#[tokio::test]
async fn what_the_file_hides_stays_whatever_is_pruned_and_goes_by_its_own_name() {
    let bench = Bench::new(vec![]).await;
    for (name, last) in [("a", 1), ("b", 2)] {
        bench.put(vip(name, last)).await.unwrap();
    }
    // The one has its name, the other its address and port.
    let file = || vec![vip("a", 3), vip("file", 2)];
    let bench = bench.restart(file()).await;
    let hidden = async || bench.registry.running().await.unwrap().status.hidden.vips;
    let names = |vips: &[Vip]| vips.iter().map(|vip| vip.metadata.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&hidden().await), ["a", "b"]);
    bench.apply_for(vec![], 3600).await.unwrap();
    assert_eq!(bench.registry.confirm().await, Err(Refusal::NothingToConfirm), "nothing changed");
    assert_eq!(bench.registry.rollback(Some(1), Terms::default()).await, Ok(vec![]));
    assert_eq!(names(&hidden().await), ["a", "b"]);

    // As an export has them: what is there stays, and nobody becomes its owner.
    let exported = async || {
        let mut vips = hidden().await;
        vips.iter_mut().for_each(|vip| vip.metadata.revision = None);
        vips
    };
    let terms = || Bulk { prune: true, owner: Some("shop".into()), ..Bulk::default() };
    let same = bench.registry.apply(exported().await.into(), terms()).await.unwrap();
    assert!(
        same.len() == 2 && same.iter().all(|it| it.change == ChangeKind::Unchanged),
        "{same:?}"
    );
    let mut other = exported().await;
    other[0].spec.port = 81;
    let refused = bench.registry.apply(other.into(), terms()).await.unwrap_err().1;
    assert_eq!(refused, Refusal::FromFile("VIP a".into()));

    bench.delete("a").await.unwrap();
    assert_eq!(bench.delete("a").await, Err(Refusal::FromFile("VIP a".into())), "now the file's");
    assert_eq!((names(&hidden().await), bench.warnings.borrow().len()), (vec!["b".to_owned()], 1));
    assert_eq!(bench.names().await, ["a", "file"]);
    assert_eq!(bench.world.table.lock().unwrap().services.len(), 2, "the file's are served");
    let bench = bench.restart(vec![]).await;
    assert_eq!(bench.names().await, ["b"], "the other one is gone");
}

#[tokio::test]
async fn going_back_takes_a_hidden_vip_to_where_it_clashes_with_nothing() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("web", 1)).await.unwrap();
    bench.put(vip("other", 2)).await.unwrap();
    bench.put(vip("web", 3)).await.unwrap();
    let bench = bench.restart(vec![vip("file", 3), vip("two", 2)]).await;
    assert_eq!(bench.names().await, ["file", "two"]);
    let created = Change { kind: "vip".into(), name: "web".into(), change: ChangeKind::Created };
    let back = bench.registry.rollback(Some(2), Terms::default()).await;
    assert_eq!(back, Ok(vec![created]), "and the other one would still clash");
    assert_eq!(bench.registry.get("web").await.unwrap().spec.address, vip("web", 1).spec.address);
    let hidden = bench.registry.running().await.unwrap().status.hidden.vips;
    assert_eq!(hidden.len(), 1);
    assert_eq!(hidden[0].metadata.name, "other");
}

#[tokio::test]
async fn a_hidden_vip_that_somebody_applies_elsewhere_is_theirs() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("web", 1)).await.unwrap();
    let bench = bench.restart(vec![vip("file", 1)]).await;
    let terms = |owner: Option<&str>| Bulk {
        prune: true,
        owner: owner.map(str::to_owned),
        ..Bulk::default()
    };
    let moved = bench.registry.apply(vec![vip("web", 5)].into(), terms(Some("shop"))).await;
    let created = Change { kind: "vip".into(), name: "web".into(), change: ChangeKind::Created };
    assert_eq!(moved.unwrap(), [created]);
    assert_eq!(bench.registry.get("web").await.unwrap().metadata.owner.as_deref(), Some("shop"));
    bench.registry.apply(vec![].into(), terms(None)).await.unwrap();
    assert_eq!(bench.names().await, ["file", "web"], "what nobody owns was pruned");
}

#[tokio::test]
async fn one_vip_or_pool_more_than_there_may_be_is_refused_in_a_sentence() {
    let many = (0..crate::vip::MAX_VIPS).map(|n| {
        let mut vip = vip(&format!("v{n}"), 1);
        vip.spec.port = u16::try_from(n % 60_000 + 1).unwrap();
        vip.spec.protocol = [Protocol::Tcp, Protocol::Udp][n / 60_000];
        vip
    });
    let pool = |n: usize| {
        let metadata = Metadata { name: format!("p{n}"), ..Metadata::default() };
        let spec = PoolSpec { addresses: vec!["10.0.0.0/8".into()] };
        Resource::Pool(Pool { metadata, spec, status: None })
    };
    let pools = (0..crate::resources::MAX_OF_A_KIND).map(pool).collect();
    let bench = Bench::of(tempfile::tempdir().unwrap(), many.collect(), pools).await;
    let refused = bench.put(vip("more", 2)).await.unwrap_err().to_string();
    assert!(refused.contains("65536"), "{refused}");
    let (_, refused) =
        bench.registry.apply(vec![vip("more", 2)].into(), Bulk::default()).await.unwrap_err();
    assert!(refused.to_string().contains("65536"), "{refused}");
    let refused = bench.registry.put_resource(pool(5000), Terms::default()).await.unwrap_err();
    assert!(refused.to_string().contains("4096"), "{refused}");
}

#[tokio::test]
async fn of_two_writers_the_second_is_refused() {
    let bench = Bench::new(vec![vip("file", 99)]).await;
    let first = bench.put(vip("web", 10)).await.unwrap().vip;
    assert_eq!(first.metadata.revision, Some(1));
    assert_eq!(bench.put(first.clone()).await.unwrap().vip.metadata.revision, Some(1), "the same");
    let change = |port| {
        let mut vip = first.clone();
        vip.spec.port = port;
        vip
    };
    assert_eq!(bench.put(change(81)).await.unwrap().vip.metadata.revision, Some(2));
    let stale = Refusal::Stale { name: "VIP web".into(), found: 2, expected: 1 };
    assert_eq!(bench.put(change(82)).await, Err(stale.clone()));
    let terms = |expected| Terms { expected, dry_run: false };
    let delete = async |expected| bench.registry.delete("web", terms(expected)).await;
    assert_eq!(delete(Expected::Revision(1)).await, Err(stale));
    assert_eq!(delete(Expected::Revision(2)).await, Ok(()));
    let put = async |expected| bench.registry.put(vip("web", 10), terms(expected)).await;
    assert_eq!(put(Expected::Something).await, Err(Refusal::Gone("VIP web".into())));
    let again = put(Expected::Nothing).await.unwrap().vip.metadata.revision;
    assert!(again > Some(2), "a name that is used again is not what it was: {again:?}");
    assert_eq!(put(Expected::Nothing).await, Err(Refusal::Exists("VIP web".into())));
    let bench = bench.restart(vec![]).await;
    assert_eq!(
        bench.put(vip("more", 11)).await.unwrap().vip.metadata.revision.unwrap(),
        again.unwrap() + 1
    );
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("web", 10)).await.unwrap();
    bench.world.told();
    let dry = Terms { dry_run: true, ..Terms::default() };
    let applied = bench.registry.put(vip("new", 11), dry).await.unwrap();
    assert!(applied.created && applied.vip.status.is_none());
    let refused = bench.registry.put(vip("new", 10), dry).await;
    assert!(matches!(refused, Err(Refusal::Duplicate { .. })), "{refused:?}");
    bench.registry.delete("web", dry).await.unwrap();
    assert_eq!(bench.registry.delete("new", dry).await, Err(Refusal::Unknown("VIP new".into())));
    assert_eq!((bench.names().await, bench.world.told()), (vec!["web".to_owned()], vec![]));
}

#[tokio::test]
async fn a_registry_that_has_ended_says_so_rather_than_that_there_is_nothing() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("web", 10)).await.unwrap();
    let Bench { registry, verdicts, .. } = bench;
    drop(verdicts);
    registry.ended().await;
    assert_eq!(registry.list().await, Err(Refusal::Stopping));
    assert_eq!(registry.get("web").await, Err(Refusal::Stopping));
}

#[tokio::test]
async fn many_vips_are_applied_in_one_change_or_not_at_all() {
    use lb_api_types::view::ChangeKind::{Created, Deleted, Unchanged, Updated};
    let bench = Bench::new(vec![vip("file", 99)]).await;
    let apply = async |vips: Vec<Vip>, prune, dry_run| {
        let changes =
            bench.registry.apply(vips.into(), Bulk { dry_run, prune, ..Bulk::default() }).await?;
        Ok::<_, RefusedAt>(changes.into_iter().map(|c| (c.name, c.change)).collect::<Vec<_>>())
    };
    let is = |name: &str, change| (name.to_owned(), change);
    let created = apply(vec![vip("a", 1), vip("b", 2)], false, false).await.unwrap();
    assert_eq!(created, [is("a", Created), is("b", Created)]);
    assert_eq!(bench.world.told().iter().filter(|told| matches!(told, Told::Serve(_))).count(), 1);
    let revisions = async || {
        let all = bench.registry.list().await.unwrap().into_iter();
        all.map(|vip| vip.metadata.revision).collect::<Vec<_>>()
    };
    assert_eq!(revisions().await, [Some(1), Some(1), None]);

    // Two swap their addresses, which one by one would clash.
    let swapped = apply(vec![vip("a", 2), vip("b", 1)], false, true).await.unwrap();
    assert_eq!(swapped, [is("a", Updated), is("b", Updated)]);
    assert_eq!(bench.world.told(), [], "a dry run changes nothing");
    apply(vec![vip("a", 2), vip("b", 1)], false, false).await.unwrap();
    assert_eq!(revisions().await, [Some(2), Some(2), None]);
    let pruned = apply(vec![vip("a", 2), vip("c", 3)], true, false).await.unwrap();
    assert_eq!(pruned, [is("a", Unchanged), is("c", Created), is("b", Deleted)]);
    assert_eq!(bench.names().await, ["a", "c", "file"], "the file's stay");

    bench.world.told();
    let place =
        async |vips| apply(vips, false, false).await.unwrap_err().0.map(|place| place.index);
    assert_eq!(place(vec![vip("d", 4), vip("e", 99)]).await, Some(1), "the file's address");
    assert_eq!(place(vec![vip("d", 4), vip("file", 5)]).await, Some(1));
    assert_eq!(place(vec![vip("d", 4), vip("d", 5)]).await, Some(1));
    assert!(place(vec![vip("d", 4), vip("e", 4)]).await.is_some());
    assert_eq!(
        place(vec![vip("0-new", 2), vip("a", 2)]).await,
        Some(0),
        "the other was there before"
    );
    assert_eq!(place(vec![vip("a", 2), vip("z", 2)]).await, Some(1));
    let mut stale = vip("a", 7);
    stale.metadata.revision = Some(1);
    assert_eq!(place(vec![vip("d", 4), stale]).await, Some(1));
    assert_eq!((bench.names().await.len(), bench.world.told()), (3, vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_resources_name_and_is_not_there_is_told_of_again_when_it_is_and_not_before() {
    let bench = Bench::new(vec![]).await;
    let told = || bench.world.configured.load(Relaxed);
    assert_eq!(told(), 1);
    bench.world.waits.store(true, Relaxed);
    bench.registry.settled().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(told(), 1, "nothing has changed");
    bench.world.comes.store(true, Relaxed);
    eventually(async || told() > 1).await;
}

#[tokio::test(start_paused = true)]
async fn what_resources_name_elsewhere_is_told_again_when_it_says_something_else() {
    let bench = Bench::new(vec![]).await;
    let told = || bench.world.configured.load(Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(told(), 1, "nothing has changed");
    bench.world.news.store(true, Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(told(), 2);
}

#[tokio::test]
async fn whatever_changes_is_told_once_and_in_order() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("web", 10)).await.unwrap();
    bench.put(vip("web", 10)).await.unwrap();
    bench.find(Health::Healthy);
    eventually(|| bench.advertised("web")).await;
    let mut other = vip("web", 10);
    other.spec.port = 81;
    bench.put(other).await.unwrap();
    bench.find(Health::Unhealthy);
    eventually(async || !bench.advertised("web").await).await;
    bench.world.refuse(Some("no room"));
    bench.put(vip("more", 11)).await.unwrap_err();
    bench.delete("web").await.unwrap();
    eventually(async || bench.heard().len() >= 10).await;
    let web = |kind| (kind, "web".to_owned());
    let backend = || ("backend-health", "10.0.0.1:8080".to_owned());
    let healthy = || ("condition-changed", "vips/web".to_owned());
    let wanted = [
        ("dataplane-attached", String::new()),
        web("vip-created"),
        backend(),
        healthy(),
        web("vip-advertised"),
        web("vip-updated"),
        backend(),
        healthy(),
        web("vip-withdrawn"),
        web("vip-deleted"),
    ];
    assert_eq!(bench.heard(), wanted);
}

impl Bench {
    async fn apply_for(&self, vips: Vec<Vip>, seconds: u64) -> Result<Vec<Change>, RefusedAt> {
        let confirm_within = Some(Duration::from_secs(seconds));
        let terms = Bulk { prune: true, confirm_within, ..Bulk::default() };
        self.registry.apply(vips.into(), terms).await
    }

    async fn ports(&self) -> Vec<(String, u16)> {
        let all = self.registry.list().await.unwrap().into_iter();
        all.map(|vip| (vip.metadata.name, vip.spec.port)).collect()
    }
}

fn at_port(name: &str, last: u8, port: u16) -> Vip {
    let mut vip = vip(name, last);
    vip.spec.port = port;
    vip
}

#[tokio::test]
async fn what_nobody_confirms_is_rolled_back_in_time_and_by_a_restart() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("a", 1)).await.unwrap();
    let before = vec![("a".to_owned(), 80)];
    let other = || vec![at_port("a", 1, 81), vip("b", 2)];
    bench.apply_for(other(), 1).await.unwrap();
    eventually(async || bench.ports().await == before).await;
    assert!(bench.heard().contains(&("config-rolled-back", String::new())));
    assert_eq!(bench.heard().last(), Some(&("vip-deleted", "b".to_owned())));
    assert_eq!(bench.registry.confirm().await, Err(Refusal::NothingToConfirm));
    let audit = || std::fs::read_to_string(bench.folder.path().join("audit.log")).unwrap();
    // It is told before it is written down.
    eventually(async || audit().ends_with('\n')).await;
    let said = "configuration of revision 2 rolled back: it was not confirmed in time; 2 resources changed";
    assert!(audit().contains(said) && audit().contains("\"who\":\"lbd\""), "{}", audit());

    bench.apply_for(other(), 3600).await.unwrap();
    assert_eq!(bench.ports().await, [("a".to_owned(), 81), ("b".to_owned(), 80)]);
    let seen = bench.registry.get("a").await.unwrap().metadata.revision;
    let bench = bench.restart(vec![]).await;
    assert_eq!(bench.ports().await, before);
    let next = bench.put(vip("c", 3)).await.unwrap().vip.metadata.revision;
    assert!(next > seen, "a revision that was seen is not given again: {next:?} {seen:?}");
}

#[tokio::test]
async fn who_saw_only_what_was_not_confirmed_goes_back_no_further() {
    let bench = Bench::new(vec![]).await;
    let revision = async |bench: &Bench| bench.registry.running().await.unwrap().metadata.revision;
    let terms = |seen| Terms { expected: Expected::Revision(seen), dry_run: false };
    bench.put(vip("a", 1)).await.unwrap();
    bench.put(vip("b", 2)).await.unwrap();
    bench.apply_for(vec![vip("c", 3)], 3600).await.unwrap();
    let unconfirmed = revision(&bench).await;
    bench.registry.rollback(None, terms(unconfirmed)).await.unwrap();
    let found = revision(&bench).await;
    let stale = Refusal::Stale { name: "the configuration".into(), found, expected: unconfirmed };
    assert_eq!(bench.registry.rollback(None, terms(unconfirmed)).await, Err(stale));
    assert_eq!(bench.names().await, ["a", "b"]);

    bench.apply_for(vec![vip("c", 3)], 3600).await.unwrap();
    let unconfirmed = revision(&bench).await;
    let bench = bench.restart(vec![]).await;
    let refused = bench.registry.rollback(None, terms(unconfirmed)).await;
    assert!(matches!(refused, Err(Refusal::Stale { .. })), "a restart rolls back: {refused:?}");
}

#[tokio::test]
async fn nothing_else_changes_until_a_configuration_is_confirmed() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("a", 1)).await.unwrap();
    bench.apply_for(vec![vip("b", 2)], 3600).await.unwrap();
    let waits = |outcome: Refusal| assert!(matches!(outcome, Refusal::Unconfirmed(1..=3600)));
    waits(bench.put(vip("c", 3)).await.unwrap_err());
    waits(bench.delete("b").await.unwrap_err());
    waits(bench.apply_for(vec![], 1).await.unwrap_err().1);
    waits(bench.registry.rollback(Some(1), Terms::default()).await.unwrap_err());
    assert!(bench.registry.history().await.unwrap().rolled_back_in_secs > Some(3000));
    bench.registry.confirm().await.unwrap();
    assert_eq!(bench.registry.history().await.unwrap().rolled_back_in_secs, None);
    bench.put(vip("c", 3)).await.unwrap();
    let bench = bench.restart(vec![]).await;
    assert_eq!(bench.names().await, ["b", "c"], "what was confirmed is kept");
}

#[tokio::test]
async fn an_operator_goes_back_at_once_or_to_a_generation() {
    use lb_api_types::view::ChangeKind::{Created, Deleted, Updated};
    let bench = Bench::new(vec![vip("file", 99)]).await;
    let none = Refusal::NoGeneration("nothing".into());
    assert_eq!(bench.registry.rollback(None, Terms::default()).await, Err(none));
    bench.put(vip("a", 1)).await.unwrap();
    let is = |name: &str, change| Change { kind: "vip".into(), name: name.to_owned(), change };
    let changes = [is("a", Deleted), is("b", Created)];
    assert_eq!(bench.apply_for(vec![vip("b", 2)], 3600).await.unwrap()[1], changes[0]);
    let undone = [is("a", Created), is("b", Deleted)];
    assert_eq!(
        bench.registry.rollback(None, Terms { dry_run: true, ..Terms::default() }).await.unwrap(),
        undone
    );
    assert_eq!(bench.names().await, ["b", "file"], "a dry run");
    assert_eq!(bench.registry.rollback(None, Terms::default()).await.unwrap(), undone);
    assert_eq!(bench.ports().await, [("a".into(), 80), ("file".into(), 80)]);

    bench.put(at_port("a", 1, 81)).await.unwrap();
    bench.put(vip("b", 2)).await.unwrap();
    let history = bench.registry.history().await.unwrap().generations;
    let [newest, .., oldest] = &history[..] else { panic!("{history:?}") };
    assert_eq!((newest.vips, oldest.vips, oldest.revision), (2, 1, 1));
    let back = bench.registry.rollback(None, Terms::default()).await.unwrap();
    assert_eq!(back.last(), Some(&is("b", Deleted)));
    let back = bench.registry.rollback(Some(1), Terms::default()).await.unwrap();
    assert_eq!(back, [is("a", Updated)]);
    let unknown = bench.registry.rollback(Some(77), Terms::default()).await;
    assert_eq!(unknown, Err(Refusal::NoGeneration("no revision 77".into())));
    assert_eq!(bench.ports().await, [("a".into(), 80), ("file".into(), 80)]);
}

#[tokio::test]
async fn what_cannot_be_kept_when_it_is_confirmed_is_rolled_back() {
    let bench = Bench::new(vec![]).await;
    bench.put(vip("a", 1)).await.unwrap();
    bench.apply_for(vec![vip("b", 2)], 3600).await.unwrap();
    let broken = bench.folder.path().join(crate::store::BROKEN);
    std::fs::write(&broken, "").unwrap();
    let refused = bench.registry.confirm().await.unwrap_err();
    assert!(matches!(refused, Refusal::Store(_)), "{refused}");
    assert_eq!(bench.names().await, ["a"]);
    std::fs::remove_file(broken).unwrap();
    let bench = bench.restart(vec![]).await;
    assert_eq!(bench.names().await, ["a"]);
}

/// A step of what may happen to a registry.
#[derive(Clone, Debug)]
enum Happens {
    /// VIPs are put (with an address, a port, a backend, whether it is advertised) and removed, in one change.
    Apply(Vec<(u8, u8, u16, u8, bool)>, Option<u8>),
    /// Health finds something of a backend.
    Found(u8, Health),
    Attached(bool),
    /// The dataplane refuses more than one service, or no longer.
    Refuses(bool),
}

fn happens() -> impl proptest::strategy::Strategy<Value = Happens> {
    use proptest::prelude::*;
    let one = (0_u8..5, 0_u8..3, 80_u16..82, 1_u8..4, any::<bool>());
    let health = prop_oneof![Just(Health::Healthy), Just(Health::Unhealthy), Just(Health::Unknown)];
    prop_oneof![
        5 => (prop::collection::vec(one, 0..4), prop::option::of(0_u8..5))
            .prop_map(|(put, gone)| Happens::Apply(put, gone)),
        5 => (1_u8..4, health).prop_map(|(backend, health)| Happens::Found(backend, health)),
        1 => any::<bool>().prop_map(Happens::Attached),
        1 => any::<bool>().prop_map(Happens::Refuses),
    ]
}

impl Bench {
    async fn happen(&self, happens: Happens) {
        match happens {
            Happens::Apply(put, gone) => {
                let put = put.into_iter().map(|(name, last, port, backend, advertise)| {
                    let mut vip = at_port(&format!("v{name}"), last, port);
                    vip.spec.backends[0].port = backend.into();
                    vip.spec.advertise = advertise;
                    vip
                });
                let _may_clash =
                    self.registry.apply(put.collect::<Vec<_>>().into(), Bulk::default()).await;
                if let Some(gone) = gone {
                    let _may_lack = self.delete(&format!("v{gone}")).await;
                }
            }
            Happens::Found(backend, health) => {
                self.find_of(health, |target| target.backend.port() == u16::from(backend));
            }
            Happens::Attached(attached) => drop(self.attachment.send_replace(attached)),
            Happens::Refuses(refuses) => self.world.refuse(refuses.then_some("no room")),
        }
    }

    /// What the world was told last of addresses, beside what a computation from scratch says of the same facts.
    async fn compare(&self, told: &mut (Vec<IpAddr>, Vec<IpAddr>)) {
        let vips = self.registry.list().await.unwrap();
        for told_now in self.world.told() {
            match told_now {
                Told::Announce(addresses) => told.0 = addresses,
                Told::Route(addresses) => told.1 = addresses,
                Told::Serve(_) | Told::AnnounceOn(..) => {}
            }
        }
        let advertised: BTreeSet<IpAddr> = vips
            .iter()
            .filter(|vip| vip.status.as_ref().is_some_and(|status| status.advertised))
            .map(|vip| vip.spec.address)
            .collect();
        let held: Vec<_> = vips
            .iter()
            .filter(|vip| vip.status.as_ref().is_some_and(|s| s.message.contains("held back")))
            .map(|vip| vip.spec.address)
            .collect();
        let vips = vips.into_iter().map(|vip| (vip.metadata.name.clone(), vip)).collect();
        let verdicts = self.found.lock().unwrap().clone();
        let table = self.world.table.lock().unwrap().clone();
        let serving = table.services.keys().copied().collect();
        let desired = control::desired(control::Facts {
            vips: &vips,
            verdicts: &verdicts,
            attached: *self.attachment.borrow(),
            withdrawn: false,
            serving: &serving,
            unreached: &self.ways.borrow().clone(),
            damping: &control::Damping::default(),
            now: std::time::Instant::now(),
        });
        assert_eq!(table, desired.table);
        assert_eq!(told.1, desired.addresses.into_iter().collect::<Vec<_>>());
        let wanted = desired.announced.into_iter().filter(|address| !held.contains(address));
        assert_eq!(told.0, wanted.collect::<Vec<_>>());
        assert_eq!(advertised, told.0.iter().copied().collect());
        assert_eq!(self.targets(), control::targets(&vips));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn what_the_world_is_told_change_by_change_is_what_it_would_be_told_at_once(
        steps in proptest::collection::vec(happens(), 1..30)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::over(tempfile::tempdir_in("/dev/shm").unwrap(), vec![]).await;
            let mut told = Default::default();
            for step in steps {
                bench.happen(step).await;
                // What health and attachments say is followed beside requests.
                tokio::task::yield_now().await;
                let refuses = bench.world.refuse.lock().unwrap().is_some();
                bench.registry.settled().await;
                if !refuses {
                    bench.compare(&mut told).await;
                }
            }
        });
    }
}
