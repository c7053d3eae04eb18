//! Who is let in, over sockets, TCP and TLS.

use std::fs;

use lb_api_types::access::Role;
use lb_api_types::config::Tls;
use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;
use crate::ctl::CtlError;
use crate::ctl::client::{Client, Server};

impl Served {
    fn token(&self, name: &str, role: Role, expires_in_secs: Option<u64>) -> String {
        self.access.tokens.made(name, role, expires_in_secs, std::time::SystemTime::now())
    }

    /// Asks over TCP, with what the header Authorization says.
    async fn ask(&self, method: &str, path: &str, says: Option<&str>, body: &str) -> Answer {
        let stream = TcpStream::connect(self.tcp.unwrap()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = hyper::Request::builder().method(method).uri(path);
        if let Some(says) = says {
            request = request.header("authorization", says);
        }
        let request =
            request.header("host", "localhost").body(Full::new(Bytes::from(body.to_owned())));
        let (parts, body) = sender.send_request(request.unwrap()).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn audited(&self) -> Vec<Value> {
        self.written("audit.log")
    }

    fn written(&self, file: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.bench.folder.path().join(file)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn each_role_does_what_it_may_and_nothing_more() {
    let served = Served::new(vec![]).await;
    let web = good("web").to_string();
    let wanted = [(Role::Viewer, [200, 403, 403]), (Role::Operator, [200, 201, 403])];
    for (role, wanted) in wanted.into_iter().chain([(Role::Admin, [200, 200, 200])]) {
        let says = format!("Bearer {}", served.token(role.name(), role, None));
        let mut found = Vec::new();
        for (method, path) in
            [("GET", "/api/v1/vips"), ("PUT", "/api/v1/vips/web"), ("GET", "/api/v1/tokens")]
        {
            found.push(served.ask(method, path, Some(&says), &web).await.status);
        }
        assert_eq!(found, wanted, "{role:?}");
    }
}

#[tokio::test]
async fn without_a_good_token_nothing_is_told_but_whether_it_lives() {
    let served = Served::new(vec![]).await;
    let expired = format!("Bearer {}", served.token("old", Role::Admin, Some(0)));
    for path in ["/", "/api/v1/vips", "/api/v1/openapi.json", "/api/v1/events", "/nowhere"] {
        let answer = served.ask("GET", path, None, "").await;
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert_eq!(answer.problem().status, 401, "{path}");
    }
    let old = served.ask("GET", "/api/v1/vips", Some(&expired), "").await.problem();
    assert!(old.status == 401 && old.detail.contains("expired"), "{old:?}");
    assert_eq!(served.ask("PUT", "/api/v1/vips/web", Some("Bearer x"), "{}").await.status, 401);
    for bad in ["Bearer", "Basic eDp4"] {
        assert_eq!(served.ask("GET", "/api/v1/vips", Some(bad), "").await.status, 400, "{bad}");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(served.ask("GET", path, None, "").await.status, 200, "{path}");
    }
    assert_eq!(served.names().await, [""; 0]);
}

#[tokio::test]
async fn no_operation_is_answered_without_a_token_over_tcp() {
    let served = Served::new(vec![vip("x", 1)]).await;
    let description = serde_json::to_value(document()).unwrap();
    for (path, operations) in description["paths"].as_object().unwrap() {
        if !path.starts_with("/api/") {
            continue;
        }
        let at = path.replace("{name}", "x").replace("{backend}", "10.0.0.1:8080");
        for method in operations.as_object().unwrap().keys() {
            for says in [None, Some("Bearer lbd_nonsense"), Some("Basic eDp4")] {
                let refused = served.ask(&method.to_uppercase(), &at, says, "{}").await.problem();
                // The more one guesses, the longer one waits; a header that is none is said to be none.
                let wanted = if says == Some("Basic eDp4") { [400, 429] } else { [401, 429] };
                assert!(wanted.contains(&refused.status), "{method} {path}: {refused:?}");
            }
        }
    }
    assert_eq!(served.names().await, ["x"]);
}

#[tokio::test]
async fn whoever_guesses_has_to_wait_and_others_on_the_socket_do_not() {
    let served = Served::new(vec![]).await;
    let good = format!("Bearer {}", served.token("ci", Role::Viewer, None));
    for _ in 0..10 {
        assert_eq!(served.ask("GET", "/api/v1/vips", Some("Bearer guess"), "").await.status, 401);
    }
    let limited = served.ask("GET", "/api/v1/vips", Some(&good), "").await;
    let wait: u64 = limited.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=7).contains(&wait), "{wait}");
    assert_eq!(limited.problem().status, 429);
    assert_eq!(served.get("/api/v1/vips").await.status, 200);
    let metrics = served.get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in ["{reason=\"unknown\"} 10", "{reason=\"limited\"} 1"] {
        assert!(text.contains(&format!("lbd_logins_failed_total{line}")), "{text}");
    }
    let refused = served.written("refused.log").len();
    assert_eq!(refused, 10, "those that are not listened to are not written down");
    assert_eq!(served.audited().len(), 0, "who is refused pushes no change out of the log");
}

#[tokio::test]
async fn tokens_are_made_listed_used_and_removed_and_told_only_once() {
    let served = Served::new(vec![]).await;
    let new =
        json!({"metadata": {"name": "ci"}, "spec": {"role": "operator", "expires_in_secs": 3600}});
    let new = new.to_string();
    let made = served.send("POST", "/api/v1/tokens", new.clone()).await;
    assert_eq!(made.status, 201);
    let token = made.json()["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(served.send("POST", "/api/v1/tokens", new).await.problem().status, 409);
    let says = format!("Bearer {token}");
    let web = good("web").to_string();
    assert_eq!(served.ask("PUT", "/api/v1/vips/web", Some(&says), &web).await.status, 201);
    let list = served.get("/api/v1/tokens").await.json();
    assert_eq!(
        (&list["items"][0]["metadata"]["name"], &list["items"][0]["status"]["token"]),
        (&json!("ci"), &json!(null))
    );
    let one = served.get("/api/v1/tokens/ci").await.json();
    assert_eq!(
        (&one["spec"]["role"], &one["status"]["conditions"][0]["status"]),
        (&json!("operator"), &json!("True"))
    );
    assert_eq!(served.get("/api/v1/tokens/none").await.problem().status, 404);
    for (body, pointer) in [
        (json!({"metadata": {"name": "Ci"}, "spec": {"role": "viewer"}}), "/metadata/name"),
        (json!({"metadata": {"name": "x"}, "spec": {"role": "root"}}), "/spec/role"),
        (
            json!({"metadata": {"name": "x"}, "spec": {"role": "viewer", "expires_in_secs": 0}}),
            "/spec/expires_in_secs",
        ),
        (json!({"metadata": {"name": "x"}, "spec": {}}), "/spec/role"),
        (json!({"metadata": {"name": "x"}}), "/spec"),
    ] {
        let problem = served.send("POST", "/api/v1/tokens", body.to_string()).await.problem();
        assert_eq!((problem.status, problem.pointer.as_deref()), (422, Some(pointer)));
    }
    assert_eq!(served.send("DELETE", "/api/v1/tokens/ci", "").await.status, 204);
    assert_eq!(served.send("DELETE", "/api/v1/tokens/ci", "").await.problem().status, 404);
    assert_eq!(served.ask("GET", "/api/v1/vips", Some(&says), "").await.status, 401);

    let uid = nix::unistd::geteuid();
    let (log, refused) = (served.audited(), served.written("refused.log"));
    let text = |line: &Value| {
        [&line["who"], &line["what"], &line["status"]].map(Value::to_string).join(" ")
    };
    let line = |place: usize| text(&log[place]);
    assert_eq!(line(0), format!("\"uid {uid}\" \"POST /api/v1/tokens (ci, operator)\" 201"));
    assert_eq!(line(2), "\"token ci\" \"PUT /api/v1/vips/web\" 201");
    assert_eq!(text(&refused[refused.len() - 1]), "\"\" \"GET /api/v1/vips\" 401");
    // The canary: what a token is known by is nowhere but with its holder.
    let mut everything = vec![list.to_string(), format!("{:?}", served.access)];
    for folder in [served.bench.folder.path(), served.folder.path()] {
        for entry in fs::read_dir(folder).unwrap() {
            everything.extend(fs::read_to_string(entry.unwrap().path()));
        }
    }
    assert!(everything.iter().all(|text| !text.contains(&token[4..])));
}

/// A folder with a certificate for a name, which signs itself.
fn certificate(folder: &Path, name: &str) -> Tls {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned(), "127.0.0.1".into()]).unwrap();
    let tls = Tls {
        certificate_file: folder.join("tls.crt"),
        key_file: folder.join("tls.key"),
        client_ca_file: None,
        clients: vec![],
    };
    fs::write(&tls.certificate_file, cert.pem()).unwrap();
    fs::write(&tls.key_file, signing_key.serialize_pem()).unwrap();
    tls
}

#[tokio::test]
async fn over_tls_a_token_lets_in_and_a_new_certificate_is_taken_without_a_restart() {
    let (bench, folder) = (Bench::new(vec![]).await, tempfile::tempdir().unwrap());
    let tls = certificate(folder.path(), "localhost");
    let listen = Some(([127, 0, 0, 1], 0).into());
    let api = Api { socket: socket(folder.path()), listen, tls: Some(tls), ..Api::default() };
    let served = Served::with(bench, folder, api).await;
    let token_file = served.folder.path().join("token");
    fs::write(&token_file, served.token("ci", Role::Viewer, None) + "\n").unwrap();
    let server: Server = format!("https://{}", served.tcp.unwrap()).parse().unwrap();
    let first = served.folder.path().join("first.crt");
    fs::copy(served.folder.path().join("tls.crt"), &first).unwrap();
    let client =
        |ca: &Path| Client::new(server.clone(), Some(&token_file), Some(ca), None).unwrap();
    let list = client(&first).get("vips").await.unwrap();
    assert_eq!(list, json!({"items": []}));
    let refused = client(&first).delete("vips/web").await.unwrap_err();
    assert!(matches!(refused, CtlError::Refused(problem) if problem.status == 403));
    let anonymous = Client::new(server.clone(), None, Some(&first), None).unwrap();
    // It is answered 401, of which lbctl makes a sentence of its own.
    let refused = anonymous.get("vips").await.unwrap_err().to_string();
    assert!(refused.contains("asks for a token") && refused.contains("--token-file"), "{refused}");
    // Plain HTTP is not answered.
    let mut plain = TcpStream::connect(served.tcp.unwrap()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET /healthz HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut said = Vec::new();
    let _reset = tokio::io::AsyncReadExt::read_to_end(&mut plain, &mut said).await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");

    // Files that do not fit one another change nothing; good ones are taken.
    fs::write(served.folder.path().join("tls.key"), "no key").unwrap();
    certificate(served.folder.path(), "localhost");
    let second = served.folder.path().join("tls.crt");
    let taken = async {
        while client(&second).get("vips").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), taken).await.unwrap();
    assert!(client(&first).get("vips").await.is_err(), "the old one is no longer shown");
}

#[tokio::test]
async fn a_client_with_a_certificate_has_the_role_of_its_name_and_needs_no_token() {
    let (bench, folder) = (Bench::new(vec![]).await, tempfile::tempdir().unwrap());
    let mut tls = certificate(folder.path(), "localhost");
    let client = |name: &str| {
        let of = folder.path().join(name);
        fs::create_dir(&of).unwrap();
        certificate(&of, name)
    };
    let (known, unknown, foreign) =
        (client("ci.example"), client("x.example"), client("y.example"));
    // Certificates that sign themselves are their own signers.
    let signers = [&known, &unknown].map(|tls| fs::read_to_string(&tls.certificate_file).unwrap());
    let ca = folder.path().join("clients.crt");
    fs::write(&ca, signers.concat()).unwrap();
    tls.client_ca_file = Some(ca);
    let listen = Some(([127, 0, 0, 1], 0).into());
    let api =
        Api { socket: socket(folder.path()), listen, tls: Some(tls.clone()), ..Api::default() };
    let own = nix::unistd::geteuid().as_raw();
    let access = Access::open(bench.folder.path(), Default::default(), own).unwrap();
    let roles = [("ci.example".to_owned(), Role::Operator)];
    let served =
        Served::with_access(bench, folder, api, access.with_certificates(roles.into())).await;
    let server: Server = format!("https://{}", served.tcp.unwrap()).parse().unwrap();
    let client = |identity: &Tls| {
        let identity = Some((identity.certificate_file.as_path(), identity.key_file.as_path()));
        Client::new(server.clone(), None, Some(&tls.certificate_file), identity).unwrap()
    };
    let put = client(&known).put("vips/web", &good("web")).await.unwrap();
    assert!(put.0, "an operator creates");
    let refused = client(&known).get("tokens").await.unwrap_err();
    assert!(
        matches!(refused, CtlError::Refused(problem) if problem.detail.starts_with("certificate ci.example has the role operator"))
    );
    let refused = client(&unknown).get("vips").await.unwrap_err();
    assert!(
        matches!(refused, CtlError::Refused(problem) if problem.detail.contains("api.tls.clients"))
    );
    let refused = client(&foreign).get("vips").await.unwrap_err();
    assert!(matches!(refused, CtlError::Unreachable { .. }), "nobody whom we trust signed it");
    let audited = served.audited();
    assert_eq!(audited[0]["who"], "certificate ci.example");
}

/// A connection with a client's certificate, which goes on whatever becomes of that.
async fn connect_with(served: &Served, ca: &Path, client: &Tls) -> http1::SendRequest<Full<Bytes>> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_file(&client.certificate_file).unwrap()];
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&client.key_file).unwrap());
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config.unwrap()));
    let stream = TcpStream::connect(served.tcp.unwrap()).await.unwrap();
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn a_connection_and_a_stream_lose_their_certificates_role_when_its_signer_is_trusted_no_longer()
 {
    let (bench, folder) = (Bench::new(vec![]).await, tempfile::tempdir().unwrap());
    let mut tls = certificate(folder.path(), "localhost");
    let [old, new] = ["ci.example", "new.example"].map(|name| {
        let of = folder.path().join(name);
        fs::create_dir(&of).unwrap();
        certificate(&of, name)
    });
    let ca = folder.path().join("clients.crt");
    fs::copy(&old.certificate_file, &ca).unwrap();
    tls.client_ca_file = Some(ca.clone());
    let listen = Some(([127, 0, 0, 1], 0).into());
    let api =
        Api { socket: socket(folder.path()), listen, tls: Some(tls.clone()), ..Api::default() };
    let own = nix::unistd::geteuid().as_raw();
    let access = Access::open(bench.folder.path(), Default::default(), own).unwrap();
    let roles = ["ci.example", "new.example"].map(|name| (name.to_owned(), Role::Viewer));
    let served =
        Served::with_access(bench, folder, api, access.with_certificates(roles.into())).await;
    let get = |path: &str| {
        let request = hyper::Request::get(path).header("host", "localhost");
        request.body(Full::new(Bytes::new())).unwrap()
    };
    let mut asks = connect_with(&served, &tls.certificate_file, &old).await;
    let mut listens = connect_with(&served, &tls.certificate_file, &old).await;
    let stream = listens.send_request(get("/api/v1/events")).await.unwrap();
    assert_eq!(stream.status(), 200);
    fs::copy(&new.certificate_file, &ca).unwrap();
    let mut refused = 200;
    let is_refused = async {
        while refused == 200 {
            let answer = asks.send_request(get("/api/v1/vips")).await.unwrap();
            refused = answer.status().as_u16();
            drop(answer.into_body().collect().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), is_refused).await.unwrap();
    assert_eq!(refused, 403);
    assert_eq!(served.put("web", &good("web")).await.status, 201);
    let heard = tokio::time::timeout(Duration::from_secs(40), stream.into_body().collect()).await;
    let heard = heard.expect("the stream ends").unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&heard).contains("vip-created"), "{heard:?}");
    let mut trusted = connect_with(&served, &tls.certificate_file, &new).await;
    let answer = trusted.send_request(get("/api/v1/vips")).await.unwrap();
    assert_eq!(answer.status(), 200, "whom we trust now is let in");
}

