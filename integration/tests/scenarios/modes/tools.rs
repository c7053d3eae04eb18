//! The tools that people try a balancer with: curl, iperf3, ncat and dig.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::wait::eventually;
use lb_api_types::vip::{HealthCheckKind, Protocol, Vip};
use serde_json::Value;

use super::{PODS, put};
use crate::hello::{Hello, Holds, SOON, address};

const IPERF: u16 = 5201;
const NCAT: u16 = 7000;
const DNS: u16 = 53;
/// Bytes that iperf3 sends.
const BYTES: u64 = 1 << 20;

/// All of them, at a VIP of its mode.
pub(super) fn work(hello: &mut Hello, vip: &Vip) {
    let family = if vip.spec.address.is_ipv4() { "4" } else { "6" };
    // Of one pod: iperf3 counts on both of its connections coming to one server.
    let on = |name: &str, port: u16, protocol| {
        let mut vip = vip.clone();
        vip.metadata.name = format!("{name}-{family}");
        vip.spec.backends.truncate(1);
        vip.spec.backends[0].port = port;
        (vip.spec.port, vip.spec.protocol) = (port, protocol);
        vip.spec.health_check.kind = HealthCheckKind::None;
        vip.spec.health_check.port = None;
        put(hello, &vip);
        address(&vip)
    };
    let (iperf, _) = (on("iperf", IPERF, Protocol::Tcp), on("iperf-udp", IPERF, Protocol::Udp));
    let (ncat, dns) = (on("ncat", NCAT, Protocol::Tcp), on("dns", DNS, Protocol::Udp));
    let mut web = vip.clone();
    if vip.spec.nat.mode.is_dsr() {
        web.spec.port = web.spec.backends[0].port;
    }
    put(hello, &web);

    let ask = format!("curl --silent --fail http://{}/", address(&web));
    let said = eventually("curl is answered", SOON, || hello.lab.run("client", &ask)).holds();
    assert!(said.starts_with("pod"), "{said}");
    // What answers datagrams has to know by which address it was asked.
    let there =
        if vip.spec.nat.mode.is_dsr() { vip.spec.address } else { vip.spec.backends[0].address };
    serve(hello, there);
    eventually("ncat gets back what it says", SOON, || {
        let ask = format!("ncat -n --no-shutdown -w 10 {} {}", ncat.ip(), ncat.port());
        let says = format!("echo said by ncat | timeout 10 {ask}");
        let back = hello.lab.run("client", &says)?;
        ensure!(back == "said by ncat\n", "{back:?}");
        Ok(())
    })
    .holds();
    for (way, ways) in [("", "sum_received"), ("--reverse", "sum_received"), ("--udp", "sum")] {
        iperf3(hello, iperf, way, ways);
    }
    asks_for_names(hello, dns, there);
}

/// Has iperf3 listen at an address of the pod's, and ncat at all of them.
fn serve(hello: &mut Hello, there: IpAddr) {
    let iperf = format!("iperf3-{there}").replace(':', "-");
    if !hello.lab.runs(PODS[0], &iperf) {
        let serve = format!("iperf3 -s -B {there} -p {IPERF}");
        hello.lab.spawn(PODS[0], &iperf, &serve).holds();
        let at = SocketAddr::new(there, IPERF);
        eventually("iperf3 listens", SOON, || {
            let listens = hello.lab.run(PODS[0], &format!("ss -Htln 'src {at}'"))?;
            ensure!(!listens.is_empty(), "nobody listens at {at}");
            Ok(())
        })
        .holds();
    }
    if !hello.lab.runs(PODS[0], "ncat") {
        // What ends by itself with its answer: ncat forgets what a program has yet to say when the other side has said all.
        let echo = format!("ncat -n --listen --keep-open --exec '/usr/bin/head -n 1' {NCAT}");
        hello.lab.spawn(PODS[0], "ncat", &echo).holds();
    }
}

/// A transfer there, one back, and datagrams.
fn iperf3(hello: &Hello, at: SocketAddr, way: &str, sum: &str) {
    let ask = format!(
        "iperf3 --json -c {} -p {} --bytes {BYTES} --bitrate 20M --length 1200 {way}",
        at.ip(),
        at.port()
    );
    let said = hello.lab.run("client", &ask).holds();
    let said: Value = serde_json::from_str(&said).expect("iperf3 speaks JSON");
    let sum = &said["end"][sum];
    let bytes = sum["bytes"].as_u64().unwrap_or(0);
    // Of datagrams some may be lost on a machine that is busy; of a transfer the last part is not waited for.
    assert!(bytes >= BYTES * 9 / 10, "{at} {way}: {sum}");
    if way == "--udp" {
        let lost = sum["lost_percent"].as_f64().unwrap_or(100.0);
        assert!(lost < 20.0, "{at}: {sum}");
    }
}

/// What answers every question is a thread: a name server would be no more of a test.
fn asks_for_names(hello: &Hello, at: SocketAddr, there: IpAddr) {
    let over = AtomicBool::new(false);
    let socket = hello.lab.netns(PODS[0]).holds().within(|| UdpSocket::bind((there, DNS)));
    let socket = socket.holds().expect("the port is free");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("it is not zero");
    thread::scope(|scope| {
        let names = scope.spawn(|| answer_names(&socket, &over));
        let ask = format!("dig @{} -p {} +short +tries=5 +time=2 TXT lbd.test", at.ip(), at.port());
        let said = hello.lab.run("client", &ask);
        over.store(true, Ordering::Relaxed);
        names.join().expect("it does not panic").holds();
        assert_eq!(said.holds(), "\"through the VIP\"\n", "{at}");
    });
}

/// Answers questions without more than a question (RFC 1035 §4) with a text.
fn answer_names(socket: &UdpSocket, over: &AtomicBool) -> Result<()> {
    const TEXT: &[u8] = b"through the VIP";
    let mut question = [0; 512];
    while !over.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut question) else { continue };
        let labels = question[12..len].iter().position(|&byte| byte == 0).context("no name")?;
        let end = 12 + labels + 5;
        // An answer without errors, one question, one record: of the name at octet 12, TXT, IN, for no time at all.
        let mut answer = [&question[..2], &[0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
        answer.extend(&question[12..end]);
        answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, TEXT.len() as u8 + 1]);
        answer.push(TEXT.len() as u8);
        answer.extend(TEXT);
        socket.send_to(&answer, from)?;
    }
    Ok(())
}
