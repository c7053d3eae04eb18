use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lb_api_types::config::{Api, Hook};
use lb_api_types::problem::Problem;
use lb_api_types::resource::Condition;
use lb_api_types::view::{InterfaceView, Nothing, SeenMetadata, Status};
use lb_api_types::vip::Vip;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

mod access;
mod backends;
mod bgp;
mod config;
mod kinds;
mod resources;
mod shapes;
mod walk;

use super::*;
use crate::access::Access;
use crate::registry::tests::{Bench, Told, vip};

/// Views that say what was asked of them.
struct Fixed;

impl Views for Fixed {
    fn peers(&self) -> BoxFuture<'_, Vec<PeerView>> {
        async { vec![] }.boxed()
    }

    fn clear(&self, peer: IpAddr, what: ClearWhat) -> BoxFuture<'_, bool> {
        async move { what == ClearWhat::Session && peer.is_ipv4() }.boxed()
    }

    fn explain(&self, what: Destination) -> BoxFuture<'_, Result<Explanation, String>> {
        async move {
            let prefix = match what {
                Destination::Prefix(prefix) => prefix,
                Destination::Address(address) => address.into(),
            };
            Ok(Explanation { prefix, paths: vec![], neighbors: vec![] })
        }
        .boxed()
    }

    fn routes(
        &self,
        _: lb_routing::Query,
        _: Option<BgpRouteSpec>,
        limit: usize,
    ) -> BoxFuture<'_, List<BgpRoute>> {
        async move { List { items: vec![], truncated: limit == 1, next: None } }.boxed()
    }

    fn fib(&self, _: Option<IpNetwork>, _: usize) -> BoxFuture<'_, Result<List<FibEntry>, String>> {
        async { Err("the dataplane's thread has ended".into()) }.boxed()
    }

    fn fib_lookup(&self, packet: Packet) -> BoxFuture<'_, Result<FibLookupView, String>> {
        async move { Err(format!("{packet:?}")) }.boxed()
    }

    fn fib_audit(&self, _: bool) -> BoxFuture<'_, Result<FibAuditView, String>> {
        async { Err("the dataplane's thread has ended".into()) }.boxed()
    }

    fn flow_events(&self) -> Option<crate::events::Events> {
        None
    }

    fn service_audit(&self, _: bool) -> BoxFuture<'_, Result<ServiceAuditView, String>> {
        async { Err("the dataplane's thread has ended".into()) }.boxed()
    }

    fn flows(
        &self,
        _: Option<FlowPlace>,
        limit: usize,
        _: WantedFlows,
    ) -> BoxFuture<'_, Result<List<Flow>, String>> {
        async move { Ok(List { items: vec![], truncated: limit == DEFAULT_LIMIT, next: None }) }
            .boxed()
    }

    fn statics(&self) -> BoxFuture<'_, StaticsStatus> {
        async { StaticsStatus::default() }.boxed()
    }

    fn interfaces(&self) -> BoxFuture<'_, Result<Vec<Interface>, String>> {
        async { Ok(vec![]) }.boxed()
    }

    fn global(&self) -> BoxFuture<'_, GlobalStatus> {
        let status = GlobalStatus {
            conditions: vec![Condition::new("Established", false, "NoPeers", "there is none")],
            asn: 65000,
            router_id: [192, 0, 2, 1].into(),
            cluster_id: [192, 0, 2, 1].into(),
            decision: lb_api_types::config::Decision::default(),
            listen: ([0, 0, 0, 0], 179).into(),
            peers: 0,
            listening: vec![],
            established: 0,
        };
        async { status }.boxed()
    }

    fn status(&self) -> BoxFuture<'_, Result<Appliance, String>> {
        let interface = InterfaceView { name: "eth0".into(), index: 2, hook: Hook::Tc };
        let status = Status {
            conditions: vec![],
            version: "1".into(),
            uptime_secs: 1,
            router_id: [192, 0, 2, 1].into(),
            asn: 65000,
            interfaces: vec![interface],
            flow_events_lost: 0,
            early_fragments: lb_api_types::view::EarlyFragmentsView::default(),
            fib: lb_api_types::view::FibUsageView::default(),
            reasons: vec![],
            warnings: vec![],
            certificate_expires_secs: None,
        };
        let metadata = SeenMetadata::of("local");
        async { Ok(Appliance { metadata, spec: Nothing {}, status }) }.boxed()
    }

    fn reasons(&self) -> BoxFuture<'_, Result<Vec<ReasonView>, String>> {
        async { Ok(vec![]) }.boxed()
    }

    fn doctor(&self) -> BoxFuture<'_, Result<Doctor, String>> {
        async { Ok(Doctor { healthy: true, checks: vec![] }) }.boxed()
    }
}

