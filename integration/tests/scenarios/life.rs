//! How flows end and are refused, as real TCP stacks on both sides see it: on both hooks, for both families.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::wait::{always, eventually};
use integration::{demo, traffic};
use lb_api_types::config::{Config, Hook};
use lb_api_types::vip::{Health, NatMode, OnExhaustion, OnUnhealthy, Vip};

use crate::dual_stack;
use crate::hello::{Hello, Holds, PODS, SOON, address};

/// How long a connect may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

mod tc {
    use super::{
        Hook, dual_stack, flows_end_and_are_refused, packets_skip_a_queue_where_they_may,
        redirect_to_peer, watching,
    };

    #[test]
    fn ipv4_flows_end_and_are_refused_as_their_vip_says() {
        let (hello, vip) = watching(Hook::Tc);
        packets_skip_a_queue_where_they_may(&hello, &vip);
        flows_end_and_are_refused(&(hello, vip));
    }

    #[test]
    fn ipv6_flows_end_and_are_refused_as_their_vip_says() {
        let (hello, vip) = dual_stack::up_with(Hook::Tc, redirect_to_peer);
        packets_skip_a_queue_where_they_may(&hello, &vip);
        flows_end_and_are_refused(&(hello, vip));
    }
}

mod xdp {
    use super::{
        Hook, a_way_out_that_takes_no_frames_is_left_to_the_kernel, dual_stack,
        flows_end_and_are_refused, watching,
    };

    #[test]
    fn ipv4_flows_end_and_are_refused_as_their_vip_says() {
        let (hello, vip) = watching(Hook::Xdp);
        a_way_out_that_takes_no_frames_is_left_to_the_kernel(&hello, &vip);
        flows_end_and_are_refused(&(hello, vip));
    }

    #[test]
    fn ipv6_flows_end_and_are_refused_as_their_vip_says() {
        flows_end_and_are_refused(&dual_stack::up(Hook::Xdp));
    }
}

/// Through all links, where that may be and the hook is TC.
pub(crate) fn redirect_to_peer(config: &mut Config) {
    config.dataplane.redirect_to_peer = vec!["eth*".to_owned()];
}

/// Up with the VIP, and every flow watched.
fn watching(hook: Hook) -> (Hello, Vip) {
    let hello = Hello::up_with(hook, |config| {
        config.dataplane.sample_flows = Some(1);
        redirect_to_peer(config);
    });
    hello.only_this_hook_is_attached(hook);
    let vip = hello.create_vip();
    hello.upstream_routes_the_vip();
    (hello, vip)
}

fn flows_end_and_are_refused((hello, vip): &(Hello, Vip)) {
    let mut vip = vip.clone();
    vip.spec.backends.truncate(1);
    vip.spec.health_check.interval_ms = 200;
    vip.spec.health_check.timeout_ms = 200;
    both_sides_of_a_silent_connection_hear_a_reset(hello, vip.clone());
    if vip.spec.address.is_ipv4() {
        a_vip_whose_backends_no_packet_reaches_is_withdrawn_and_says_so(hello, vip.clone());
    }
    both_sides_hear_a_reset_when_the_backend_fails(hello, vip.clone());
    who_finds_no_source_port_is_refused_and_checks_and_bgp_go_on(hello, vip);
}

/// A veth takes frames from XDP only while its other end has GRO: without, they would vanish.
fn a_way_out_that_takes_no_frames_is_left_to_the_kernel(hello: &Hello, vip: &Vip) {
    let client = hello.lab.netns("client").holds();
    let left = || hello.packets_that_ended("flow-way-out-without-xdp");
    for (gro, is_left) in [("off", true), ("on", false)] {
        for node in ["node1", "node2"] {
            hello.lab.run(node, &format!("ethtool -K eth1 gro {gro}")).holds();
        }
        eventually("lbd hears what its links take", SOON, || {
            let before = left();
            traffic::requests(client, address(vip), 6)?.expect(PODS.len(), 2, 2)?;
            ensure!((left() > before) == is_left, "GRO {gro}: {} packets", left() - before);
            Ok(())
        })
        .holds();
    }
}

