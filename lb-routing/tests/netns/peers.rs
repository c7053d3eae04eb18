//! Sessions: between two of ours, and with BIRD.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;

use lb_routing::{
    Clear, Export, Import, Peers, RTPROT_LBD, RouterHandle, Source, SpawnError, State,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::far::Far;
use crate::lab::{Router, alone, config, eventually, in_namespace, ip, kernel_route, peer, veth};

async fn established(handle: &RouterHandle) {
    eventually("the session is Established", async || {
        let peers = handle.peers().await;
        peers.iter().all(|peer| peer.state == State::Established).then_some(())
    })
    .await;
}

fn ours() -> String {
    format!("proto {RTPROT_LBD}")
}

#[test]
fn two_routers_exchange_routes_and_withdraw_them_with_the_session() {
    in_namespace(async || {
        // One host, so the next hop is on a connected network of both.
        ip("addr add 10.0.1.1/32 dev lo");
        ip("addr add 10.0.1.2/32 dev lo");
        veth("lbr0", "10.0.0.1/24");
        let (one, two) = (Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::new(10, 0, 1, 2));
        let to_two = peer("10.0.1.2", 1790, "10.0.1.1", 64513);
        let to_one = peer("10.0.1.1", 1790, "10.0.1.2", 64512);
        let first = Router::start(config(64512, one, "10.0.1.1:1790", vec![to_two])).await;
        let second = Router::start(config(64513, two, "10.0.1.2:1790", vec![to_one])).await;
        first.handle.originate(vec!["192.0.2.10/32".parse().unwrap()]).await;
        established(&first.handle).await;
        established(&second.handle).await;
        let learned = eventually("the route is learned", async || {
            second.handle.routes().await.into_iter().next()
        })
        .await;
        assert_eq!(learned.prefix, "192.0.2.10/32".parse().unwrap());
        assert_eq!(learned.next_hop, Some(one.into()));

        first.handle.shutdown().await;
        eventually("the route is gone", async || {
            second.handle.routes().await.is_empty().then_some(())
        })
        .await;
        let peers = second.handle.peers().await;
        // Cease / Administrative Shutdown (RFC 4486), not just a lost connection.
        assert!(peers[0].last_error.contains("Administrative Shutdown"), "{}", peers[0].last_error);
    });
}

#[test]
fn a_connection_from_a_stranger_is_closed_at_once() {
    in_namespace(async || {
        let mut only = peer("127.0.0.9", 1790, "127.0.0.1", 64513);
        only.passive = true;
        let id = Ipv4Addr::new(10, 0, 1, 1);
        let router = Router::start(config(64512, id, "127.0.0.1:1790", vec![only])).await;
        let mut stranger = tokio::net::TcpStream::connect("127.0.0.1:1790").await.unwrap();
        let mut heard = Vec::new();
        stranger.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, []);
        assert_eq!(router.handle.peers().await.len(), 1);
    });
}

#[test]
fn a_port_that_is_taken_is_a_clear_error() {
    in_namespace(async || {
        let taken = std::net::TcpListener::bind("127.0.0.1:1790").unwrap();
        let mut config = alone();
        config.listen = taken.local_addr().unwrap();
        let error = lb_routing::spawn(config).await.unwrap_err();
        assert!(matches!(error, SpawnError::Listen { .. }));
        let text = error.to_string();
        assert!(text.starts_with("cannot listen on 127.0.0.1:1790: "), "{text}");
        assert!(text.ends_with("stop the other BGP daemon or set bgp.listen"), "{text}");
    });
}