/// The API on a real socket, over a world that only writes down what it is told.
pub(crate) struct Served {
    pub(crate) bench: Bench,
    folder: tempfile::TempDir,
    pub(crate) access: Arc<Access>,
    tcp: Option<std::net::SocketAddr>,
    stop: watch::Sender<bool>,
    ended: tokio::task::JoinHandle<()>,
}

struct Answer {
    status: u16,
    headers: hyper::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The problem document, which says its own status.
    fn problem(&self) -> Problem {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        assert!(!problem.detail.contains('\n') && !problem.title.is_empty(), "{problem:?}");
        problem
    }
}

impl Served {
    pub(crate) async fn new(file: Vec<Vip>) -> Self {
        Self::over(Bench::new(file).await).await
    }

    pub(crate) async fn over(bench: Bench) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = Some(([127, 0, 0, 1], 0).into());
        let api = Api { socket: socket(folder.path()), listen, ..Api::default() };
        Self::with(bench, folder, api).await
    }

    async fn with(bench: Bench, folder: tempfile::TempDir, api: Api) -> Self {
        let own = nix::unistd::geteuid().as_raw();
        let access = Access::open(bench.folder.path(), Default::default(), own).unwrap();
        Self::with_access(bench, folder, api, access).await
    }

    async fn with_access(
        bench: Bench,
        folder: tempfile::TempDir,
        api: Api,
        access: Access,
    ) -> Self {
        let access = Arc::new(access);
        let listeners = Listeners::bind(&api).await.unwrap();
        let tcp = listeners.tcp_address();
        let (stop, stopped) = watch::channel(false);
        let router = router(
            bench.registry.clone(),
            Arc::new(Fixed),
            bench.events.clone(),
            Arc::clone(&access),
        );
        let ended = tokio::spawn(serve(listeners, router, stopped));
        Self { bench, folder, access, tcp, stop, ended }
    }

    /// Has a resource of each kind.
    pub(crate) async fn apply_one_of_each(&self) {
        use crate::ctl::tests::live::{ONE_OF_EACH, lbctl};
        let file = self.folder.path().join("each.yaml");
        std::fs::write(&file, ONE_OF_EACH).unwrap();
        lbctl(self, &format!("apply -f {}", file.display())).await.unwrap();
    }

    /// What the rest of the daemon would show.
    pub(crate) fn views(&self) -> Arc<dyn Views> {
        Arc::new(Fixed)
    }

    /// How its static routes and addresses would be if the kernel had them.
    pub(crate) async fn statics(&self) -> StaticsStatus {
        use crate::resources::{Kind, Resource, routing};
        let (mut routes, mut addresses) = (Vec::new(), Vec::new());
        for kind in [Kind::StaticRoute, Kind::Address] {
            for resource in self.bench.registry.list_resources(kind).await.unwrap() {
                if let Resource::StaticRoute(route) = &resource {
                    routes.push(lb_routing::StaticRouteStatus {
                        prefix: route.spec.prefix,
                        metric: route.spec.metric,
                        unreachable: vec![],
                        installed: true,
                        refused: None,
                        used: true,
                        behind: None,
                    });
                }
                if let Resource::Address(it) = &resource {
                    let address = routing::address_of(&it.spec);
                    addresses.push((address, lb_routing::AddressState::Present));
                }
            }
        }
        StaticsStatus { routes, addresses }
    }

    /// Where `lbctl` finds it.
    pub(crate) fn server(&self) -> String {
        format!("unix:{}", socket(self.folder.path()).display())
    }

    async fn send(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send_as(method, path, body, "application/json").await
    }

    async fn send_as(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
        kind: &str,
    ) -> Answer {
        let stream = UnixStream::connect(socket(self.folder.path())).await.unwrap();
        exchange(stream, method, path, body.into(), kind, "lbd").await
    }

    async fn put(&self, name: &str, body: &Value) -> Answer {
        self.send("PUT", &format!("/api/v1/vips/{name}"), body.to_string()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }

    async fn names(&self) -> Vec<String> {
        let list = self.get("/api/v1/vips").await.json();
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("run/lbd.sock")
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    method: &str,
    path: &str,
    body: Bytes,
    kind: &str,
    host: &str,
) -> Answer {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .header("content-type", kind)
        .body(Full::new(body))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn good(name: &str) -> Value {
    serde_json::to_value(vip(name, 10)).unwrap()
}

#[tokio::test]
async fn a_vip_is_created_read_replaced_and_removed() {
    let served = Served::new(vec![]).await;
    let created = served.put("web", &good("web")).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.json()["status"]["serving"], true, "it is served when the answer comes");
    assert_eq!(served.put("web", &good("web")).await.status, 200);
    let mut changed = good("web");
    changed["spec"]["port"] = json!(8080);
    assert_eq!(served.put("web", &changed).await.status, 200);
    let read = served.get("/api/v1/vips/web").await;
    assert_eq!((read.status, &read.json()["spec"]["port"]), (200, &json!(8080)));
    assert_eq!(served.names().await, ["web"]);
    assert_eq!(served.put("web", &read.json()).await.status, 200, "what is read can be put");

    let removed = served.send("DELETE", "/api/v1/vips/web", "").await;
    assert_eq!((removed.status, removed.body.len()), (204, 0));
    assert_eq!(served.get("/api/v1/vips/web").await.problem().status, 404);
    assert_eq!(served.send("DELETE", "/api/v1/vips/web", "").await.problem().status, 404);
    assert_eq!(served.bench.world.told().last(), Some(&Told::Route(vec![])));
}

#[tokio::test]
async fn bad_input_is_answered_with_one_sentence_that_names_the_field_and_changes_nothing() {
    let served = Served::new(vec![vip("file", 99)]).await;
    assert_eq!(served.put("web", &good("web")).await.status, 201);
    served.bench.world.told();
    let with = |pointer: &str, value: Value| {
        let mut body = good("other");
        body["spec"]["address"] = json!("203.0.113.11");
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[field] = value;
        body
    };
    let backend = json!({"address": "10.0.0.1", "port": 8080});
    let cases = [
        (with("/spec/address", json!("203.0.113.300")), 422, "/spec/address"),
        (with("/spec/address", json!("fe80::1")), 422, "/spec/address"),
        (with("/spec/port", json!(0)), 422, "/spec/port"),
        (with("/spec/backends", json!([])), 422, "/spec/backends"),
        (with("/spec/backends", json!([backend, backend])), 422, "/spec/backends/1"),
        (with("/spec/colour", json!("red")), 422, "/spec/colour"),
        (with("/metadata/name", json!("third")), 422, "/metadata/name"),
        (with("/spec/address", json!("203.0.113.10")), 409, "/spec/address"),
        (with("/spec/address", json!("203.0.113.99")), 409, "/spec/address"),
        (json!([]), 422, ""),
    ];
    for (body, status, pointer) in cases {
        let problem = served.put("other", &body).await.problem();
        assert_eq!(
            (problem.status, problem.pointer.as_deref()),
            (status, Some(pointer)),
            "{problem:?}"
        );
    }
    assert_eq!(served.put("file", &good("file")).await.problem().kind, "/problems/from-file");
    let file = served.send("DELETE", "/api/v1/vips/file", "").await.problem();
    assert_eq!((file.status, file.kind.as_str()), (409, "/problems/from-file"));
    assert_eq!(
        served.send("PUT", "/api/v1/vips/x", "{").await.problem().kind,
        "/problems/malformed-json"
    );
    let text = served.send_as("PUT", "/api/v1/vips/x", "{}", "text/plain").await;
    assert_eq!(text.problem().status, 415);
    assert_eq!(served.names().await, ["file", "web"]);
    assert_eq!(served.bench.world.told(), []);
}

#[tokio::test]
async fn several_mistakes_are_all_listed() {
    let served = Served::new(vec![]).await;
    let body =
        json!({"metadata": {"name": "A"}, "spec": {"address": "x", "port": 0, "backends": []}});
    let problem = served.put("a", &body).await.problem();
    let pointers: Vec<_> = problem.errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(pointers, ["/metadata/name", "/spec/address", "/spec/port", "/spec/backends"]);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let served = Served::new(vec![]).await;
    let body = vec![b' '; MAX_BODY + 1];
    assert_eq!(served.send("PUT", "/api/v1/vips/x", body).await.problem().status, 413);
    // One of unknown length is cut off as well.
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 4096]));
    let headers = hyper::HeaderMap::new();
    let refused =
        handlers::json(&headers, axum::body::Body::from_stream(endless), "application/json").await;
    assert_eq!(refused.unwrap_err().into_response().status(), 413);
    let mut exact = good("x").to_string().into_bytes();
    exact.resize(MAX_BODY, b' ');
    assert_eq!(served.send("PUT", "/api/v1/vips/x", exact).await.status, 201);
}