#[tokio::test]
async fn a_request_has_an_id_that_its_answer_problem_and_audit_repeat() {
    let served = Served::new(vec![]).await;
    let headers = [("x-request-id".to_owned(), "shop-7.1".to_owned())];
    let send = async |headers: &[(String, String)]| {
        served.send_with("DELETE", "/api/v1/vips/none", headers, Bytes::new()).await
    };
    let own = send(&headers).await;
    assert_eq!(own.headers["x-request-id"], "shop-7.1");
    assert_eq!(own.problem().request_id.as_deref(), Some("shop-7.1"));
    assert_eq!(served.audited()[0]["request"], "shop-7.1");
    let (a, b) = (send(&[]).await, send(&[("x-request-id".to_owned(), "a b".to_owned())]).await);
    let given = |answer: &Answer| answer.headers["x-request-id"].to_str().unwrap().to_owned();
    assert!(given(&a) != given(&b) && !given(&b).contains(' '), "{}", given(&b));
}

#[tokio::test]
async fn who_asks_too_often_over_tcp_has_to_wait() {
    let served = Served::new(vec![]).await;
    let token = format!("Bearer {}", served.token("ci", Role::Viewer, None));
    let stream = TcpStream::connect(served.tcp.unwrap()).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut last = 200;
    for _ in 0..20_000 {
        let request = hyper::Request::get("/api/v1/version-of-nothing");
        let request = request.header("host", "localhost").header("authorization", &token);
        let answer =
            sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
        last = answer.status().as_u16();
        if last == 429 {
            assert!(answer.headers().contains_key("retry-after"));
            break;
        }
    }
    assert_eq!(last, 429);
    assert_eq!(served.get("/healthz").await.status, 200, "nobody else has to wait");
}

