//! 64,000 flows of real sockets against a table of 1,024 entries, under each policy, in each family and at each hook: by `drop`,
//! whoever is there stays and the rest is refused; by `hash`, nobody is refused and each flow keeps to one backend, by weight.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::demo;
use lb_api_types::config::Hook;
use lb_api_types::vip::{Algorithm, FullTable, HealthCheckKind, NatMode, Protocol, Vip};

use crate::dual_stack::{add_ipv4, of_ipv4, up_with};
use crate::hello::{Hello, Holds, SOON, address};

/// Entries that each family's table has room for at least; a flow that is translated takes two.
const ENTRIES: u32 = 1024;
/// Those that it has room for at most: a third more, and what fills up the last sixteen.
const MOST: u32 = ENTRIES * 4 / 3 + 15;
const FLOWS: u16 = 64_000;
const FIRST_PORT: u16 = 1024;
/// Conversations and connections that are there before the others come.
const HELD: u16 = 200;
const CONNECTIONS: u16 = 50;
/// Sockets that are open at a time, fewer than there are places for half-open flows on a CPU, where a 16th of the entries are on
/// two of them: more would end one another.
const BATCH: usize = 50;
/// How long a datagram may be away, and how often it is sent.
const DATAGRAM_WITHIN: Duration = Duration::from_millis(500);
const DATAGRAM_TRIES: usize = 20;

macro_rules! in_both_families {
    ($hook:expr) => {
        #[test]
        fn sixty_four_thousand_flows_meet_a_full_table_that_drops_ipv4_and_hashes_ipv6() {
            super::meet_a_full_table($hook, true);
        }

        #[test]
        fn sixty_four_thousand_flows_meet_a_full_table_that_drops_ipv6_and_hashes_ipv4() {
            super::meet_a_full_table($hook, false);
        }
    };
}

mod tc {
    in_both_families!(super::Hook::Tc);
}

mod xdp {
    in_both_families!(super::Hook::Xdp);
}

/// Each policy in one family, since each has a table of its own.
fn meet_a_full_table(hook: Hook, drops_ipv4: bool) {
    let (hello, own) = up_with(hook, |config| {
        config.dataplane.max_flow_entries = ENTRIES;
        config.dataplane.max_flow_entries_ipv6 = ENTRIES;
    });
    add_ipv4(&hello);
    let of_ipv4 = of_ipv4(&own);
    put(&hello, &of_ipv4);
    let (drops, hashes) = if drops_ipv4 { (of_ipv4, own) } else { (own, of_ipv4) };
    by_drop_who_is_there_stays_and_others_are_refused(&hello, drops.clone());
    by_hash_with_dnat_answers_without_flows_come_from_the_vip(&hello, drops);
    by_hash_nobody_is_refused_and_flows_go_by_weight(&hello, hashes);
}

fn by_drop_who_is_there_stays_and_others_are_refused(hello: &Hello, web: Vip) {
    let mut vip = datagrams(&web);
    vip.spec.backends.truncate(1);
    put(hello, &vip);
    let (to, client) = (address(&vip), hello.lab.netns("client").holds());
    let established = client.within(|| {
        (0..CONNECTIONS).map(|_| TcpStream::connect(address(&web))).collect::<Result<Vec<_>, _>>()
    });
    let established = established.holds().expect("the table has room for these");
    let refused = hello.packets_that_ended("flow-table-full");
    let (held, found_room) = client.within(|| come_and_stay(to)).holds().holds();
    let refused = hello.packets_that_ended("flow-table-full") - refused;

    let flows = u32::from(HELD + CONNECTIONS + found_room);
    assert!((ENTRIES / 2..=MOST / 2).contains(&flows), "{flows} flows have room");
    // While there was room for some, the others among them ended one another, half-open as they were.
    let others = u64::from(FLOWS - HELD - found_room);
    assert!((others * 99 / 100..=others).contains(&refused), "{refused} of {others} are refused");
    held.iter().try_for_each(converses).holds();
    for mut stream in established {
        let answer = ask(&mut stream).holds();
        assert!(answer.contains(" 200 "), "{answer}");
    }
}