#[tokio::test]
async fn what_the_dataplane_refuses_is_said_and_not_kept() {
    let served = Served::new(vec![vip("file", 99)]).await;
    served.bench.world.refuse(Some("no room for more services"));
    let problem = served.put("web", &good("web")).await.problem();
    assert_eq!(problem.status, 503);
    assert!(problem.detail.contains("no room for more services"), "{problem:?}");
    assert_eq!(served.names().await, ["file"]);
    let kept = std::fs::read_to_string(served.bench.folder.path().join("vips.json")).unwrap();
    assert!(!kept.contains("web"), "{kept}");
    let journal = std::fs::read(served.bench.folder.path().join("vips.journal")).unwrap();
    assert!(!journal.windows(3).any(|bytes| bytes == b"web"));
}

#[tokio::test]
async fn unknown_paths_methods_and_queries_are_problems_too() {
    let served = Served::new(vec![]).await;
    for path in ["/", "/api/v1", "/api/v1/pods", "/api/v2/vips", "/api/v1/vips/a/b"] {
        assert_eq!(served.get(path).await.problem().status, 404, "{path}");
    }
    for (method, path) in
        [("POST", "/api/v1/vips"), ("PATCH", "/api/v1/vips"), ("PUT", "/api/v1/fib")]
    {
        let answer = served.send(method, path, "").await;
        assert_eq!(answer.problem().status, 405, "{method} {path}");
        assert!(answer.headers.contains_key("allow"), "{method} {path} says what is allowed");
    }
    for query in ["limit=0", "limit=x", "limit=-1", "limit=100001", "colour=red"] {
        assert_eq!(
            served.get(&format!("/api/v1/flows?{query}")).await.problem().status,
            400,
            "{query}"
        );
    }
    assert_eq!(served.get("/api/v1/flows").await.json()["truncated"], true, "the default limit");
    assert_eq!(served.get("/api/v1/bgp/routes?limit=1").await.json()["truncated"], true);
    assert_eq!(served.get("/api/v1/bgp/peers").await.json(), json!({"items": []}));
    assert_eq!(served.get("/api/v1/fib").await.problem().status, 503);
}

