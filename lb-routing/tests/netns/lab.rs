//! A namespace of its own for a test, `ip` in it, and waiting for conditions.
//!
//! The test's thread unshares its network; the runtime is of one thread, so every socket and every
//! program that it starts is in there. The namespace has no name and ends with the thread.

use std::future::Future;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use lb_routing::{
    Action, Export, FibBatch, Import, PeerConfig, RouterConfig, RouterHandle, Source, SpawnError,
    SpeakerConfig, Update,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

/// A condition that does not hold after this time does not hold.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);

/// How often something is repeated: a few times, or with `cargo xtask test --long` as often as it is meant to hold.
pub(crate) fn rounds(few: usize, all: usize) -> usize {
    if std::env::var_os("LBD_LONG").is_some() { all } else { few }
}

/// Runs a test in a namespace with `lo` up.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    // Shown where the test fails.
    let _other_tests =
        tracing_subscriber::fmt().with_env_filter("lb_routing=debug").with_test_writer().try_init();
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("a new network namespace: run the tests as root");
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
        runtime.shutdown_timeout(Duration::from_secs(1));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip ARGUMENTS`; what it prints.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Has `nft` do something.
pub(crate) fn nft(rules: &str) {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft {rules}");
}

/// Connections with an address, whoever opened them: our end and its end.
pub(crate) fn connections(address: &str) -> BTreeSet<String> {
    let output = Command::new("ss").args(["-Htn", "state", "established"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let ends = |line: &str| line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
    let far_end = |ends: &String| ends.split([' ', '[', ']']).any(|end| is_at(end, address));
    shown.lines().map(ends).filter(far_end).collect()
}

/// Whether an end as `ss` writes it, or its address alone, is at an address.
fn is_at(end: &str, address: &str) -> bool {
    end == address || end.strip_prefix(address).is_some_and(|rest| rest.starts_with(':'))
}

/// A veth pair with an address on this side; the other side only answers if told to.
pub(crate) fn veth(name: &str, address: &str) {
    ip(&format!("link add {name} type veth peer name {name}-far"));
    ip(&format!("addr add {address} dev {name}"));
    ip(&format!("link set {name} up"));
    ip(&format!("link set {name}-far up"));
}

pub(crate) fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

pub(crate) fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

/// Waits until `check` gives something.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A router, and the FIB as a dataplane would hold it.
pub(crate) struct Router {
    pub(crate) handle: RouterHandle,
    batches: mpsc::Receiver<FibBatch>,
    groups: BTreeMap<u32, Action>,
    routes: BTreeMap<IpNetwork, (u32, Source)>,
    pub(crate) synced: bool,
}

impl Router {
    pub(crate) async fn start(config: RouterConfig) -> Self {
        let (handle, batches) = lb_routing::spawn(config).await.unwrap();
        let (groups, routes) = (BTreeMap::new(), BTreeMap::new());
        Self { handle, batches, groups, routes, synced: false }
    }

    /// One that can crash.
    pub(crate) async fn start_apart(config: RouterConfig) -> (Self, Apart) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // One that has crashed before may not have let go of its port yet.
        let (handle, batches) = eventually("the port is free", async || {
            match runtime.spawn(lb_routing::spawn(config.clone())).await.unwrap() {
                Err(SpawnError::Listen { .. }) => None,
                spawned => Some(spawned.unwrap()),
            }
        })
        .await;
        let (groups, routes) = (BTreeMap::new(), BTreeMap::new());
        (Self { handle, batches, groups, routes, synced: false }, Apart(Some(runtime)))
    }

    /// Takes what waits.
    pub(crate) fn take(&mut self) {
        while let Ok(batch) = self.batches.try_recv() {
            match batch {
                FibBatch::Synced => self.synced = true,
                FibBatch::Whole(whole) => {
                    let groups = whole.groups.into_iter().map(|group| (group.id, group.action));
                    self.groups = groups.collect();
                    let routes = whole.routes.into_iter();
                    self.routes = routes.map(|it| (it.prefix, (it.group, it.source))).collect();
                    let _gone = whole.taken.send(());
                }
                FibBatch::Updates(updates) => updates.into_iter().for_each(|u| self.apply(u)),
            }
        }
    }

    fn apply(&mut self, update: Update) {
        match update {
            Update::Group { id, action, .. } => drop(self.groups.insert(id, action)),
            Update::GroupRemoved { id } => drop(self.groups.remove(&id).unwrap()),
            Update::Route { prefix, group, source } => {
                assert!(self.groups.contains_key(&group), "{prefix} names no group");
                self.routes.insert(prefix, (group, source));
            }
            Update::RouteRemoved { prefix } => drop(self.routes.remove(&prefix).unwrap()),
        }
    }

    /// Loses all that was told.
    pub(crate) fn forget(&mut self) {
        self.take();
        self.groups.clear();
        self.routes.clear();
    }

    /// The FIB's route to exactly this prefix.
    pub(crate) fn route(&mut self, prefix: &str) -> Option<(Source, Action)> {
        self.take();
        let (group, source) = *self.routes.get(&net(prefix))?;
        Some((source, self.groups[&group].clone()))
    }

    /// Waits until the FIB's route to the prefix is as `check` likes it.
    pub(crate) async fn route_is(
        &mut self,
        prefix: &str,
        mut check: impl FnMut(Option<&(Source, Action)>) -> bool,
    ) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let route = self.route(prefix);
            if check(route.as_ref()) {
                return;
            }
            assert!(Instant::now() < deadline, "the FIB's route to {prefix} is {route:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn synced(&mut self) {
        eventually("the first reading of the kernel", async || {
            self.take();
            self.synced.then_some(())
        })
        .await;
    }
}

/// What a router that can crash runs in. Dropped, it takes the router with it without a word to anybody, as `kill -9`
/// would: the kernel closes its connections.
pub(crate) struct Apart(Option<Runtime>);

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits until `ip route show ARGUMENTS` prints something that `check` likes.
pub(crate) async fn kernel_route(arguments: &str, check: impl Fn(&str) -> bool) {
    let arguments = format!("route show {arguments}");
    let deadline = Instant::now() + DEADLINE;
    loop {
        let printed = ip(&arguments);
        if check(printed.trim()) {
            return;
        }
        assert!(Instant::now() < deadline, "ip {arguments}: {printed}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A router without neighbours, which listens on a free port of loopback.
pub(crate) fn alone() -> RouterConfig {
    config(64512, Ipv4Addr::new(192, 0, 2, 1), "127.0.0.1:0", Vec::new())
}

pub(crate) fn config(
    asn: u32,
    router_id: Ipv4Addr,
    listen: &str,
    peers: Vec<PeerConfig>,
) -> RouterConfig {
    let listen: SocketAddr = listen.parse().unwrap();
    let speaker = SpeakerConfig { max_paths: 8, ..SpeakerConfig::new(asn, router_id) };
    RouterConfig {
        speaker,
        peers,
        transports: HashMap::new(),
        dynamic: Vec::new(),
        listen,
        forward: true,
        preserved: false,
    }
}

/// A neighbour with which everything is exchanged.
pub(crate) fn peer(address: &str, port: u16, source: &str, asn: u32) -> PeerConfig {
    PeerConfig {
        port,
        source: Some(source.parse().unwrap()),
        hold_time: Duration::from_secs(9),
        connect_retry: Duration::from_secs(1),
        import: Import::All,
        export: Export::All,
        ..PeerConfig::new(address.parse().unwrap(), asn)
    }
}
