//! Real connections through a VIP: client, balancer and server in three network namespaces.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use lb_dataplane::fib::{Action, FibUpdate, Member};
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::{Hook, HookChoice, Reason, XdpMode};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::family::{FAMILIES, Family, each};
use crate::net::Namespace;
use crate::scene::Scene;

const CONNECTIONS: usize = 20;
const BYTES: usize = 1 << 20;

struct Network {
    family: Family,
    client: Namespace,
    balancer: Namespace,
    server: Namespace,
}

fn network(hook: Hook, family: Family) -> Network {
    let (client, balancer, server) = (Namespace::new(), Namespace::new(), Namespace::new());
    let len = family.bits(24);
    let [family_option, forwarding, quiet] = match family {
        Family::V4 => ["-4", "net.ipv4.ip_forward", ""],
        // Nobody else is there who could have the address.
        Family::V6 => ["-6", "net.ipv6.conf.all.forwarding", "nodad"],
    };
    for (host, near, far, number, last) in
        [(&client, "c0", "c1", 1, 5), (&server, "s0", "s1", 2, 9)]
    {
        let [address, gateway] = [last, 1].map(|host| family.host(number, host));
        host.ip(&format!("link add {near} type veth peer name {far} netns {}", balancer.path()));
        host.ip(&format!("addr add {address}/{len} dev {near} {quiet}"));
        host.ip(&format!("link set {near} up"));
        balancer.ip(&format!("addr add {gateway}/{len} dev {far} {quiet}"));
        balancer.ip(&format!("link set {far} up"));
        host.ip(&format!("{family_option} route add default via {gateway}"));
        // XDP can send into a veth only if its other end receives by NAPI, and cannot complete a checksum. TC gets what
        // hosts send by default: merged segments with half a checksum.
        if hook == Hook::Xdp {
            host.command("ethtool", &format!("-K {near} gro on tx off"));
        }
    }
    balancer.ip(&format!("{family_option} route add unreachable {}", vip(family).ip()));
    balancer.command("sysctl", &format!("-qw {forwarding}=1"));
    Network { family, client, balancer, server }
}

fn vip(family: Family) -> SocketAddr {
    family.vip(1).parse().unwrap()
}

impl Network {
    fn member(&self, ours: &str, host: &Namespace, theirs: &str, resolved: bool) -> Member {
        Member {
            ifindex: self.balancer.ifindex(ours),
            source_mac: self.balancer.mac(ours),
            destination_mac: resolved.then(|| host.mac(theirs)),
            gateway: None,
            mtu: 1500,
            weight: 1,
        }
    }

    /// Packets that the balancer's own stack forwarded.
    fn forwarded_by_the_kernel(&self) -> u64 {
        let read = |file: &str| {
            let path = format!("/proc/thread-self/net/{file}");
            self.balancer.run(|| std::fs::read_to_string(path)).unwrap()
        };
        if self.family == Family::V6 {
            let counters = read("snmp6");
            let mut lines = counters.lines();
            let count = lines.find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"));
            return count.unwrap().trim().parse().unwrap();
        }
        let counters = read("snmp");
        let ip: Vec<&str> = counters.lines().filter_map(|line| line.strip_prefix("Ip: ")).collect();
        let column = ip[0].split(' ').position(|c| c == "ForwDatagrams").unwrap();
        ip[1].split(' ').nth(column).unwrap().parse().unwrap()
    }

    /// Sends bytes to the VIP and back again over a number of connections.
    fn transfer(&self) {
        let [vip, client, backend] =
            self.family.ends().map(|end| end.parse::<SocketAddr>().unwrap());
        let listener = self.server.run(|| TcpListener::bind(backend)).unwrap();
        let answer = move || {
            for _ in 0..CONNECTIONS {
                let (mut stream, peer) = listener.accept().unwrap();
                assert_eq!(peer.ip(), client.ip(), "the client's own address");
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                stream.write_all(&bytes).unwrap();
            }
        };
        let server = std::thread::spawn(answer);
        for connection in 0..CONNECTIONS {
            let bytes: Vec<u8> = (0..BYTES).map(|n| (n * 7 + connection) as u8).collect();
            let back = self.client.run(|| {
                let mut stream = TcpStream::connect_timeout(&vip, Duration::from_secs(5)).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut reader = stream.try_clone().unwrap();
                stream.write_all(&bytes).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut back = Vec::new();
                reader.read_to_end(&mut back).unwrap();
                back
            });
            assert!(back == bytes, "connection {connection}: {} bytes back", back.len());
        }
        server.join().unwrap();
    }
}

fn scene(network: &Network, hook: Hook, resolved: bool) -> Scene {
    scene_by(network, hook, resolved, "c1")
}

/// With the client behind this interface.
fn scene_by(network: &Network, hook: Hook, resolved: bool, client_side: &str) -> Scene {
    let mut scene = Scene::new();
    let choice = match hook {
        Hook::Tc => HookChoice::Tc,
        Hook::Xdp => HookChoice::Xdp(XdpMode::Native),
        Hook::GenericXdp => HookChoice::Xdp(XdpMode::Generic),
    };
    let to_client = network.member(client_side, &network.client, "c0", resolved);
    let to_server = network.member("s1", &network.server, "s0", resolved);
    let dataplane = scene.get();
    dataplane
        .fib_apply(&[
            FibUpdate::Group { id: 1, action: Action::Forward(vec![to_client]) },
            FibUpdate::Group { id: 2, action: Action::Forward(vec![to_server]) },
        ])
        .unwrap();
    for interface in [client_side, "s1"] {
        let attached = network.balancer.run(|| dataplane.attach(interface, choice)).unwrap();
        assert_eq!(attached, hook);
    }
    let [vip, _, backend] = &network.family.ends();
    scene.serve(vip, Tcp, Maglev, &[backend]);
    scene
}