#[tokio::test]
async fn so_many_requests_are_in_work_others_are_told_to_come_back_and_probes_are_answered() {
    use tokio::io::AsyncWriteExt;
    let served = Served::new(vec![]).await;
    let token = format!("Bearer {}", served.token("ci", Role::Operator, None));
    let mut slow = Vec::new();
    for _ in 0..room::MAX_REQUESTS {
        // Bodies that do not come.
        let mut stream = TcpStream::connect(served.tcp.unwrap()).await.unwrap();
        let head = format!(
            "PUT /api/v1/vips/x HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {token}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let answer = loop {
        let answer = served.ask("GET", "/api/v1/vips", Some(&token), "").await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!((answer.status, &answer.headers["retry-after"]), (503, &"1".parse().unwrap()));
    assert!(answer.problem().detail.contains("64 requests"), "{}", answer.problem().detail);
    assert_eq!(served.ask("GET", "/metrics", None, "").await.status, 503);
    for path in ["/healthz", "/readyz"] {
        let answer = served.ask("GET", path, None, "").await;
        let said = String::from_utf8_lossy(&answer.body);
        assert!(
            !said.contains("in work") && (path == "/readyz" || said == "ok\n"),
            "{path}: {said}"
        );
    }
    assert_eq!(served.get("/api/v1/vips").await.status, 200, "the socket has room of its own");
    drop(slow);
    while served.ask("GET", "/api/v1/vips", Some(&token), "").await.status != 200 {}
}

#[tokio::test]
async fn files_that_are_no_certificate_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut tls = certificate(folder.path(), "localhost");
    let other = tempfile::tempdir().unwrap();
    let bind = async |tls: &Tls| {
        let listen = Some(([127, 0, 0, 1], 0).into());
        let api =
            Api { socket: socket(folder.path()), listen, tls: Some(tls.clone()), ..Api::default() };
        Listeners::bind(&api).await.err().unwrap().to_string()
    };
    tls.key_file = certificate(other.path(), "localhost").key_file;
    assert!(bind(&tls).await.contains("tls.crt with "), "a key of another certificate");
    tls.key_file = folder.path().join("none");
    let said = bind(&tls).await;
    assert!(said.starts_with("api.tls: cannot use ") && said.contains("none"), "{said}");
}

#[tokio::test]
async fn a_socket_for_others_asks_who_they_are() {
    let (bench, folder) = (Bench::new(vec![]).await, tempfile::tempdir().unwrap());
    let user = lb_api_types::config::SocketUser { user: "1000".into(), role: Role::Viewer };
    let api = Api { socket: socket(folder.path()), users: vec![user], ..Api::default() };
    let served = Served::with(bench, folder, api).await;
    let path = socket(served.folder.path());
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o666);
    assert_eq!(served.get("/api/v1/vips").await.status, 200, "this test's own user is an admin");
}