#[tokio::test]
async fn the_socket_is_its_owners_and_a_stale_one_is_replaced() {
    let served = Served::new(vec![]).await;
    let path = socket(served.folder.path());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let api = Api { socket: path.clone(), ..Api::default() };
    let second = Listeners::bind(&api).await.err().unwrap();
    assert!(matches!(second, ListenError::InUse(_)), "{second}");
    assert_eq!(served.get("/api/v1/vips").await.status, 200, "the first goes on");

    served.stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(10), served.ended).await.unwrap().unwrap();
    assert!(path.exists(), "a socket that nobody listens on");
    Listeners::bind(&api).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    let refused = Listeners::bind(&api).await.err().unwrap();
    assert!(matches!(refused, ListenError::NoSocket(_)), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn over_tcp_only_loopback_names_are_answered() {
    let served = Served::new(vec![]).await;
    let address = served.tcp.unwrap();
    let ask = async |host: &str| {
        let stream = TcpStream::connect(address).await.unwrap();
        exchange(stream, "GET", "/metrics", Bytes::new(), "", host).await
    };
    for host in ["127.0.0.1", "localhost", &address.to_string(), "[::1]:80", "LocalHost:80"] {
        assert_eq!(ask(host).await.status, 200, "{host}");
    }
    for host in ["lbd.example", "127.0.0.1.example:80", "localhost.example", "203.0.113.1"] {
        assert_eq!(ask(host).await.problem().status, 403, "{host}");
    }
}

#[tokio::test]
async fn clients_that_say_nothing_make_room_for_others() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let served = Served::new(vec![]).await;
    let mut silent = Vec::new();
    for place in 0..listen::MAX_CONNECTIONS {
        let mut stream = UnixStream::connect(socket(served.folder.path())).await.unwrap();
        // Half of them begin, and one has had an answer before.
        if place == 0 {
            stream.write_all(b"GET /x HTTP/1.1\r\nhost: lbd\r\n\r\n").await.unwrap();
            assert!(stream.read(&mut [0; 64]).await.unwrap() > 0);
        } else if place % 2 == 0 {
            stream.write_all(b"GET /x HTTP/1.1\r\nhost").await.unwrap();
        }
        silent.push(stream);
    }
    // From now on time passes at once whenever everybody waits.
    tokio::time::pause();
    let busy = served.get("/api/v1/vips").await.problem();
    assert_eq!(busy.status, 503);
    assert!(busy.detail.contains("256 connections"), "{busy:?}");
    let there_is_room = async { while served.get("/api/v1/vips").await.status != 200 {} };
    let within = listen::HEADER_WITHIN * 3;
    tokio::time::timeout(within, there_is_room).await.expect("there is room");
}

