//! A SYN flood: established flows stay, and lose no more by it than by the same flood to an address that is only routed.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use integration::netns::Netns;
use lb_api_types::config::Hook;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::hello::{Hello, Holds, VIP};
use crate::traffic::while_transferring;

/// SYNs a second, each from a client of its own, none of whom ever answers.
const RATE: u32 = 2000;
/// How long each flood lasts, and how often both are sent.
const LASTS: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
/// What a transfer keeps beside the flood of what it has beside the other one.
const KEPT: f64 = 0.95;
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
    let sink = "ip link add sink type veth peer name drain && ip link set sink arp off";
    hello.lab.run("upstream", sink).holds();
    hello.lab.run("upstream", "ip link set sink up && ip link set drain up").holds();
    hello.lab.run("upstream", "ip route add 198.18.0.0/15 dev sink").holds();
    hello.lab.run("lbd", "ip route add 198.18.0.0/15 via 192.0.2.1").holds();
    let to_vip = SocketAddrV4::new(VIP.parse().expect("an address"), vip.spec.port);
    // Nobody listens there: each SYN is answered, as it is by the VIP's pods.
    let routed = SocketAddrV4::new(Ipv4Addr::new(10, 244, 2, 2), 9);

    let (mut beside_vip, mut beside_routed) = (0, 0);
    while_transferring(&mut hello, &vip, |hello, arrived| {
        let client = hello.lab.netns("client").holds();
        let mut flood = Flood::new(client).holds();
        for _ in 0..ROUNDS {
            for (to, blocks) in [(routed, &mut beside_routed), (to_vip, &mut beside_vip)] {
                let before = arrived.load(Relaxed);
                flood.send(to).holds();
                *blocks += arrived.load(Relaxed) - before;
            }
        }
    });
    let kept = beside_vip as f64 / beside_routed as f64;
    assert!(kept >= KEPT, "{beside_vip} blocks beside the flood, {beside_routed} beside the other");
    let status = hello.api.vip("web").holds().status.expect("a VIP has a status");
    let flooded = u64::from(RATE) * LASTS.as_secs() * ROUNDS as u64;
    assert!(status.flows > flooded * 9 / 10, "the flood came: {status:?}");
    assert!(status.evicted_flows > flooded / 2, "half-open flows made room: {status:?}");
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

    /// For as long as a flood lasts.
    fn send(&mut self, to: SocketAddrV4) -> Result<()> {
        const TURN: Duration = Duration::from_millis(5);
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < LASTS {
            let due = (start.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
            while sent < due {
                self.send_one(to)?;
                sent += 1;
            }
            thread::sleep(TURN);
        }
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