#[test]
fn the_listener_moves_while_sessions_go_on_and_stays_where_it_cannot() {
    in_namespace(async || {
        ip("addr add 10.0.1.1/32 dev lo");
        ip("addr add 10.0.1.2/32 dev lo");
        let (one, two) = (Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::new(10, 0, 1, 2));
        let to_two = peer("10.0.1.2", 1790, "10.0.1.1", 64513);
        let mut to_one = peer("10.0.1.1", 1789, "10.0.1.2", 64512);
        to_one.passive = true;
        let us = config(64513, two, "0.0.0.0:1790", vec![to_one]);
        let first = Router::start(config(64512, one, "10.0.1.1:1789", vec![to_two])).await;
        let second = Router::start(us.clone()).await;
        established(&second.handle).await;
        let since = second.handle.peers().await[0].since;
        let answers = async |port: u16| TcpStream::connect((two, port)).await.is_ok();
        assert!(answers(1790).await);
        let at = |listen: &str| {
            let mut wanted = Peers::from(us.clone());
            wanted.listen = listen.parse().unwrap();
            wanted
        };
        // From every address to one, and back: the port is the same.
        second.handle.configure(at("10.0.1.2:1790")).await.unwrap();
        assert!(answers(1790).await);
        second.handle.configure(at("0.0.0.0:1791")).await.unwrap();
        assert!(!answers(1790).await && answers(1791).await);

        let taken = std::net::TcpListener::bind("10.0.1.2:1792").unwrap();
        let refused = second.handle.configure(at("0.0.0.0:1792")).await.unwrap_err().to_string();
        assert!(refused.starts_with("cannot meet neighbours at 0.0.0.0:1792 so: "), "{refused}");
        assert!(answers(1791).await, "it is where it was");
        drop(taken);
        let peers = second.handle.peers().await;
        assert_eq!((peers[0].state, peers[0].since), (State::Established, since));

        // A session that ends comes back where we are now.
        second.handle.configure(at("10.0.1.2:1790")).await.unwrap();
        second.handle.clear(one.into(), Clear::Session).await;
        eventually("another session", async || {
            let peers = second.handle.peers().await;
            (peers[0].state == State::Established && peers[0].since > since).then_some(())
        })
        .await;
        drop(first);
    });
}

/// BIRD behind the veth `lbr0`.
struct Bird(Far);

impl Bird {
    fn start(address: &str, configuration: &str) -> Self {
        let files = [("bird.conf", configuration.to_owned())];
        let command = "exec /usr/sbin/bird -f -c $D/bird.conf -s $D/ctl -P $D/pid";
        Self(Far::start(&[address], &files, command))
    }

    fn ask(&self, question: &str) -> String {
        self.0.run(&format!("/usr/sbin/birdc -s $D/ctl {question}"))
    }
}

const BIRD: &str = r#"
router id 10.0.0.2;
protocol device {}
protocol static {
    ipv4;
    route 10.244.1.0/26 blackhole;
    route 10.244.2.0/26 blackhole;
}
protocol bgp lbd {
    local 10.0.0.2 as 64513;
    neighbor 10.0.0.1 port 1790 as 64512;
    connect delay time 1;
    connect retry time 1;
    check link no;
    ipv4 { import all; export all; };
}
"#;