#[tokio::test]
async fn a_change_whose_client_goes_away_at_once_is_written_down_like_any_other() {
    use tokio::io::AsyncWriteExt;
    let served = Served::new(vec![]).await;
    let body = good("web").to_string();
    let head = format!(
        "PUT /api/v1/vips/web HTTP/1.1\r\nhost: lbd\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = UnixStream::connect(socket(served.folder.path())).await.unwrap();
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
    drop(stream);
    let begun = async {
        while served.audited().is_empty() && !served.access.has_changes_under_way() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), begun).await.expect("it is asked for");
    // As a daemon that ends waits for it.
    let settled = tokio::time::timeout(Duration::from_secs(30), served.access.settled());
    settled.await.expect("it ends");
    let line = &served.audited()[0];
    assert_eq!((&line["what"], &line["status"]), (&json!("PUT /api/v1/vips/web"), &json!(201)));
    assert_eq!(served.names().await, ["web"]);
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_others_find_room() {
    use tokio::io::AsyncReadExt;
    let served = Served::new(vec![]).await;
    let dial = async |from: [u8; 4]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(served.tcp.unwrap()).await.unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..listen::MAX_OF_SOURCE {
        held.push(dial([127, 0, 0, 1]).await);
    }
    let (mut one_more, mut said) = (dial([127, 0, 0, 1]).await, [0]);
    let ended = tokio::time::timeout(Duration::from_secs(10), one_more.read(&mut said)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "it is closed: {ended:?}");
    let healthz = async |stream| {
        exchange(stream, "GET", "/healthz", Bytes::new(), "text/plain", "localhost").await.status
    };
    assert_eq!(healthz(dial([127, 0, 0, 2]).await).await, 200);
    drop(held);
    let there_is_room = async {
        loop {
            let mut stream = dial([127, 0, 0, 1]).await;
            let mut said = [0];
            let closed = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut said));
            if closed.await.is_err() {
                break healthz(stream).await;
            }
        }
    };
    let status = tokio::time::timeout(Duration::from_secs(30), there_is_room).await.unwrap();
    assert_eq!(status, 200);
}

#[tokio::test(start_paused = true)]
async fn whoever_listens_to_events_with_a_token_hears_no_more_once_it_is_removed() {
    let served = Served::new(vec![]).await;
    let token = served.token("ci", Role::Viewer, None);
    let stream = TcpStream::connect(served.tcp.unwrap()).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get("/api/v1/events").header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {token}"));
    let answer = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    served.access.tokens.remove("ci").unwrap();
    assert_eq!(served.put("web", &good("web")).await.status, 201);
    let heard = tokio::time::timeout(Duration::from_secs(60), answer.into_body().collect()).await;
    let heard = heard.expect("the stream ends").unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&heard).contains("vip-created"), "{heard:?}");
}

#[tokio::test]
async fn what_is_longer_than_a_line_may_be_is_cut_where_it_is_written_down() {
    let served = Served::new(vec![]).await;
    let path = format!("/api/v1/{}", "x".repeat(30_000));
    assert_eq!(served.ask("GET", &path, None, "").await.status, 401);
    let [line] = &served.written("refused.log")[..] else { panic!("one line") };
    assert!(line["what"].as_str().unwrap().len() <= 1024);
}
