use std::sync::Mutex;
use std::time::Duration;

use lb_api_types::vip::{Backend, Health, Metadata, VipSpec};

use super::*;
use crate::control;
use crate::health::Verdict;

/// What a world of appliers was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Serve(usize),
    Announce(Vec<Ipv4Addr>),
    Route(Vec<Ipv4Addr>),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    told: Arc<Mutex<Vec<Told>>>,
    refuse: Arc<Mutex<Option<String>>>,
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
    async fn serve(&mut self, table: Table) -> Result<(), String> {
        let refuse = self.refuse.lock().unwrap().clone();
        // One service is what the refusing dataplane has room for.
        match refuse.filter(|_| table.services.len() > 1) {
            Some(why) => Err(why),
            None => {
                self.tell(Told::Serve(table.services.len()));
                Ok(())
            }
        }
    }

    async fn announce(&mut self, addresses: &BTreeSet<Ipv4Addr>) {
        self.tell(Told::Announce(addresses.iter().copied().collect()));
    }

    async fn route(&mut self, addresses: &BTreeSet<Ipv4Addr>) {
        self.tell(Told::Route(addresses.iter().copied().collect()));
    }

    async fn counters(&mut self) -> ServiceCounters {
        ServiceCounters::new()
    }
}

pub(crate) fn vip(name: &str, last: u8) -> Vip {
    Vip {
        metadata: Metadata { name: name.into() },
        spec: VipSpec {
            address: [203, 0, 113, last].into(),
            port: 80,
            protocol: Protocol::Tcp,
            algorithm: Default::default(),
            backends: vec![Backend { address: [10, 0, 0, 1].into(), port: 8080 }],
            health_check: Default::default(),
            advertise: true,
        },
        status: None,
    }
}

/// A registry over a world of its own.
pub(crate) struct Bench {
    pub(crate) registry: Registry,
    pub(crate) world: World,
    pub(crate) attachment: watch::Sender<bool>,
    pub(crate) verdicts: watch::Sender<Arc<Verdicts>>,
    pub(crate) targets: watch::Receiver<Arc<BTreeSet<Target>>>,
    pub(crate) warnings: Vec<String>,
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn new(file: Vec<Vip>) -> Self {
        let bench = Self::over(tempfile::tempdir().unwrap(), file).await;
        bench.world.told();
        bench
    }

    pub(crate) async fn over(folder: tempfile::TempDir, file: Vec<Vip>) -> Self {
        let store = Store::open(folder.path()).unwrap();
        let kept = store.load().unwrap().vips;
        let (verdicts, found) = watch::channel(Arc::default());
        let (wanted, targets) = watch::channel(Arc::default());
        let world = World::default();
        let (attachment, attached) = watch::channel(true);
        let start = Start { file, kept, store, attached, verdicts: found, targets: wanted };
        let (registry, warnings) = spawn(start, world.clone()).await.unwrap();
        Self { registry, world, attachment, verdicts, targets, warnings, folder }
    }

    /// Ends the daemon and starts another one over its state.
    async fn restart(self, file: Vec<Vip>) -> Self {
        let Self { registry, folder, verdicts, .. } = self;
        registry.withdraw().await;
        drop((registry, verdicts));
        // The task lets go of the folder when it has ended.
        eventually(|| async { Store::open(folder.path()).is_ok() }).await;
        Self::over(folder, file).await
    }

    fn find(&self, health: Health) {
        let verdict = Verdict { health, message: String::new() };
        let targets = self.targets.borrow().clone();
        let all = targets.iter().map(|target| (*target, verdict.clone())).collect();
        self.verdicts.send_replace(Arc::new(all));
    }

    async fn advertised(&self, name: &str) -> bool {
        self.registry.get(name).await.unwrap().status.unwrap().advertised
    }

    async fn names(&self) -> Vec<String> {
        self.registry.list().await.into_iter().map(|vip| vip.metadata.name).collect()
    }
}

async fn eventually<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    let all = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("it holds in time");
}