#[test]
fn routes_of_bird_reach_kernel_and_fib_survive_a_restart_and_go_with_the_session() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        let bird = Bird::start("10.0.0.2/24", BIRD);
        let mut to_bird = peer("10.0.0.2", 179, "10.0.0.1", 64513);
        to_bird.export = Export::Vips;
        let us = config(64512, Ipv4Addr::new(10, 0, 0, 1), "10.0.0.1:1790", vec![to_bird]);

        let mut router = Router::start(us.clone()).await;
        router.handle.originate(vec!["192.0.2.10/32".parse().unwrap()]).await;
        established(&router.handle).await;
        kernel_route(&ours(), |printed| printed.matches("via 10.0.0.2 dev lbr0").count() == 2)
            .await;
        // BIRD answers ARP, so the member becomes complete.
        router
            .route_is("10.244.1.0/26", |route| {
                route.is_some_and(|(source, action)| {
                    let lb_routing::Action::Forward(members) = action else { return false };
                    *source == Source::Bgp
                        && members.iter().all(|member| member.destination_mac.is_some())
                })
            })
            .await;
        eventually("BIRD has the VIP", async || {
            let shown = bird.ask("show route for 192.0.2.10 all");
            shown.contains("BGP.next_hop: 10.0.0.1").then_some(())
        })
        .await;

        // Restart: the routes stay throughout, in the kernel and in the next FIB.
        let monitor = Monitor::start().await;
        router.handle.shutdown().await;
        drop(router);
        let mut router = Router::start(us).await;
        router.synced().await;
        assert_eq!(router.route("10.244.1.0/26").map(|route| route.0), Some(Source::Bgp));
        router.handle.originate(vec!["192.0.2.10/32".parse().unwrap()]).await;
        router.handle.set_vips(vec!["192.0.2.10".parse().unwrap()]).await;
        established(&router.handle).await;
        eventually("BIRD's routes are learned again", async || {
            (router.handle.routes().await.len() == 3).then_some(())
        })
        .await;
        assert_eq!(ip(&format!("route show {}", ours())).lines().count(), 3);
        let heard = monitor.stop().await;
        assert!(heard.contains("unreachable 192.0.2.10"), "{heard}");
        assert!(!heard.contains("10.244."), "the restart touched a learned route: {heard}");

        // One route less, then none without the session.
        bird.ask("disable static1");
        router.route_is("10.244.1.0/26", |route| route.is_none()).await;
        kernel_route(&ours(), |printed| printed.starts_with("unreachable 192.0.2.10")).await;
        bird.ask("enable static1");
        router.route_is("10.244.1.0/26", |route| route.is_some()).await;
        bird.ask("disable lbd");
        router.route_is("10.244.1.0/26", |route| route.is_none()).await;
        kernel_route(&ours(), |printed| printed.lines().count() == 1).await;
    });
}

/// `ip monitor route` in the test's namespace.
struct Monitor {
    child: tokio::process::Child,
    output: tokio::process::ChildStdout,
}

impl Monitor {
    /// Returns once it hears.
    async fn start() -> Self {
        let mut command = tokio::process::Command::new("ip");
        command.args(["monitor", "route"]).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let mut monitor = Self { child, output };
        eventually("ip monitor hears", async || {
            ip("route replace blackhole 198.51.100.1");
            ip("route del blackhole 198.51.100.1");
            let patience = std::time::Duration::from_millis(50);
            tokio::time::timeout(patience, monitor.heard_until("198.51.100.1")).await.ok()
        })
        .await;
        monitor
    }

    /// What it heard until now.
    async fn stop(mut self) -> String {
        ip("route add blackhole 198.51.100.255");
        let heard = self.heard_until("198.51.100.255").await;
        self.child.kill().await.unwrap();
        heard
    }