/// Conversations that stay, and as many that come later as make all flows; of those, how many were answered.
fn come_and_stay(to: SocketAddr) -> Result<(Vec<UdpSocket>, u16)> {
    let mut ports = FIRST_PORT..FIRST_PORT + FLOWS;
    let held: Vec<_> =
        ports.by_ref().take(HELD.into()).map(|port| open(port, to)).collect::<Result<_>>()?;
    held.iter().try_for_each(converses)?;
    let mut found_room = 0;
    for batch in ports.collect::<Vec<_>>().chunks(BATCH) {
        let batch: Vec<_> = batch.iter().map(|port| open(*port, to)).collect::<Result<_>>()?;
        for socket in &batch {
            socket.send(b"room?")?;
        }
        // The pod answers in order, so whoever has no answer before this one is back has none to come.
        converses(&held[0])?;
        for socket in &batch {
            socket.set_nonblocking(true)?;
            match socket.recv(&mut [0; 8]) {
                Ok(_) => found_room += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error).context("a flow without room"),
            }
            // With that, its address is no forgery.
            socket.send(b"thanks")?;
        }
    }
    Ok((held, found_room))
}

/// With `dnat` answers come back here, and reach who asked the VIP only from there. The table is full of the flows before.
fn by_hash_with_dnat_answers_without_flows_come_from_the_vip(hello: &Hello, web: Vip) {
    const ANYBODY: u16 = 2000;
    let mut vip = datagrams(&web);
    (vip.spec.algorithm, vip.spec.full_table) = (Algorithm::Maglev, FullTable::Hash);
    put(hello, &vip);
    let (to, client) = (address(&vip), hello.lab.netns("client").holds());
    let before = hello.packets_that_ended("forwarded-without-flow");
    let ports: Vec<u16> = (FIRST_PORT..FIRST_PORT + FLOWS).rev().take(ANYBODY.into()).collect();
    let ask = || {
        ports.chunks(BATCH).try_for_each(|batch| {
            let open = batch.iter().map(|port| open(*port, to));
            open.collect::<Result<Vec<_>>>()?.iter().try_for_each(converses)
        })
    };
    client.within(ask).holds().holds();
    let without = hello.packets_that_ended("forwarded-without-flow") - before;
    assert!(without >= 2 * 9 * u64::from(ANYBODY) / 10, "{without} packets went on without a flow");
}

fn by_hash_nobody_is_refused_and_flows_go_by_weight(hello: &Hello, web: Vip) {
    const WEIGHTS: [u8; 2] = [3, 1];
    let mut vip = datagrams(&web);
    vip.spec.nat.mode = NatMode::Dsr;
    vip.spec.port = vip.spec.backends[0].port;
    (vip.spec.algorithm, vip.spec.full_table) = (Algorithm::Maglev, FullTable::Hash);
    vip.spec.backends.iter_mut().zip(WEIGHTS).for_each(|(backend, w)| backend.weight = w);
    for pod in ["pod1", "pod2"] {
        let add = match vip.spec.address {
            IpAddr::V4(vip) => format!("ip addr add {vip}/32 dev lo"),
            IpAddr::V6(vip) => format!("ip -6 addr add {vip}/128 dev lo nodad"),
        };
        hello.lab.run(pod, &add).holds();
    }
    put(hello, &vip);
    let client = hello.lab.netns("client").holds();
    let before = hello.packets_that_ended("forwarded-without-flow");
    let backends: Vec<IpAddr> = vip.spec.backends.iter().map(|backend| backend.address).collect();
    let ask = |ports: &[u16], times| {
        client.within(|| who_answers(address(&vip), ports, times)).holds().holds()
    };
    let ports: Vec<u16> = (FIRST_PORT..FIRST_PORT + FLOWS).collect();
    // A client that goes on is no forgery: those who do take nearly all entries.
    let (there, others) = ports.split_at(2 * ENTRIES as usize);
    let pods = [ask(there, 2), ask(others, 1)].concat();

    let of_the_first = pods.iter().filter(|pod| **pod == backends[0]).count();
    assert!(pods.iter().all(|pod| backends.contains(pod)));
    let fair = usize::from(FLOWS) * 3 / 4;
    assert!((fair * 95 / 100..=fair * 105 / 100).contains(&of_the_first), "{of_the_first}");
    let without = hello.packets_that_ended("forwarded-without-flow") - before;
    assert!(without >= others.len() as u64, "{without} packets went on without a flow");
    let some: Vec<u16> = ports.iter().copied().step_by(16).collect();
    let again: Vec<IpAddr> = pods.iter().copied().step_by(16).collect();
    assert!(ask(&some, 1) == again, "each flow keeps to one backend");
}