#[test]
fn connections_pass_without_the_kernel_forwarding_a_packet() {
    for (hook, family) in each() {
        let network = network(hook, family);
        let mut scene = scene(&network, hook, true);
        let before = network.forwarded_by_the_kernel();
        network.transfer();
        assert_eq!(network.forwarded_by_the_kernel(), before, "{hook:?} {family:?}");
        let there = scene.count(Reason::ForwardedToBackend);
        let back = scene.count(Reason::ForwardedToClient);
        assert!(there > CONNECTIONS as u64 * 4, "{hook:?} {family:?}: {there}");
        assert!(back > CONNECTIONS as u64 * 4, "{hook:?} {family:?}: {back}");
        let count = scene.get().service_counters().unwrap().into_values().next().unwrap();
        let bytes = count.to_backend.bytes;
        assert!(count.to_client.packets >= back, "{hook:?} {family:?}: {count:?} of {back}");
        let merged = bytes / there > 1514;
        assert_eq!(
            merged,
            hook == Hook::Tc,
            "{hook:?} {family:?}: {bytes} bytes in {there} packets"
        );
        assert_eq!(count.flows, CONNECTIONS as u64, "{hook:?} {family:?}");
    }
}

#[test]
fn a_bridge_carries_connections_at_tc_and_at_generic_xdp() {
    for (hook, family) in [Hook::Tc, Hook::GenericXdp]
        .into_iter()
        .flat_map(|hook| FAMILIES.map(|family| (hook, family)))
    {
        let network = network(if hook == Hook::Tc { Hook::Tc } else { Hook::Xdp }, family);
        let gateway = format!("{}/{}", family.host(1, 1), family.bits(24));
        for command in [
            &*format!("addr del {gateway} dev c1"),
            "link add br0 type bridge",
            "link set c1 master br0",
            &format!("addr add {gateway} dev br0"),
            "link set br0 up",
        ] {
            network.balancer.ip(command);
        }
        let mut scene = scene_by(&network, hook, true, "br0");
        let before = network.forwarded_by_the_kernel();
        network.transfer();
        assert_eq!(network.forwarded_by_the_kernel(), before, "{hook:?} {family:?}");
        let there = scene.count(Reason::ForwardedToBackend);
        let back = scene.count(Reason::ForwardedToClient);
        assert!(
            there.min(back) > CONNECTIONS as u64 * 4,
            "{hook:?} {family:?}: {there} and {back}"
        );
    }
}

#[test]
fn connections_pass_while_no_neighbour_is_known() {
    for (hook, family) in each() {
        let network = network(hook, family);
        let mut scene = scene(&network, hook, false);
        network.transfer();
        let through_kernel = match hook {
            Hook::Tc => scene.count(Reason::FlowThroughNeighbour),
            Hook::Xdp | Hook::GenericXdp => scene.count(Reason::FlowNextHopUnresolved),
        };
        assert!(through_kernel > CONNECTIONS as u64 * 8, "{hook:?} {family:?}: {through_kernel}");
    }
}

#[test]
fn a_vip_answers_ping_on_both_hooks() {
    for (hook, family) in each() {
        let network = network(hook, family);
        let mut scene = scene(&network, hook, true);
        network
            .client
            .run(|| std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0"))
            .unwrap();
        let (of, protocol, request, reply_kind) = match family {
            Family::V4 => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
            Family::V6 => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
        };
        network.client.run(|| {
            let socket = socket(of, SockType::Datagram, SockFlag::empty(), protocol);
            let socket = UdpSocket::from(socket.unwrap());
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            // Echo request; the kernel writes identifier and checksum.
            let vip = SocketAddr::new(vip(family).ip(), 0);
            socket.send_to(&[request, 0, 0, 0, 0, 0, 0, 1, 42], vip).unwrap();
            let mut reply = [0; 64];
            let (len, from) = socket.recv_from(&mut reply).expect("a reply within the deadline");
            let seen = (len, reply[0], reply[8]);
            assert_eq!(seen, (9, reply_kind, 42), "{hook:?} {family:?}");
            assert_eq!(from.ip(), vip.ip());
        });
        assert_eq!(scene.count(Reason::EchoAnswered), 1, "{hook:?} {family:?}");
    }
}

#[test]
fn a_transfer_goes_on_while_the_process_is_replaced() {
    for (hook, family) in each() {
        let network = network(hook, family);
        let mut scene = scene(&network, hook, true);
        std::thread::scope(|scope| {
            let transfer = scope.spawn(|| network.transfer());
            let mut replaced = 0;
            while !transfer.is_finished() || replaced == 0 {
                scene.open();
                let choice = if hook == Hook::Tc {
                    HookChoice::Tc
                } else {
                    HookChoice::Xdp(XdpMode::Native)
                };
                for interface in ["c1", "s1"] {
                    let dataplane = scene.get();
                    network.balancer.run(|| dataplane.attach(interface, choice)).unwrap();
                }
                replaced += 1;
            }
            transfer.join().unwrap();
        });
        assert_eq!(scene.count(Reason::UnknownFlow), 0, "{hook:?} {family:?}");
    }
}