/// What leaves through a veth goes to its other end at once, past what counts at this one, unless the other end has GRO.
fn packets_skip_a_queue_where_they_may(hello: &Hello, vip: &Vip) {
    const BLOCKS: usize = 1024;
    let client = hello.lab.netns("client").holds();
    let queued = || -> Result<u64> {
        let shown = hello.lab.run("lbd", "ip -s -j link show eth1")?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        shown[0]["stats64"]["tx"]["bytes"].as_u64().context("no such count")
    };
    for (gro, is_queued) in [("off", false), ("on", true), ("off", false)] {
        hello.lab.run("upstream", &format!("ethtool -K eth2 gro {gro}")).holds();
        eventually("lbd hears what is at its link's other end", SOON, || {
            let before = queued()?;
            let whole = |_| ControlFlow::Continue(());
            traffic::transfer(client, address(vip), BLOCKS, usize::MAX, whole)?;
            let bytes = queued()? - before;
            // BGP and health checks are sent by this host, and so are queued.
            ensure!((bytes > BLOCKS as u64 * 1024 / 2) == is_queued, "GRO {gro}: {bytes} bytes");
            Ok(())
        })
        .holds();
    }
}

fn both_sides_of_a_silent_connection_hear_a_reset(hello: &Hello, mut vip: Vip) {
    vip.spec.idle_timeout_secs = Some(3);
    vip.spec.reset_on_expiry = true;
    put(hello, &vip);
    let stream = connect(hello, address(&vip)).holds();
    the_pod_has_its_connections(hello, &stream, 1);
    let client = stream.local_addr().expect("it is connected");
    let open = format!("flows?service=web&state=established&client={}", client.ip());
    eventually("the flow is listed by what it is", SOON, || {
        let list = hello.api.request("GET", &open, None)?.body;
        ensure!(list.contains(&client.to_string()), "{list}");
        Ok(())
    })
    .holds();
    ends_in_a_reset(stream);
    the_pod_has_no_connection(hello);
    if client.is_ipv4() {
        its_end_is_told(hello, client);
    }
}

/// To whoever watches, with what there was of it.
fn its_end_is_told(hello: &Hello, client: SocketAddr) {
    let of_it = |event: &serde_json::Value| event["status"]["flow"]["client"] == client.to_string();
    let events = eventually("both its beginning and its end are told", SOON, || {
        let told = hello.api.request("GET", "flows/events?past=true&follow=false", None)?.body;
        let data = told.lines().filter_map(|line| line.strip_prefix("data: "));
        let events = data.map(|data| serde_json::from_str(data).expect("an event is JSON"));
        let events: Vec<serde_json::Value> = events.filter(of_it).collect();
        ensure!(events.len() == 2, "{told}");
        Ok(events)
    })
    .holds();
    let [began, ended] = &events[..] else { panic!("{events:?}") };
    let kinds = (&began["spec"]["kind"], &ended["spec"]["kind"]);
    assert_eq!(kinds, (&"flow-new".into(), &"flow-end".into()));
    let end = &ended["status"]["flow"]["end"];
    assert_eq!(end["how"], "expired", "{end}");
    // SYN and ACK, SYN-ACK; each SYN and its answer may have to be said again on a machine that is slow.
    let packets = ["packets_to_backend", "packets_to_client"].map(|side| end[side].as_u64());
    assert!(packets[1] >= Some(1) && packets[0] == packets[1].map(|n| n + 1), "{end}");
    assert!(end["duration_ms"].as_u64() >= Some(3000), "{end}");
}

/// The pods are behind the nodes, so not to be reached by their MACs.
fn a_vip_whose_backends_no_packet_reaches_is_withdrawn_and_says_so(hello: &Hello, mut vip: Vip) {
    let (port, mode) = (vip.spec.port, vip.spec.nat.mode);
    vip.spec.backends.iter_mut().for_each(|backend| backend.port = port);
    vip.spec.health_check.port = Some(8080);
    vip.spec.nat.mode = NatMode::Dsr;
    put(hello, &vip);
    hello.upstream_has_no_route_to_the_vip();
    let status = hello.api.vip("web").holds().status.expect("a VIP has a status");
    let said = &status.backends[0].message;
    assert!(said.contains("no packet reaches it"), "{status:?}");
    assert!(status.message.contains("no packet reaches"), "{status:?}");
    vip.spec.nat.mode = mode;
    vip.spec.backends.iter_mut().for_each(|backend| backend.port = 8080);
    vip.spec.health_check.port = None;
    put(hello, &vip);
    hello.upstream_routes_the_vip();
}

fn both_sides_hear_a_reset_when_the_backend_fails(hello: &Hello, mut vip: Vip) {
    vip.spec.on_unhealthy = Some(OnUnhealthy::Reset);
    put(hello, &vip);
    let stream = connect(hello, address(&vip)).holds();
    the_pod_has_its_connections(hello, &stream, 1);
    // Nobody listens there, so the checks fail while the connection could go on.
    vip.spec.health_check.port = Some(9);
    hello.api.put_vip(&vip).holds();
    ends_in_a_reset(stream);
    the_pod_has_no_connection(hello);
}