    async fn heard_until(&mut self, mark: &str) -> String {
        let mut heard = String::new();
        while !heard.contains(mark) {
            let mut buffer = [0; 4096];
            let count = self.output.read(&mut buffer).await.unwrap();
            assert!(count > 0, "ip monitor ended");
            heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        heard
    }
}

/// BGP by hand, from 127.0.0.2: an OPEN without capabilities and with hold time 0, and a KEEPALIVE.
pub(crate) async fn by_hand(port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    let mut bytes = vec![0xff; 16];
    bytes.extend([0, 29, 1, 4, 0xfc, 0x01, 0, 0, 10, 0, 1, 2, 0]);
    bytes.extend([0xff; 16]);
    bytes.extend([0, 19, 4]);
    stream.write_all(&bytes).await.unwrap();
    stream
}

/// Reads until so many IPv4 prefixes, all of them /32, were announced.
async fn read_prefixes(stream: &mut TcpStream, wanted: usize) {
    let mut count = 0;
    while count < wanted {
        let mut header = [0; 19];
        stream.read_exact(&mut header).await.unwrap();
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
        stream.read_exact(&mut body).await.unwrap();
        if header[18] == 2 {
            assert_eq!(body[..2], [0, 0], "nothing is withdrawn");
            let attributes = usize::from(u16::from_be_bytes([body[2], body[3]]));
            count += (body.len() - 4 - attributes) / 5;
        }
    }
    assert_eq!(count, wanted);
}

#[test]
fn a_neighbour_that_stops_reading_stalls_only_itself_and_gets_all_when_it_reads_on() {
    const PREFIXES: u32 = 200_000;
    in_namespace(async || {
        // So that the kernel's buffers do not swallow the routes.
        std::fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 16384 16384").unwrap();
        let mut stalled = peer("127.0.0.2", 1790, "127.0.0.1", 64513);
        stalled.passive = true;
        let mut other = peer("127.0.0.3", 1790, "127.0.0.1", 64512);
        other.export = Export::None;
        let id = Ipv4Addr::new(10, 0, 1, 1);
        let router = Router::start(config(64512, id, "127.0.0.1:1790", vec![stalled, other])).await;
        let mut stream = by_hand(1790).await;
        let first = u32::from(Ipv4Addr::new(100, 64, 0, 0));
        let prefixes = (first..first + PREFIXES).map(Ipv4Addr::from);
        router
            .handle
            .originate(prefixes.map(|address| IpAddr::from(address).into()).collect())
            .await;

        // It gets a part, and no more.
        let mut seen = (0, 0);
        eventually("UPDATEs are held back", async || {
            let advertised = router.handle.peers().await[0].prefixes_advertised;
            seen = if advertised == seen.0 { (advertised, seen.1 + 1) } else { (advertised, 0) };
            (advertised > 0 && seen.1 == 10).then_some(())
        })
        .await;
        assert!(seen.0 < u64::from(PREFIXES), "nothing is held back");

        // Meanwhile another session comes up.
        let to_us = peer("127.0.0.1", 1790, "127.0.0.3", 64512);
        let id = Ipv4Addr::new(10, 0, 1, 3);
        let second = Router::start(config(64512, id, "127.0.0.3:1790", vec![to_us])).await;
        established(&second.handle).await;

        read_prefixes(&mut stream, PREFIXES as usize).await;
    });
}

#[test]
fn learned_routes_return_after_the_link_was_down_for_a_moment() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        let _bird = Bird::start("10.0.0.2/24", BIRD);
        let to_bird = peer("10.0.0.2", 179, "10.0.0.1", 64513);
        let us = config(64512, Ipv4Addr::new(10, 0, 0, 1), "10.0.0.1:1790", vec![to_bird]);
        let mut router = Router::start(us).await;
        let both = |printed: &str| printed.matches("via 10.0.0.2 dev lbr0").count() == 2;
        kernel_route(&ours(), both).await;
        let since = router.handle.peers().await[0].since;
        // The kernel drops our routes, and says nothing.
        ip("link set lbr0 down");
        ip("link set lbr0 up");
        assert!(!both(&ip(&format!("route show {}", ours()))));
        kernel_route(&ours(), both).await;
        router.route_is("10.244.1.0/26", |route| route.is_some()).await;
        assert_eq!(router.handle.peers().await[0].since, since, "the session went through");
    });
}

#[test]
fn nothing_is_imported_without_a_policy() {
    in_namespace(async || {
        veth("lbr0", "10.0.0.1/24");
        let _bird = Bird::start("10.0.0.2/24", BIRD);
        let mut to_bird = peer("10.0.0.2", 179, "10.0.0.1", 64513);
        to_bird.import = Import::None;
        to_bird.export = Export::None;
        let us = config(64512, Ipv4Addr::new(10, 0, 0, 1), "10.0.0.1:1790", vec![to_bird]);
        let router = Router::start(us).await;
        established(&router.handle).await;
        eventually("BIRD's updates are read", async || {
            let peers = router.handle.peers().await;
            // OPEN, KEEPALIVE, UPDATE, End-of-RIB.
            (peers[0].messages_received.total() >= 4).then_some(())
        })
        .await;
        assert_eq!(router.handle.routes().await, []);
        assert_eq!(ip(&format!("route show {}", ours())), "");
    });
}