#[test]
fn the_golden_description_is_the_apis_own() {
    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let now = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &now).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    assert!(
        golden == now,
        "lb-api/openapi.json differs from the API: run `UPDATE_GOLDEN=1 cargo nextest run -p lb-api golden` and look at the difference"
    );
    assert!(golden.contains("\"openapi\": \"3.1"));
}

#[tokio::test]
async fn every_described_operation_is_answered() {
    let served = Served::new(vec![vip("x", 1)]).await;
    let description = served.get("/api/v1/openapi.json").await.json();
    let paths = description["paths"].as_object().unwrap();
    assert!(paths.len() > 40, "{}", paths.len());
    for (path, operations) in paths {
        for method in operations.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let query = if path.ends_with("/events") { "?follow=false" } else { "" };
            let path = path.replace("{name}", "x").replace("{backend}", "10.0.0.1:8080") + query;
            let answer = served.send(&method, &path, "{}").await;
            let unknown =
                answer.status == 404 && answer.problem().detail.contains("there is nothing at");
            assert!(!unknown && answer.status != 405, "{method} {path}: {}", answer.status);
        }
    }
}

#[tokio::test]
async fn a_patch_changes_its_fields_and_of_two_writers_the_second_is_refused() {
    let served = Served::new(vec![vip("file", 99)]).await;
    let patch = async |name: &str, body: Value| {
        let path = format!("/api/v1/vips/{name}");
        served.send_as("PATCH", &path, body.to_string(), "application/merge-patch+json").await
    };
    let created = served.put("web", &good("web")).await;
    assert_eq!(created.headers["etag"], "\"1\"");
    let patched = patch("web", json!({"spec": {"algorithm": "round-robin"}})).await;
    assert_eq!((patched.status, patched.headers["etag"].to_str().unwrap()), (200, "\"2\""));
    assert_eq!(patched.json()["spec"]["port"], 80, "other fields stay");
    let stale = patch("web", json!({"metadata": {"revision": 1}, "spec": {"port": 81}})).await;
    assert_eq!(stale.problem().status, 412);
    assert_eq!(served.put("web", &created.json()).await.problem().status, 412);
    let reset = patch("web", json!({"spec": {"algorithm": null}})).await.json();
    assert_eq!(reset["spec"]["algorithm"], "maglev", "null takes the field away");
    let bad = patch("web", json!({"spec": {"port": 0}})).await.problem();
    assert_eq!((bad.status, bad.pointer.as_deref()), (422, Some("/spec/port")));
    assert_eq!(patch("web", json!({"metadata": {"name": "x"}})).await.problem().status, 422);
    assert_eq!(patch("none", json!({})).await.problem().status, 404);
    assert_eq!(patch("file", json!({"spec": {"port": 1}})).await.problem().status, 409);
    let json = served.send("PATCH", "/api/v1/vips/web", "{}").await.problem();
    assert!(json.status == 415 && json.detail.contains("merge-patch"), "{json:?}");
}