#[tokio::test]
async fn a_vip_is_served_first_and_advertised_when_health_has_spoken() {
    let bench = Bench::new(vec![]).await;
    let applied = bench.registry.put(vip("web", 10)).await.unwrap();
    assert!(applied.created && applied.vip.status.as_ref().unwrap().serving);
    let address = Ipv4Addr::new(203, 0, 113, 10);
    assert_eq!(bench.world.told(), [Told::Route(vec![address]), Told::Serve(1)]);
    assert!(!bench.advertised("web").await);
    bench.find(Health::Healthy);
    eventually(|| bench.advertised("web")).await;
    assert_eq!(bench.world.told(), [Told::Announce(vec![address])]);
}

#[tokio::test]
async fn a_vip_is_withdrawn_before_it_is_taken_out_of_the_dataplane() {
    let bench = Bench::new(vec![]).await;
    bench.registry.put(vip("web", 10)).await.unwrap();
    bench.find(Health::Healthy);
    eventually(|| bench.advertised("web")).await;
    bench.world.told();
    bench.registry.delete("web").await.unwrap();
    assert_eq!(bench.world.told(), [Told::Announce(vec![]), Told::Serve(0), Told::Route(vec![])]);
    assert!(bench.targets.borrow().is_empty());
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
    bench.registry.put(vip("a", 1)).await.unwrap();
    bench.world.refuse(Some("no room"));
    let refused = bench.registry.put(vip("b", 2)).await;
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
    bench.registry.put(vip("a", 1)).await.unwrap();
    // A folder in the new file's place: even root cannot write it.
    std::fs::create_dir(bench.folder.path().join("vips.json.new")).unwrap();
    let refused = bench.registry.put(vip("b", 2)).await;
    assert!(matches!(refused, Err(Refusal::Store(_))), "{refused:?}");
    let refused = bench.registry.delete("a").await;
    assert!(matches!(refused, Err(Refusal::Store(_))), "{refused:?}");
    assert_eq!(bench.names().await, ["a"]);
    assert_eq!(bench.world.told().last(), Some(&Told::Serve(1)));
}

#[tokio::test]
async fn vips_survive_a_restart_and_wait_for_health_again() {
    let bench = Bench::new(vec![]).await;
    bench.registry.put(vip("web", 10)).await.unwrap();
    bench.find(Health::Healthy);
    eventually(|| bench.advertised("web")).await;
    let bench = bench.restart(vec![]).await;
    assert_eq!(bench.names().await, ["web"]);
    let address = Ipv4Addr::new(203, 0, 113, 10);
    assert_eq!(bench.world.told(), [Told::Route(vec![address]), Told::Serve(1)]);
    assert!(!bench.advertised("web").await);
}

#[tokio::test]
async fn the_files_vips_cannot_be_changed_over_rest() {
    let bench = Bench::new(vec![vip("file", 1)]).await;
    let from_file = Refusal::FromFile("file".into());
    assert_eq!(bench.registry.put(vip("file", 2)).await, Err(from_file.clone()));
    assert_eq!(bench.registry.delete("file").await, Err(from_file));
    let refused = bench.registry.put(vip("other", 1)).await.unwrap_err();
    assert!(matches!(&refused, Refusal::Duplicate { other, .. } if other == "file"), "{refused}");
}

#[tokio::test]
async fn a_kept_vip_that_clashes_with_the_file_is_said_and_not_lost() {
    let bench = Bench::new(vec![]).await;
    bench.registry.put(vip("web", 10)).await.unwrap();
    let bench = bench.restart(vec![vip("file", 10)]).await;
    assert_eq!(bench.names().await, ["file"]);
    assert!(bench.warnings[0].contains("VIP web"), "{:?}", bench.warnings);
    bench.registry.put(vip("more", 11)).await.unwrap();
    let bench = bench.restart(vec![]).await;
    assert_eq!(bench.names().await, ["more", "web"]);
}

#[tokio::test]
async fn putting_the_same_again_touches_nothing() {
    let bench = Bench::new(vec![]).await;
    bench.registry.put(vip("web", 10)).await.unwrap();
    bench.world.told();
    let applied = bench.registry.put(vip("web", 10)).await.unwrap();
    assert!(!applied.created);
    assert_eq!(bench.world.told(), []);
    assert_eq!(
        control::targets(&[("web".into(), vip("web", 10))].into()),
        **bench.targets.borrow()
    );
}
