//! A SYN flood: established flows stay, and lose no more by it than by the same flood to addresses that are only routed.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use integration::demo;
use integration::netns::Netns;
use lb_api_types::config::Hook;
use lb_api_types::vip::Vip;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};

use crate::dual_stack::{add_ipv4, of_ipv4, up_with};
use crate::hello::{Hello, Holds, SOON, address};
use crate::traffic::while_transferring_at;

/// SYNs a second, each from a client of its own, none of whom ever answers.
const RATE: u32 = 5_000;
/// How long each flood lasts.
const LASTS: Duration = Duration::from_millis(100);
/// SYNs of each.
const EACH: u32 = RATE / 10;
/// How often both are sent, one after the other: as often whatever comes out. Short ones that take turns meet the same of what else
/// goes on. On two cores that others use, too, the interval ends 6 to 9 per cent to either side of the estimate, so losses of an
/// eighth and more are found, and smaller ones on a machine that does nothing else.
const ROUNDS: usize = 100;
/// Rounds at most, with those that do not count, since a flood of them took much longer than it was to.
const TRIES: usize = 2 * ROUNDS;
/// Standard deviations within which an estimate is in 19 of 20 runs.
const CONFIDENCE: f64 = 1.96;
/// What a transfer keeps beside the flood of what it has beside the other one.
const KEPT: f64 = 0.95;
/// Connections that were there before the flood, and are after it.
const HELD: usize = 100;
/// Entries of each flow table: with them there are 1,024 places for half-open flows at most, which the flood fills at once.
const ENTRIES: u32 = 8192;
/// Where the flood says that it comes from.
const FORGED_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const FORGED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 1);

mod tc {
    #[test]
    fn established_flows_keep_their_goodput_beside_a_syn_flood() {
        super::established_flows_keep_their_goodput(super::Hook::Tc);
    }
}

mod xdp {
    #[test]
    fn established_flows_keep_their_goodput_beside_a_syn_flood() {
        super::established_flows_keep_their_goodput(super::Hook::Xdp);
    }
}

fn established_flows_keep_their_goodput(hook: Hook) {
    let (mut hello, six) = up_with(hook, |config| {
        config.dataplane.max_flow_entries = ENTRIES;
        config.dataplane.max_flow_entries_ipv6 = ENTRIES;
    });
    add_ipv4(&hello);
    // What answers the flood ends at the router, and that leads to pods also past the VIPs.
    for (node, command) in [
        ("upstream", "ip route add blackhole 198.18.0.0/15"),
        ("upstream", "ip -6 route add blackhole 2001:db8:198::/48"),
        ("upstream", "ip -6 route add 2001:db8:a::/47 via 2001:db8:200::2"),
        ("lbd", "ip route add 198.18.0.0/15 via 10.9.1.1"),
        ("lbd", "ip -6 route add 2001:db8:198::/48 via 2001:db8:200::1"),
    ] {
        hello.lab.run(node, command).holds();
    }
    let four = of_ipv4(&six);
    hello.api.put_vip(&four).holds();
    demo::all_healthy(&hello.api, &four).holds();
    for vip in [four, six] {
        hello.is_answered(&vip);
        flows_of_it_keep_their_goodput(&mut hello, &vip);
    }
}

fn flows_of_it_keep_their_goodput(hello: &mut Hello, vip: &Vip) {
    // Each SYN is answered as it is behind the VIP, where backends take turns, too.
    let routed = vip.spec.backends.iter().map(|pod| SocketAddr::new(pod.address, pod.port));
    let routed: Vec<_> = routed.collect();
    let held = connections(hello, address(vip)).holds();
    let routed_before = hello.packets_that_ended("forwarded");
    let (mut kept, mut rounds) = (Vec::new(), 0);
    while_transferring_at(usize::MAX, hello, vip, |hello, arrived| {
        let client = hello.lab.netns("client").holds();
        let mut flood = Flood::new(client, vip.spec.address).holds();
        let mut beside = |to: &[SocketAddr]| {
            let (start, before) = (Instant::now(), arrived.load(Relaxed));
            flood.send(to).holds();
            let came = (arrived.load(Relaxed) - before) as f64;
            (start.elapsed() < LASTS * 3 / 2).then_some(came)
        };
        while kept.len() < ROUNDS {
            assert!(rounds < TRIES, "on a machine that is too busy for it there is no such flood");
            // The one that comes first changes: neither has the better half of what else goes on.
            let (flooded, other) = if rounds % 2 == 0 {
                let flooded = beside(&[address(vip)]);
                (flooded, beside(&routed))
            } else {
                let other = beside(&routed);
                (beside(&[address(vip)]), other)
            };
            rounds += 1;
            kept.extend(flooded.zip(other).map(|(flooded, other)| flooded / other));
        }
    });
    let [low, middle, high] = estimate(&kept);
    let said =
        format!("{}: {middle:.3} [{low:.3}, {high:.3}] in {rounds} rounds", vip.spec.address);
    println!("kept beside the flood, of what is left beside the other: {said}");
    assert!(high >= KEPT, "less than {KEPT} are kept beside the flood: {said}");
    for mut stream in held {
        let answer = ask(&mut stream).holds();
        assert!(answer.contains(" 200 "), "{answer}");
    }
    let status = hello.api.vip(&vip.metadata.name).holds().status.expect("a VIP has a status");
    let flooded = rounds as u64 * u64::from(EACH);
    assert!(status.flows > flooded * 9 / 10, "the flood came: {status:?}");
    let routed = hello.packets_that_ended("forwarded") - routed_before;
    assert!(routed > flooded * 9 / 10, "and the other one: {routed} packets");
    assert!(status.evicted_flows > flooded / 2, "half-open flows made room: {status:?}");
    let half_open = status.backends.iter().map(|backend| backend.half_open_flows);
    assert!(half_open.sum::<u64>() > 0, "those that came last are there: {status:?}");
}