#[tokio::test]
async fn preconditions_and_dry_runs_are_read_and_nonsense_is_refused() {
    let served = Served::new(vec![]).await;
    let ask = async |method: &str, query: &str, header: (&'static str, &str)| {
        let stream = UnixStream::connect(socket(served.folder.path())).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let body = if method == "PUT" { good("web").to_string() } else { String::new() };
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("/api/v1/vips/web{query}"))
            .header("host", "lbd")
            .header(header.0, header.1)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        sender.send_request(request).await.unwrap().status().as_u16()
    };
    let none = ("accept", "*/*");
    assert_eq!(ask("PUT", "?dryRun=true", none).await, 201);
    assert_eq!(served.names().await, [""; 0], "nothing happened");
    assert_eq!(ask("PUT", "", ("if-match", "*")).await, 412);
    assert_eq!(ask("PUT", "?dryRun=false", ("if-none-match", "*")).await, 201);
    assert_eq!(ask("PUT", "", ("if-none-match", "*")).await, 412);
    assert_eq!(ask("PUT", "", ("if-match", "\"1\"")).await, 200);
    assert_eq!(ask("DELETE", "", ("if-match", "\"2\"")).await, 412);
    for bad in ["1", "W/\"1\"", "\"x\"", "\"1\", \"2\""] {
        assert_eq!(ask("DELETE", "", ("if-match", bad)).await, 400, "{bad}");
    }
    for bad in ["?dryRun=maybe", "?dryrun=true", "?colour=red"] {
        assert_eq!(ask("DELETE", bad, none).await, 400, "{bad}");
        assert_eq!(ask("GET", bad, none).await, 400, "{bad}");
    }
    assert_eq!(ask("DELETE", "?dryRun=true", none).await, 204);
    assert_eq!(ask("DELETE", "", ("if-match", "\"1\"")).await, 204);
    let broken = served.get("/api/v1/vips/%ff").await.problem();
    assert_eq!((broken.status, broken.kind.as_str()), (400, "/problems/invalid-path"));
}

#[tokio::test]
async fn probes_and_metrics_are_answered_and_say_why_not() {
    let mut served = Served::new(vec![]).await;
    assert_eq!(served.put("web", &good("web")).await.status, 201);
    for path in ["/healthz", "/readyz"] {
        let answer = served.get(path).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok\n"[..]), "{path}");
    }
    let metrics = served.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain; version="));
    assert!(metrics.body.starts_with(b"# HELP lbd_build_info"));
    served.bench.attachment.send_replace(false);
    let not_ready = async || served.get("/readyz").await.status == 503;
    tokio::time::timeout(Duration::from_secs(40), async { while !not_ready().await {} })
        .await
        .unwrap();
    assert!(served.get("/readyz").await.problem().detail.contains("VIP web is not served"));
    assert_eq!(served.get("/healthz").await.status, 200, "the daemon itself is well");
    // A registry whose health checks are gone ends.
    drop(std::mem::replace(&mut served.bench.verdicts, crate::delta::channel().0));
    served.bench.registry.ended().await;
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/vips", "/api/v1/vips/web"] {
        assert_eq!(served.get(path).await.problem().kind, "/problems/stopping", "{path}");
    }
}

#[tokio::test]
async fn a_whole_configuration_is_applied_and_its_mistakes_name_their_place() {
    let served = Served::new(vec![vip("file", 99)]).await;
    let apply = async |query: &str, body: Value| {
        served.send("POST", &format!("/api/v1/config{query}"), body.to_string()).await
    };
    let one = |name: &str, last| serde_json::to_value(vip(name, last)).unwrap();
    let created = apply("", json!({"vips": [one("a", 1), one("b", 2)]})).await;
    let changes = json!({"changes": [{"kind": "vip", "name": "a", "change": "created"}, {"kind": "vip", "name": "b", "change": "created"}]});
    assert_eq!((created.status, created.json()), (200, changes));
    let pruned = apply("?prune=true&dryRun=true", json!({"vips": [one("a", 1)]})).await.json();
    assert_eq!(pruned["changes"][1], json!({"kind": "vip", "name": "b", "change": "deleted"}));
    assert_eq!(served.names().await, ["a", "b", "file"]);
    let mut bad = one("d", 4);
    bad["spec"]["port"] = json!(0);
    for (vips, status, pointer) in [
        (json!([one("c", 3), bad]), 422, "/vips/1/spec/port"),
        (json!([one("c", 3), one("d", 1)]), 409, "/vips/1/spec/address"),
        (json!([one("c", 3), one("file", 4)]), 409, "/vips/1"),
        (json!([one("c", 3), one("c", 4)]), 409, "/vips/1"),
    ] {
        let problem = apply("", json!({"vips": vips})).await.problem();
        assert_eq!((problem.status, problem.pointer.as_deref()), (status, Some(pointer)));
    }
    assert_eq!(apply("?force=true", json!({"vips": []})).await.problem().status, 400);
    assert_eq!(served.names().await, ["a", "b", "file"], "nothing else happened");
}