fn who_finds_no_source_port_is_refused_and_checks_and_bgp_go_on(hello: &Hello, mut vip: Vip) {
    /// The ports that are left to flows: 1024 to 1123.
    const PORTS: usize = 100;
    hello.lab.run("lbd", "sysctl -qw net.ipv4.ip_local_port_range='1124 65535'").holds();
    // It was withdrawn while its backend failed.
    put(hello, &vip);
    hello.is_answered(&vip);
    // That is in use by checks and BGP, whatever the mode.
    let own = own_address_towards(hello, vip.spec.backends[0].address);
    for (mode, on_exhaustion, refusal) in [
        (NatMode::OneArm, OnExhaustion::Reset, ErrorKind::ConnectionRefused),
        (NatMode::OneArm, OnExhaustion::Icmp, ErrorKind::HostUnreachable),
        (NatMode::FullNat, OnExhaustion::Reset, ErrorKind::ConnectionRefused),
    ] {
        vip.spec.nat.mode = mode;
        vip.spec.nat.source_addresses = if mode == NatMode::FullNat { vec![own] } else { vec![] };
        vip.spec.nat.on_exhaustion = on_exhaustion;
        put(hello, &vip);
        let mut held = Vec::new();
        let refused = loop {
            match connect(hello, address(&vip)) {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
            assert!(held.len() <= PORTS, "{mode:?}: {} connections have a port each", held.len());
        };
        let kind = refused.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let what = format!("{mode:?} {on_exhaustion:?} after {}", held.len());
        assert_eq!(kind, Some(refusal), "{what}: {refused:#}");
        // The flows before may still have their ports for a while.
        let exhausted = hello.api.vip("web").holds().status.map(|status| status.exhausted_flows);
        assert!(exhausted.is_some_and(|count| count > 0), "{exhausted:?}");
    }
    always("checks and BGP go on from the same address", Duration::from_secs(2), || {
        let status = hello.api.vip("web")?.status.context("a VIP has a status")?;
        ensure!(status.backends.iter().all(|backend| backend.health == Health::Healthy));
        ensure!(hello.api.peers()?.iter().all(|peer| peer.state == "Established"));
        Ok(())
    })
    .holds();
}

/// The address that lbd itself comes from on the way to another.
fn own_address_towards(hello: &Hello, to: IpAddr) -> IpAddr {
    let route = hello.lab.run("lbd", &format!("ip -o route get {to}")).holds();
    let mut words = route.split_whitespace().skip_while(|word| *word != "src").skip(1);
    words.next().expect("a route has a source").parse().expect("an address")
}

fn put(hello: &Hello, vip: &Vip) {
    hello.api.put_vip(vip).holds();
    demo::all_healthy(&hello.api, vip).holds();
}

fn connect(hello: &Hello, to: SocketAddr) -> Result<TcpStream> {
    let client = hello.lab.netns("client")?;
    Ok(client.within(|| TcpStream::connect_timeout(&to, CONNECT_WITHIN))??)
}

/// Established connections of the first pod whose other end is not lbd's health check.
fn connections(hello: &Hello, filter: &str) -> Result<usize> {
    let listed = hello.lab.run("pod1", &format!("ss -Htn state established '{filter}'"))?;
    Ok(listed.lines().count())
}

fn the_pod_has_its_connections(hello: &Hello, stream: &TcpStream, count: usize) {
    let port = stream.local_addr().expect("it is connected").port();
    eventually("the pod has the connection", SOON, || {
        let found = connections(hello, &format!("( sport = :8080 and dport = :{port} )"))?;
        ensure!(found == count, "{found} of {count}");
        Ok(())
    })
    .holds();
}

/// Health checks come and go within the blink of an eye.
fn the_pod_has_no_connection(hello: &Hello) {
    eventually("the pod's connection is gone", SOON, || {
        let found = connections(hello, "( sport = :8080 )")?;
        ensure!(found == 0, "{found} left");
        Ok(())
    })
    .holds();
}

fn ends_in_a_reset(mut stream: TcpStream) {
    stream.set_read_timeout(Some(SOON)).expect("a time-out that is not zero");
    let ended = (|| match stream.read(&mut [0]) {
        Ok(len) => bail!("the connection ends with {len} bytes"),
        Err(error) => Ok(error.kind()),
    })();
    assert_eq!(ended.holds(), ErrorKind::ConnectionReset);
}