/// Which pod answers each flow, from an address of its own, and each time the same one.
fn who_answers(to: SocketAddr, ports: &[u16], times: usize) -> Result<Vec<IpAddr>> {
    let mut pods = Vec::with_capacity(ports.len());
    for batch in ports.chunks(BATCH) {
        let batch: Vec<_> = batch.iter().map(|port| bind(*port, to)).collect::<Result<_>>()?;
        let ask = || -> Result<Vec<IpAddr>> {
            batch.iter().try_for_each(|socket| socket.send_to(b"who?", to).map(|_| ()))?;
            batch.iter().map(|socket| answered(socket, to)).collect()
        };
        let first = ask()?;
        for _ in 1..times {
            ensure!(first == ask()?, "another pod answers");
        }
        pods.extend(first);
    }
    Ok(pods)
}

/// Who answers what was sent; it is sent again like a resolver's question, since datagrams get lost.
fn answered(socket: &UdpSocket, to: SocketAddr) -> Result<IpAddr> {
    for _ in 0..DATAGRAM_TRIES {
        match socket.recv_from(&mut [0; 8]) {
            Ok((_, from)) => return Ok(from.ip()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => socket.send_to(b"who?", to)?,
            Err(error) => return Err(error).context("a datagram came to nothing"),
        };
    }
    bail!("no answer came to {:?}", socket.local_addr())
}

/// The VIP beside its other one, for datagrams.
fn datagrams(web: &Vip) -> Vip {
    let mut vip = web.clone();
    vip.metadata.name = "datagrams".to_owned();
    vip.spec.protocol = Protocol::Udp;
    vip.spec.health_check.kind = HealthCheckKind::None;
    vip
}

fn put(hello: &Hello, vip: &Vip) {
    hello.api.put_vip(vip).holds();
    demo::all_healthy(&hello.api, vip).holds();
}

fn bind(port: u16, to: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, port)).with_context(|| format!("port {port}"))?;
    socket.set_read_timeout(Some(DATAGRAM_WITHIN))?;
    Ok(socket)
}

fn open(port: u16, to: SocketAddr) -> Result<UdpSocket> {
    let socket = bind(port, to)?;
    socket.connect(to)?;
    Ok(socket)
}

/// There and back twice: the second time says that the first answer came.
fn converses(socket: &UdpSocket) -> Result<()> {
    let said = |_| {
        for _ in 0..DATAGRAM_TRIES {
            socket.send(b"there?")?;
            match socket.recv(&mut [0; 8]) {
                Ok(len) => {
                    ensure!(len == 6, "{len} bytes came back");
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("a conversation broke"),
            }
        }
        bail!("{:?} is not answered", socket.local_addr())
    };
    (0..2).try_for_each(said)
}

fn ask(stream: &mut TcpStream) -> Result<String> {
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("a connection did not outlive the crowd")?;
    Ok(answer)
}