/// The middle of ratios by Hodges and Lehmann, the median of the means of all pairs, between the ends of its interval by
/// Wilcoxon's signed ranks: what a few rounds have beside them moves it little.
fn estimate(ratios: &[f64]) -> [f64; 3] {
    let logs: Vec<f64> = ratios.iter().map(|ratio| ratio.max(f64::MIN_POSITIVE).ln()).collect();
    let means = |(place, one): (usize, &f64)| -> Vec<f64> {
        logs[place..].iter().map(|other| f64::midpoint(*one, *other)).collect()
    };
    let mut means: Vec<f64> = logs.iter().enumerate().flat_map(means).collect();
    means.sort_by(f64::total_cmp);
    let (count, pairs) = (logs.len() as f64, means.len());
    let ranks = CONFIDENCE * (count * (count + 1.0) * (2.0 * count + 1.0) / 24.0).sqrt();
    let low = (pairs as f64 / 2.0 - ranks).max(0.0) as usize;
    [low, pairs / 2, pairs - 1 - low].map(|place| means[place].exp())
}

/// Connections that say nothing yet.
fn connections(hello: &Hello, to: SocketAddr) -> Result<Vec<TcpStream>> {
    let connect = || TcpStream::connect(to).context("cannot connect");
    hello.lab.netns("client")?.within(|| (0..HELD).map(|_| connect()).collect())?
}

fn ask(stream: &mut TcpStream) -> Result<String> {
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("a connection did not outlive the flood")?;
    Ok(answer)
}

/// Somebody who sends SYNs from addresses that are not its own.
struct Flood {
    socket: OwnedFd,
    next: u32,
}

impl Flood {
    /// In the family of an address.
    fn new(from: &Netns, of: IpAddr) -> Result<Self> {
        let family = if of.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let raw = || socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
        Ok(Self { socket: from.within(raw)??, next: 0 })
    }

    /// For as long as a flood lasts, all that is due in it, to these in turn.
    fn send(&mut self, to: &[SocketAddr]) -> Result<()> {
        const TURN: Duration = Duration::from_millis(1);
        let start = Instant::now();
        let mut sent = 0;
        while sent < EACH {
            let due = (start.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
            while sent < due.min(EACH) {
                self.send_one(to[sent as usize % to.len()])?;
                sent += 1;
            }
            thread::sleep(TURN);
        }
        Ok(())
    }

    fn send_one(&mut self, to: SocketAddr) -> Result<()> {
        self.next += 1;
        let (socket, flags, from) =
            (self.socket.as_raw_fd(), MsgFlags::empty(), self.next % 100_000);
        match to {
            SocketAddr::V4(to) => {
                let from = Ipv4Addr::from_bits(FORGED_V4.to_bits() + from);
                let packet = syn_v4(from, *to.ip(), to.port());
                sendto(socket, &packet, &SockaddrIn::from(to), flags)?;
            }
            SocketAddr::V6(mut to) => {
                let from = Ipv6Addr::from_bits(FORGED_V6.to_bits() + u128::from(from));
                let packet = syn_v6(from, *to.ip(), to.port());
                // Of raw sockets this is the protocol, which the packet says itself.
                to.set_port(0);
                sendto(socket, &packet, &SockaddrIn6::from(to), flags)?;
            }
        }
        Ok(())
    }
}

const TCP: u8 = 6;
const SYN_LEN: u8 = 20;
const FROM_PORT: u16 = 40_000;

/// A SYN without options; the kernel fills in the IP header's checksum (raw(7)).
fn syn_v4(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let addresses = [from.octets(), to.octets()].concat();
    let header = [0x45, 0, 0, 20 + SYN_LEN, 0, 0, 0x40, 0, 64, TCP, 0, 0];
    [&header[..], &addresses, &tcp_syn(&addresses, port)].concat()
}

fn syn_v6(from: Ipv6Addr, to: Ipv6Addr, port: u16) -> Vec<u8> {
    let addresses = [from.octets(), to.octets()].concat();
    let header = [0x60, 0, 0, 0, 0, SYN_LEN, TCP, 64];
    [&header[..], &addresses, &tcp_syn(&addresses, port)].concat()
}

fn tcp_syn(addresses: &[u8], port: u16) -> Vec<u8> {
    let mut tcp = [FROM_PORT.to_be_bytes(), port.to_be_bytes()].concat();
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let summed = [addresses, &[0, TCP, 0, SYN_LEN], &tcp].concat();
    let words = summed.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    tcp
}
