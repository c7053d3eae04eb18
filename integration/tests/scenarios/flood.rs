//! A SYN flood: established flows stay, and lose no more by it than by the same flood to an address that is only routed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::netns::Netns;
use lb_api_types::config::Hook;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::hello::{Hello, Holds, SOON, VIP};
use crate::traffic::while_transferring_at;

/// SYNs a second, each from a client of its own, none of whom ever answers.
const RATE: u32 = 5_000;
/// How long each flood lasts.
const LASTS: Duration = Duration::from_millis(500);
/// SYNs of each.
const EACH: u32 = RATE / 2;
/// How often both are sent, one after the other: as often whatever comes out.
const ROUNDS: usize = 15;
/// The places of the rounds, in order, between which the median of all such lies in 19 of 20 runs (the sign test's interval): on
/// a machine that others use this finds losses of a tenth and more, not such of a few per cent.
const INTERVAL: [usize; 2] = [3, 11];
/// What a transfer keeps beside the flood of what it has beside the other one.
const KEPT: f64 = 0.95;
/// Connections that were there before the flood, and are after it.
const HELD: usize = 100;
/// Entries of the flow table: with them there are 1,024 places for half-open flows at most, which the flood fills at once.
const ENTRIES: u32 = 8192;

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
    let mut hello = Hello::up_with(hook, |config| config.dataplane.max_flow_entries = ENTRIES);
    hello.only_this_hook_is_attached(hook);
    let vip = hello.create_vip();
    hello.upstream_routes_the_vip();
    // What answers the flood ends here.
    hello.lab.run("upstream", "ip route add blackhole 198.18.0.0/15").holds();
    hello.lab.run("lbd", "ip route add 198.18.0.0/15 via 192.0.2.1").holds();
    hello.lab.run("upstream", "ip route add 10.244.0.0/16 via 192.0.2.2").holds();
    let to_vip = SocketAddrV4::new(VIP.parse().expect("an address"), vip.spec.port);
    // Each SYN is answered as it is behind the VIP.
    let routed = SocketAddrV4::new(Ipv4Addr::new(10, 244, 2, 2), 8080);

    let held = connections(&hello, to_vip).holds();
    let routed_before = hello.packets_that_ended("forwarded");
    let mut kept = Vec::new();
    while_transferring_at(usize::MAX, &mut hello, &vip, |hello, arrived| {
        let client = hello.lab.netns("client").holds();
        let mut flood = Flood::new(client).holds();
        while kept.len() < ROUNDS {
            let mut beside = |to| {
                let before = arrived.load(Relaxed);
                flood.send(to).holds();
                (arrived.load(Relaxed) - before) as f64
            };
            // The one that comes first changes: neither has the better half of what else goes on.
            let (vip, other) = if kept.len() % 2 == 0 {
                let vip = beside(to_vip);
                (vip, beside(routed))
            } else {
                let other = beside(routed);
                (beside(to_vip), other)
            };
            kept.push(vip / other);
        }
    });
    let [low, high] = INTERVAL.map(|place| sorted(&kept)[place]);
    let said = format!("{:.3} [{low:.3}, {high:.3}] of {kept:.3?}", sorted(&kept)[ROUNDS / 2]);
    println!("kept beside the flood, of what is left beside the other: {said}");
    assert!(high >= KEPT, "less than {KEPT} are kept beside the flood: {said}");
    for mut stream in held {
        let answer = ask(&mut stream).holds();
        assert!(answer.contains(" 200 "), "{answer}");
    }
    let status = hello.api.vip("web").holds().status.expect("a VIP has a status");
    let flooded = kept.len() as u64 * u64::from(EACH);
    assert!(status.flows > flooded * 9 / 10, "the flood came: {status:?}");
    let routed = hello.packets_that_ended("forwarded") - routed_before;
    assert!(routed > flooded * 9 / 10, "and the other one: {routed} packets");
    assert!(status.evicted_flows > flooded / 2, "half-open flows made room: {status:?}");
}

fn sorted(of: &[f64]) -> Vec<f64> {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Connections that say nothing yet.
fn connections(hello: &Hello, to: SocketAddrV4) -> Result<Vec<TcpStream>> {
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
    fn new(from: &Netns) -> Result<Self> {
        let raw = || {
            let raw = SockProtocol::Raw;
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, raw)
        };
        Ok(Self { socket: from.within(raw)??, next: 0 })
    }

    /// For as long as a flood lasts, all that is due in it.
    fn send(&mut self, to: SocketAddrV4) -> Result<()> {
        const TURN: Duration = Duration::from_millis(1);
        let start = Instant::now();
        let mut sent = 0;
        while sent < EACH {
            let due = (start.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
            while sent < due.min(EACH) {
                self.send_one(to)?;
                sent += 1;
            }
            thread::sleep(TURN);
        }
        // On a machine that is too busy for it, there is no such flood.
        let took = start.elapsed();
        ensure!(took < LASTS * 3 / 2, "{EACH} SYNs took {took:?} instead of {LASTS:?}");
        Ok(())
    }

    fn send_one(&mut self, to: SocketAddrV4) -> Result<()> {
        self.next += 1;
        let from =
            Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + self.next % 100_000);
        let packet = syn(SocketAddrV4::new(from, 40_000), to);
        sendto(self.socket.as_raw_fd(), &packet, &SockaddrIn::from(to), MsgFlags::empty())?;
        Ok(())
    }
}

/// A SYN without options; the kernel fills in the IP header's checksum (raw(7)).
fn syn(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    const LEN: u16 = 40;
    let addresses = [from.ip().octets(), to.ip().octets()].concat();
    let mut packet = vec![0x45, 0];
    packet.extend(LEN.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet.extend(&addresses);
    let mut tcp = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let summed = [&addresses[..], &[0, 6, 0, 20], &tcp].concat();
    let words = summed.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(tcp);
    packet
}