#[tokio::test]
async fn events_are_streamed_and_resumed() {
    let served = Served::new(vec![]).await;
    let stream = async |query: &str, last: Option<&str>| {
        let stream = UnixStream::connect(socket(served.folder.path())).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = hyper::Request::builder().uri(format!("/api/v1/events{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.header("host", "lbd").body(Full::new(Bytes::new())).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        answer.into_body()
    };
    let read = async |body: &mut hyper::body::Incoming, until: &str| {
        let mut text = String::new();
        let whole = async {
            while !text.contains(until) {
                let frame = body.frame().await.expect("it goes on").unwrap();
                text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(40), whole).await.unwrap();
        text
    };
    let mut live = stream("", None).await;
    assert_eq!(served.put("web", &good("web")).await.status, 201);
    let told = read(&mut live, "\n\n").await;
    assert!(told.contains("event: vip-created\n"), "{told}");
    assert!(told.contains("\"about\":\"web\""), "{told}");
    let id = told.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(live);

    assert_eq!(served.send("DELETE", "/api/v1/vips/web", "").await.status, 204);
    let mut resumed = stream("", Some(&id)).await;
    let told = read(&mut resumed, "\n\n").await;
    assert!(told.contains("event: vip-deleted\n") && !told.contains("created"), "{told}");
    let strange = read(&mut stream("", Some("x")).await, "vip-deleted").await;
    assert!(strange.starts_with("id: ") && strange.contains("event: missed\n"), "{strange}");

    let past = served.get("/api/v1/events?past=true&follow=false").await.body;
    let past = String::from_utf8(past.to_vec()).unwrap();
    assert!(past.contains("vip-created") && past.contains("vip-deleted"), "{past}");
    assert_eq!(served.get("/api/v1/events?follow=false").await.body.len(), 0);
    assert_eq!(served.get("/api/v1/events?follow=maybe").await.problem().status, 400);

    let many: Vec<_> = (0..crate::events::MAX_WATCHERS)
        .map_while(|_| served.bench.events.watch(&crate::events::From::Now))
        .collect();
    assert_eq!(served.get("/api/v1/events").await.problem().kind, "/problems/too-many-watchers");
    drop(many);
    served.bench.events.end();
    tokio::time::timeout(Duration::from_secs(40), resumed.collect()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_configuration_waits_to_be_confirmed_and_goes_back() {
    let served = Served::new(vec![]).await;
    let one = |name: &str, last| serde_json::to_value(vip(name, last)).unwrap();
    let post = async |path: &str, body: Value| {
        served.send("POST", &format!("/api/v1/config{path}"), body.to_string()).await
    };
    assert_eq!(post("/confirm", json!(null)).await.problem().kind, "/problems/nothing-to-confirm");
    assert_eq!(post("/rollback", json!(null)).await.problem().status, 404);
    for bad in ["0", "3601", "soon"] {
        let answer = post(&format!("?confirmWithin={bad}"), json!({"vips": []})).await;
        assert_eq!(answer.problem().status, 400, "{bad}");
    }
    let applied = post("?confirmWithin=3600", json!({"vips": [one("a", 1)]})).await;
    assert_eq!((applied.status, &applied.json()["confirm_within_secs"]), (200, &json!(3600)));
    assert_eq!(served.put("b", &one("b", 2)).await.problem().kind, "/problems/unconfirmed");
    assert_eq!(post("/confirm", json!(null)).await.status, 204);
    assert_eq!(served.put("b", &one("b", 2)).await.status, 201);
    let history = served.get("/api/v1/config/history").await.json();
    assert_eq!(history["generations"].as_array().unwrap().len(), 2);
    assert_eq!(history["generations"][1]["revision"], 1);
    let back = post("/rollback?to=1", json!(null)).await.json();
    let change = json!({"kind": "vip", "name": "b", "change": "deleted"});
    assert_eq!(back["changes"][1], change, "{back}");
    assert_eq!(served.names().await, ["a"]);
    assert_eq!(post("/rollback?to=x", json!(null)).await.problem().status, 400);
}
